//! Waiting for writes, from the records and in the process that projects.

use futures_util::future::join_all;
use serde_json::json;
use tidelog_eventbus::{Operations, Skip};

use super::*;
use crate::testing::{System, posts};

const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn one_watcher_serves_all_who_wait_for_a_view_and_ends_with_the_last() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    system.write("p", "one").await;
    system.settled(&*posts()).await;
    process.stop().await;
    // Nobody projects any more: what is written now is waited for in vain.
    let token = system.write("p", "two").await;
    let (_, consistency) = system.reader();
    let before = system.store.state_loads();
    let deadline = Instant::now() + WAIT;
    let waiting = (0..1_000).map(|_| consistency.wait_for("post", ReadOf::Any, &token, deadline));
    let waiting = join_all(waiting);
    let mut watchers = 0;
    let watching = async {
        sleep(WAIT / 2).await;
        watchers = consistency.watchers();
    };
    let (waited, ()) = tokio::join!(waiting, watching);
    let is_missing =
        |waited: &Result<_, _>| matches!(waited, Err::<(), _>(ConsistencyError::NotYetProjected));
    assert!(waited.iter().all(is_missing));
    assert_eq!(watchers, 1);
    let looks = u128::try_from(system.store.state_loads() - before).unwrap();
    assert!(
        looks < 20 + WAIT.as_millis() / LONGEST_PAUSE.as_millis(),
        "{looks}"
    );
    sleep(LONGEST_PAUSE * 2).await;
    assert_eq!(consistency.watchers(), 0);
    // The next one is served by a new watcher.
    let process = system.start(vec![posts()]);
    let deadline = Instant::now() + WAIT;
    consistency
        .wait_for("post", ReadOf::Any, &token, deadline)
        .await
        .unwrap();
    process.stop().await;
}

/// What a read of `id`, and one of any documents, hears at once that must see `token`: from the records, and in the
/// process itself.
async fn judged(
    system: &System,
    live: &LiveViews,
    id: &str,
    token: &ConsistencyToken,
) -> [Result<(), ConsistencyError>; 4] {
    let (versions, elsewhere) = system.reader();
    let here = Consistency::new(Arc::new(system.store.clone()), versions, live.clone());
    let wait = async |consistency: &Consistency, read_of| {
        let deadline = Instant::now() + Duration::from_millis(200);
        consistency.wait_for("post", read_of, token, deadline).await
    };
    [
        wait(&elsewhere, ReadOf::Document(id)).await,
        wait(&elsewhere, ReadOf::Any).await,
        wait(&here, ReadOf::Document(id)).await,
        wait(&here, ReadOf::Any).await,
    ]
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_set_aside_is_not_seen_before_it_is_applied_or_skipped() {
    let system = System::new();
    let process = system.start(vec![posts()]);
    system.write("good", "one").await;
    system.settled(&*posts()).await;
    let poison = json!("no object");
    let bad = system.log.append("bad", "post.created", &poison).await;
    let live = process.views.live();
    let status = live.get("post_v1").unwrap();
    let reached = async |token: &ConsistencyToken| {
        let (partition, position) = token.positions[0];
        status.reached(partition, position).await;
    };
    reached(&bad).await;
    let between = system.write("bad", "two").await;
    let last = system.write("bad", "three").await;
    let good = system.write("good", "two").await;
    reached(&last).await;
    reached(&good).await;
    // The record follows within a moment.
    sleep(Duration::from_secs(1)).await;

    let is_set_aside = |waited: &Result<(), _>| matches!(waited, Err(ConsistencyError::SetAside));
    for token in [&bad, &last] {
        let waited = judged(&system, &live, "bad", token).await;
        assert!(waited.iter().all(is_set_aside), "{waited:?}");
    }
    let [elsewhere, _, here, _] = judged(&system, &live, "bad", &between).await;
    assert!(is_set_aside(&elsewhere) && is_set_aside(&here));
    // Others are not concerned, though they come later in the partition.
    let waited = judged(&system, &live, "good", &good).await;
    assert!(waited.iter().all(Result::is_ok), "{waited:?}");

    let states = Arc::new(system.store.clone());
    let operations = Operations::new("post_v1", states, system.log.reader());
    let skip = Skip {
        sequence: "bad",
        reason: "it is no object",
        ..Skip::default()
    };
    let asked = operations.skip(&skip).await.unwrap();
    operations.answers(&[asked], WAIT).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    for token in [&bad, &between, &last] {
        let waited = judged(&system, &live, "bad", token).await;
        assert!(waited.iter().all(Result::is_ok), "{waited:?}");
    }
    process.stop().await;
}

#[test]
fn a_document_holds_what_was_seen_in_it_only_in_the_same_collection() {
    let history = tidelog_domain::HistoryId::new(uuid::Uuid::from_u128(1));
    let partition = tidelog_domain::Partition::new(3);
    let at = |number| tidelog_domain::Position::new(number);
    let token = ConsistencyToken {
        history,
        positions: vec![(partition, at(5))],
        tenant: None,
    };
    let document = |position| Document {
        id: "p".to_owned(),
        data: serde_json::Map::new(),
        version: tidelog_domain::Version::new(1),
        created_at: chrono::DateTime::UNIX_EPOCH,
        updated_at: chrono::DateTime::UNIX_EPOCH,
        deleted: false,
        applied: [(partition, at(position))].into(),
        revision: 1,
    };
    let collection = "post_v1".to_owned();
    let seen = Seen::InDocument { collection };
    assert!(seen.holds("post_v1", Some(&document(5)), &token));
    assert!(seen.holds("post_v1", Some(&document(6)), &token));
    assert!(!seen.holds("post_v1", Some(&document(4)), &token));
    assert!(!seen.holds("post_v2", Some(&document(5)), &token));
    assert!(!seen.holds("post_v1", None, &token));
    assert!(Seen::InView.holds("post_v2", None, &token));
}
