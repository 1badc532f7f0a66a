//! Who works on a partition: one at a time, the next one when the first is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_domain::Partition;
use tidelog_eventbus::{
    EventBus, HandlerError, InProcessEventBus, PartitionState, SubscriptionOptions,
};

use super::kit::{
    Consumer, Log, Recorder, States, begun_relay, change, eventually, partitions, quick, records,
    stream_in, within_patience,
};

const P0: Partition = Partition::new(0);

fn in_process() -> Arc<dyn EventBus> {
    Arc::new(InProcessEventBus::new())
}

/// Waits for a partition to be free, as the second of several processes does.
fn patient() -> SubscriptionOptions {
    SubscriptionOptions {
        take_over_at_start: false,
        ..quick()
    }
}

/// The same, where no test can wait for a lease to end.
fn very_patient() -> SubscriptionOptions {
    SubscriptionOptions {
        lease: Duration::from_secs(3_600),
        ..patient()
    }
}

async fn stands_by(consumer: &Consumer, owner: &str) {
    for partition in partitions().iter() {
        let standby = |state: &PartitionState| matches!(state, PartitionState::Standby { owner: of } if of == owner);
        consumer.state(partition, standby).await;
    }
}

#[tokio::test]
async fn the_partitions_of_a_dead_process_are_taken_when_their_records_stay_as_they_are() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let _relay = begun_relay(&log, &bus, true).await;
    let first = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append(100).await;
    handler.has_all_of(&log).await;
    first.is_live(&log).await;
    // Nothing is in flight when it dies, so nothing comes twice.
    eventually("all checkpoints are written", || async {
        let stored = records(&*states).await;
        let at = stored.values().map(|(_, r)| r.checkpoint.cursor.position);
        at.eq(log.heads().await)
    })
    .await;
    first.subscription.kill().await;

    let started = Instant::now();
    let second = Consumer::start("b", &log, &bus, states.clone(), &handler, patient());
    stands_by(&second, "a").await;
    log.append(100).await;
    handler.has_all_of(&log).await;
    assert!(started.elapsed() >= patient().lease, "it did not wait");
    for (_, record) in records(&*states).await.values() {
        assert_eq!((record.owner.as_deref(), record.epoch), (Some("b"), 2));
    }
}

#[tokio::test]
async fn a_living_process_keeps_its_share_also_when_nothing_happens() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let first = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    first.is_live(&log).await;
    let _second = Consumer::start("b", &log, &bus, states.clone(), &handler, patient());
    let held = || async {
        let stored = records(&*states).await;
        let stored = stored.into_values();
        let held: Vec<_> = stored.map(|(_, own)| (own.owner, own.epoch)).collect();
        held
    };
    eventually("each has its share", || async {
        let of = |name| async move {
            let held = held().await;
            held.iter()
                .filter(|(owner, _)| owner.as_deref() == Some(name))
                .count()
        };
        of("a").await == 2 && of("b").await == 2
    })
    .await;
    let shared = held().await;
    let revisions = records(&*states).await;
    // Each revision is a renewal, a third of a lease after the one before.
    eventually("several leases have gone by", || async {
        let now = records(&*states).await;
        now.iter()
            .all(|(partition, (revision, _))| *revision >= revisions[partition].0 + 8)
    })
    .await;
    assert_eq!(held().await, shared);
}

#[tokio::test]
async fn a_living_process_keeps_the_partitions_whose_turn_it_is_not() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    log.append(64).await;
    let held = handler.gate.write().await;
    let one_at_a_time = SubscriptionOptions {
        concurrent_partitions: 1,
        ..quick()
    };
    let _first = Consumer::start("a", &log, &bus, states.clone(), &handler, one_at_a_time);
    eventually("one is handled", || async { handler.waiting() == 1 }).await;
    let second = Consumer::start("b", &log, &bus, states.clone(), &handler, patient());
    stands_by(&second, "a").await;
    eventually("several leases have gone by", || async {
        let stored = records(&*states).await;
        stored.values().all(|(revision, _)| *revision >= 8)
    })
    .await;
    for (_, record) in records(&*states).await.values() {
        assert_eq!((record.owner.as_deref(), record.epoch), (Some("a"), 1));
    }
    drop(held);
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn a_process_that_lost_its_partition_in_the_middle_of_a_batch_does_not_move_the_checkpoint() {
    let (log, states, bus) = (Log::new(), States::new(), in_process());
    let (zombie, heir) = (Recorder::new(), Recorder::new());
    log.append_to(&stream_in(P0), 10).await;
    let held = zombie.gate.write().await;
    let first = Consumer::start("a", &log, &bus, states.clone(), &zombie, very_patient());
    eventually("it is in the middle", || async { zombie.waiting() > 0 }).await;

    // The other process gets nowhere, so that the checkpoint stays where it is.
    heir.behave(|_| Err(HandlerError::transient("away")));
    let second = Consumer::start("b", &log, &bus, states.clone(), &heir, quick());
    let backs_off = |state: &PartitionState| matches!(state, PartitionState::BackingOff { .. });
    second.state(P0, backs_off).await;
    tokio::join!(first.subscription.stop(), async { drop(held) });
    assert_eq!(zombie.positions(P0).len(), 10);
    let stored = records(&*states).await;
    let (_, record) = &stored[&P0];
    assert_eq!(record.checkpoint.cursor.position.number(), 0);
    assert_eq!(record.owner.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_paused_partition_rests_and_the_others_go_on() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append(64).await;
    handler.has_all_of(&log).await;
    change(&*states, P0, |record| record.with_paused(true)).await;
    consumer
        .state(P0, |state| *state == PartitionState::Paused)
        .await;
    let (_, at_rest) = &records(&*states).await[&P0];
    assert!(at_rest.paused && at_rest.owner.is_none());
    assert_eq!(at_rest.checkpoint.cursor.position, log.heads().await[0]);

    log.append(64).await;
    for (partition, head) in partitions().iter().zip(log.heads().await).skip(1) {
        within_patience("the others", consumer.status.reached(partition, head)).await;
    }
    assert_eq!(
        handler.positions(P0).last().copied(),
        Some(at_rest.checkpoint.cursor.position.number())
    );
    change(&*states, P0, |record| record.with_paused(false)).await;
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn a_partition_that_is_paused_in_the_middle_of_a_long_batch_rests_after_it() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let held = handler.gate.write().await;
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 10).await;
    eventually("the batch is at the handler", || async {
        handler.waiting() > 0
    })
    .await;
    change(&*states, P0, |record| record.with_paused(true)).await;
    // The lease is renewed beside the batch, on the record as it is now.
    let (paused_at, _) = records(&*states).await[&P0];
    eventually("the lease is renewed", || async {
        records(&*states).await[&P0].0 > paused_at
    })
    .await;
    drop(held);
    consumer
        .state(P0, |state| *state == PartitionState::Paused)
        .await;
    let (_, at_rest) = &records(&*states).await[&P0];
    assert!(at_rest.paused && at_rest.owner.is_none());
    assert_eq!(at_rest.checkpoint.cursor.position.number(), 10);
}

#[tokio::test]
async fn a_renewal_and_the_batch_beside_it_may_wait_for_the_same_connection() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let held = handler.gate.write().await;
    let _consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 10).await;
    eventually("the batch waits for its turn", || async {
        handler.waiting() > 0
    })
    .await;
    states.wait_at(&handler.gate);
    eventually("the renewal waits behind it", || async {
        states.writes_at_gate() > 0
    })
    .await;
    drop(held);
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn state_records_that_went_back_in_time_take_the_subscription_along() {
    // They lie beside the data, and were restored together with it: what came later is to be handled again.
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let _consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 10).await;
    handler.has_all_of(&log).await;
    eventually("the checkpoint is written", || async {
        records(&*states).await[&P0]
            .1
            .checkpoint
            .cursor
            .position
            .number()
            == 10
    })
    .await;
    let backup = records(&*states).await;
    log.append_to(&stream_in(P0), 10).await;
    handler.has_all_of(&log).await;

    states.restore(&backup).await;
    let again: Vec<_> = (1..=20).chain(11..=20).collect();
    eventually("what the restored data lacks is handled again", || async {
        handler.positions(P0) == again
    })
    .await;
}

#[tokio::test]
async fn state_records_that_are_gone_begin_anew() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let _consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 10).await;
    handler.has_all_of(&log).await;
    states.restore(&std::collections::BTreeMap::new()).await;
    let again: Vec<_> = (1..=10).chain(1..=10).collect();
    eventually("everything is handled again", || async {
        handler.positions(P0) == again
    })
    .await;
}
