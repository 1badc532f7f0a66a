//! Going back to the version before, and keeping it until then.

use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::ViewDefinition;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Replay, ReplayError, ReplayOptions, Replayed};
use crate::live::ViewState;
use crate::testing::{Process, Reading, System, edition, eventually, posts};
use crate::views::ViewsOptions;

async fn run(
    replay: &Replay,
    view: &Arc<dyn ViewDefinition>,
    is_back: bool,
) -> Result<Replayed, ReplayError> {
    let never = CancellationToken::new();
    if is_back {
        replay.roll_back(view, true, &|_| {}, &never).await
    } else {
        replay.run(view, &|_| {}, &never).await
    }
}

/// Posts of a system that were replayed once.
async fn replayed(count: usize) -> (System, Process) {
    let system = System::new();
    let process = system.start(vec![posts()]);
    for n in 0..count {
        system.write(&format!("p{n}"), "one").await;
    }
    system.settled(&*posts()).await;
    run(&system.replay(), &posts(), false).await.unwrap();
    system.settled(&*posts()).await;
    (system, process)
}

async fn is_read(system: &System, collection: &str) {
    eventually("it is read", async || {
        system.alias("post").await.collection == collection
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn going_back_and_forth_under_writes_loses_nothing_and_no_reader_sees_less() {
    let (system, process) = replayed(200).await;
    let reading = Reading::of(&system, "post");
    let stop = CancellationToken::new();
    let writing = async {
        let mut written = 0;
        while !stop.is_cancelled() {
            system.write(&format!("q{written}"), "one").await;
            written += 1;
            sleep(Duration::from_millis(5)).await;
        }
        written
    };
    let turning = async {
        for expected in ["post_v1", "post_v2", "post_v1"] {
            sleep(Duration::from_secs(2)).await;
            let back = run(&system.replay(), &posts(), true).await.unwrap();
            assert_eq!(back.collection, expected);
            assert!(back.resumed >= 200, "{back:?}");
            // It was brought up to the log by what it had missed, and compared.
            assert!(back.events > 0 && back.compared.is_some(), "{back:?}");
        }
        sleep(Duration::from_secs(1)).await;
        stop.cancel();
    };
    let (written, ()) = tokio::join!(writing, turning);
    assert!(written > 500, "{written}");
    system.settled(&*posts()).await;
    assert!(reading.stop().await > 10);
    let alias = system.alias("post").await;
    assert_eq!((alias.number, alias.last_number), (1, 2));
    assert_eq!(alias.previous.as_deref(), Some("post_v2"));
    // A program of the definition that is read is not the one that was refused.
    assert_eq!(alias.refused, Vec::<String>::new());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_killed_at_any_moment_does_no_harm() {
    let mut deaths = 0;
    for calls in 0.. {
        let (system, process) = replayed(12).await;
        system.write("before", "one").await;
        system.settled(&*posts()).await;
        let store = system.store.elsewhere();
        let replay = system.replay_on(store.clone());
        store.freeze_after(calls);
        let view = posts();
        tokio::select! {
            done = run(&replay, &view, true) => {
                done.unwrap();
                break;
            }
            () = store.frozen() => deaths += 1,
        }
        system.write("q", "one").await;
        eventually("nobody replays it", async || {
            let running = system.alias("post").await.replaying;
            running.is_none_or(|running| running.is_left() && !running.switching)
        })
        .await;
        system.settled(&*posts()).await;
        let alias = system.alias("post").await;
        let states = system.states(&alias.collection).await;
        assert!(states.iter().all(|state| !state.paused), "{states:?}");
        assert_eq!(alias.retired, Vec::<String>::new());
        // Whatever was done, the other one of the two is gone back to now.
        let back = run(&system.replay(), &posts(), true).await.unwrap();
        assert_eq!(Some(&back.collection), alias.previous.as_ref());
        system.settled(&*posts()).await;
        process.stop().await;
    }
    assert!(deaths > 20, "{deaths}");
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_was_rolled_back_from_does_not_come_back_by_itself() {
    let system = System::new();
    let old = system.start(vec![posts()]);
    system.write("p", "one").await;
    system.settled(&*posts()).await;
    let changed = edition(2, posts());
    let new = system.start(vec![changed.clone()]);
    is_read(&system, "post_v2").await;
    // It is read as it was left, and the old program, which still runs, goes on with it.
    let back = run(&system.replay(), &changed, true).await.unwrap();
    assert_eq!((back.collection.as_str(), back.events), ("post_v1", 0));
    system.write("q", "one").await;
    system.settled(&*posts()).await;
    new.stop().await;
    let new = system.start(vec![changed.clone()]);
    eventually("it has looked", async || {
        let state = new.views.live().states().remove("post");
        matches!(state, Some(ViewState::Waiting { reason }) if reason.contains("rolled back"))
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    system.write("r", "one").await;
    system.settled(&*posts()).await;
    assert_eq!(system.alias("post").await.collection, "post_v1");
    // Somebody wants it again.
    run(&system.replay(), &changed, false).await.unwrap();
    system.settled(&*changed).await;
    assert_eq!(system.alias("post").await.refused, Vec::<String>::new());
    old.stop().await;
    new.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_program_whose_definition_was_read_before_goes_back_instead_of_building_anew() {
    let system = System::new();
    let old = system.start(vec![posts()]);
    system.write("p", "one").await;
    system.settled(&*posts()).await;
    old.stop().await;
    let changed = edition(2, posts());
    let new = system.start(vec![changed.clone()]);
    is_read(&system, "post_v2").await;
    system.write("q", "one").await;
    system.settled(&*changed).await;
    new.stop().await;
    let old = system.start(vec![posts()]);
    is_read(&system, "post_v1").await;
    system.settled(&*posts()).await;
    let alias = system.alias("post").await;
    assert_eq!((alias.last_number, alias.refused.len()), (2, 0));
    old.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_version_before_goes_after_a_while_unless_it_is_to_be_kept() {
    let grace = Duration::from_secs(20);
    let options = ViewsOptions {
        rollback_grace: grace,
        drop_grace: Duration::from_secs(5),
        ..System::options()
    };
    let system = System::new();
    let process = system.start_with(vec![posts()], options, system.store.clone());
    system.write("p", "one").await;
    system.settled(&*posts()).await;
    run(&system.replay(), &posts(), false).await.unwrap();
    sleep(grace / 2).await;
    assert_eq!(
        system.alias("post").await.previous.as_deref(),
        Some("post_v1")
    );
    sleep(grace).await;
    let alias = system.alias("post").await;
    // Retired, and by now dropped.
    assert_eq!((alias.previous, alias.retired), (None, Vec::new()));
    assert!(system.states("post_v1").await.is_empty());
    let nothing = run(&system.replay(), &posts(), true).await;
    assert!(
        matches!(nothing, Err(ReplayError::NothingBefore { .. })),
        "{nothing:?}"
    );
    let keeping = system.replay().with_options(ReplayOptions {
        keep: true,
        ..System::options().replay
    });
    run(&keeping, &posts(), false).await.unwrap();
    sleep(grace * 2).await;
    assert_eq!(
        system.alias("post").await.previous.as_deref(),
        Some("post_v2")
    );
    system.settled(&*posts()).await;
    assert_eq!(
        run(&system.replay(), &posts(), true)
            .await
            .unwrap()
            .collection,
        "post_v2"
    );
    system.settled(&*posts()).await;
    process.stop().await;
}
