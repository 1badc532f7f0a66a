//! A JSON Schema, draft 2020-12, for each event, command, view, message and reply: a file that needs no other.

use serde_json::{Map, Value, json};

use super::subjects::{MESSAGE, REPLY, Subjects};
use super::{COMPONENTS, Event, components, led_to};
use crate::App;

/// Where those of a file are.
const DEFINITIONS: &str = "#/$defs/";

/// The files, by their paths.
pub(super) fn files(
    app: &App,
    events: &[Event<'_>],
    subjects: &Subjects,
    commands: &Value,
    queries: &Value,
) -> Vec<(String, Value)> {
    let (commands, queries) = (components(commands), components(queries));
    let mut files = Vec::new();
    let mut add =
        |kind: &str, name: &str, title: String, schemas: &Map<String, Value>, of: &str| {
            if let Some(mut file) = standalone(schemas, of) {
                let id = format!("urn:tidelog:{}:{kind}:{name}", app.name());
                file.shift_insert(1, "$id".to_owned(), json!(id));
                file.shift_insert(2, "title".to_owned(), json!(title));
                let directory = match kind {
                    "reply" => "replies".to_owned(),
                    kind => format!("{kind}s"),
                };
                let path = format!("json-schema/{directory}/{name}.json");
                files.push((path, Value::Object(file)));
            }
        };
    for event in events {
        let own = Map::from_iter([(event.name.clone(), event.schema.clone())]);
        let title = format!("{}, version {}", event.event_type, event.version);
        add("event", &event.name, title, &own, &event.name);
    }
    for decider in app.deciders() {
        for command in decider.commands() {
            let name = format!("{}.{}", decider.category(), command.name);
            let title = format!("{} {}: the body", command.name, decider.category());
            add("command", &name, title, &commands, &name);
        }
    }
    for command in app.multi_stream_commands() {
        let title = format!("{}: the body", command.name());
        add("command", command.name(), title, &commands, command.name());
    }
    for view in app.views() {
        let title = format!("a document of the view {}", view.name());
        let document = format!("{}.document", view.name());
        add("view", view.name(), title, &queries, &document);
    }
    for subject in &subjects.all {
        let name = &subject.name;
        let title = format!("a message on {}: the data", subject.channel);
        add(
            "message",
            name,
            title,
            &subjects.schemas,
            &subject.message(),
        );
        let title = format!("a reply on {}: the data", subject.channel);
        if subject.has_reply {
            add("reply", name, title, &subjects.schemas, &subject.reply());
        }
    }
    for (name, of) in [("message", MESSAGE), ("reply", REPLY)] {
        let title = format!("a {name} as a CloudEvent");
        add("envelope", name, title, &subjects.schemas, of);
    }
    // What every event comes in, on the bus and in the feed.
    let title = "an event as a CloudEvent".to_owned();
    add("envelope", "cloudevent", title, &commands, "Event");
    files
}

/// The schema `name` of `schemas` as a document of its own, with those that it leads to.
fn standalone(schemas: &Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    let own = schemas.get(name)?;
    let mut definitions = led_to(schemas, own);
    definitions.insert(name, own);
    let definitions = definitions.into_iter().map(|(name, schema)| {
        let mut schema = schema.clone();
        redirect(&mut schema);
        (name.to_owned(), schema)
    });
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("{DEFINITIONS}{name}"),
        "$defs": definitions.collect::<Map<_, _>>(),
    });
    document.as_object().cloned()
}

/// Turns references to components into such to definitions.
fn redirect(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                let to = value.as_str().filter(|_| keyword == "$ref");
                match to.and_then(|to| to.strip_prefix(COMPONENTS)) {
                    Some(to) => *value = json!(format!("{DEFINITIONS}{to}")),
                    None => redirect(value),
                }
            }
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(redirect),
        _ => {}
    }
}
