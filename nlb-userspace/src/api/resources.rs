//! From a request to a command and back: resources read and changed, the document read and applied.

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Asking, Names, openapi,
    problem::{Place, Problem},
    routes::Does,
    shapes::{Generation, Health, Item, Listing},
};
use crate::{
    access::Tags,
    daemon::{Command, Reading, Request, Written},
    desk::{Condition, Intent},
    document::{
        Document,
        edit::{Edit, Kind, Named},
        resource::ResourceId,
    },
};

/// The header that carries the generation.
const GENERATION: HeaderName = HeaderName::from_static("nlb-generation");
const TOML: &str = "application/toml";

/// What a request is about, as a policy names it.
pub(super) fn named_in(names: &Names) -> String {
    let parts: Vec<String> = [
        ("load_balancer", "load-balancer"),
        ("listener", "listener"),
        ("rule", "rule"),
        ("target_group", "target-group"),
        ("target", "target"),
    ]
    .into_iter()
    .filter_map(|(key, singular)| Some(format!("{singular}/{}", names.get(key)?)))
    .collect();
    if parts.is_empty() {
        "*".to_owned()
    } else {
        parts.join("/")
    }
}

/// The tags that a policy sees: those of the load balancer or target group of a path, which also count
/// for what is in it, and those of a listener before them. What is not there yet has none.
pub(super) fn tags_of(document: &Document, names: &Names) -> Tags {
    let top = match (names.get("load_balancer"), names.get("target_group")) {
        (Some(name), _) => ResourceId::LoadBalancer(name.clone()),
        (_, Some(name)) => ResourceId::TargetGroup(name.clone()),
        _ => return Tags::new(),
    };
    let listener = names
        .get("load_balancer")
        .zip(names.get("listener").and_then(|text| text.parse().ok()))
        .map(|(balancer, listener)| ResourceId::Listener(balancer.clone(), listener));
    let mut tags = Tags::new();
    for id in std::iter::once(top).chain(listener) {
        let written = document
            .get(&id)
            .and_then(|table| table.get("tags")?.as_object());
        for (key, value) in written.into_iter().flatten() {
            if let Some(value) = value.as_str() {
                tags.insert(key.clone(), value.to_owned());
            }
        }
    }
    tags
}

impl Asking<'_> {
    pub(super) async fn answer(self) -> Response {
        self.try_answer()
            .await
            .unwrap_or_else(IntoResponse::into_response)
    }

    async fn try_answer(self) -> Result<Response, Problem> {
        let app = self.app;
        match self.route.does {
            Does::List(kind) => self.list(kind).await,
            Does::Read(kind) => self.read(kind).await,
            Does::ReadConfig => self.read_config().await,
            Does::Generation => {
                let reading = app.ask(Command::Read).await?;
                Ok(Json(Generation {
                    generation: reading.generation,
                    live: reading.is_live,
                    etag: reading.view.tag(None).unwrap_or_default(),
                    changed_over_api: reading.view.overlay.len(),
                })
                .into_response())
            }
            Does::Health => {
                let target_groups = app.ask(Command::Health).await?;
                Ok(Json(Health { target_groups }).into_response())
            }
            Does::GroupHealth => {
                let groups = app.ask(Command::Health).await?;
                let name = self.name("target_group");
                match groups.into_iter().find(|group| group.target_group == name) {
                    Some(group) => Ok(Json(group).into_response()),
                    None => Err(Problem::missing(format!(
                        "there is no target group `{name}`; `nlb target-group list` shows what \
                         there is"
                    ))),
                }
            }
            Does::Status => Ok(Json(app.ask(Command::Status).await?).into_response()),
            Does::Describe => Ok(Json(openapi::description()).into_response()),
            Does::Reload => {
                let result = if self.asked.dry_run {
                    let request = Request {
                        dry_run: true,
                        ..Request::RELOAD
                    };
                    app.ask(|answer| Command::Change(request, answer)).await?
                } else {
                    app.ask(Command::Reload).await?
                };
                match result {
                    Ok(written) => self.written(written, StatusCode::OK).await,
                    Err(error) => Err(Problem::of_daemon(&error, Place::File)),
                }
            }
            Does::Apply => {
                let (text, place) = self.document()?;
                self.change(Intent::Apply(text), place).await
            }
            Does::Add(_)
            | Does::Put(_)
            | Does::Patch(_)
            | Does::Remove(_)
            | Does::PutRules
            | Does::Drain => {
                let edit = self.edit()?;
                self.change(Intent::Edit(edit), Place::Nowhere).await
            }
        }
    }

    fn name(&self, key: &str) -> String {
        self.names.get(key).cloned().unwrap_or_default()
    }

    /// The load balancer or target group in the path.
    fn top_name(&self) -> String {
        let names = ["load_balancer", "target_group"];
        names
            .iter()
            .find_map(|key| self.names.get(*key))
            .cloned()
            .unwrap_or_default()
    }

    fn named(&self, kind: Kind) -> Named {
        let child = match kind {
            Kind::LoadBalancer | Kind::TargetGroup => None,
            Kind::Listener => Some(self.name("listener")),
            Kind::Rule => Some(self.name("rule")),
            Kind::Target => Some(self.name("target")),
        };
        Named {
            kind,
            top: self.top_name(),
            child,
        }
    }

    fn json(&self) -> Result<Value, Problem> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))
    }

    fn edit(&self) -> Result<Edit, Problem> {
        Ok(match self.route.does {
            Does::Put(kind) => Edit::Put {
                named: self.named(kind),
                table: self.json()?,
            },
            Does::Patch(kind) => Edit::Patch {
                named: self.named(kind),
                patch: self.json()?,
            },
            Does::Remove(kind) => Edit::Remove {
                named: self.named(kind),
            },
            Does::Drain => Edit::Patch {
                named: self.named(Kind::Target),
                patch: json!({ "weight": 0 }),
            },
            Does::PutRules => Edit::PutRules {
                balancer: self.name("load_balancer"),
                rules: self.json()?,
            },
            Does::Add(kind) => Edit::Add {
                kind,
                into: (!matches!(kind, Kind::LoadBalancer | Kind::TargetGroup))
                    .then(|| self.top_name()),
                table: self.json()?,
            },
            _ => {
                return Err(Problem::bad_request(
                    "this route changes nothing".to_owned(),
                ));
            }
        })
    }

    /// The document in the body, as TOML.
    fn document(&self) -> Result<(String, Place), Problem> {
        let kind = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with(TOML)) {
            let text = str::from_utf8(&self.body)
                .map_err(|error| Problem::bad_request(format!("the body is not text: {error}")))?;
            return Ok((text.to_owned(), Place::Body));
        }
        let Value::Object(table) = self.json()? else {
            return Err(Problem::bad_request(
                "the body must be a JSON object".to_owned(),
            ));
        };
        let document = Document::from_table(table).and_then(|document| document.to_toml());
        let text = document.map_err(|error| Problem::bad_request(format!("the body {error}")))?;
        Ok((text, Place::Nowhere))
    }

    async fn list(&self, kind: Kind) -> Result<Response, Problem> {
        let reading = self.app.ask(Command::Read).await?;
        let document = &reading.view.document;
        let ids: Vec<ResourceId> = match kind {
            Kind::LoadBalancer | Kind::TargetGroup => document
                .tops()
                .into_iter()
                .filter(|id| kind_of(id) == kind)
                .collect(),
            _ => {
                let parent = match kind {
                    Kind::Target => Kind::TargetGroup,
                    _ => Kind::LoadBalancer,
                };
                let top = Named::top(parent, self.top_name()).existing(document);
                let top = top.map_err(|error| Problem::of_edit(&error))?;
                let children = document.children(&top);
                children
                    .into_iter()
                    .filter(|id| kind_of(id) == kind)
                    .collect()
            }
        };
        let items = ids.iter().filter_map(|id| item(&reading, id)).collect();
        let listing = Listing {
            generation: reading.generation,
            items,
        };
        let tag = format!("\"{:016x}\"", Document::hash(&listing.items));
        Ok(self.tagged(&reading, &tag, Json(listing)))
    }

    async fn read(&self, kind: Kind) -> Result<Response, Problem> {
        let reading = self.app.ask(Command::Read).await?;
        let id = self.named(kind).existing(&reading.view.document);
        let id = id.map_err(|error| Problem::of_edit(&error))?;
        let Some(item) = item(&reading, &id) else {
            return Err(Problem::missing(format!("there is no {id}")));
        };
        let tag = item.etag.clone();
        Ok(self.tagged(&reading, &tag, Json(item)))
    }

    async fn read_config(&self) -> Result<Response, Problem> {
        let reading = self.app.ask(Command::Read).await?;
        let tag = reading.view.tag(None).unwrap_or_default();
        let accepted = self.headers.get(header::ACCEPT);
        let wants_toml = accepted
            .and_then(|accepted| accepted.to_str().ok())
            .is_some_and(|accepted| accepted.contains(TOML));
        let document = &reading.view.document;
        if !wants_toml {
            return Ok(self.tagged(&reading, &tag, Json(document.root())));
        }
        let text = document
            .to_toml()
            .map_err(|error| Problem::bad_request(format!("the document {error}")))?;
        Ok(self.tagged(&reading, &tag, ([(header::CONTENT_TYPE, TOML)], text)))
    }

    /// An answer with its tag; only the tag if the caller has that already.
    fn tagged(&self, reading: &Reading, tag: &str, answer: impl IntoResponse) -> Response {
        let known = tags_in(&self.headers, &header::IF_NONE_MATCH);
        let mut response = if known.is_some_and(|known| known.iter().any(|known| known == tag)) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            answer.into_response()
        };
        mark(response.headers_mut(), reading.generation, Some(tag));
        response
    }

    async fn change(self, intent: Intent, place: Place) -> Result<Response, Problem> {
        let mut absent = false;
        if let Some(tags) = tags_in(&self.headers, &header::IF_NONE_MATCH) {
            if tags != ["*"] {
                return Err(Problem::bad_request(
                    "If-None-Match takes `*` only with a change".to_owned(),
                ));
            }
            absent = true;
        }
        let request = Request {
            condition: Condition {
                any_of: tags_in(&self.headers, &header::IF_MATCH),
                absent,
            },
            dry_run: self.asked.dry_run,
            intent,
        };
        let result = self
            .app
            .ask(|answer| Command::Change(request, answer))
            .await?;
        let status = match self.route.does {
            Does::Add(_) => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        match result {
            Ok(written) => self.written(written, status).await,
            Err(error) => Err(Problem::of_daemon(&error, place)),
        }
    }

    async fn written(self, mut written: Written, done: StatusCode) -> Result<Response, Problem> {
        self.app.wait(&self.asked, &mut written).await?;
        let status = match (written.dry_run, written.live) {
            (true, _) => StatusCode::OK,
            (false, true) => done,
            (false, false) => StatusCode::ACCEPTED,
        };
        let mut response = (status, Json(&written)).into_response();
        mark(
            response.headers_mut(),
            written.generation,
            written.etag.as_deref(),
        );
        let id = written.resource.as_deref().and_then(|id| id.parse().ok());
        if let (StatusCode::CREATED, Some(id)) = (status, id)
            && let Ok(location) = HeaderValue::from_str(&path_of(&id))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

fn kind_of(id: &ResourceId) -> Kind {
    match id {
        ResourceId::LoadBalancer(_) => Kind::LoadBalancer,
        ResourceId::Listener(..) => Kind::Listener,
        ResourceId::Rule(..) => Kind::Rule,
        ResourceId::TargetGroup(_) => Kind::TargetGroup,
        ResourceId::Target(..) => Kind::Target,
    }
}

fn item(reading: &Reading, id: &ResourceId) -> Option<Item> {
    Some(Item {
        id: match id {
            ResourceId::LoadBalancer(name) | ResourceId::TargetGroup(name) => name.clone(),
            ResourceId::Listener(_, id) => id.to_string(),
            ResourceId::Rule(_, id) => id.to_string(),
            ResourceId::Target(_, address) => address.to_string(),
        },
        etag: reading.view.tag(Some(id))?,
        origin: reading.view.overlay.origin(id).to_owned(),
        document: Value::Object(reading.view.document.get(id)?.clone()),
    })
}

/// The path of a resource.
fn path_of(id: &ResourceId) -> String {
    match id {
        ResourceId::LoadBalancer(name) => format!("/v1/load-balancers/{name}"),
        ResourceId::Listener(name, id) => format!("/v1/load-balancers/{name}/listeners/{id}"),
        ResourceId::Rule(name, id) => format!("/v1/load-balancers/{name}/rules/{id}"),
        ResourceId::TargetGroup(name) => format!("/v1/target-groups/{name}"),
        ResourceId::Target(name, address) => {
            format!("/v1/target-groups/{name}/targets/{address}")
        }
    }
}

/// The tags in a header, of which there may be several.
fn tags_in(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let tags: Vec<String> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().to_owned())
        .collect();
    (!tags.is_empty()).then_some(tags)
}

fn mark(headers: &mut HeaderMap, generation: u64, tag: Option<&str>) {
    headers.insert(GENERATION, generation.into());
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
}
