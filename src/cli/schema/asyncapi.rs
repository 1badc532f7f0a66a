//! The events of a program as an AsyncAPI 3.0 document.

use serde_json::{Map, Value, json};

use super::{Event, components};
use crate::App;

/// The version of AsyncAPI.
const ASYNCAPI: &str = "3.0.0";

/// What an event is sent as: a CloudEvent in the structured mode of the JSON format.
const CLOUDEVENT: &str = "application/cloudevents+json";

/// The program's events, as whoever follows them gets them. `commands` is the document of its command service, which says what an event
/// comes in.
pub(super) fn document(app: &App, events: &[Event<'_>], commands: &Value) -> Value {
    let mut document = Document::new();
    if let Some(envelope) = components(commands).remove("Event") {
        document.schema("cloudevent", envelope);
    }
    for event in events {
        document.schema(&event.name, event.schema.clone());
        document.message(&event.name, message(app, event));
    }
    let messages: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
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
        document.channel(channel, &messages);
        let does = format!("Every event of {}, once it is committed.", app.name());
        document.operation(&format!("{name}.send"), "send", name, &does);
    }
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

/// An AsyncAPI document in the making. Subjects of messages would be more channels of it.
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

    fn schema(&mut self, name: &str, schema: Value) {
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

    fn finish(self, app: &str) -> Value {
        json!({
            "asyncapi": ASYNCAPI,
            "info": {
                "title": format!("{app}: events"),
                "version": env!("CARGO_PKG_VERSION"),
                "description": "What has happened, for programs that follow it.",
            },
            "defaultContentType": CLOUDEVENT,
            "channels": self.channels,
            "operations": self.operations,
            "components": {"messages": self.messages, "schemas": self.schemas},
        })
    }
}
