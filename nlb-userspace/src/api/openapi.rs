//! The description of the API for programs (`OpenAPI` 3.1), made from the table of routes, from the
//! types that are sent, and from the table of keys: a document's schema is the configuration's.

use serde_json::{Value, json};
use utoipa::{
    IntoParams as _, ToSchema,
    openapi::{
        Components, ComponentsBuilder, Content, HttpMethod, Info, License, OpenApi, PathItem,
        Paths, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, SchemaType, Type},
    },
};

use super::{
    problem::{FaultSaid, Problem},
    routes::{Does, ROUTES, Route, Verb},
    shapes::{Asked, Generation, Health, Item, Killed, Listening, Listing, Wait},
};
use crate::{
    config::schema::{self, Absent, Key, Kind as KeyKind},
    daemon::Written,
    document::{
        changes::{Action, KeyChange, PlannedChange},
        edit::Kind,
        overlay::Dropped,
    },
    events::{Event, Page, What},
    flows::filter::Filter,
    status::{GroupHealth, TargetHealth},
};

/// Tables of the configuration that are resources or sections, and what their schemas are called.
const DOCUMENTS: [(&str, &str); 6] = [
    ("node", "Node"),
    ("load_balancer", "LoadBalancer"),
    ("load_balancer.listener", "Listener"),
    ("load_balancer.rule", "Rule"),
    ("target_group", "TargetGroup"),
    ("target_group.target", "Target"),
];

/// The description.
pub fn description() -> OpenApi {
    let mut paths = Paths::new();
    for route in ROUTES {
        let method = match route.verb {
            Verb::Get => HttpMethod::Get,
            Verb::Post => HttpMethod::Post,
            Verb::Put => HttpMethod::Put,
            Verb::Patch => HttpMethod::Patch,
            Verb::Delete => HttpMethod::Delete,
        };
        let item = PathItem::new(method, operation(route));
        paths
            .paths
            .entry(route.path.to_owned())
            .or_default()
            .merge_operations(item);
    }
    let mut info = Info::new("nlb", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "The control API of one nlb node, over its Unix socket (`node.socket`). docs/api.md tells \
         how it is used."
            .to_owned(),
    );
    info.license = Some(License::new("MIT OR Apache-2.0"));
    let mut description = OpenApi::new(info, paths);
    description.components = Some(components());
    description
}

fn components() -> Components {
    let mut components = ComponentsBuilder::new()
        .schema_from::<Problem>()
        .schema_from::<FaultSaid>()
        .schema_from::<Wait>()
        .schema_from::<Item>()
        .schema_from::<Listing>()
        .schema_from::<Generation>()
        .schema_from::<Health>()
        .schema_from::<Filter>()
        .schema_from::<Killed>()
        .schema_from::<GroupHealth>()
        .schema_from::<TargetHealth>()
        .schema_from::<Written>()
        .schema_from::<PlannedChange>()
        .schema_from::<KeyChange>()
        .schema_from::<Action>()
        .schema_from::<Dropped>()
        .schema_from::<Page>()
        .schema_from::<Event>()
        .schema_from::<What>();
    for (table, name) in DOCUMENTS {
        components = components.schema(name, object(table));
    }
    let document = ObjectBuilder::new()
        .description(Some("A whole configuration: the file's keys."))
        .property("node", reference("Node"))
        .property("load_balancer", list_of("load_balancer"))
        .property("target_group", list_of("target_group"))
        .required("node");
    components.schema("Document", document).build()
}

fn operation(route: &Route) -> Operation {
    let mut operation = OperationBuilder::new()
        .summary(Some(route.summary))
        .description(Some(format!("Action: `{}`", route.action)))
        .operation_id(Some(operation_id(route)))
        .tag(route.action.split(':').next().unwrap_or_default());
    for name in route.parameters() {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(text_schema()))
            .description(Some(match name {
                "listener" => "`TCP:80`, or `TCP:80:ipv6` where two listeners share a port",
                "rule" => "Its id, eight hexadecimal digits",
                "target" => "`10.0.0.11:80` or `[2001:db8::11]:80`; without port, the group's",
                _ => "Its name",
            }));
        operation = operation.parameter(parameter);
    }
    if route.is_write() {
        for parameter in Asked::into_params(|| None) {
            operation = operation.parameter(parameter);
        }
        for (name, meaning) in [
            (
                "If-Match",
                "Change only if this is still the tag of what is changed, or of what it is added \
                 to; otherwise 412",
            ),
            (
                "Idempotency-Key",
                "Up to 255 characters of the caller's own: the same request with the same key is \
                 done once and answered alike",
            ),
        ] {
            operation = operation.parameter(header(name, meaning));
        }
    }
    if route.does == Does::Events {
        for parameter in Listening::into_params(|| None) {
            operation = operation.parameter(parameter);
        }
    }
    if let Some(body) = request_body(route.does) {
        operation = operation.request_body(Some(body));
    }
    let done = match route.does {
        Does::Add(_) => "201",
        _ => "200",
    };
    operation = operation.response(done, answer(route.does));
    if route.is_write() {
        operation = operation.response(
            "202",
            json_response(
                "Kept and not live yet: see `warnings`",
                reference("Written"),
            ),
        );
        for (status, meaning) in [
            ("409", "It does not fit what is there"),
            ("412", "It has changed since it was read"),
            (
                "422",
                "The result would not be valid; `faults` lists every fault",
            ),
            (
                "504",
                "What was waited for did not come in time; the change is kept",
            ),
            ("507", "It cannot be kept, so it was not made"),
        ] {
            operation = operation.response(status, problem(meaning));
        }
    }
    if !route.parameters().is_empty() {
        operation = operation.response("404", problem("There is no such resource"));
    }
    operation
        .response("400", problem("The request is wrong"))
        .response("403", problem("This caller may not do that"))
        .response("503", problem("The daemon is ending"))
        .build()
}

fn operation_id(route: &Route) -> String {
    let noun = |kind| match kind {
        Kind::LoadBalancer => "LoadBalancer",
        Kind::Listener => "Listener",
        Kind::Rule => "Rule",
        Kind::TargetGroup => "TargetGroup",
        Kind::Target => "Target",
    };
    match route.does {
        Does::List(kind) => format!("list{}s", noun(kind)),
        Does::Add(kind) => format!("add{}", noun(kind)),
        Does::Read(kind) => format!("read{}", noun(kind)),
        Does::Put(kind) => format!("put{}", noun(kind)),
        Does::Patch(kind) => format!("change{}", noun(kind)),
        Does::Remove(kind) => format!("remove{}", noun(kind)),
        Does::PutRules => "putRules".to_owned(),
        Does::Drain => "drainTarget".to_owned(),
        Does::Health => "readHealth".to_owned(),
        Does::GroupHealth => "readTargetGroupHealth".to_owned(),
        Does::ReadConfig => "readConfig".to_owned(),
        Does::Apply => "applyConfig".to_owned(),
        Does::Generation => "readGeneration".to_owned(),
        Does::Status => "readStatus".to_owned(),
        Does::Reload => "reload".to_owned(),
        Does::Events => "readEvents".to_owned(),
        Does::KillFlows => "killFlows".to_owned(),
        Does::Describe => "describe".to_owned(),
    }
}

fn request_body(does: Does) -> Option<RequestBody> {
    let body = RequestBodyBuilder::new().required(Some(Required::True));
    let of = |kind| match kind {
        Kind::LoadBalancer => "LoadBalancer",
        Kind::Listener => "Listener",
        Kind::Rule => "Rule",
        Kind::TargetGroup => "TargetGroup",
        Kind::Target => "Target",
    };
    let json = "application/json";
    Some(match does {
        // The path's name may be left out of the body, so its keys are not all required here.
        Does::Put(_) | Does::Patch(_) => {
            let meaning = if matches!(does, Does::Put(_)) {
                "The whole table; keys that the path names may be left out"
            } else {
                "A merge patch (RFC 7396): null removes a key"
            };
            let any = ObjectBuilder::new().schema_type(SchemaType::new(Type::Object));
            body.description(Some(meaning))
                .content(json, Content::new(Some(any)))
                .build()
        }
        Does::Add(kind) => body
            .content(json, Content::new(Some(reference(of(kind)))))
            .build(),
        Does::PutRules => body
            .content(json, Content::new(Some(list_of("load_balancer.rule"))))
            .build(),
        Does::Apply => body
            .content(json, Content::new(Some(reference("Document"))))
            .content("application/toml", Content::new(Some(text_schema())))
            .build(),
        Does::KillFlows => body
            .description(Some("Which flows; what is left out is not asked"))
            .content(json, Content::new(Some(reference("Filter"))))
            .build(),
        _ => return None,
    })
}

fn answer(does: Does) -> Response {
    match does {
        Does::List(_) => json_response("The resources", reference("Listing")),
        Does::Read(_) => json_response("The resource", reference("Item")),
        Does::Health => json_response("How targets are", reference("Health")),
        Does::GroupHealth => json_response("How its targets are", reference("GroupHealth")),
        Does::ReadConfig => ResponseBuilder::new()
            .description("The document")
            .content(
                "application/json",
                Content::new(Some(reference("Document"))),
            )
            .content("application/toml", Content::new(Some(text_schema())))
            .build(),
        Does::Generation => json_response("The generation", reference("Generation")),
        Does::Status => json_response("What `nlb status --json` prints", any_object()),
        Does::Events => json_response("What happened", reference("Page")),
        Does::KillFlows => json_response("How many were forgotten", reference("Killed")),
        Does::Describe => json_response("This description", any_object()),
        _ => json_response("What was done, and that it is live", reference("Written")),
    }
}

fn any_object() -> RefOr<Schema> {
    ObjectBuilder::new().into()
}

fn json_response(description: &str, schema: RefOr<Schema>) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(schema)))
        .build()
}

fn problem(description: &str) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/problem+json",
            Content::new(Some(reference(&Problem::name()))),
        )
        .build()
}

fn header(name: &str, meaning: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(text_schema()))
        .description(Some(meaning))
        .build()
}

fn text_schema() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .into()
}

fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn list_of(table: &str) -> RefOr<Schema> {
    let items = match DOCUMENTS.iter().find(|(path, _)| *path == table) {
        Some((_, name)) => reference(name),
        None => object(table),
    };
    ArrayBuilder::new().items(items).into()
}

/// The schema of a table of the configuration.
fn object(table: &str) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new();
    if let Some(key) = schema::find(table) {
        object = object.description(Some(key.meaning));
    }
    for name in schema::names_in(table) {
        let path = schema::join(table, name);
        let below = match schema::find(&path) {
            Some(key) => {
                if key.absent == Absent::Required {
                    object = object.required(name);
                }
                leaf(key)
            }
            None => self::object(&path),
        };
        object = object.property(name, below);
    }
    object
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .into()
}

fn leaf(key: &Key) -> RefOr<Schema> {
    let of = |kind: Type| {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(kind))
            .description(Some(key.meaning))
            .default(default_of(key.absent))
    };
    match key.kind {
        KeyKind::Tables => list_of(key.path),
        KeyKind::Text => of(Type::String).into(),
        KeyKind::Texts => ArrayBuilder::new()
            .items(text_schema())
            .description(Some(key.meaning))
            .into(),
        KeyKind::Word { takes, .. } => of(Type::String).enum_values(Some(takes.to_vec())).into(),
        KeyKind::Whole { min, max } => of(Type::Integer)
            .minimum(Some(number(min)))
            .maximum(Some(number(max)))
            .into(),
        KeyKind::Seconds {
            min_millis,
            max_millis,
        } => of(Type::Number)
            .minimum(Some(number(min_millis) / 1000.0))
            .maximum(Some(number(max_millis) / 1000.0))
            .into(),
        KeyKind::Switch => of(Type::Boolean).into(),
        KeyKind::Tags => of(Type::Object)
            .additional_properties(Some(text_schema()))
            .into(),
        KeyKind::WholeOrOff { .. } | KeyKind::Port => of(Type::String)
            .schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
            .into(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no limit comes near 2^52")]
const fn number(whole: u64) -> f64 {
    whole as f64
}

fn default_of(absent: Absent) -> Option<Value> {
    match absent {
        Absent::Required | Absent::Depends(_) => None,
        Absent::Text(text) => Some(json!(text)),
        Absent::Whole(whole) => Some(json!(whole)),
        Absent::Millis(millis) => Some(json!(number(millis) / 1000.0)),
        Absent::Switch(on) => Some(json!(on)),
    }
}
