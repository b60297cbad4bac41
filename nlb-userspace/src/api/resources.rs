//! From a request to a command and back: resources read and changed, the document read and applied.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    openapi,
    problem::{Place, Problem},
    request::{Asking, Names},
    routes::{Does, Route},
    shapes::{Generation, Health, Item, Killed, Listing},
};
use crate::{
    daemon::{Command, Reading, Request, Written},
    desk::{Condition, Intent, View},
    document::{
        Document,
        edit::{Edit, Kind, Named},
        resource::ResourceId,
    },
    flows::filter::Filter,
};

/// The header that carries the generation.
const GENERATION: HeaderName = HeaderName::from_static("nlb-generation");
const TOML: &str = "application/toml";

/// What a request is about.
fn named(route: &Route, names: &Names) -> Option<Named> {
    let name = |key: &str| names.get(key).cloned();
    let kind = match route.parameters().last().copied()? {
        "load_balancer" => Kind::LoadBalancer,
        "listener" => Kind::Listener,
        "rule" => Kind::Rule,
        "target" => Kind::Target,
        _ => Kind::TargetGroup,
    };
    let (top, child) = match kind {
        Kind::LoadBalancer => ("load_balancer", None),
        Kind::TargetGroup => ("target_group", None),
        Kind::Listener => ("load_balancer", Some("listener")),
        Kind::Rule => ("load_balancer", Some("rule")),
        Kind::Target => ("target_group", Some("target")),
    };
    Some(Named {
        kind,
        top: name(top)?,
        child: child.and_then(name),
    })
}

/// What a request is about, as a policy names it, and the tags of that. A resource that can be
/// written in several ways has one name here, so that no policy is passed by with another.
pub(super) fn subject(
    route: &Route,
    names: &Names,
    view: &View,
) -> (String, BTreeMap<String, String>) {
    let Some(wanted) = named(route, names) else {
        return ("*".to_owned(), BTreeMap::new());
    };
    match wanted.id(&view.document) {
        Ok(id) => (id.to_string(), view.tags(&id)),
        // Nothing that is there has this name.
        Err(_) => (wanted.to_string(), BTreeMap::new()),
    }
}

impl Asking {
    pub(super) async fn answer(self) -> Response {
        self.try_answer()
            .await
            .unwrap_or_else(IntoResponse::into_response)
    }

    async fn try_answer(self) -> Result<Response, Problem> {
        let app = &self.app.clone();
        match self.route.does {
            Does::List(kind) => self.list(kind).await,
            Does::Read(_) => self.read().await,
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
            Does::Events => self.listen().await,
            Does::KillFlows => {
                let filter: Filter = serde_json::from_value(self.json()?)
                    .map_err(|error| Problem::bad_request(format!("the filter: {error}")))?;
                let result = app.ask(|answer| Command::KillFlows(filter, answer)).await?;
                match result {
                    Ok(killed) => Ok(Json(Killed { killed }).into_response()),
                    Err(error) => Err(Problem::bad_request(error.to_string())),
                }
            }
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

    /// What the path names.
    fn named(&self) -> Result<Named, Problem> {
        named(self.route, &self.names)
            .ok_or_else(|| Problem::missing("the path names no resource".to_owned()))
    }

    fn json(&self) -> Result<Value, Problem> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))
    }

    fn edit(&self) -> Result<Edit, Problem> {
        Ok(match self.route.does {
            Does::Put(_) => Edit::Put {
                named: self.named()?,
                table: self.json()?,
            },
            Does::Patch(_) => Edit::Patch {
                named: self.named()?,
                patch: self.json()?,
            },
            Does::Remove(_) => Edit::Remove {
                named: self.named()?,
            },
            Does::Drain => Edit::Patch {
                named: self.named()?,
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

    async fn read(&self) -> Result<Response, Problem> {
        let reading = self.app.ask(Command::Read).await?;
        let id = self.named()?.existing(&reading.view.document);
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
