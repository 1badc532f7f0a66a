//! The conformance suite of replay: that it does on every read store what its protocol says, one public function a case.
//!
//! A read store runs all of them with [`replay_conformance!`](crate::replay_conformance), over a log of the suite's own. Each view has a name
//! of its own, so that the cases can run at once on one server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use serde_json::json;
use tidelog_domain::{
    Cursor, EntitySchema, EntityView, EventId, HistoryId, Metadata, Partition, Partitions, Payload,
    Position, RecordedEvent, StreamId, Version, ViewDefinition,
};
use tidelog_eventbus::{LogError, LogIdentity, LogReader};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Compare, Mended, Only, Replay, ReplayError, ReplayOptions, ReplayProgress, Replayed};
use crate::store::conformance::ReadStoreFactory;
use crate::store::{Alias, Document, DocumentWrite, Progress, ReadStore, Written};

/// How many documents the log makes, one of them deleted.
const DOCUMENTS: u64 = 120;

/// How many events it has: each document is made, and changed; one is deleted.
const EVENTS: u64 = 2 * DOCUMENTS + 1;

/// A log that does not change.
struct FixedLog {
    history: HistoryId,
    partitions: Partitions,
    events: BTreeMap<Partition, Vec<RecordedEvent>>,
}

impl FixedLog {
    fn of(category: &str) -> Self {
        let partitions = Partitions::new(3).unwrap();
        let mut log = Self {
            history: HistoryId::new(Uuid::now_v7()),
            partitions,
            events: partitions.iter().map(|it| (it, Vec::new())).collect(),
        };
        for version in 1..=2 {
            let kind = if version == 1 { "created" } else { "updated" };
            (0..DOCUMENTS).for_each(|number| log.append(category, number, version, kind));
        }
        log.append(category, 0, 3, "deleted");
        log
    }

    fn append(&mut self, category: &str, number: u64, version: u64, kind: &str) {
        let stream = StreamId::new(category, &format!("d{number}")).unwrap();
        let partition = stream.partition(self.partitions);
        let events = self.events.get_mut(&partition).unwrap();
        let state = json!({"number": number, "turn": version});
        events.push(RecordedEvent {
            stream,
            version: Version::new(version),
            partition,
            position: Position::new(events.len() as u64 + 1),
            id: EventId::new(Uuid::now_v7()),
            event_type: format!("{category}.{kind}").into(),
            schema_version: 1,
            payload: Payload::of(&json!({"state": state, "before": {}})).unwrap(),
            metadata: Payload::of(&Metadata::default()).unwrap(),
            recorded_at: DateTime::UNIX_EPOCH + Duration::from_secs(version),
        });
    }
}

#[async_trait]
impl LogReader for FixedLog {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        Ok(LogIdentity {
            history: self.history,
            partitions: self.partitions,
        })
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        let heads = self.events.values();
        Ok(heads.map(|it| Position::new(it.len() as u64)).collect())
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        // As on a server, others get to run meanwhile: who is to be killed is killed at about then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let events = self.events[&partition].iter();
        let after = events.filter(|event| event.position > cursor.position);
        Ok(after.take(limit).cloned().collect())
    }
}

/// A view, its log, and the store that has it: an empty first version is read.
struct Ground {
    store: Arc<dyn ReadStore>,
    log: Arc<dyn LogReader>,
    view: Arc<dyn ViewDefinition>,
}

impl Ground {
    async fn on(factory: &dyn ReadStoreFactory) -> Self {
        let name = format!("r{}", Uuid::now_v7().simple());
        let schema = json!({
            "type": "object",
            "properties": {"number": {"type": "integer"}, "turn": {"type": "integer"}}
        });
        let schema = EntitySchema::from_value(&name, schema).unwrap();
        let ground = Self {
            store: factory.store().await,
            log: Arc::new(FixedLog::of(&name)),
            view: Arc::new(EntityView::new(schema)),
        };
        let first = Alias::first(ground.collection(1), ground.view.fingerprint());
        ground
            .store
            .create_collection(&first.collection)
            .await
            .unwrap();
        let set = ground.store.compare_and_set_alias(&name, 0, &first).await;
        assert!(set.unwrap());
        ground
    }

    fn collection(&self, number: u64) -> String {
        format!("{}_v{number}", self.view.name())
    }

    fn replay(&self) -> Replay {
        let options = ReplayOptions {
            page_max_events: 7,
            lease: Duration::from_secs(2),
            beat: Duration::from_millis(200),
            compare: Compare::Full,
            ..ReplayOptions::default()
        };
        Replay::new(self.store.clone(), self.log.clone()).with_options(options)
    }

    async fn run(&self) -> Result<Replayed, ReplayError> {
        let never = CancellationToken::new();
        self.replay().run(&self.view, &|_| {}, &never).await
    }

    /// As [`Ground::run`], after another one was killed: of that one a beat may still be on its way, as if it lived.
    async fn run_after_it(&self) -> Result<Replayed, ReplayError> {
        loop {
            match self.run().await {
                Err(ReplayError::AlreadyRunning { .. }) => {}
                done => return done,
            }
        }
    }

    async fn back(&self) -> Result<Replayed, ReplayError> {
        let never = CancellationToken::new();
        let replay = self.replay();
        replay.roll_back(&self.view, true, &|_| {}, &never).await
    }

    /// Replays until `is_time`, and is killed then.
    async fn killed_when(&self, is_time: impl Fn(&ReplayProgress<'_>) -> bool + Sync) {
        let (dying, dead) = tokio::sync::watch::channel(false);
        let die = |told: ReplayProgress<'_>| {
            if is_time(&told) {
                dying.send_replace(true);
            }
        };
        let (replay, never) = (self.replay(), CancellationToken::new());
        let mut dead = dead;
        tokio::select! {
            biased;
            _ = dead.wait_for(|dead| *dead) => {}
            done = replay.run(&self.view, &die, &never) => panic!("{done:?}"),
        }
    }

    async fn alias(&self) -> Alias {
        let alias = self.store.load_alias(self.view.name()).await;
        alias.unwrap().unwrap()
    }

    /// Whether something of this version is paused.
    async fn rests(&self, number: u64) -> bool {
        let states = self.store.load_states(&self.collection(number)).await;
        states.unwrap().iter().any(|(.., record)| record.paused)
    }
}

/// All of the log is in the version that is read then; the one before is kept; the hash is that of any other time.
pub async fn a_replay_builds_what_the_log_says(factory: &dyn ReadStoreFactory) {
    let ground = Ground::on(factory).await;
    let first = ground.run().await.unwrap();
    assert_eq!((first.number, first.events, first.resumed), (2, EVENTS, 0));
    assert_eq!(first.documents, Some(DOCUMENTS - 1));
    assert_eq!(first.documents_before, Some(0));
    let second = ground.run().await.unwrap();
    assert_eq!(second.documents_before, first.documents);
    assert_eq!(second.compared, first.compared);
    assert_eq!(second.compared.unwrap().documents, DOCUMENTS);
    let alias = ground.alias().await;
    assert_eq!(alias.collection, ground.collection(3));
    assert_eq!(alias.previous, Some(ground.collection(2)));
    assert_eq!(alias.retired, [ground.collection(1)]);
}

/// Another one finishes what it began, from where it was.
pub async fn a_replay_that_is_killed_is_gone_on_with(factory: &dyn ReadStoreFactory) {
    let ground = Ground::on(factory).await;
    let half = |told: &ReplayProgress<'_>| matches!(told, ReplayProgress::Folded(Progress { events, .. }) if *events >= EVENTS / 2);
    ground.killed_when(half).await;
    assert_eq!(ground.alias().await.collection, ground.collection(1));
    let done = ground.run_after_it().await.unwrap();
    assert_eq!(done.collection, ground.collection(2));
    assert!(done.resumed >= EVENTS / 2, "{done:?}");
    assert_eq!(done.resumed + done.events, EVENTS);
    assert_eq!(done.documents, Some(DOCUMENTS - 1));
}

/// What it had paused is woken, or is the version before the next one by then.
pub async fn a_replay_that_dies_while_it_takes_over_leaves_nothing_at_rest(
    factory: &dyn ReadStoreFactory,
) {
    let ground = Ground::on(factory).await;
    ground.run().await.unwrap();
    let switching = |told: &ReplayProgress<'_>| matches!(told, ReplayProgress::Switching);
    ground.killed_when(switching).await;
    let done = ground.run_after_it().await.unwrap();
    assert_eq!((done.number, done.events), (3, 0));
    assert!(!ground.rests(3).await);
    assert!(ground.rests(2).await);
    assert_eq!(ground.alias().await.replaying, None);
}

/// Nobody is ever led to it.
pub async fn a_version_that_was_damaged_is_never_read(factory: &dyn ReadStoreFactory) {
    let ground = Ground::on(factory).await;
    let comparing = |told: &ReplayProgress<'_>| matches!(told, ReplayProgress::Comparing(_));
    ground.killed_when(comparing).await;
    let building = ground.collection(2);
    let found = ground.store.get(&building, &["d7"]).await.unwrap();
    let mut document = found.into_iter().next().unwrap();
    document.data.insert("number".to_owned(), json!(8));
    let damaged = [DocumentWrite::Replace(document)];
    ground.store.write(&building, &damaged).await.unwrap();
    match ground.run_after_it().await {
        Err(ReplayError::Differs {
            differing: 1,
            named,
            ..
        }) => assert_eq!(named, ["d7"]),
        other => panic!("{other:?}"),
    }
    let alias = ground.alias().await;
    assert_eq!(alias.collection, ground.collection(1));
    assert_eq!((alias.replaying, alias.retired), (None, vec![building]));
    assert_eq!(ground.run().await.unwrap().collection, ground.collection(3));
}

/// One of them is told so.
pub async fn of_two_replays_at_once_one_is_made(factory: &dyn ReadStoreFactory) {
    let ground = Ground::on(factory).await;
    let both = tokio::join!(ground.run(), ground.run());
    let (done, refused) = match both {
        (Ok(done), refused) => (done, refused),
        (refused, done) => (done.unwrap(), refused),
    };
    assert!(
        matches!(refused, Err(ReplayError::AlreadyRunning { .. })),
        "{refused:?}"
    );
    assert_eq!(done.collection, ground.collection(2));
    assert_eq!(ground.alias().await.last_number, 2);
}

/// Two versions change places, each awake while it is read, until the one before is let go of.
pub async fn a_rollback_leads_back_and_forth(factory: &dyn ReadStoreFactory) {
    let ground = Ground::on(factory).await;
    ground.run().await.unwrap();
    ground.run().await.unwrap();
    for (read, before) in [(2, 3), (3, 2)] {
        let back = ground.back().await.unwrap();
        assert_eq!(back.collection, ground.collection(read));
        assert_eq!(back.previous, ground.collection(before));
        assert_eq!(back.compared.unwrap().documents, DOCUMENTS);
        assert!(!ground.rests(read).await);
    }
    let cleaned = ground.replay().clean(ground.view.name()).await;
    assert_eq!(cleaned.unwrap(), Some(ground.collection(2)));
    let nothing = ground.back().await;
    assert!(
        matches!(nothing, Err(ReplayError::NothingBefore { .. })),
        "{nothing:?}"
    );
}

/// What was damaged, or should not be there, is what the log says afterwards, where it is; nothing else is touched.
pub async fn one_document_is_made_right_where_it_is(factory: &dyn ReadStoreFactory) {
    let ground = Ground::on(factory).await;
    ground.run().await.unwrap();
    let (read, replay) = (ground.collection(2), ground.replay());
    let get = async |id: &str| {
        let found = ground.store.get(&read, &[id]).await.unwrap();
        found.into_iter().next().unwrap()
    };
    let put = async |write: DocumentWrite| {
        let written = ground.store.write(&read, &[write]).await.unwrap();
        assert_eq!(written, [Written::Applied]);
    };
    let only = async |only: Only| {
        let never = CancellationToken::new();
        let done = replay.run_only(&ground.view, &only, &|_| {}, &never).await;
        done.unwrap().documents[0].mended
    };
    let (right, other) = (get("d7").await, get("d8").await);
    let mut damaged = right.clone();
    damaged.data.insert("number".to_owned(), json!(8));
    damaged.applied.clear();
    put(DocumentWrite::Replace(damaged)).await;
    let stranger = Document {
        id: "stranger".to_owned(),
        ..right.clone()
    };
    put(DocumentWrite::Insert(stranger)).await;
    let document = |id: &str| Only::Document(id.to_owned());
    assert_eq!(only(document("d7")).await, Mended::Corrected);
    let again = Only::Aggregate("d7".to_owned());
    assert_eq!(only(again).await, Mended::Unchanged);
    assert_eq!(only(document("stranger")).await, Mended::Removed);
    assert_eq!(only(document("stranger")).await, Mended::Absent);
    assert!(get("stranger").await.deleted);
    let revision = right.revision + 2;
    assert_eq!(get("d7").await, Document { revision, ..right });
    assert_eq!(get("d8").await, other);
    assert_eq!(ground.alias().await.collection, read);
}

/// Runs the conformance suite of replay: `replay_conformance!(module, factory)` makes a module with one test a case. `factory` is an
/// expression that gives a [`ReadStoreFactory`](crate::store::conformance::ReadStoreFactory). The crate that calls it needs
/// tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! replay_conformance {
    ($module:ident, $factory:expr) => {
        $crate::replay_conformance!(@cases $module, $factory,
            a_replay_builds_what_the_log_says,
            a_replay_that_is_killed_is_gone_on_with,
            a_replay_that_dies_while_it_takes_over_leaves_nothing_at_rest,
            a_version_that_was_damaged_is_never_read,
            of_two_replays_at_once_one_is_made,
            a_rollback_leads_back_and_forth,
            one_document_is_made_right_where_it_is,
        );
    };
    (@cases $module:ident, $factory:expr, $($case:ident,)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may be named by its path")]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::replay_conformance::$case(&$factory).await;
                }
            )*
        }
    };
}
