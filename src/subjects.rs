//! What a program says of the subjects of messages that it knows, for those who read its documents.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde_json::Value;
use tidelog_domain::__private::{sent_schema, stored_schema};
use tidelog_eventbus::messaging::{Channel, Subject};

use crate::routes::RouteRequest;

/// A subject that a program declares.
///
/// Its schemas are those of its handler: what that reads and what it writes. They hold for both sides, as what is sent is to be read.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredSubject {
    pub(crate) channel: Channel,
    /// Whether the program handles it; else it sends or emits on it.
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "the command line alone writes it down")
    )]
    pub(crate) is_handled: bool,
    pub(crate) message: Value,
    pub(crate) reply: Value,
}

impl DeclaredSubject {
    pub(crate) fn handled<M: JsonSchema, R: JsonSchema>(subject: &Subject<M, R>) -> Self {
        Self {
            channel: subject.channel(),
            is_handled: true,
            message: sent_schema::<M>(),
            reply: stored_schema::<R>(),
        }
    }

    pub(crate) fn sent<M: JsonSchema, R: JsonSchema>(subject: &Subject<M, R>) -> Self {
        Self {
            is_handled: false,
            ..Self::handled(subject)
        }
    }

    /// Whether there is a reply that says anything.
    #[cfg(feature = "cli")]
    pub(crate) fn has_reply(&self) -> bool {
        !is_nothing(&self.reply)
    }

    /// Whether its messages can be what becomes of requests to a route: they have what a [`RouteRequest`] has, or are said to be any JSON.
    pub(crate) fn is_request(&self) -> bool {
        let properties = |schema: &Value| {
            let properties = schema.get("properties").and_then(Value::as_object);
            properties.map(|own| own.keys().cloned().collect::<BTreeSet<_>>())
        };
        let own = properties(&self.message);
        let says = |keyword: &String| !["$schema", "title", "description"].contains(&&**keyword);
        let keywords = self.message.as_object();
        let is_any = !keywords.is_some_and(|keywords| keywords.keys().any(says));
        is_any || own == properties(&sent_schema::<RouteRequest>())
    }

    /// Whether both say the same of messages and replies.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        self.message == other.message && self.reply == other.reply
    }
}

/// Whether what fits `schema` is `null` alone.
pub(crate) fn is_nothing(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// `text` as a file, and a schema among others, can be called: whatever they cannot be called is written by its number.
pub(crate) fn plain(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.chars()
        .map(|c| match plain(c) {
            true => c.to_string(),
            false => format!("_u{:x}_", u32::from(c)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::App;

    const STOCK: Subject<u32, bool> = Subject::new("shop.stock");
    const OTHER: Subject<String, bool> = Subject::new("shop.stock");

    fn app() -> App {
        App::new("shop").entities_from(None).unwrap()
    }

    #[test]
    fn a_subject_is_declared_in_one_way() {
        let both = app().handles_subject(&STOCK).sends_subject(&STOCK);
        assert!(both.check().is_ok());
        let shard = OTHER.shard("v2").unwrap();
        let versions = app().handles_subject(&STOCK).handles_subject(&shard);
        assert!(versions.check().is_ok());
        let error = |app: App| app.check().unwrap_err().to_string();
        let two = error(app().handles_subject(&STOCK).sends_subject(&OTHER));
        assert!(two.contains("shop.stock") && two.contains("twice"), "{two}");
        const COMMANDS: Subject<u32> = Subject::new("tidelog.command.post");
        let own = error(app().sends_subject(&COMMANDS));
        assert!(own.contains("the library's own"), "{own}");
    }

    #[cfg(feature = "cli")]
    #[test]
    fn a_reply_of_nothing_is_none() {
        const EMITTED: Subject<u32> = Subject::new("shop.emitted");
        assert!(!DeclaredSubject::sent(&EMITTED).has_reply());
        assert!(DeclaredSubject::sent(&STOCK).has_reply());
    }
}
