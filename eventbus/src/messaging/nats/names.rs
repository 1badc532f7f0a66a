//! How streams, consumers and subjects are called.
//!
//! | what | name |
//! |---|---|
//! | the stream of a channel | `<app>=messages=<subject>`, `<app>=messages=<subject>=<shard>` |
//! | a message of a channel | `<app>.messages.<subject>`, `<app>.messages.<subject>/<shard>` |
//! | a group's consumer there | `<group>` |
//! | the stream of what is known of messages | `<app>=dead` |
//! | a dead letter | `<app>.dead.<group>.<message>.<channel>` |
//! | the tries of a message that do not count | `<app>.tries.<group>.<message>.<channel>` |
//! | an inbox | `<app>.replies.<uuid>` |
//!
//! A dot would end a token of a subject, and no name of a stream has one: in the app's, a shard's and a group's name it is written as `~`, and in
//! a stream's name everywhere. None of `~`, `=` and `/` is in any such name, so no two things are called the same.

use std::fmt::Display;

use uuid::Uuid;

use crate::messaging::names::{Channel, Group};

/// How long the name of a stream may be. (NATS has 255, which are a name of a directory too.)
const MAX_STREAM_BYTES: usize = 240;

/// The names of an app.
pub(super) struct Names {
    /// The app's name as one token of a subject.
    app: String,
}

impl Names {
    pub(super) fn new(app: &str) -> Self {
        Self { app: token(app) }
    }

    pub(super) fn stream(&self, channel: &Channel) -> String {
        let app = &self.app;
        let name = token(channel.as_str()).replace('/', "=");
        let stream = format!("{app}=messages={name}");
        if stream.len() <= MAX_STREAM_BYTES {
            return stream;
        }
        let name = Uuid::new_v5(&Uuid::NAMESPACE_OID, channel.as_str().as_bytes());
        format!("{app}=messages=={}", name.simple())
    }

    pub(super) fn subject(&self, channel: &Channel) -> String {
        format!("{}.messages.{}", self.app, tokens(channel))
    }

    /// The stream of dead letters, and of tries that do not count.
    pub(super) fn records(&self) -> String {
        format!("{}=dead", self.app)
    }

    /// All its subjects.
    pub(super) fn all_records(&self) -> Vec<String> {
        ["dead", "tries"]
            .map(|kind| format!("{}.{kind}.>", self.app))
            .to_vec()
    }

    /// The dead letter that `message` of `channel` is for `group`; of `*`, all.
    pub(super) fn dead(&self, group: &Group, message: impl Display, channel: &Channel) -> String {
        self.record("dead", group, message, channel)
    }

    pub(super) fn tries(&self, group: &Group, message: impl Display, channel: &Channel) -> String {
        self.record("tries", group, message, channel)
    }

    fn record(
        &self,
        kind: &str,
        group: &Group,
        message: impl Display,
        channel: &Channel,
    ) -> String {
        let (app, group) = (&self.app, consumer(group));
        format!("{app}.{kind}.{group}.{message}.{}", tokens(channel))
    }

    pub(super) fn inbox(&self, name: Uuid) -> String {
        format!("{}.replies.{}", self.app, name.simple())
    }

    /// Whether replies may go there: to an inbox of ours, or of a program that makes its inboxes as NATS' own clients do.
    pub(super) fn is_inbox(&self, address: &str) -> bool {
        let ours = address.strip_prefix(&self.app);
        let name = ours.and_then(|rest| rest.strip_prefix(".replies."));
        let name = name.or_else(|| address.strip_prefix("_INBOX."));
        name.is_some_and(|name| name.split('.').all(is_token))
    }
}

/// The name of the consumer of `group`.
pub(super) fn consumer(group: &Group) -> String {
    token(group.as_str())
}

fn tokens(channel: &Channel) -> String {
    match channel.shard() {
        None => channel.subject().to_owned(),
        Some(shard) => format!("{}/{}", channel.subject(), token(shard)),
    }
}

fn token(name: &str) -> String {
    name.replace('.', "~")
}

fn is_token(token: &str) -> bool {
    !token.is_empty() && !token.contains(|c: char| matches!(c, '*' | '>') || !c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::names::Subject;

    fn channel(subject: &str, shard: Option<&str>) -> Channel {
        let subject = Subject::<()>::parse(subject).unwrap();
        shard
            .map_or(subject.clone(), |shard| subject.shard(shard).unwrap())
            .channel()
    }

    #[test]
    fn a_channel_has_a_stream_and_a_subject_of_its_own() {
        let names = Names::new("a.b");
        let shard = channel("order.placed", Some("..eu.1"));
        assert_eq!(names.stream(&shard), "a~b=messages=order~placed=~~eu~1");
        assert_eq!(names.subject(&shard), "a~b.messages.order.placed/~~eu~1");
        let g = Group::new("g.").unwrap();
        assert_eq!(
            names.dead(&g, 7, &shard),
            "a~b.dead.g~.7.order.placed/~~eu~1"
        );
    }

    #[test]
    fn the_longest_names_have_streams_of_their_own() {
        let names = Names::new(&"a".repeat(64));
        let stream = |shard: &str| names.stream(&channel(&"b".repeat(128), Some(shard)));
        let (one, other) = (stream(&"c".repeat(128)), stream(&"c".repeat(127)));
        assert!(one != other && one.len() <= MAX_STREAM_BYTES);
        assert_eq!(one, stream(&"c".repeat(128)));
    }

    #[test]
    fn replies_go_to_inboxes_alone() {
        let names = Names::new("shop");
        for address in ["shop.replies.1", "_INBOX.abc.1"] {
            assert!(names.is_inbox(address), "{address}");
        }
        for address in [
            "",
            "nobody",
            "shop.messages.order.placed",
            "$JS.API.STREAM.DELETE.x",
            "shop.replies.",
            "shop.replies.*",
            "_INBOX.a b",
            "_INBOX.>",
            "_INBOX.a..b",
            "shopreplies.1",
        ] {
            assert!(!names.is_inbox(address), "{address}");
        }
    }
}
