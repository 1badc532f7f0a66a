//! The subjects of a program in the document: a channel each, and one for all replies.

use serde_json::{Map, Value, json};

use super::super::subjects::{ERROR, MESSAGE, REPLY, Subject, Subjects};
use super::super::{flat, led_to, place};
use super::{CLOUDEVENT, Channel, Document, reference};

/// The channel of replies.
const REPLIES: &str = "replies";

/// Adds the subjects of the program `app`.
pub(super) fn describe(document: &mut Document, app: &str, subjects: &Subjects) {
    for subject in &subjects.all {
        add_subject(document, app, subject);
        let own = [
            Some(subject.message()),
            subject.has_reply.then(|| subject.reply()),
        ];
        for name in own.into_iter().flatten() {
            add_schema(document, subjects, &name);
        }
    }
    if !subjects.all.iter().any(|subject| subject.has_reply) {
        return;
    }
    let error = message(REPLY, &[("type", json!({"const": "tidelog.error"}))], ERROR);
    let error = described(error, "tidelog.error", "an error as a reply", "requestid");
    document.message(ERROR, error);
    add_schema(document, subjects, ERROR);
    let with_replies = subjects.all.iter().filter(|subject| subject.has_reply);
    let messages: Vec<String> = with_replies.map(Subject::reply).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).chain([ERROR]).collect();
    let description = format!(
        "The inbox of who asks, which its requests name in `replyto`: on Redis a stream, `{{{app}:replies:<uuid>}}`, on NATS a subject, \
         `{app}.replies.<uuid>`. One value is one reply; several have numbers and an end mark. docs/messaging.md has the rest."
    );
    let replies = Channel {
        name: REPLIES,
        address: None,
        title: "Replies",
        description: &description,
    };
    document.channel(replies, &messages);
}

fn add_subject(document: &mut Document, app: &str, subject: &Subject) {
    let channel = &subject.channel;
    let name = subject.message();
    let mut own = vec![("type", json!({"const": channel.subject()}))];
    own.extend(subject.id.clone().map(|id| ("id", id)));
    let content = message(MESSAGE, &own, &name);
    let content = described(content, channel.subject(), channel.as_str(), "id");
    document.message(&name, content);
    if subject.has_reply {
        let own = [("type", json!({"const": "tidelog.reply"}))];
        let content = message(REPLY, &own, &subject.reply());
        let title = format!("a reply on {channel}");
        let content = described(content, "tidelog.reply", &title, "requestid");
        document.message(&subject.reply(), content);
    }
    let key = format!("subject.{}", subject.name);
    let description = format!(
        "On Redis the stream `{{{app}:messages:{channel}}}`, on NATS the subject `{app}.messages.{}`; docs/messaging.md has what they are in there, \
         and what a worker does.",
        on_nats(subject)
    );
    let described = Channel {
        name: &key,
        address: Some(channel.as_str()),
        title: channel.as_str(),
        description: &description,
    };
    document.channel(described, &[&name]);
    for (name, action, does) in [
        ("send", "send", &subject.sends),
        ("emit", "send", &subject.emits),
        ("receive", "receive", &subject.handles),
    ] {
        if !does.is_empty() {
            let operation = format!("{key}.{name}");
            document.operation(&operation, action, &key, &does.join(" "));
            if subject.has_reply && name != "emit" {
                document.is_replied_to(&operation, reply(&subject.reply()));
            }
        }
    }
}

/// A channel as part of a subject of NATS: a dot would end a word of it.
fn on_nats(subject: &Subject) -> String {
    let channel = &subject.channel;
    match channel.shard() {
        Some(shard) => format!("{}/{}", channel.subject(), shard.replace('.', "~")),
        None => channel.subject().to_owned(),
    }
}

/// What replies to an operation: one of these, or an error.
fn reply(name: &str) -> Value {
    let on = |message: &str| json!({"$ref": format!("#/channels/{REPLIES}/messages/{message}")});
    json!({
        "address": {
            "location": "$message.payload#/replyto",
            "description": "Where the request says that its caller waits.",
        },
        "channel": {"$ref": format!("#/channels/{REPLIES}")},
        "messages": [on(name), on(ERROR)],
    })
}

/// The payload of a message: what it comes in, with these attributes and this data.
fn message(envelope: &str, attributes: &[(&str, Value)], data: &str) -> Value {
    let attributes = attributes.iter();
    let attributes = attributes.map(|(name, schema)| ((*name).to_owned(), schema.clone()));
    let mut own: Map<String, Value> = attributes.collect();
    own.insert("data".to_owned(), reference("schemas", data));
    json!({"allOf": [reference("schemas", envelope), {"type": "object", "properties": own}]})
}

/// A message with this payload, which is known by `id` to who sends and who replies.
fn described(payload: Value, name: &str, title: &str, id: &str) -> Value {
    json!({
        "name": name,
        "title": title,
        "contentType": CLOUDEVENT,
        "correlationId": {"location": format!("$message.payload#/{id}")},
        "payload": payload,
    })
}

/// Adds the schema `name` with all that it leads to, and what it comes in.
fn add_schema(document: &mut Document, subjects: &Subjects, name: &str) {
    let schemas = &subjects.schemas;
    let roots = [name, MESSAGE, REPLY].map(|name| reference("schemas", name));
    for (name, schema) in led_to(schemas, &json!(roots)) {
        document.schema(name, flat::flattened(schema.clone(), &place(name)));
    }
}
