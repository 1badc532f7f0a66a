//! Several processes share the partitions of a subscription.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_eventbus::{EventBus, InProcessEventBus, Start, StateStore, SubscriptionOptions};

use super::kit::{Consumer, Log, Recorder, States, begun_relay, eventually, quick, records};

fn in_process() -> Arc<dyn EventBus> {
    Arc::new(InProcessEventBus::new())
}

/// One of several, where no test can wait for a lease to end.
fn member() -> SubscriptionOptions {
    SubscriptionOptions {
        take_over_at_start: false,
        lease: Duration::from_secs(3_600),
        ..quick()
    }
}

/// How many partitions each owner has.
async fn shares(states: &dyn StateStore) -> BTreeMap<Option<String>, usize> {
    let mut shares = BTreeMap::new();
    for (_, record) in records(states).await.into_values() {
        *shares.entry(record.owner).or_default() += 1;
    }
    shares
}

async fn shared_by(states: &dyn StateStore, owners: &[&str]) {
    let even = |shares: &BTreeMap<Option<String>, usize>| {
        let owned = owners
            .iter()
            .map(|own| shares.get(&Some((*own).to_owned())));
        let owned: Vec<_> = owned.map(|share| share.copied().unwrap_or(0)).collect();
        let (least, most) = (owned.iter().min(), owned.iter().max());
        owned.iter().sum::<usize>() == 4
            && most
                .zip(least)
                .is_some_and(|(most, least)| most - least <= 1)
    };
    eventually(&format!("{owners:?} share"), || async {
        even(&shares(states).await)
    })
    .await;
}

#[tokio::test]
async fn members_that_come_and_go_share_evenly_and_nothing_is_handled_twice() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let _relay = begun_relay(&log, &bus, true).await;
    let start = |owner| Consumer::start(owner, &log, &bus, states.clone(), &handler, member());
    let first = start("a");
    log.append(200).await;
    shared_by(&*states, &["a"]).await;
    let second = start("b");
    log.append(200).await;
    shared_by(&*states, &["a", "b"]).await;
    log.append(200).await;
    let third = start("c");
    shared_by(&*states, &["a", "b", "c"]).await;
    log.append(200).await;
    // What is asked for is drained first, and what stops is, too: each event is handled once, in order.
    first.subscription.stop().await;
    log.append(200).await;
    shared_by(&*states, &["b", "c"]).await;
    second.subscription.stop().await;
    shared_by(&*states, &["c"]).await;
    log.append(200).await;
    handler.has_all_of(&log).await;
    third.subscription.stop().await;
    assert_eq!(shares(&*states).await, BTreeMap::from([(None, 4)]));
}

#[tokio::test]
async fn a_process_that_stops_hands_over_at_once() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let first = Consumer::start("a", &log, &bus, states.clone(), &handler, member());
    shared_by(&*states, &["a"]).await;
    let _second = Consumer::start("b", &log, &bus, states.clone(), &handler, member());
    shared_by(&*states, &["a", "b"]).await;
    let stopped = Instant::now();
    first.subscription.stop().await;
    log.append(64).await;
    handler.has_all_of(&log).await;
    // No lease had to end for it.
    assert!(stopped.elapsed() < member().lease / 2);
}

#[tokio::test]
async fn a_subscription_begins_where_it_was_told_to_and_remembers_it() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    log.append(64).await;
    let heads = log.heads().await;
    let start = |owner, start| {
        Consumer::starting(start, owner, &log, &bus, states.clone(), &handler, quick())
    };
    let first = start("a", Start::Now);
    eventually("it is written down", || async {
        records(&*states).await.len() == heads.len()
    })
    .await;
    first.subscription.kill().await;
    log.append(64).await;
    // Another "now" does not count any more.
    let _second = start("b", Start::Now);
    eventually("it has what came after the first start", || async {
        handler.count() == 64
    })
    .await;
    let firsts = handler.positions(tidelog_domain::Partition::new(0));
    assert_eq!(firsts[0], heads[0].number() + 1);
}

#[tokio::test]
async fn a_start_in_time_begins_with_the_first_event_of_that_time() {
    let log = Log::new();
    log.append(64).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    log.append(64).await;
    let history = log.history();
    for partition in super::kit::partitions().iter() {
        let events = log.events(partition).await;
        for event in &events {
            let start = Start::Time(event.recorded_at);
            let cursors = start.cursors(&*log.reader(), history).await.unwrap();
            let before = cursors[partition.index()].position.number();
            let expected = events
                .iter()
                .filter(|other| other.recorded_at < event.recorded_at)
                .count();
            assert_eq!(before, expected as u64);
        }
    }
}
