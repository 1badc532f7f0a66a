//! A log of posts, in the event store that lives in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use tidelog_command::store::{EventStore, InMemoryEventStore};
use tidelog_domain::{
    Append, ConsistencyToken, Cursor, EventId, ExpectedVersion, Metadata, NewEvent, Partition,
    Partitions, Payload, RecordedEvent, StreamId, Tenant,
};
use tidelog_eventbus::{CommitSignal, LogReader};
use uuid::Uuid;

/// What happens to a post.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// It is written, or written anew, with this title, by this author.
    Write(String, String),
    /// It is deleted.
    Delete,
}

/// A log, and the posts as they are now.
pub(crate) struct Log {
    pub(crate) store: InMemoryEventStore,
    pub(crate) signal: CommitSignal,
    partitions: Partitions,
    posts: Mutex<HashMap<String, Map<String, Value>>>,
}

impl Log {
    pub(crate) fn new(partitions: u16) -> Self {
        let partitions = Partitions::new(partitions).unwrap();
        Self {
            store: InMemoryEventStore::new(partitions),
            signal: CommitSignal::new(partitions),
            partitions,
            posts: Mutex::default(),
        }
    }

    pub(crate) fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(self.store.clone())
    }

    pub(crate) fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// Appends a change of the post `id`; one that makes no sense (to a deleted post, say) is none. Gives the token of
    /// the write.
    pub(crate) async fn change(&self, id: &str, change: &Change) -> Option<ConsistencyToken> {
        let before = self.posts.lock().unwrap().get(id).cloned();
        let (name, state, changed) = match (change, before) {
            (_, Some(before)) if before.is_empty() => return None,
            (Change::Delete, None) => return None,
            (Change::Delete, Some(before)) => {
                self.posts.lock().unwrap().insert(id.to_owned(), Map::new());
                ("post.deleted", before, Map::new())
            }
            (Change::Write(title, author), before) => {
                let state = json!({"title": title, "author": author});
                let state = state.as_object().unwrap().clone();
                let changed = before.iter().flatten();
                let changed = changed.filter(|(name, value)| state[*name] != **value);
                let changed = changed.map(|(n, v)| (n.clone(), v.clone())).collect();
                let known = self
                    .posts
                    .lock()
                    .unwrap()
                    .insert(id.to_owned(), state.clone());
                let name = if known.is_some() {
                    "post.updated"
                } else {
                    "post.created"
                };
                (name, state, changed)
            }
        };
        let payload = json!({"state": state, "before": changed});
        Some(self.append(id, name, &payload).await)
    }

    /// Appends any event to the post `id`; to that of a tenant where it is `tenant:id`.
    pub(crate) async fn append(&self, id: &str, name: &str, payload: &Value) -> ConsistencyToken {
        self.append_as(id, name, 1, payload).await
    }

    /// Appends any event of any schema version to the post `id`.
    pub(crate) async fn append_as(
        &self,
        id: &str,
        name: &str,
        schema_version: u32,
        payload: &Value,
    ) -> ConsistencyToken {
        let event = NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: name.into(),
            schema_version,
            payload: Payload::of(payload).unwrap(),
            metadata: Payload::of(&Metadata::default()).unwrap(),
        };
        let (tenant, id) = match id.split_once(':') {
            Some((tenant, id)) => (Some(Tenant::new(tenant).unwrap()), id),
            None => (None, id),
        };
        let stream = StreamId::of(tenant.as_ref(), "post", id).unwrap();
        let append = Append::one(stream, ExpectedVersion::Any, vec![event]);
        let done = self.store.append(0, Arc::from([append])).await;
        let appended = &done[0].as_ref().unwrap()[0];
        let position = (appended.partition, appended.position.unwrap());
        self.signal.committed([position]);
        ConsistencyToken {
            history: self.store.identity().await.unwrap().history,
            positions: vec![position],
            tenant: tenant.as_ref().map(Tenant::mark),
        }
    }

    /// All events of a partition.
    pub(crate) async fn events(&self, partition: Partition) -> Vec<RecordedEvent> {
        self.store
            .read(partition, Cursor::START, usize::MAX)
            .await
            .unwrap()
    }

    /// All events, partition by partition.
    pub(crate) async fn all(&self) -> Vec<RecordedEvent> {
        let mut all = Vec::new();
        for partition in self.store.identity().await.unwrap().partitions.iter() {
            all.extend(self.events(partition).await);
        }
        all
    }
}
