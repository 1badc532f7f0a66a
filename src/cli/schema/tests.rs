use axum::http::Method;
use schemars::JsonSchema;
use serde_json::json;
use tidelog_domain::EntitySchema;
use tidelog_eventbus::messaging::Subject;

use super::*;
use crate::routes::{MessageRoute, RouteRequest};

const NOTE: &str = r##"{
    "type": "object",
    "$defs": {"tag": {"type": "string", "minLength": 1}},
    "properties": {"text": {"type": "string"}, "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}}},
    "required": ["text"]
}"##;

fn app() -> App {
    App::new("wall").entity_schema(EntitySchema::parse("note", NOTE).unwrap())
}

fn all() -> BTreeMap<String, Value> {
    files(&app(), None).unwrap()
}

#[test]
fn each_event_command_and_view_has_a_file() {
    let files = all();
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "asyncapi.json",
            "json-schema/commands/note.create.json",
            "json-schema/commands/note.patch.json",
            "json-schema/envelopes/cloudevent.json",
            "json-schema/envelopes/message.json",
            "json-schema/envelopes/reply.json",
            "json-schema/events/note.created.v1.json",
            "json-schema/events/note.deleted.v1.json",
            "json-schema/events/note.updated.v1.json",
            "json-schema/messages/tidelog.command.note.json",
            "json-schema/replies/tidelog.command.note.json",
            "json-schema/views/note.json",
            "openapi.commands.json",
            "openapi.queries.json",
        ]
    );
    let only = |format| files_of(format).len();
    assert_eq!(
        [
            only(Format::JsonSchema),
            only(Format::AsyncApi),
            only(Format::OpenApi)
        ],
        [11, 1, 2]
    );
}

fn files_of(format: Format) -> BTreeMap<String, Value> {
    files(&app(), Some(format)).unwrap()
}

#[test]
fn the_schema_of_a_body_needs_no_other_file() {
    let files = all();
    let create = &files["json-schema/commands/note.create.json"];
    assert_eq!(create["$id"], "urn:tidelog:wall:command:note.create");
    assert_eq!(create["$ref"], "#/$defs/note.create");
    let mut references = Vec::new();
    collect(create, &mut references);
    assert!(references.len() > 1, "the tags too");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(create.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(schema: &Value, references: &mut Vec<String>) {
    match schema {
        Value::Object(keywords) => keywords.iter().for_each(|(keyword, value)| match value {
            Value::String(to) if keyword == "$ref" => references.push(to.clone()),
            other => collect(other, references),
        }),
        Value::Array(schemas) => schemas.iter().for_each(|one| collect(one, references)),
        _ => {}
    }
}

#[test]
fn names_are_such_as_files_can_have() {
    assert_eq!(event_name("post", "post.created", 2), "post.created.v2");
    assert_eq!(event_name("post", "posted", 1), "post.posted.v1");
    assert_eq!(
        event_name("post", "post/../x y", 1),
        "post.post_u2f_.._u2f_x_u20_y.v1"
    );
}

/// What is in a basket.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "its schema alone is used")]
struct Basket {
    articles: u32,
}

const PRICE: Subject<RouteRequest<Basket>, u32> = Subject::new("shop.price");
const SEEN: Subject<RouteRequest, u32> = Subject::new("shop.seen");
const VISITED: Subject<RouteRequest> = Subject::new("shop.visited");
const NOTED: Subject<RouteRequest, u32> = Subject::new("shop.noted");
const STOCK: Subject<Basket, bool> = Subject::new("shop.stock");

/// The same program with routes, and subjects that it declares.
fn with_subjects() -> App {
    let price = MessageRoute::send(Method::POST, "/baskets/{id}/price", &PRICE);
    let app = app()
        .message_route(price)
        .message_route(MessageRoute::send(Method::GET, "/seen", &SEEN))
        .message_route(MessageRoute::emit(Method::POST, "/visits", &VISITED))
        .message_route(MessageRoute::emit(Method::POST, "/notes", &NOTED));
    let north = STOCK.shard("north.1").unwrap();
    let app = app.sends_subject(&PRICE).handles_subject(&NOTED);
    app.handles_subject(&north)
}

/// The AsyncAPI document of `app`.
fn asyncapi(app: &App) -> Value {
    let mut files = files(app, Some(Format::AsyncApi)).unwrap();
    files.remove("asyncapi.json").unwrap()
}

/// What `reference` of `document` leads to.
fn at<'d>(document: &'d Value, reference: &Value) -> &'d Value {
    let reference = reference["$ref"].as_str().expect("a reference");
    let pointer = reference.strip_prefix('#').unwrap();
    let found = document.pointer(pointer);
    found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

#[test]
fn the_commands_of_each_aggregate_are_a_subject_that_gateways_send_on_and_workers_take_from() {
    let document = asyncapi(&app());
    let key = "subject.tidelog.command.note";
    let channel = &document["channels"][key];
    assert_eq!(channel["address"], "tidelog.command.note");
    let described = channel["description"].as_str().unwrap();
    for own in [
        "`{wall:messages:tidelog.command.note}`",
        "`wall.messages.tidelog.command.note`",
    ] {
        assert!(described.contains(own), "{described}");
    }
    for action in ["send", "receive"] {
        let operation = &document["operations"][format!("{key}.{action}")];
        assert_eq!(operation["action"], action);
        let reply = &operation["reply"];
        assert_eq!(reply["address"]["location"], "$message.payload#/replyto");
        assert_eq!(at(&document, &reply["channel"])["address"], Value::Null);
        let answer = at(&document, &reply["messages"][0]);
        let answer = at(&document, answer);
        let data = at(
            &document,
            &answer["payload"]["allOf"][1]["properties"]["data"],
        );
        let forms = &data["allOf"][1]["properties"]["body"]["anyOf"];
        let names = [&forms[0]["$ref"], &forms[1]["$ref"]];
        assert_eq!(names, [&place("note.outcome"), &place("Problem")]);
    }
    let message = &document["components"]["messages"]["Message.tidelog.command.note"];
    let own = &message["payload"]["allOf"][1]["properties"];
    assert_eq!(own["type"]["const"], "tidelog.command.note");
    let call = at(&document, &own["data"]);
    let forms = &call["allOf"][1]["properties"]["body"]["anyOf"];
    assert_eq!(forms[0]["$ref"], place("note.create"));
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in references {
        at(&document, &json!({"$ref": reference}));
    }
}

#[test]
fn a_declared_route_is_a_subject_that_is_sent_on_and_replied_to_where_its_request_is_sent() {
    let document = asyncapi(&with_subjects());
    let operations = document["operations"].as_object().unwrap();
    for (operation, is_replied_to) in [
        ("price.send", true),
        ("seen.send", true),
        ("visited.emit", false),
        // What is emitted is not replied to, also where there are replies.
        ("noted.emit", false),
        ("noted.receive", true),
    ] {
        let described = &operations[&format!("subject.shop.{operation}")];
        assert_eq!(
            described.get("reply").is_some(),
            is_replied_to,
            "{operation}"
        );
    }
    for other in [
        "price.receive",
        "seen.receive",
        "visited.send",
        "noted.send",
    ] {
        assert!(
            !operations.contains_key(&format!("subject.shop.{other}")),
            "{other}"
        );
    }
    let schemas = &document["components"]["schemas"];
    let declared = &schemas["Message.shop.price"];
    let body = at(&document, &declared["properties"]["body"]);
    assert_eq!(body["properties"]["articles"]["type"], "integer");
    assert_eq!(schemas["Reply.shop.price"]["type"], "integer");
    // Nobody says what these are.
    let any = &schemas["Message.shop.seen"]["properties"]["body"];
    assert!(any.get("$ref").is_none(), "{any}");
    let any = &schemas["Reply.shop.seen"];
    assert_eq!(any.as_object().unwrap().len(), 1, "{any}");
    assert!(schemas.get("Reply.shop.visited").is_none());
}

#[test]
fn a_declared_subject_is_there_with_its_shard_and_which_way_it_goes() {
    let app = with_subjects();
    let document = asyncapi(&app);
    let key = "subject.shop.stock_u2f_north.1";
    let channel = &document["channels"][key];
    assert_eq!(channel["address"], "shop.stock/north.1");
    let described = channel["description"].as_str().unwrap();
    assert!(
        described.contains("`wall.messages.shop.stock/north~1`"),
        "{described}"
    );
    let operations = document["operations"].as_object().unwrap();
    assert!(operations[&format!("{key}.receive")]["reply"].is_object());
    assert!(!operations.contains_key(&format!("{key}.send")));
    let files = files(&app, Some(Format::JsonSchema)).unwrap();
    let message = &files["json-schema/messages/shop.stock_u2f_north.1.json"];
    assert_eq!(
        message["$id"],
        "urn:tidelog:wall:message:shop.stock_u2f_north.1"
    );
    assert!(files.contains_key("json-schema/replies/shop.price.json"));
    assert!(!files.contains_key("json-schema/replies/shop.visited.json"));
}
