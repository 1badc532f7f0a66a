//! Replays while writes and reads go on, and replays that are cancelled, die, hang or meet each other.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use tidelog_eventbus::FailurePolicy;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{CatchUpError, Compare, Replay, ReplayError, ReplayOptions, ReplayProgress, Replayed};
use crate::consistency::ReadOf;
use crate::store::{Document, DocumentWrite, Progress, ReadStore, Written};
use crate::testing::{
    Change, FaultyStore, Process, Reading, System, authors, edition, eventually, posts,
};

/// The posts of a system that keeps both views, `count` of them, all projected.
async fn kept(count: usize) -> (System, Process) {
    let system = System::new();
    let process = system.start(vec![posts(), authors()]);
    for n in 0..count {
        system.write(&format!("p{n}"), "one").await;
    }
    settled(&system).await;
    (system, process)
}

async fn settled(system: &System) {
    system.settled(&*posts()).await;
    system.settled(&*authors()).await;
}

async fn run(replay: &Replay) -> Result<Replayed, ReplayError> {
    let never = CancellationToken::new();
    replay.run(&posts(), &|_| {}, &never).await
}

/// The same, a few events at a time, so that there is a middle. (Of 600 events not all are folded before the first progress
/// is told.)
fn in_small_steps(system: &System, store: &FaultyStore) -> Replay {
    system.replay_on(store.clone()).with_options(ReplayOptions {
        page_max_events: 5,
        ..System::options().replay
    })
}

/// Waits until no replay of the posts runs, nor has paused anything.
async fn left_alone(system: &System) {
    eventually("nobody replays it", async || {
        let running = system.alias("post").await.replaying;
        running.is_none_or(|running| running.is_left() && !running.switching)
    })
    .await;
}

/// What a replay that went away has built, for the next one to go on with.
async fn left(system: &System) -> Option<String> {
    let left = system.alias("post").await.replaying?;
    assert!(left.is_left() && !left.switching, "{left:?}");
    Some(left.collection)
}

/// That the version that is read goes on: it is not paused, and has what is written now.
async fn goes_on(system: &System, collection: &str) {
    assert_eq!(system.alias("post").await.collection, collection);
    let states = system.states(collection).await;
    assert!(states.iter().all(|state| !state.paused), "{states:?}");
    system.write("after", "one").await;
    settled(system).await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_takes_over_while_writes_and_reads_go_on() {
    // So many that the growing log has to be run after.
    let (system, process) = kept(2_200).await;
    let reading = Reading::of(&system, "post");
    let (versions, consistency) = system.reader();
    let replay = system.replay();
    let replaying = async { run(&replay).await.unwrap() };
    let begun = Instant::now();
    let mut written = 0;
    let writing = async {
        loop {
            // What is in one version when the write is seen is in each that a reader is led to afterwards.
            let id = format!("q{written}");
            let token = system.write(&id, "one").await;
            written += 1;
            let deadline = Instant::now() + Duration::from_secs(60);
            consistency
                .wait_for("post", ReadOf::Any, &token, deadline)
                .await
                .unwrap();
            let current = versions.latest("post").await.unwrap().unwrap();
            let collection = &current.alias.collection;
            let found = crate::store::ReadStore::get(&system.store, collection, &[&id]).await;
            assert_eq!(found.unwrap().len(), 1, "{id} in {collection}");
            let is_over = collection == "post_v2" && begun.elapsed() > Duration::from_secs(2);
            if is_over {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (replayed, ()) = tokio::join!(replaying, writing);
    settled(&system).await;
    assert!(reading.stop().await > 10);
    assert_eq!(
        system.store.led_to().len(),
        3,
        "{:?}",
        system.store.led_to()
    );
    assert_eq!(replayed.view, "post");
    assert_eq!(
        (replayed.collection.as_str(), replayed.number),
        ("post_v2", 2)
    );
    assert_eq!(replayed.previous, "post_v1");
    assert!(replayed.events >= 2_200);
    assert!(replayed.documents >= Some(2_200));
    let alias = system.alias("post").await;
    assert_eq!(alias.previous.as_deref(), Some("post_v1"));
    assert_eq!((alias.replaying, alias.retired.len()), (None, 0));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_cancelled_in_the_middle_leaves_the_old_version_in_use() {
    let (system, process) = kept(600).await;
    let cancel = CancellationToken::new();
    let in_the_middle = |told: ReplayProgress<'_>| {
        if matches!(told, ReplayProgress::Folded(Progress { events, .. }) if events >= 50) {
            cancel.cancel();
        }
    };
    let replay = in_small_steps(&system, &system.store);
    let cancelled = replay.run(&posts(), &in_the_middle, &cancel).await;
    assert!(
        matches!(cancelled, Err(ReplayError::Cancelled)),
        "{cancelled:?}"
    );
    assert_eq!(left(&system).await.as_deref(), Some("post_v2"));
    goes_on(&system, "post_v1").await;
    // The next one can go on at once.
    let begun = Instant::now();
    let replayed = run(&system.replay()).await.unwrap();
    assert_eq!(replayed.collection, "post_v2");
    assert!(replayed.resumed >= 50, "{replayed:?}");
    assert_eq!(replayed.events + replayed.resumed, 601);
    assert!(begun.elapsed() < System::options().replay.lease);
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_killed_at_any_moment_does_no_harm() {
    let mut deaths = 0;
    for calls in 0.. {
        let (system, process) = kept(12).await;
        let store = system.store.elsewhere();
        let replay = in_small_steps(&system, &store);
        store.freeze_after(calls);
        tokio::select! {
            done = run(&replay) => {
                done.unwrap();
                break;
            }
            // Its future is dropped: it does nothing more.
            () = store.frozen() => deaths += 1,
        }
        system.write("q", "one").await;
        left_alone(&system).await;
        let before = system.alias("post").await;
        goes_on(&system, &before.collection).await;
        let replayed = run(&system.replay()).await.unwrap();
        // One that had claimed the view is gone on with; one that had switched was done.
        let expected = before.replaying.map_or_else(
            || format!("post_v{}", before.number + 1),
            |left| left.collection,
        );
        assert_eq!(replayed.collection, expected);
        settled(&system).await;
        process.stop().await;
    }
    assert!(deaths > 20, "{deaths}");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_killed_goes_on_where_it_was() {
    const EVENTS: u64 = 1_800;
    const PAGE: u64 = 5;
    let (system, process) = kept(1_800).await;
    let read = AtomicU64::new(0);
    let count = |told: ReplayProgress<'_>| {
        if let ReplayProgress::Folded(Progress { events, .. }) = told {
            read.fetch_max(events, Ordering::SeqCst);
        }
    };
    let (mut before, mut written) = (0, 0);
    for third in 1..3 {
        let store = system.store.elsewhere();
        let replay = in_small_steps(&system, &store);
        let die = |told: ReplayProgress<'_>| {
            count(told);
            if read.load(Ordering::SeqCst) >= EVENTS * third / 3 {
                store.freeze_after(0);
            }
        };
        let (view, never) = (posts(), CancellationToken::new());
        tokio::select! {
            done = replay.run(&view, &die, &never) => panic!("{done:?}"),
            () = store.frozen() => {}
        }
        left_alone(&system).await;
        assert_eq!(left(&system).await.as_deref(), Some("post_v2"));
        written += store.documents_handed_over();
        let read = read.load(Ordering::SeqCst);
        assert!(read > before && read < EVENTS, "{read}");
        before = read;
    }
    let store = system.store.elsewhere();
    let replayed = run(&in_small_steps(&system, &store)).await.unwrap();
    written += store.documents_handed_over();
    assert_eq!(replayed.collection, "post_v2");
    assert!(replayed.resumed >= before, "{replayed:?} after {before}");
    assert_eq!(replayed.events + replayed.resumed, EVENTS);
    assert_eq!(replayed.documents, Some(EVENTS));
    // Each death costs a page a partition that is folded again, at most.
    let most = EVENTS + 2 * u64::from(system.log.partitions().count()) * PAGE;
    assert!(written as u64 <= most, "{written}");
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_throttled_takes_its_time_and_says_how_long() {
    let (system, process) = kept(6_000).await;
    let replay = system.replay().with_options(ReplayOptions {
        max_events_per_second: NonZeroU32::new(1_000),
        ..System::options().replay
    });
    let begun = Instant::now();
    let told: Mutex<Vec<Progress>> = Mutex::default();
    let note = |progress: ReplayProgress<'_>| {
        if let ReplayProgress::Folded(progress) = progress {
            told.lock().unwrap().push(progress);
        }
    };
    let (view, never) = (posts(), CancellationToken::new());
    let looking = async {
        sleep(Duration::from_secs(3)).await;
        let running = system.alias("post").await.replaying.unwrap();
        assert!(!running.switching);
        running.progress.unwrap()
    };
    let (replayed, seen) = tokio::join!(replay.run(&view, &note, &never), looking);
    assert_eq!(replayed.unwrap().documents, Some(6_000));
    // The last page is not waited for, nor is what is left when the version before comes to rest.
    let took = begun.elapsed();
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    // Another process sees it too.
    assert!((2_500..4_000).contains(&seen.events), "{seen:?}");
    assert_eq!(seen.of, 6_000);
    assert!((900..1_300).contains(&seen.per_second), "{seen:?}");
    assert!((2..=3).contains(&seen.eta_seconds().unwrap()), "{seen:?}");
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted_by_key(|told| told.events));
    assert_eq!(
        told.last().map(|told| (told.events, told.of)),
        Some((6_000, 6_000))
    );
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_another_definition_begins_anew() {
    let (system, process) = kept(600).await;
    let store = system.store.elsewhere();
    let replay = in_small_steps(&system, &store);
    let die = |told: ReplayProgress<'_>| {
        if matches!(told, ReplayProgress::Folded(Progress { events, .. }) if events >= 50) {
            store.freeze_after(0);
        }
    };
    let never = CancellationToken::new();
    let changed = edition(2, posts());
    tokio::select! {
        done = replay.run(&changed, &die, &never) => panic!("{done:?}"),
        () = store.frozen() => {}
    }
    left_alone(&system).await;
    assert_eq!(left(&system).await.as_deref(), Some("post_v2"));
    let replayed = run(&system.replay()).await.unwrap();
    assert_eq!(
        (replayed.collection.as_str(), replayed.resumed),
        ("post_v3", 0)
    );
    let retired = system.alias("post").await.retired;
    assert_eq!(retired, ["post_v2"]);
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_replay_built_is_cleared_away_when_nobody_goes_on_with_it() {
    let (system, process) = kept(50).await;
    let store = system.store.elsewhere();
    let replay = in_small_steps(&system, &store);
    store.freeze_after(20);
    tokio::select! {
        done = run(&replay) => panic!("{done:?}"),
        () = store.frozen() => {}
    }
    left_alone(&system).await;
    assert_eq!(left(&system).await.as_deref(), Some("post_v2"));
    sleep(System::options().resume_grace / 2).await;
    assert_eq!(left(&system).await.as_deref(), Some("post_v2"));
    sleep(System::options().resume_grace).await;
    let alias = system.alias("post").await;
    assert_eq!(
        (alias.replaying, alias.retired),
        (None, vec!["post_v2".to_owned()])
    );
    goes_on(&system, "post_v1").await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_died_is_taken_over_by_the_next_one_when_nobody_keeps_the_views() {
    let (system, process) = kept(50).await;
    let store = system.store.elsewhere();
    let replay = in_small_steps(&system, &store);
    let freeze = |told: ReplayProgress<'_>| {
        if matches!(told, ReplayProgress::Switching) {
            // The announcement takes two calls; a few later the version that is read is paused.
            store.freeze_after(6);
        }
    };
    let never = CancellationToken::new();
    let view = posts();
    tokio::select! {
        done = replay.run(&view, &freeze, &never) => panic!("{done:?}"),
        () = store.frozen() => {}
    }
    let states = system.states("post_v1").await;
    assert!(states.iter().any(|state| state.paused), "{states:?}");
    process.kill();
    let begun = Instant::now();
    let replayed = run(&system.replay()).await.unwrap();
    assert!(begun.elapsed() >= System::options().replay.lease);
    assert_eq!(replayed.collection, "post_v2");
    let process = system.start(vec![posts(), authors()]);
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_was_thought_dead_does_no_harm_when_it_wakes_at_any_moment() {
    let mut superseded = 0;
    for calls in 0.. {
        let (system, process) = kept(12).await;
        let store = system.store.elsewhere();
        // It never beats, and so learns of its fate by nothing but what it does.
        let beat = Duration::from_secs(100_000);
        let options = System::options().replay;
        let replay = in_small_steps(&system, &store).with_options(ReplayOptions {
            page_max_events: 5,
            beat,
            ..options
        });
        store.freeze_after(calls);
        let mut zombie = tokio::spawn(async move { run(&replay).await });
        tokio::select! {
            done = &mut zombie => {
                done.unwrap().unwrap();
                break;
            }
            () = store.frozen() => {}
        }
        left_alone(&system).await;
        let led_to = system.store.led_to().len();
        store.thaw();
        match zombie.await.unwrap() {
            Err(ReplayError::Superseded) => {
                superseded += 1;
                goes_on(&system, "post_v1").await;
            }
            // It had not yet claimed the view, or it had switched.
            Ok(done) => assert_eq!(system.alias("post").await.collection, done.collection),
            Err(error) => panic!("{error:?} after {calls} calls"),
        }
        assert!(system.store.led_to().len() <= led_to + 1);
        settled(&system).await;
        run(&system.replay()).await.unwrap();
        settled(&system).await;
        process.stop().await;
    }
    assert!(superseded > 20, "{superseded}");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_was_thought_dead_does_no_harm_beside_the_one_that_goes_on() {
    let mut beside = 0;
    for calls in 0.. {
        let (system, process) = kept(60).await;
        let store = system.store.elsewhere();
        let beat = Duration::from_secs(100_000);
        let options = System::options().replay;
        let replay = in_small_steps(&system, &store).with_options(ReplayOptions {
            page_max_events: 5,
            beat,
            ..options
        });
        store.freeze_after(calls);
        let mut zombie = tokio::spawn(async move { run(&replay).await });
        tokio::select! {
            done = &mut zombie => {
                done.unwrap().unwrap();
                break;
            }
            () = store.frozen() => {}
        }
        left_alone(&system).await;
        let successor = in_small_steps(&system, &system.store);
        // It wakes early in the successor's run, in the middle, or at the end.
        let wake = |told: ReplayProgress<'_>| match told {
            ReplayProgress::Folded(Progress { events, .. }) if events >= [1, 30, 60][calls % 3] => {
                store.thaw()
            }
            _ => {}
        };
        let (view, never) = (posts(), CancellationToken::new());
        let taken_over = left(&system).await.is_some();
        let done = successor.run(&view, &wake, &never).await;
        store.thaw();
        match zombie.await.unwrap() {
            Err(ReplayError::Superseded | ReplayError::AlreadyRunning { .. }) => {}
            // The successor had taken over with what both built; or one came after the other.
            Ok(_) => {}
            Err(error) => panic!("{error:?} after {calls} calls"),
        }
        match done {
            Ok(_) => {}
            // One that had not yet claimed the view when it stood still was there first.
            Err(ReplayError::AlreadyRunning { .. }) if !taken_over => {}
            Err(error) => panic!("{error:?} after {calls} calls"),
        }
        beside += usize::from(taken_over);
        left_alone(&system).await;
        let collection = system.alias("post").await.collection;
        assert_ne!(collection, "post_v1");
        goes_on(&system, &collection).await;
        process.stop().await;
    }
    assert!(beside > 20, "{beside}");
}

#[tokio::test(start_paused = true)]
async fn of_two_replays_of_a_view_at_once_the_second_is_turned_down() {
    let (system, process) = kept(100).await;
    let (one, two) = (system.replay(), system.replay());
    let (first, second) = tokio::join!(run(&one), run(&two));
    let first = first.unwrap();
    let owner = match second {
        Err(ReplayError::AlreadyRunning { view, owner }) if view == "post" => owner,
        other => panic!("{other:?}"),
    };
    assert!(owner.starts_with("replay-"), "{owner}");
    assert_eq!(first.collection, "post_v2");
    assert_eq!(system.alias("post").await.last_number, 2);
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_switch_is_answered_late_knows_that_it_took_over() {
    let (system, process) = kept(50).await;
    let store = system.store.elsewhere();
    store.answer_alias_after(System::options().replay.beat * 5);
    let replayed = run(&system.replay_on(store)).await.unwrap();
    assert_eq!(replayed.collection, system.alias("post").await.collection);
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn replays_of_different_views_do_not_meet() {
    let (system, process) = kept(100).await;
    let (one, two) = (system.replay(), system.replay());
    let never = CancellationToken::new();
    let authors = authors();
    let (first, second) = tokio::join!(run(&one), two.run(&authors, &|_| {}, &never));
    assert_eq!(first.unwrap().collection, "post_v2");
    assert_eq!(second.unwrap().collection, "author_v2");
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_view_that_has_not_been_built_cannot_be_replayed() {
    let system = System::new();
    system.write("p", "one").await;
    let replayed = run(&system.replay()).await;
    assert!(
        matches!(&replayed, Err(ReplayError::NotBuilt { view }) if view == "post"),
        "{replayed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_in_the_middle_of_a_replay_is_waited_for() {
    let (system, process) = kept(600).await;
    let store = system.store.elsewhere();
    let replay = in_small_steps(&system, &store);
    let waited: Mutex<Vec<String>> = Mutex::default();
    let fail = |told: ReplayProgress<'_>| {
        let mut waited = waited.lock().unwrap();
        match told {
            ReplayProgress::Folded(Progress { events, .. })
                if events >= 50 && waited.is_empty() =>
            {
                store.cut_off(true);
            }
            ReplayProgress::Waiting { reason } => {
                if waited.is_empty() {
                    store.tear_next_write(2);
                }
                waited.push(reason.to_owned());
                store.cut_off(false);
            }
            _ => {}
        }
    };
    let never = CancellationToken::new();
    let replayed = replay.run(&posts(), &fail, &never).await.unwrap();
    assert_eq!(replayed.documents, Some(600));
    let waited = waited.lock().unwrap().join("\n");
    assert!(
        waited.contains("cut off") && waited.contains("torn"),
        "{waited}"
    );
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_that_cannot_be_folded_is_set_aside_by_the_replay() {
    let (system, process) = kept(20).await;
    let unreadable = json!("no object");
    system.log.append("bad", "post.created", &unreadable).await;
    let replayed = run(&system.replay()).await.unwrap();
    assert_eq!((replayed.documents, replayed.parked), (Some(20), 1));
    assert_eq!(replayed.compared.unwrap().documents, 20);
    let states = system.states("post_v2").await;
    let parked = states.iter().flat_map(|state| state.parked.iter());
    let parked: Vec<_> = parked.cloned().collect();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].sequence, "bad");
    assert!(parked[0].error.contains("post/bad"), "{}", parked[0].error);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_would_set_more_aside_than_it_may_ends_and_the_version_before_is_read() {
    let (system, process) = kept(20).await;
    let unreadable = json!("no object");
    for bad in 0..20 {
        let id = format!("bad{bad}");
        system.log.append(&id, "post.created", &unreadable).await;
    }
    let replay = system.replay().with_options(ReplayOptions {
        policy: FailurePolicy {
            max_parked: 3,
            ..FailurePolicy::default()
        },
        ..System::options().replay
    });
    let failed = run(&replay).await.unwrap_err();
    assert!(
        matches!(failed, ReplayError::Fold(CatchUpError::Full { max: 3, .. })),
        "{failed:?}"
    );
    let alias = system.alias("post").await;
    assert_eq!((alias.number, alias.replaying), (1, None));
    let states = system.states("post_v1").await;
    assert!(states.iter().all(|state| !state.paused));
    process.stop().await;
}

/// Replays the posts, and does something to a document of the new version before it is compared.
async fn spoilt(
    system: &System,
    compare: Compare,
    spoil: fn(Document) -> DocumentWrite,
) -> Result<Replayed, ReplayError> {
    let replay = system.replay().with_options(ReplayOptions {
        compare,
        ..System::options().replay
    });
    let done = AtomicBool::new(false);
    let store = system.store.elsewhere();
    let spoil = |told: ReplayProgress<'_>| {
        if matches!(told, ReplayProgress::Comparing(_)) && !done.swap(true, Ordering::SeqCst) {
            let alias = store
                .load_alias("post")
                .now_or_never()
                .unwrap()
                .unwrap()
                .unwrap();
            let collection = alias.replaying.unwrap().collection;
            let found = store.get(&collection, &["p7"]).now_or_never().unwrap();
            let write = spoil(found.unwrap().remove(0));
            let written = store.write(&collection, &[write]).now_or_never().unwrap();
            assert_eq!(written.unwrap(), [Written::Applied]);
        }
    };
    let (view, never) = (posts(), CancellationToken::new());
    replay.run(&view, &spoil, &never).await
}

#[tokio::test(start_paused = true)]
async fn a_version_that_differs_from_the_log_is_never_read() {
    let (system, process) = kept(300).await;
    let other_data: fn(Document) -> DocumentWrite = |mut document| {
        document.data.insert("title".to_owned(), json!("spoilt"));
        DocumentWrite::Replace(document)
    };
    let deleted: fn(Document) -> DocumentWrite = |document| {
        DocumentWrite::Replace(Document {
            deleted: true,
            ..document
        })
    };
    let other_version: fn(Document) -> DocumentWrite = |document| {
        let version = document.version.next();
        DocumentWrite::Replace(Document {
            version,
            ..document
        })
    };
    let stranger: fn(Document) -> DocumentWrite = |document| {
        DocumentWrite::Insert(Document {
            id: "stranger".to_owned(),
            ..document
        })
    };
    for (spoil, name) in [
        (other_data, "p7"),
        (deleted, "p7"),
        (other_version, "p7"),
        (stranger, "(1 that should not be there)"),
    ] {
        let built = system.alias("post").await.last_number + 1;
        // A sample of all of them is as good.
        let compare = if built % 2 == 0 {
            Compare::Full
        } else {
            Compare::Sample(1_000)
        };
        match spoilt(&system, compare, spoil).await {
            Err(ReplayError::Differs {
                documents: 300,
                differing: 1,
                named,
            }) => assert_eq!(named, [name]),
            other => panic!("{other:?}"),
        }
        let alias = system.alias("post").await;
        assert_eq!((alias.number, &alias.replaying), (1, &None));
        assert!(alias.retired.contains(&format!("post_v{built}")));
    }
    assert_eq!(
        system.store.led_to().len(),
        2,
        "{:?}",
        system.store.led_to()
    );
    goes_on(&system, "post_v1").await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_that_was_lost_is_found_out_before_the_version_is_read() {
    let (system, process) = kept(100).await;
    let store = system.store.elsewhere();
    store.lose_a_document();
    let lost = run(&system.replay_on(store)).await.unwrap_err();
    assert!(
        matches!(
            &lost,
            ReplayError::Differs {
                documents: 100,
                differing: 1,
                ..
            }
        ),
        "{lost:?}"
    );
    goes_on(&system, "post_v1").await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_documents_have_the_same_hash_and_a_sample_is_a_part_of_them() {
    let (system, process) = kept(400).await;
    system.log.change("p1", &Change::Delete).await;
    for view in [posts(), authors()] {
        let never = CancellationToken::new();
        let first = system.replay().run(&view, &|_| {}, &never).await.unwrap();
        let second = system.replay().run(&view, &|_| {}, &never).await.unwrap();
        assert_eq!(first.compared, second.compared);
        let documents = first.compared.unwrap().documents;
        assert_eq!(documents, if view.name() == "post" { 400 } else { 1 });
    }
    let replay = system.replay().with_options(ReplayOptions {
        compare: Compare::Sample(40),
        ..System::options().replay
    });
    let sampled = run(&replay).await.unwrap().compared.unwrap().documents;
    assert!((10..100).contains(&sampled), "{sampled}");
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_was_thought_dead_takes_no_other_partition_from_its_successors() {
    let mut woken = 0;
    for calls in (0..).step_by(3) {
        let (system, process) = kept(40).await;
        let store = system.store.elsewhere();
        let replay = system.replay_on(store.clone()).with_options(ReplayOptions {
            page_max_events: 5,
            concurrent_partitions: 1,
            beat: Duration::from_secs(100_000),
            ..System::options().replay
        });
        store.freeze_after(calls);
        let mut zombie = tokio::spawn(async move { run(&replay).await });
        tokio::select! {
            done = &mut zombie => {
                done.unwrap().unwrap();
                break;
            }
            () = store.frozen() => {}
        }
        left_alone(&system).await;
        let epochs = async || {
            let states = system.states("post_v2").await;
            states.iter().map(|state| state.epoch).sum::<u64>()
        };
        let before = (left(&system).await, epochs().await);
        store.thaw();
        let ended = zombie.await.unwrap();
        if before.0.is_some() {
            assert!(matches!(ended, Err(ReplayError::Superseded)), "{ended:?}");
            // One take was on its way when it stood still.
            let taken = epochs().await - before.1;
            assert!(taken <= 1, "{taken} after {calls} calls");
            woken += 1;
        }
        process.stop().await;
    }
    assert!(woken > 10, "{woken}");
}
