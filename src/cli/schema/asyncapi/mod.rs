//! The events and the subjects of a program as an AsyncAPI 3.0 document.

mod messages;

use serde_json::{Map, Value, json};

use super::subjects::Subjects;
use super::{Event, flat};
use crate::App;

/// The version of AsyncAPI.
const ASYNCAPI: &str = "3.0.0";

/// What an event is sent as: a CloudEvent in the structured mode of the JSON format.
const CLOUDEVENT: &str = "application/cloudevents+json";

/// The program's events, as whoever follows them gets them, and its subjects, with what its services publish of what goes over them.
pub(super) fn document(app: &App, events: &[Event<'_>], subjects: &Subjects) -> Value {
    let mut document = Document::new();
    // What an event comes in.
    if let Some(envelope) = subjects.schemas.get("Event") {
        document.schema("cloudevent", envelope.clone());
    }
    for event in events {
        document.schema(&event.name, event.schema.clone());
        document.message(&event.name, message(app, event));
    }
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let bus = Channel {
        name: "bus",
        // The key of a stream has the log's history, which no document can know.
        address: None,
        title: "The event bus",
        description: "One stream for each partition of the log, in the order of commits; docs/wire-format.md says what it is called on each \
                      engine. A copy that may have holes: fill them from the feed.",
    };
    let feed = Channel {
        name: "feed",
        address: Some("/events"),
        title: "The feed of the log",
        description: "The same events without holes, page by page, over HTTP: GET on the command service, in its OpenAPI document.",
    };
    for channel in [bus, feed] {
        let name = channel.name;
        document.channel(channel, &names);
        let does = format!("Every event of {}, once it is committed.", app.name());
        document.operation(&format!("{name}.send"), "send", name, &does);
    }
    messages::describe(&mut document, app.name(), subjects);
    document.finish(app.name())
}

fn message(app: &App, event: &Event<'_>) -> Value {
    let Event {
        name,
        aggregate,
        event_type,
        version,
        ..
    } = event;
    let own = json!({
        "type": "object",
        "properties": {
            "source": {"const": format!("/{}/{aggregate}", app.name())},
            "type": {"const": event_type},
            "schemaversion": {"const": version.to_string()},
            "data": reference("schemas", name),
        },
    });
    json!({
        "name": event_type,
        "title": format!("{event_type}, version {version}"),
        "contentType": CLOUDEVENT,
        "payload": {"allOf": [reference("schemas", "cloudevent"), own]},
    })
}

/// The reference to a component.
fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// Where messages go.
struct Channel<'a> {
    name: &'a str,
    /// `None` where it is not known before the program runs.
    address: Option<&'a str>,
    title: &'a str,
    description: &'a str,
}

/// An AsyncAPI document in the making.
#[derive(Default)]
struct Document {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    fn new() -> Self {
        Self::default()
    }

    fn schema(&mut self, name: &str, mut schema: Value) {
        flat::in_draft_7(&mut schema);
        self.schemas.insert(name.to_owned(), schema);
    }

    fn message(&mut self, name: &str, message: Value) {
        self.messages.insert(name.to_owned(), message);
    }

    fn channel(&mut self, channel: Channel<'_>, messages: &[&str]) {
        let messages = messages.iter();
        let messages = messages.map(|name| ((*name).to_owned(), reference("messages", name)));
        let described = json!({
            "address": channel.address,
            "title": channel.title,
            "description": channel.description,
            "messages": messages.collect::<Map<_, _>>(),
        });
        self.channels.insert(channel.name.to_owned(), described);
    }

    /// What the program does (`send` or `receive`) with all messages of a channel.
    fn operation(&mut self, name: &str, action: &str, channel: &str, summary: &str) {
        let operation = json!({
            "action": action,
            "channel": {"$ref": format!("#/channels/{channel}")},
            "summary": summary,
        });
        self.operations.insert(name.to_owned(), operation);
    }

    /// What answers an operation.
    fn is_replied_to(&mut self, operation: &str, reply: Value) {
        let operation = self.operations.get_mut(operation);
        if let Some(operation) = operation.and_then(Value::as_object_mut) {
            operation.insert("reply".to_owned(), reply);
        }
    }

    fn finish(self, app: &str) -> Value {
        json!({
            "asyncapi": ASYNCAPI,
            "info": {
                "title": format!("{app}: events and messages"),
                "version": env!("CARGO_PKG_VERSION"),
                "description": "What has happened, for programs that follow it; and what is sent and replied, for those that ask and work.",
            },
            "defaultContentType": CLOUDEVENT,
            "channels": self.channels,
            "operations": self.operations,
            "components": {"messages": self.messages, "schemas": self.schemas},
        })
    }
}
