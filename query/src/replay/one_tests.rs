//! Documents that are replayed alone, beside the subscription that writes them.

use std::sync::Arc;

use serde_json::json;
use tidelog_command::store::EventStore;
use tidelog_domain::{Partition, Position, StreamId, ViewDefinition};
use tidelog_eventbus::{LogReader, Operations, Skip, StateStore};
use tokio_util::sync::CancellationToken;

use super::{Mended, Only, Replay, ReplayError, ReplayedOnly};
use crate::store::{Document, DocumentWrite, ReadStore, Written};
use crate::testing::{
    Change, FaultyStore, Process, System, authors, edition, eventually, posts, titles,
};

/// What is done to a document, by hand.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Its data is another.
    Data,
    /// Its version, times and positions are lower than they were.
    Age,
    /// It says that it has applied what is still to come.
    Ahead,
    /// It is a tombstone.
    Deleted,
}

const DAMAGES: [Damage; 4] = [Damage::Data, Damage::Age, Damage::Ahead, Damage::Deleted];

/// A system that keeps all views, with a post `p` by `ann` among others of hers and of `bob`.
async fn kept() -> (System, Process) {
    let system = System::new();
    let process = system.start(vec![posts(), authors(), titles()]);
    for (id, title, author) in [
        ("p", "one", "ann"),
        ("q", "one", "ann"),
        ("r", "one", "bob"),
        ("p", "two", "ann"),
        ("q", "two", "bob"),
        ("p", "three", "ann"),
        ("r", "two", "bob"),
    ] {
        change(&system, id, title, author).await;
    }
    settled(&system).await;
    (system, process)
}

async fn change(system: &System, id: &str, title: &str, author: &str) {
    let change = Change::Write(title.to_owned(), author.to_owned());
    system.log.change(id, &change).await.unwrap();
}

async fn settled(system: &System) {
    for view in [posts(), authors(), titles()] {
        system.settled(&*view).await;
    }
}

/// The views, each with a document of it.
fn documents() -> [(Arc<dyn ViewDefinition>, &'static str); 3] {
    [(posts(), "p"), (authors(), "ann"), (titles(), "p")]
}

fn document(key: &str) -> Only {
    Only::Document(key.to_owned())
}

async fn run(
    replay: &Replay,
    view: &Arc<dyn ViewDefinition>,
    only: &Only,
) -> Result<ReplayedOnly, ReplayError> {
    let never = CancellationToken::new();
    replay.run_only(view, only, &|_| {}, &never).await
}

async fn mended(system: &System, view: &Arc<dyn ViewDefinition>, key: &str) -> Mended {
    let done = run(&system.replay(), view, &document(key)).await.unwrap();
    assert_eq!(done.documents.len(), 1);
    assert_eq!(done.documents[0].id, key);
    done.documents[0].mended
}

async fn stored(system: &System, view: &Arc<dyn ViewDefinition>, key: &str) -> Option<Document> {
    let collection = system.alias(view.name()).await.collection;
    let found = system.store.get(&collection, &[key]).await.unwrap();
    found.into_iter().next()
}

/// Writes `document`, whatever it was before.
async fn put(system: &System, view: &Arc<dyn ViewDefinition>, document: Document) {
    let collection = system.alias(view.name()).await.collection;
    let write = match stored(system, view, &document.id).await {
        Some(before) => DocumentWrite::Replace(Document {
            revision: before.revision,
            ..document
        }),
        None => DocumentWrite::Insert(document),
    };
    let written = system.store.write(&collection, &[write]).await.unwrap();
    assert_eq!(written, [Written::Applied]);
}

async fn damage(system: &System, view: &Arc<dyn ViewDefinition>, key: &str, damage: Damage) {
    let mut document = stored(system, view, key).await.unwrap();
    match damage {
        Damage::Data => {
            document.data.insert("posts".to_owned(), json!(77));
            document.data.insert("title".to_owned(), json!("spoilt"));
        }
        Damage::Age => {
            document.version = document.version.next().next();
            document.created_at = chrono::DateTime::UNIX_EPOCH;
            for position in document.applied.values_mut() {
                *position = Position::new(position.number() - 1);
            }
        }
        Damage::Ahead => {
            for position in document.applied.values_mut() {
                *position = Position::new(position.number() + 1_000);
            }
        }
        Damage::Deleted => document.deleted = true,
    }
    put(system, view, document).await;
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_right_is_left_as_it_is() {
    let (system, process) = kept().await;
    for (view, key) in documents() {
        let before = stored(&system, &view, key).await;
        assert_eq!(mended(&system, &view, key).await, Mended::Unchanged);
        assert_eq!(stored(&system, &view, key).await, before);
        assert_eq!(mended(&system, &view, "nobody").await, Mended::Absent);
        assert_eq!(stored(&system, &view, "nobody").await, None);
        // No stream can be called this.
        assert_eq!(mended(&system, &view, "no/body").await, Mended::Absent);
    }
    // Of one stream: only its partition is read.
    for number in 0..20 {
        change(&system, &format!("s{number}"), "one", "bob").await;
    }
    settled(&system).await;
    let one = run(&system.replay(), &posts(), &document("p")).await;
    let stream = StreamId::new("post", "p").unwrap();
    let partition = stream.partition(system.log.partitions());
    let there = system.log.events(partition).await.len() as u64;
    assert!(there < 27);
    assert_eq!(one.unwrap().events, there);
    let all = run(&system.replay(), &authors(), &document("ann")).await;
    let all = all.unwrap();
    assert_eq!((all.events, all.number), (27, 1));
    assert_eq!(
        (all.view.as_str(), all.collection.as_str()),
        ("author", "author_v1")
    );
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_document_comes_back_and_goes_on() {
    for how in DAMAGES {
        let (system, process) = kept().await;
        for (view, key) in documents() {
            damage(&system, &view, key, how).await;
            assert_eq!(
                mended(&system, &view, key).await,
                Mended::Corrected,
                "{how:?}"
            );
            system.settled(&*view).await;
        }
        change(&system, "p", "four", "bob").await;
        settled(&system).await;
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_document_comes_back_also_where_writes_were_set_aside_because_of_it() {
    let (system, process) = kept().await;
    for (view, key) in documents() {
        let collection = system.alias(view.name()).await.collection;
        system.store.take_away(&collection, key);
    }
    // The posts cannot go on with what is not there; the others begin a document that lacks what was before.
    change(&system, "p", "four", "ann").await;
    let is_parked = async || {
        let states = system.states("post_v1").await;
        states.iter().any(|state| state.parked.get("p").is_some())
    };
    eventually("it is set aside", is_parked).await;
    for (view, key) in documents() {
        let what = mended(&system, &view, key).await;
        assert!(
            matches!(what, Mended::Restored | Mended::Corrected),
            "{what:?}"
        );
    }
    eventually("it is tried again", async || !is_parked().await).await;
    change(&system, "p", "five", "bob").await;
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_that_should_not_be_there_is_deleted_and_begins_anew_with_its_first_event() {
    let (system, process) = kept().await;
    for (view, like) in documents() {
        let stranger = Document {
            id: "cat".to_owned(),
            created_at: chrono::DateTime::UNIX_EPOCH,
            ..stored(&system, &view, like).await.unwrap()
        };
        put(&system, &view, stranger).await;
        assert_eq!(mended(&system, &view, "cat").await, Mended::Removed);
        let left = stored(&system, &view, "cat").await.unwrap();
        assert!(left.deleted && left.applied.is_empty() && left.data.is_empty());
        assert_eq!(mended(&system, &view, "cat").await, Mended::Absent);
        assert_eq!(
            stored(&system, &view, "cat").await.unwrap().revision,
            left.revision
        );
    }
    settled(&system).await;
    change(&system, "cat", "one", "cat").await;
    change(&system, "cat", "two", "cat").await;
    settled(&system).await;
    assert!(!stored(&system, &authors(), "cat").await.unwrap().deleted);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_an_aggregate_all_documents_come_back_that_its_events_touch() {
    let (system, process) = kept().await;
    let view = authors();
    for key in ["ann", "bob"] {
        damage(&system, &view, key, Damage::Data).await;
    }
    let of = |name: &str| Only::Aggregate(name.to_owned());
    let done = run(&system.replay(), &view, &of("q")).await.unwrap();
    let what: Vec<_> = done
        .documents
        .iter()
        .map(|done| (done.id.as_str(), done.mended))
        .collect();
    assert_eq!(
        what,
        [("ann", Mended::Corrected), ("bob", Mended::Corrected)]
    );
    let done = run(&system.replay(), &view, &of("post/p")).await.unwrap();
    assert_eq!(done.documents.len(), 1);
    assert_eq!(done.documents[0].mended, Mended::Unchanged);
    for name in ["nobody", "order/p", "p/p"] {
        let nothing = run(&system.replay(), &view, &of(name)).await;
        assert!(
            matches!(&nothing, Err(ReplayError::NothingOf { view, aggregate }) if view == "author" && aggregate == name),
            "{name}: {nothing:?}"
        );
    }
    // Where a document is of one stream, it is that of the aggregate.
    damage(&system, &posts(), "q", Damage::Data).await;
    let done = run(&system.replay(), &posts(), &of("post/q"))
        .await
        .unwrap();
    assert_eq!(done.documents[0].mended, Mended::Corrected);
    let nothing = run(&system.replay(), &posts(), &of("order/q")).await;
    assert!(
        matches!(nothing, Err(ReplayError::NothingOf { .. })),
        "{nothing:?}"
    );
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_whose_event_cannot_be_folded_is_refused_until_that_is_skipped() {
    let (system, process) = kept().await;
    let unreadable = json!("no object");
    system.log.append("p", "post.updated", &unreadable).await;
    for view in ["post", "title"] {
        eventually("it is set aside", async || {
            let states = system.states(&format!("{view}_v1")).await;
            states.iter().any(|state| state.parked.get("p").is_some())
        })
        .await;
    }
    for view in [posts(), titles()] {
        let before = stored(&system, &view, "p").await;
        match run(&system.replay(), &view, &document("p")).await {
            Err(ReplayError::SetAside {
                view: of,
                document,
                reason,
            }) => {
                assert_eq!((of.as_str(), document.as_str()), (view.name(), "p"));
                assert!(reason.contains("post/p"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stored(&system, &view, "p").await, before);
        // Another one is not concerned.
        assert_eq!(mended(&system, &view, "q").await, Mended::Unchanged);
        let collection = system.alias(view.name()).await.collection;
        let operations = Operations::new(
            &*collection,
            Arc::new(system.store.clone()),
            system.log.reader(),
        );
        let skip = Skip {
            sequence: "p",
            reason: "a test",
            ..Skip::default()
        };
        operations.skip(&skip).await.unwrap();
        eventually("it is skipped", async || {
            let states = system.states(&collection).await;
            states.iter().all(|state| state.parked.is_empty())
        })
        .await;
        // What was skipped is passed over again.
        let before = stored(&system, &view, "p").await;
        assert_eq!(mended(&system, &view, "p").await, Mended::Unchanged);
        damage(&system, &view, "p", Damage::Data).await;
        assert_eq!(mended(&system, &view, "p").await, Mended::Corrected);
        let after = stored(&system, &view, "p").await;
        let data = |document: Option<Document>| document.unwrap().data;
        assert_eq!(data(after), data(before));
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_of_another_definition_or_history_is_left_alone() {
    let (system, process) = kept().await;
    let other = run(&system.replay(), &edition(2, posts()), &document("p")).await;
    assert!(
        matches!(other, Err(ReplayError::OtherDefinition { .. })),
        "{other:?}"
    );
    process.stop().await;
    system.log.store.renew_history().await.unwrap();
    let other = run(&system.replay(), &posts(), &document("p")).await;
    assert!(
        matches!(other, Err(ReplayError::OtherHistory { .. })),
        "{other:?}"
    );
    let empty = System::new();
    let unbuilt = run(&empty.replay(), &posts(), &document("p")).await;
    assert!(
        matches!(unbuilt, Err(ReplayError::NotBuilt { .. })),
        "{unbuilt:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_at_any_moment_leaves_the_document_as_it_was_or_right() {
    for (view, key) in documents() {
        let mut deaths = 0;
        for calls in 0.. {
            let (system, process) = kept().await;
            damage(&system, &view, key, DAMAGES[calls % DAMAGES.len()]).await;
            let damaged = stored(&system, &view, key).await;
            let store = system.store.elsewhere();
            let replay = system.replay_on(store.clone());
            store.freeze_after(calls);
            let only = document(key);
            tokio::select! {
                done = run(&replay, &view, &only) => {
                    done.unwrap();
                    break;
                }
                () = store.frozen() => deaths += 1,
            }
            if stored(&system, &view, key).await != damaged {
                system.settled(&*view).await;
            }
            run(&system.replay(), &view, &document(key)).await.unwrap();
            change(&system, "p", "four", "bob").await;
            settled(&system).await;
            process.stop().await;
        }
        assert!(deaths >= 6, "{deaths}");
    }
}

/// What happens to the document while its replay stands still.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// It is written, by its subscription.
    Written,
    /// It is written, and damaged again.
    Damaged,
    /// Another one replays it, and it is written.
    Replayed,
    /// Readers are led to another version.
    Switched,
}

#[tokio::test(start_paused = true)]
async fn who_stands_still_at_any_moment_and_goes_on_later_loses_nothing() {
    for meanwhile in [
        Meanwhile::Written,
        Meanwhile::Damaged,
        Meanwhile::Replayed,
        Meanwhile::Switched,
    ] {
        for (view, key) in documents() {
            for how in DAMAGES {
                let stood = stands_still_at_each_call(&view, key, how, meanwhile).await;
                assert!(stood >= 6, "{stood}");
            }
        }
    }
}

/// Replays a document that is damaged so, and stands still at each call in turn; gives how many there are.
async fn stands_still_at_each_call(
    view: &Arc<dyn ViewDefinition>,
    key: &'static str,
    how: Damage,
    meanwhile: Meanwhile,
) -> usize {
    for calls in 0.. {
        let (system, process) = kept().await;
        damage(&system, view, key, how).await;
        let store = system.store.elsewhere();
        if !stands_still(&system, view, key, &store, calls, meanwhile).await {
            return calls;
        }
        if matches!(meanwhile, Meanwhile::Damaged) {
            // It may have been right when it was last looked at.
            mended(&system, view, key).await;
        }
        system.settled(&**view).await;
        assert_eq!(mended(&system, view, key).await, Mended::Unchanged);
        change(&system, "p", "six", "ann").await;
        settled(&system).await;
        process.stop().await;
    }
    unreachable!("a replay ends")
}

/// Replays a document by way of `store`, which stands still after `calls` until something has happened; false where it was done
/// before.
async fn stands_still(
    system: &System,
    view: &Arc<dyn ViewDefinition>,
    key: &'static str,
    store: &FaultyStore,
    calls: usize,
    meanwhile: Meanwhile,
) -> bool {
    let replay = system.replay_on(store.clone());
    store.freeze_after(calls);
    let definition = view.clone();
    let mut replaying =
        tokio::spawn(async move { run(&replay, &definition, &document(key)).await });
    tokio::select! {
        done = &mut replaying => {
            done.unwrap().unwrap();
            return false;
        }
        () = store.frozen() => {}
    }
    if matches!(meanwhile, Meanwhile::Replayed) {
        run(&system.replay(), view, &document(key)).await.unwrap();
    }
    change(system, "p", "four", "bob").await;
    change(system, "p", "five", "ann").await;
    caught_up(system, view).await;
    match meanwhile {
        Meanwhile::Damaged => damage(system, view, key, Damage::Data).await,
        Meanwhile::Switched => {
            let never = CancellationToken::new();
            let whole = system.replay();
            whole.run(view, &|_| {}, &never).await.unwrap();
        }
        Meanwhile::Written | Meanwhile::Replayed => {}
    }
    store.thaw();
    replaying.await.unwrap().unwrap();
    true
}

/// Waits until the subscription of `view` has all of the log, right or wrong.
async fn caught_up(system: &System, view: &Arc<dyn ViewDefinition>) {
    let heads = system.log.store.heads().await.unwrap();
    let collection = system.alias(view.name()).await.collection;
    eventually("it is caught up", async || {
        let states = system.store.load_states(&collection).await.unwrap();
        (0..).map(Partition::new).zip(&heads).all(|(own, head)| {
            let state = states.iter().find(|(partition, ..)| *partition == own);
            state.is_some_and(|(.., record)| record.checkpoint.cursor.position >= *head)
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_stands_still_at_any_moment_goes_on_with_what_was_replayed_meanwhile() {
    for (view, key) in documents() {
        let mut ahead = 0;
        for calls in 0..40 {
            let (system, process) = kept().await;
            process.stop().await;
            // A process keeps the view by a way of its own, and stands still in the middle of its work.
            let store = system.store.elsewhere();
            let process = system.start_with(vec![view.clone()], System::options(), store.clone());
            change(&system, "p", "four", "bob").await;
            system.settled(&*view).await;
            store.freeze_after(calls);
            change(&system, "p", "five", "ann").await;
            store.frozen().await;
            ahead += usize::from(is_ahead(&system, &view, key).await);
            damage(&system, &view, key, Damage::Data).await;
            run(&system.replay(), &view, &document(key)).await.unwrap();
            store.thaw();
            change(&system, "p", "six", "ann").await;
            system.settled(&*view).await;
            process.stop().await;
        }
        // Between what it wrote and the checkpoint.
        assert!(ahead > 0);
    }
}

/// Whether a document has what is after the checkpoint.
async fn is_ahead(system: &System, view: &Arc<dyn ViewDefinition>, key: &str) -> bool {
    let collection = system.alias(view.name()).await.collection;
    let states = system.store.load_states(&collection).await.unwrap();
    let document = stored(system, view, key).await.unwrap();
    states.iter().any(|(partition, _, record)| {
        let applied = document.applied.get(partition);
        applied.is_some_and(|applied| *applied > record.checkpoint.cursor.position)
    })
}
