//! The projector against the plain fold: whatever is redelivered, torn or run twice, the view is the same.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use tidelog_domain::{Partition, RecordedEvent, ViewDefinition};
use tidelog_eventbus::{Handler, HandlerError};

use super::{MAX_KEY_BYTES, ProjectError, Projector};
use crate::store::ReadStore;
use crate::testing::{Change, FaultyStore, Log, authors, folded, posts, stored, titles};

const COLLECTION: &str = "view_v1";
const PARTITIONS: u16 = 3;

/// What a run of the subscription does next.
#[derive(Clone, Debug)]
enum Step {
    /// The owner handles the next events and writes its checkpoint.
    Handle { partition: u16, events: usize },
    /// The owner handles the next events and dies before the checkpoint; another one takes over.
    Crash { partition: u16, events: usize },
    /// The store dies after some documents of the bulk were written.
    Tear {
        partition: u16,
        events: usize,
        documents: usize,
    },
    /// An earlier owner, with what it remembers, handles events again from any place.
    Zombie {
        partition: u16,
        from: usize,
        events: usize,
    },
    /// An earlier owner and the owner handle the same events at once.
    Race { partition: u16, events: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    let events = 1..12_usize;
    prop_oneof![
        4 => (partition.clone(), events.clone()).prop_map(|(partition, events)| Step::Handle { partition, events }),
        2 => (partition.clone(), events.clone()).prop_map(|(partition, events)| Step::Crash { partition, events }),
        1 => (partition.clone(), events.clone(), 0..4_usize).prop_map(|(partition, events, documents)| Step::Tear { partition, events, documents }),
        2 => (partition.clone(), 0..30_usize, events.clone()).prop_map(|(partition, from, events)| Step::Zombie { partition, from, events }),
        1 => (partition, events).prop_map(|(partition, events)| Step::Race { partition, events }),
    ]
}

fn change() -> impl Strategy<Value = (u8, Change)> {
    let author = prop_oneof![Just("ann"), Just("bob"), Just("cleo")];
    let change = prop_oneof![
        5 => ("[a-c]", author).prop_map(|(title, author)| Change::Write(title, author.to_owned())),
        1 => Just(Change::Delete),
    ];
    (0..8_u8, change)
}

/// A view being projected, by owners that come and go.
struct Run {
    view: Arc<dyn ViewDefinition>,
    store: FaultyStore,
    events: Vec<Vec<RecordedEvent>>,
    checkpoints: Vec<usize>,
    owner: Projector,
    zombie: Projector,
}

impl Run {
    async fn new(view: Arc<dyn ViewDefinition>, changes: &[(u8, Change)]) -> Self {
        let log = Log::new(PARTITIONS);
        for (post, change) in changes {
            log.change(&format!("p{post}"), change).await;
        }
        let mut events = Vec::new();
        for partition in 0..PARTITIONS {
            events.push(log.events(Partition::new(partition)).await);
        }
        let store = FaultyStore::default();
        let projector = || Projector::new(view.clone(), Arc::new(store.clone()), COLLECTION);
        Self {
            owner: projector(),
            zombie: projector(),
            checkpoints: vec![0; usize::from(PARTITIONS)],
            view,
            store,
            events,
        }
    }

    /// At most `count` events of `partition`, from the `from`th on.
    fn slice(&self, partition: u16, from: usize, count: usize) -> &[RecordedEvent] {
        let events = &self.events[usize::from(partition)];
        let end = events.len().min(from.saturating_add(count));
        &events[from.min(end)..end]
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Handle { partition, events } => self.handle(partition, events).await,
            Step::Crash { partition, events } => {
                let batch = self.next(partition, events);
                self.owner
                    .handle(Partition::new(partition), batch)
                    .await
                    .unwrap();
                self.replace_owner();
            }
            Step::Tear {
                partition,
                events,
                documents,
            } => {
                self.store.tear_next_write(documents);
                let batch = self.next(partition, events);
                let torn = self.owner.handle(Partition::new(partition), batch).await;
                self.store.heal();
                assert!(
                    matches!(torn, Ok(_) | Err(HandlerError::Transient(_))),
                    "{torn:?}"
                );
            }
            Step::Zombie {
                partition,
                from,
                events,
            } => {
                // It may be behind, and never ahead of what an owner has begun to handle.
                let from = from.min(self.checkpoints[usize::from(partition)]);
                let batch = self.slice(partition, from, events);
                self.zombie
                    .handle(Partition::new(partition), batch)
                    .await
                    .unwrap();
            }
            Step::Race { partition, events } => {
                let batch = self.next(partition, events);
                let partition = Partition::new(partition);
                let (owner, zombie) = tokio::join!(
                    self.owner.handle(partition, batch),
                    self.zombie.handle(partition, batch)
                );
                owner.unwrap();
                zombie.unwrap();
            }
        }
    }

    fn next(&self, partition: u16, events: usize) -> &[RecordedEvent] {
        self.slice(partition, self.checkpoints[usize::from(partition)], events)
    }

    async fn handle(&mut self, partition: u16, events: usize) {
        let batch = self.next(partition, events);
        self.owner
            .handle(Partition::new(partition), batch)
            .await
            .unwrap();
        self.checkpoints[usize::from(partition)] += batch.len();
    }

    fn replace_owner(&mut self) {
        let next = Projector::new(self.view.clone(), Arc::new(self.store.clone()), COLLECTION);
        self.zombie = std::mem::replace(&mut self.owner, next);
    }

    /// Handles what is left.
    async fn finish(&mut self) {
        for partition in 0..PARTITIONS {
            self.handle(partition, usize::MAX).await;
        }
    }
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(test)
}

fn equals_the_fold(view: Arc<dyn ViewDefinition>, changes: &[(u8, Change)], steps: Vec<Step>) {
    in_runtime(async {
        let mut run = Run::new(view, changes).await;
        for step in steps {
            run.take(step).await;
        }
        run.finish().await;
        let expected = folded(&*run.view, &run.events.concat());
        let found = stored(&*run.view, &run.store, COLLECTION).await;
        assert_eq!(found, expected);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_full_state_view_equals_the_fold_after_any_faults(
        changes in prop::collection::vec(change(), 0..60),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        equals_the_fold(posts(), &changes, steps);
    }

    #[test]
    fn a_folded_view_over_several_partitions_equals_the_fold_after_any_faults(
        changes in prop::collection::vec(change(), 0..60),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        equals_the_fold(authors(), &changes, steps);
    }

    #[test]
    fn a_folded_view_of_single_streams_equals_the_fold_after_any_faults(
        changes in prop::collection::vec(change(), 0..60),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        equals_the_fold(titles(), &changes, steps);
    }
}

/// Posts `a` and `b`, two versions each, and the view in a store.
async fn two_posts() -> (Log, FaultyStore, Projector, Vec<RecordedEvent>) {
    let log = Log::new(1);
    for title in ["one", "two"] {
        for post in ["a", "b"] {
            let change = Change::Write(title.to_owned(), "ann".to_owned());
            log.change(post, &change).await;
        }
    }
    let store = FaultyStore::default();
    let projector = Projector::new(posts(), Arc::new(store.clone()), COLLECTION);
    let events = log.all().await;
    (log, store, projector, events)
}

fn causes(error: HandlerError) -> String {
    tidelog_domain::causes(&error)
}

#[tokio::test]
async fn a_document_that_vanished_stops_the_view_instead_of_coming_back_wrong() {
    let (_, store, projector, events) = two_posts().await;
    projector
        .handle(Partition::new(0), &events[..2])
        .await
        .unwrap();
    store.drop_collection(COLLECTION).await.unwrap();
    let stopped = projector.handle(Partition::new(0), &events[2..]).await;
    let Err(HandlerError::Permanent { position, source }) = stopped else {
        panic!("{stopped:?}");
    };
    assert_eq!(position, events[2].position);
    assert!(matches!(
        *source.downcast::<ProjectError>().unwrap(),
        ProjectError::Damaged { version: 2, .. }
    ));
}

#[tokio::test]
async fn a_redelivered_batch_writes_nothing() {
    let (_, store, projector, events) = two_posts().await;
    projector.handle(Partition::new(0), &events).await.unwrap();
    let before = store.get(COLLECTION, &["a", "b"]).await.unwrap();
    for part in [&events[..], &events[..2], &events[2..], &events[1..3]] {
        projector.handle(Partition::new(0), part).await.unwrap();
    }
    assert_eq!(store.get(COLLECTION, &["a", "b"]).await.unwrap(), before);
    assert_eq!(before[0].version.number(), 2);
}

#[tokio::test]
async fn a_deleted_post_stays_deleted_after_redelivery_and_keeps_its_last_state() {
    let (log, store, projector, _) = two_posts().await;
    log.change("a", &Change::Delete).await;
    let events = log.all().await;
    projector.handle(Partition::new(0), &events).await.unwrap();
    for event in &events {
        projector
            .handle(Partition::new(0), std::slice::from_ref(event))
            .await
            .unwrap();
    }
    let post = store.get(COLLECTION, &["a"]).await.unwrap().remove(0);
    assert!(post.deleted);
    assert_eq!(post.data["title"], json!("two"));
    assert_eq!(post.version.number(), 3);
    assert_eq!(post.created_at, events[0].recorded_at);
    assert_eq!(post.updated_at, events[4].recorded_at);
}

#[tokio::test]
async fn a_document_of_one_stream_has_the_version_of_the_stream_whatever_events_the_view_passes_over()
 {
    let (_, store, _, events) = two_posts().await;
    let projector = Projector::new(titles(), Arc::new(store.clone()), COLLECTION);
    projector.handle(Partition::new(0), &events).await.unwrap();
    let title = store.get(COLLECTION, &["a"]).await.unwrap().remove(0);
    // Its creation was passed over.
    assert_eq!(title.data["changes"], json!(1));
    assert_eq!(title.version.number(), 2);
}

#[tokio::test]
async fn an_unavailable_store_is_transient() {
    for view in [posts(), authors()] {
        let (_, store, _, events) = two_posts().await;
        store.cut_off(true);
        let projector = Projector::new(view, Arc::new(store), COLLECTION);
        let stopped = projector.handle(Partition::new(0), &events).await;
        assert!(
            matches!(stopped, Err(HandlerError::Transient(_))),
            "{stopped:?}"
        );
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_named_with_its_position() {
    for view in [posts(), authors()] {
        let (log, store, _, _) = two_posts().await;
        log.append("c", "post.created", &json!("no object")).await;
        let events = log.all().await;
        let projector = Projector::new(view, Arc::new(store), COLLECTION);
        let stopped = projector
            .handle(Partition::new(0), &events)
            .await
            .unwrap_err();
        assert!(
            matches!(stopped, HandlerError::Permanent { position, .. } if position == events[4].position)
        );
        let text = causes(stopped);
        let named = "post.created, version 1 of post/c, at 0-5";
        assert!(
            text.contains(named) && text.contains(&events[4].id.to_string()),
            "{text}"
        );
        // Everything before it can be handled without it.
        projector
            .handle(Partition::new(0), &events[..4])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_document_that_can_never_be_stored_is_named_with_its_last_event() {
    let (log, store, projector, _) = two_posts().await;
    let state = json!({"state": {"a\0b": 1}, "before": {}});
    log.append("c", "post.created", &state).await;
    let events = log.all().await;
    let stopped = projector
        .handle(Partition::new(0), &events)
        .await
        .unwrap_err();
    assert!(
        matches!(stopped, HandlerError::Permanent { position, .. } if position == events[4].position)
    );
    let text = causes(stopped);
    assert!(text.contains("document c of view_v1"), "{text}");
    projector
        .handle(Partition::new(0), &events[..4])
        .await
        .unwrap();
    assert_eq!(store.get(COLLECTION, &["a", "b"]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_that_is_no_key_stops_the_view_at_its_event() {
    for author in [String::new(), "x".repeat(MAX_KEY_BYTES + 1)] {
        let (log, store, _, _) = two_posts().await;
        log.change("c", &Change::Write("t".to_owned(), author))
            .await;
        let events = log.all().await;
        let projector = Projector::new(authors(), Arc::new(store), COLLECTION);
        let stopped = projector
            .handle(Partition::new(0), &events)
            .await
            .unwrap_err();
        assert!(
            matches!(stopped, HandlerError::Permanent { position, .. } if position == events[4].position)
        );
    }
}

#[tokio::test]
async fn only_what_the_view_consumes_is_wanted() {
    let (log, _, projector, events) = two_posts().await;
    assert!(projector.wants(&events[0]));
    log.append("d", "ticket.opened", &json!({})).await;
    let typed = Projector::new(authors(), Arc::new(FaultyStore::default()), COLLECTION);
    let events = log.all().await;
    assert!(typed.wants(&events[0]) && !typed.wants(&events[4]));
}
