//! The views of a program over restarts, deaths, faults and new definitions.
//!
//! Time stands still while anything has something to do, so that no limit depends on the machine.

use std::sync::Arc;
use std::time::Duration;

use tidelog_command::store::EventStore;
use tidelog_domain::ViewDefinition;
use tidelog_eventbus::{PartitionState, StateRecord, SubscriptionOptions};
use tokio::time::{Instant, sleep};

use super::{Views, ViewsOptions};
use crate::live::ViewState;
use crate::testing::{
    Change, Process, Reading, System, authors, edition, eventually, folded, posts, posts_by,
    shortened, stored,
};

/// Both views: full state, and folded over several partitions.
fn both() -> Vec<Arc<dyn ViewDefinition>> {
    vec![posts(), authors()]
}

async fn settled(system: &System) {
    for view in both() {
        system.settled(&*view).await;
    }
}

/// Writes `count` posts, each once.
async fn write(system: &System, prefix: &str, count: usize) {
    for n in 0..count {
        system.write(&format!("{prefix}{n}"), "one").await;
    }
}

/// The owners of the partitions of `collection`, each once.
async fn owners(system: &System, collection: &str) -> Vec<Option<String>> {
    let states = system.states(collection).await;
    let mut owners: Vec<_> = states.into_iter().map(|state| state.owner).collect();
    owners.sort();
    owners.dedup();
    owners
}

/// Options with which a process leaves a living one its partitions.
fn in_turn() -> ViewsOptions {
    let options = System::options();
    ViewsOptions {
        subscription: SubscriptionOptions {
            take_over_at_start: false,
            ..options.subscription
        },
        ..options
    }
}

/// Waits until what `views` does for `view` is as it should be.
async fn state(views: &Views, view: &str, what: &str, is: impl Fn(&ViewState) -> bool) {
    let live = views.live();
    eventually(what, async || live.states().get(view).is_some_and(&is)).await;
}

#[tokio::test(start_paused = true)]
async fn views_are_kept_up_to_date() {
    let system = System::new();
    let process = system.start(both());
    for title in ["one", "two", "three"] {
        for n in 0..30 {
            system.write(&format!("p{n}"), title).await;
        }
        system.write(title, title).await;
        settled(&system).await;
        system.log.change(title, &Change::Delete).await;
        settled(&system).await;
    }
    let live = process.views.live();
    for collection in ["post_v1", "author_v1"] {
        eventually("no lag", async || live.lag(collection) == Some(0)).await;
    }
    let following = ViewState::Following {
        collection: "post_v1".to_owned(),
    };
    assert_eq!(live.states()["post"], following);
    process.stop().await;
    assert_eq!(owners(&system, "post_v1").await, [None]);
    assert!(live.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_first_version_is_not_read_before_it_has_all_that_the_log_had() {
    let system = System::new();
    write(&system, "p", 300).await;
    // Whatever it has done when it is stopped: either nobody is led to the view, or it has all of the log.
    let mut unread = 0;
    for calls in 0.. {
        let store = system.store.elsewhere();
        store.freeze_after(calls);
        let process = system.start_with(vec![posts()], System::options(), store.clone());
        store.frozen().await;
        let (versions, _) = system.reader();
        if versions.current("post").await.unwrap().is_some() {
            let found = stored(&*posts(), &system.store, "post_v1").await;
            assert_eq!(found, folded(&*posts(), &system.log.all().await));
            process.kill();
            break;
        }
        unread += 1;
        process.kill();
    }
    assert!(unread > 3, "{unread}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_from_the_checkpoint() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    write(&system, "p", 50).await;
    system.settled(&*posts()).await;
    process.stop().await;
    let before = system.store.documents_handed_over();
    let process = system.start(vec![posts()]);
    write(&system, "later", 3).await;
    system.settled(&*posts()).await;
    assert_eq!(system.store.documents_handed_over() - before, 3);
    assert_eq!(system.store.led_to(), ["post_v1"]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_again_and_again_loses_nothing_and_counts_nothing_twice() {
    let system = System::new();
    for life in 0..25 {
        let store = system.store.elsewhere();
        store.freeze_after(10 + 7 * life);
        let process = system.start_with(both(), System::options(), store.clone());
        for n in 0..10 {
            system.write(&format!("p{n}"), &format!("{life}")).await;
            system.write(&format!("p{life}-{n}"), "new").await;
        }
        store.frozen().await;
        process.kill();
    }
    let process = system.start(both());
    settled(&system).await;
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_share_the_partitions_until_one_dies() {
    let system = System::new();
    let first = system.start_with(both(), in_turn(), system.store.clone());
    write(&system, "p", 20).await;
    settled(&system).await;
    let first_alone = owners(&system, "post_v1").await;
    assert_eq!(first_alone.len(), 1);
    let second = system.start_with(both(), in_turn(), system.store.clone());
    for view in ["post_v1", "author_v1"] {
        eventually("each has its share", async || {
            let states = system.states(view).await;
            let of_first = |state: &&StateRecord| state.owner == first_alone[0];
            states.iter().filter(of_first).count() == states.len() / 2
                && states.iter().all(|state| state.owner.is_some())
        })
        .await;
    }
    let shared = owners(&system, "post_v1").await;
    sleep(in_turn().subscription.lease * 3).await;
    assert_eq!(owners(&system, "post_v1").await, shared);
    let died = Instant::now();
    first.kill();
    write(&system, "q", 20).await;
    settled(&system).await;
    // It was last heard of a third of a lease before it died, at the earliest.
    assert!(died.elapsed() >= in_turn().subscription.lease / 2);
    let successor = owners(&system, "post_v1").await;
    assert_eq!(successor.len(), 1);
    assert_ne!(successor, first_alone);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_hands_over_without_a_lease_to_wait_for() {
    let system = System::new();
    let first = system.start_with(both(), in_turn(), system.store.clone());
    write(&system, "p", 20).await;
    settled(&system).await;
    let second = system.start_with(both(), in_turn(), system.store.clone());
    eventually("each has its share", async || {
        owners(&system, "post_v1").await.len() == 2
    })
    .await;
    let stopped = Instant::now();
    first.stop().await;
    write(&system, "q", 20).await;
    settled(&system).await;
    assert!(stopped.elapsed() < in_turn().subscription.lease / 4);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_does_not_disturb_its_successor() {
    let system = System::new();
    let store = system.store.elsewhere();
    let zombie = system.start_with(both(), in_turn(), store.clone());
    write(&system, "p", 20).await;
    settled(&system).await;
    store.freeze_after(0);
    store.frozen().await;
    for n in 0..20 {
        system.write(&format!("p{n}"), "two").await;
    }
    let successor = system.start_with(both(), in_turn(), system.store.clone());
    settled(&system).await;
    store.thaw();
    for n in 0..20 {
        system.write(&format!("p{n}"), "three").await;
        sleep(Duration::from_millis(50)).await;
    }
    settled(&system).await;
    // It asks for its share like any other.
    eventually("each has its share", async || {
        owners(&system, "author_v1").await.len() == 2
    })
    .await;
    successor.stop().await;
    zombie.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_in_the_middle_is_waited_for() {
    let system = System::new();
    system.store.cut_off(true);
    let process = system.start(both());
    write(&system, "p", 20).await;
    sleep(Duration::from_secs(5)).await;
    system.store.cut_off(false);
    settled(&system).await;
    for round in 0..5 {
        system.store.cut_off(true);
        write(&system, &format!("q{round}-"), 10).await;
        let fails = |state: &PartitionState| matches!(state, PartitionState::BackingOff { .. });
        let live = process.views.live();
        let status = live.get("post_v1").unwrap();
        let failing = || status.partitions().iter().any(|p| fails(&p.state));
        eventually("a partition backs off", async || failing()).await;
        system.store.cut_off(false);
        system.store.tear_next_write(1);
        settled(&system).await;
    }
    process.stop().await;
    let mut led_to = system.store.led_to();
    led_to.sort();
    assert_eq!(led_to, ["author_v1", "post_v1"]);
}

#[tokio::test(start_paused = true)]
async fn views_are_replayed_by_themselves_when_the_log_has_a_new_history() {
    let system = System::new();
    let process = system.start(both());
    write(&system, "p", 30).await;
    settled(&system).await;
    let reading = Reading::of(&system, "post");
    system.log.store.renew_history().await.unwrap();
    write(&system, "q", 30).await;
    settled(&system).await;
    assert!(reading.stop().await > 1);
    for view in ["post", "author"] {
        let alias = system.alias(view).await;
        assert_eq!(alias.collection, format!("{view}_v2"));
        assert_eq!(alias.previous, Some(format!("{view}_v1")));
    }
    assert_eq!(system.store.led_to().len(), 4);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_version_that_was_begun_on_another_history_begins_anew() {
    let system = System::new();
    write(&system, "p", 30).await;
    let store = system.store.elsewhere();
    // It dies with some partitions written, and nobody led to them.
    store.freeze_after(12);
    let process = system.start_with(vec![posts()], System::options(), store.clone());
    store.frozen().await;
    process.kill();
    assert!(!system.states("post_v1").await.is_empty());
    assert!(!system.alias("post").await.built);
    system.log.store.renew_history().await.unwrap();
    let process = system.start(vec![posts()]);
    system.settled(&*posts()).await;
    let alias = system.alias("post").await;
    assert_eq!((alias.collection.as_str(), alias.built), ("post_v2", true));
    assert_eq!(alias.retired, ["post_v1"]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_version_that_another_definition_began_begins_anew() {
    for view in both() {
        let system = System::new();
        write(&system, "p", 30).await;
        let store = system.store.elsewhere();
        store.freeze_after(12);
        let process = system.start_with(vec![view.clone()], System::options(), store.clone());
        store.frozen().await;
        process.kill();
        assert!(!system.alias(view.name()).await.built);
        let second = edition(2, view);
        let process = system.start(vec![second.clone()]);
        system.settled(&*second).await;
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_definitions_that_begin_at_once_never_write_to_the_same_version() {
    let system = System::new();
    write(&system, "p", 30).await;
    let first = system.start(vec![posts()]);
    let second = edition(2, posts());
    let other = system.start(vec![second.clone()]);
    for n in 0..30 {
        system.write(&format!("q{n}"), "one").await;
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_secs(60)).await;
    let alias = system.alias("post").await;
    let is_second = alias.fingerprint == second.fingerprint();
    let view = if is_second { second } else { posts() };
    system.settled(&*view).await;
    first.stop().await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_view_with_another_definition_is_replayed_by_itself() {
    for view in both() {
        let system = System::new();
        let process = system.start(vec![view.clone()]);
        write(&system, "p", 30).await;
        system.settled(&*view).await;
        process.stop().await;
        let second = edition(2, view.clone());
        let process = system.start(vec![second.clone()]);
        let name = view.name();
        eventually("the second edition is read", async || {
            system.alias(name).await.number == 2
        })
        .await;
        assert_eq!(system.alias(name).await.fingerprint, second.fingerprint());
        write(&system, "q", 5).await;
        system.settled(&*second).await;
        process.stop().await;
        // The same program again has nothing to replay.
        let process = system.start(vec![second.clone()]);
        write(&system, "r", 5).await;
        system.settled(&*second).await;
        assert_eq!(system.store.led_to().len(), 2);
        process.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_may_not_set_aside_what_it_must_is_tried_now_and_then_and_the_old_version_is_kept()
 {
    let system = System::new();
    let process = system.start(vec![posts()]);
    write(&system, "p", 30).await;
    system.settled(&*posts()).await;
    process.stop().await;
    let unreadable = serde_json::json!("no object");
    system.log.append("bad", "post.created", &unreadable).await;
    let mut options = System::options();
    options.replay.policy.max_parked = 0;
    let slowest = options.subscription.policy.max_delay;
    let process = system.start_with(vec![edition(2, posts())], options, system.store.clone());
    state(
        &process.views,
        "post",
        "it says why",
        |state| matches!(state, ViewState::Waiting { reason } if reason.contains("no more are set aside")),
    )
    .await;
    sleep(slowest * 5).await;
    let alias = system.alias("post").await;
    assert_eq!(alias.number, 1);
    assert!((3..9).contains(&alias.last_number), "{alias:?}");
    let found = stored(&*posts(), &system.store, "post_v1").await;
    assert_eq!(found.len(), 30);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_can_read_every_event_takes_over_from_one_that_could_not() {
    let system = System::new();
    let older = system.start_with(vec![authors()], in_turn(), system.store.clone());
    write(&system, "p", 30).await;
    system.settled(&*authors()).await;
    // An author whose name is longer than a key may be: the counting of authors stops, and its partition with it.
    let author = "x".repeat(crate::MAX_KEY_BYTES + 1);
    let change = Change::Write("one".to_owned(), author);
    system.log.change("long", &change).await;
    let live = older.views.live();
    let status = live.get("author_v1").unwrap();
    let is_failed = |state: &PartitionState| matches!(state, PartitionState::Failed { .. });
    let failed = || status.partitions().iter().any(|p| is_failed(&p.state));
    eventually("a partition fails", async || failed()).await;
    let shorter = shortened(authors());
    let newer = system.start_with(vec![shorter.clone()], in_turn(), system.store.clone());
    eventually("it takes over", async || {
        system.alias("author").await.fingerprint == shorter.fingerprint()
    })
    .await;
    system.settled(&*shorter).await;
    older.stop().await;
    newer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_program_that_still_runs_leaves_the_newer_version_alone() {
    let system = System::new();
    let older = system.start_with(vec![posts()], in_turn(), system.store.clone());
    write(&system, "p", 30).await;
    system.settled(&*posts()).await;
    let reading = Reading::of(&system, "post");
    let second = edition(2, posts());
    let newer = system.start_with(vec![second.clone()], in_turn(), system.store.clone());
    state(&older.views, "post", "the older one waits", |state| {
        matches!(state, ViewState::Waiting { reason } if reason.contains("another program"))
    })
    .await;
    write(&system, "q", 30).await;
    sleep(Duration::from_secs(60)).await;
    system.settled(&*second).await;
    assert_eq!(system.store.led_to(), ["post_v1", "post_v2"]);
    assert!(reading.stop().await > 1);
    older.stop().await;
    newer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_version_is_kept_for_a_rollback_and_dropped_a_grace_after_the_next() {
    let system = System::new();
    let options = ViewsOptions {
        drop_grace: Duration::from_secs(60),
        ..System::options()
    };
    let process = system.start_with(vec![posts()], options, system.store.clone());
    write(&system, "p", 10).await;
    system.settled(&*posts()).await;
    let has = async |collection: &str| !system.states(collection).await.is_empty();
    replay(&process).await;
    sleep(Duration::from_secs(300)).await;
    assert!(has("post_v1").await && has("post_v2").await);
    assert_eq!(
        system.alias("post").await.previous.as_deref(),
        Some("post_v1")
    );
    replay(&process).await;
    sleep(Duration::from_secs(59)).await;
    assert!(has("post_v1").await);
    assert_eq!(system.alias("post").await.retired, ["post_v1"]);
    sleep(Duration::from_secs(2)).await;
    assert!(!has("post_v1").await);
    eventually("it is forgotten", async || {
        system.alias("post").await.retired.is_empty()
    })
    .await;
    assert!(has("post_v2").await && has("post_v3").await);
    system.settled(&*posts()).await;
    process.stop().await;
}

async fn replay(process: &Process) {
    let cancel = tokio_util::sync::CancellationToken::new();
    let replayed = process
        .views
        .replay("post")
        .run(&posts(), &|_| {}, &cancel)
        .await;
    replayed.unwrap();
}

/// The names of the indexes of `collection`.
async fn indexes(system: &System, collection: &str) -> usize {
    use crate::store::ReadStore;
    system.store.indexes(collection).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn indexes_are_made_while_the_view_is_kept_and_others_at_the_next_start() {
    let system = System::new();
    write(&system, "p", 20).await;
    let process = system.start(vec![posts_by(&["title", "-created_at"])]);
    system.settled(&*posts()).await;
    eventually("they are made", async || {
        indexes(&system, "post_v1").await == 2
    })
    .await;
    process.stop().await;
    // Nothing is built anew for it.
    let process = system.start(vec![posts_by(&["author"])]);
    eventually("the other one is made", async || {
        indexes(&system, "post_v1").await == 1
    })
    .await;
    write(&system, "q", 20).await;
    system.settled(&*posts()).await;
    assert_eq!(system.alias("post").await.number, 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_makes_the_indexes_before_readers_are_led_to_it() {
    use tokio_util::sync::CancellationToken;

    let system = System::new();
    write(&system, "p", 20).await;
    let process = system.start(vec![posts()]);
    system.settled(&*posts()).await;
    process.stop().await;
    let never = CancellationToken::new();
    let view = posts_by(&["title"]);
    let replayed = system.replay().run(&view, &|_| {}, &never).await.unwrap();
    assert_eq!(indexes(&system, &replayed.collection).await, 1);
    assert_eq!(indexes(&system, "post_v1").await, 0);
}

#[tokio::test(start_paused = true)]
async fn indexes_that_cannot_be_made_stop_nothing_and_are_made_when_they_can() {
    use tokio_util::sync::CancellationToken;

    let system = System::new();
    write(&system, "p", 20).await;
    let store = system.store.elsewhere();
    store.refuse_indexes(true);
    let view = posts_by(&["title"]);
    let process = system.start_with(vec![view.clone()], System::options(), store.clone());
    system.settled(&*view).await;
    let never = CancellationToken::new();
    let replay = system.replay_on(store.clone());
    let replayed = replay.run(&view, &|_| {}, &never).await.unwrap();
    write(&system, "q", 20).await;
    system.settled(&*view).await;
    assert_eq!(indexes(&system, &replayed.collection).await, 0);
    let report = crate::ViewReport::read(&*view, &system.store)
        .await
        .unwrap();
    assert_eq!(report.indexes[0].state, crate::store::IndexState::Missing);
    store.refuse_indexes(false);
    let made = async || indexes(&system, &replayed.collection).await == 1;
    eventually("they are made", made).await;
    let report = crate::ViewReport::read(&*view, &system.store)
        .await
        .unwrap();
    assert_eq!(report.indexes[0].state, crate::store::IndexState::Ready);
    assert_eq!(report.indexes[0].by, "title");
    process.stop().await;
}
