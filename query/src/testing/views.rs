//! Two views of the same events: the last state of each post, and how many posts each author has.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidelog_domain::{
    DecodeError, EntitySchema, EntityView, Event, EventFilter, Folding, Keys, Named, Payload,
    Projection, Recorded, RecordedEvent, TypedProjector, View, ViewDefinition,
};

/// The posts: one document a stream, full state.
pub(crate) fn posts() -> Arc<dyn ViewDefinition> {
    posts_by(&[])
}

/// The same with these indexes.
pub(crate) fn posts_by(indexes: &[&str]) -> Arc<dyn ViewDefinition> {
    let schema = json!({
        "type": "object",
        "x-tidelog-indexes": indexes,
        "properties": {
            "title": {"type": "string"},
            "author": {"type": "string"},
            "stars": {"type": "integer"},
            "public": {"type": "boolean"},
            "rating": {"type": ["number", "null"]},
            "address": {"type": "object", "properties": {"city": {"type": "string"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
            "extra": {}
        }
    });
    Arc::new(EntityView::new(
        EntitySchema::from_value("post", schema).unwrap(),
    ))
}

/// The authors: one document over streams of several partitions, counted.
pub(crate) fn authors() -> Arc<dyn ViewDefinition> {
    Arc::new(TypedProjector::<Author>::new())
}

/// The titles: one document a stream, folded, of the events that change a post; its creation and deletion are passed over.
pub(crate) fn titles() -> Arc<dyn ViewDefinition> {
    Arc::new(TypedProjector::<Title>::new())
}

/// `view` as a later edition of the program defines it: each document says which edition made it.
pub(crate) fn edition(number: u64, view: Arc<dyn ViewDefinition>) -> Arc<dyn ViewDefinition> {
    Arc::new(Edition {
        number,
        view,
        max_key_bytes: usize::MAX,
    })
}

/// `view` as a later program defines it, which leaves out what has too long a key.
pub(crate) fn shortened(view: Arc<dyn ViewDefinition>) -> Arc<dyn ViewDefinition> {
    Arc::new(Edition {
        number: 2,
        view,
        max_key_bytes: crate::MAX_KEY_BYTES,
    })
}

struct Edition {
    number: u64,
    view: Arc<dyn ViewDefinition>,
    max_key_bytes: usize,
}

impl ViewDefinition for Edition {
    fn name(&self) -> &str {
        self.view.name()
    }

    fn plural(&self) -> &str {
        self.view.plural()
    }

    fn schema(&self) -> &Value {
        self.view.schema()
    }

    fn fingerprint(&self) -> String {
        format!("{} edition {}", self.view.fingerprint(), self.number)
    }

    fn filter(&self) -> &EventFilter {
        self.view.filter()
    }

    fn folding(&self) -> Folding {
        self.view.folding()
    }

    fn category(&self) -> Option<&str> {
        self.view.category()
    }

    fn keys(&self, event: &RecordedEvent) -> Result<Keys, DecodeError> {
        let mut keys = self.view.keys(event)?;
        keys.retain(|key| key.len() <= self.max_key_bytes);
        Ok(keys)
    }

    fn project(
        &self,
        before: Option<Map<String, Value>>,
        key: &str,
        event: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        let after = self.view.project(before, key, event)?;
        Ok(after.map(|mut after| {
            after.insert("edition".to_owned(), json!(self.number));
            after
        }))
    }

    fn last_state(&self, event: &RecordedEvent) -> Result<Map<String, Value>, DecodeError> {
        self.view.last_state(event)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Author {
    posts: i64,
}

impl Named for Author {
    const NAME: &'static str = "author";
}

impl View for Author {
    fn schema() -> Value {
        json!({"type": "object", "properties": {"posts": {"type": "integer"}}})
    }
}

impl Projection for Author {
    type Event = PostEvent;

    fn keys(e: &Recorded<PostEvent>) -> Keys {
        e.event
            .left
            .iter()
            .chain(&e.event.joined)
            .cloned()
            .collect()
    }

    fn project(view: Option<Self>, key: &str, e: &Recorded<PostEvent>) -> Option<Self> {
        let is = |author: &Option<String>| i64::from(author.as_deref() == Some(key));
        let posts = view.unwrap_or_default().posts + is(&e.event.joined) - is(&e.event.left);
        (posts != 0).then_some(Self { posts })
    }
}

/// A post as authors see it: who loses it, who gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PostEvent {
    left: Option<String>,
    joined: Option<String>,
}

#[derive(Deserialize)]
struct Stored {
    state: Value,
    before: Value,
}

impl Event for PostEvent {
    const TYPES: &'static [&'static str] = &["post.created", "post.updated", "post.deleted"];

    fn event_type(&self) -> &'static str {
        "post.updated"
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        Payload::of(self)
    }

    fn decode(event_type: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        let stored: Stored = payload
            .decode()
            .map_err(|source| DecodeError::payload(event_type, version, source))?;
        let author = |value: &Value| value["author"].as_str().map(str::to_owned);
        let (before, after) = (author(&stored.before), author(&stored.state));
        Ok(match event_type {
            "post.created" => Self {
                left: None,
                joined: after,
            },
            "post.deleted" => Self {
                left: after,
                joined: None,
            },
            _ if before.is_some() => Self {
                left: before,
                joined: after,
            },
            _ => Self {
                left: None,
                joined: None,
            },
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Title {
    title: String,
    changes: u64,
}

impl Named for Title {
    const NAME: &'static str = "title";
}

impl View for Title {}

impl Projection for Title {
    const SINGLE_STREAM: bool = true;

    type Event = TitleEvent;

    fn keys(_: &Recorded<TitleEvent>) -> Keys {
        Keys::new()
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<TitleEvent>) -> Option<Self> {
        Some(Self {
            title: e.event.title.clone(),
            changes: view.unwrap_or_default().changes + 1,
        })
    }
}

/// A post as its title sees it: what it is called from now on. That it is created says nothing yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TitleEvent {
    title: String,
}

impl Event for TitleEvent {
    const TYPES: &'static [&'static str] = &["post.updated"];

    fn event_type(&self) -> &'static str {
        "post.updated"
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        Payload::of(self)
    }

    fn decode(event_type: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        let stored: Stored = payload
            .decode()
            .map_err(|source| DecodeError::payload(event_type, version, source))?;
        let title = stored.state["title"].as_str().unwrap_or_default();
        Ok(Self {
            title: title.to_owned(),
        })
    }
}
