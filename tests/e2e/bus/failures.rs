//! What passes is waited for; what does not is visible, and nothing is skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidelog_domain::{Partition, RecordedEvent};
use tidelog_eventbus::{
    EventBus, FailurePolicy, HandlerError, InProcessEventBus, PartitionState, SubscriptionOptions,
};

use super::kit::{
    Consumer, Log, Recorder, States, begun_relay, change, eventually, partitions, quick, records,
    stream_in, within_patience,
};

const P0: Partition = Partition::new(0);

fn in_process() -> Arc<dyn EventBus> {
    Arc::new(InProcessEventBus::new())
}

fn backs_off(state: &PartitionState) -> bool {
    matches!(state, PartitionState::BackingOff { attempts, .. } if *attempts > 1)
}

#[tokio::test]
async fn a_transient_failure_is_tried_again_visibly_until_it_passes() {
    let (log, bus, handler) = (Log::new(), in_process(), Recorder::new());
    let _relay = begun_relay(&log, &bus, true).await;
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
    log.append(64).await;
    handler.has_all_of(&log).await;
    handler.behave(|_| Err(HandlerError::transient("the database is away")));
    log.append(64).await;
    for partition in partitions().iter() {
        let state = consumer.state(partition, backs_off).await;
        assert!(format!("{state:?}").contains("the database is away"));
    }
    assert_eq!(handler.count(), 64);
    handler.behave(|_| Ok(()));
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

/// A handler that fails at position 5 of the first partition in such a way: the stream of that event is set aside, all others go on,
/// and nothing of it is skipped.
async fn is_set_aside_at_the_fifth(
    says: &str,
    handler: Arc<Recorder>,
    fail: impl Fn(&RecordedEvent) -> HandlerError + Send + Sync + 'static,
) {
    let (log, states, bus) = (Log::new(), States::new(), in_process());
    handler.behave(move |events| {
        let is_fifth = |e: &&RecordedEvent| e.partition == P0 && e.position.number() == 5;
        match events.iter().find(is_fifth) {
            Some(fifth) => Err(fail(fifth)),
            None => Ok(()),
        }
    });
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, patient());
    log.append_to(&stream_in(P0), 9).await;
    log.append(256).await;
    for (partition, head) in partitions().iter().zip(log.heads().await) {
        within_patience("all go on", consumer.status.reached(partition, head)).await;
    }
    assert_eq!(handler.positions(P0)[..4], [1, 2, 3, 4]);
    assert!(!handler.positions(P0).contains(&6), "of the same stream");
    let (_, record) = &records(&*states).await[&P0];
    let parked: Vec<_> = record.parked.iter().collect();
    assert_eq!(parked.len(), 1);
    assert_eq!(
        (&*parked[0].sequence, parked[0].first.number()),
        (&*stream_in(P0), 5)
    );
    assert!(parked[0].error.contains(says), "{}", parked[0].error);
}

/// Tries again after hours.
fn patient() -> SubscriptionOptions {
    SubscriptionOptions {
        policy: FailurePolicy {
            first_delay: Duration::from_secs(1 << 20),
            max_delay: Duration::from_secs(1 << 20),
            ..FailurePolicy::default()
        },
        ..quick()
    }
}

#[tokio::test]
async fn a_permanent_failure_sets_its_stream_aside() {
    let poison = |event: &RecordedEvent| HandlerError::permanent(event, "poison");
    is_set_aside_at_the_fifth("poison", Recorder::new(), poison).await;
}

#[tokio::test]
async fn a_panic_of_the_handler_sets_the_stream_aside() {
    is_set_aside_at_the_fifth("a bug", Recorder::new(), |_| panic!("a bug")).await;
}

#[tokio::test]
async fn a_panic_of_the_filter_sets_the_stream_aside() {
    let handler = Recorder::wanting(|event| {
        let is_fifth = event.partition == P0 && event.position.number() == 5;
        assert!(!is_fifth, "a bug in the filter");
        true
    });
    is_set_aside_at_the_fifth("a bug in the filter", handler, |_| unreachable!()).await;
}

#[tokio::test]
async fn an_event_of_unknown_sequences_that_fails_is_visible_and_its_partition_waits_at_it() {
    let (log, states, bus) = (Log::new(), States::new(), in_process());
    let handler = Recorder::keyed(|event| match event.position.number() {
        5 => Err(HandlerError::permanent(event, "whose is it?")),
        _ => Ok(vec![event.stream.to_string()]),
    });
    handler.behave(|events| {
        let fifth = events.iter().find(|event| event.position.number() == 5);
        fifth.map_or(Ok(()), |fifth| {
            Err(HandlerError::permanent(fifth, "poison"))
        })
    });
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 9).await;
    let failed = |state: &PartitionState| matches!(state, PartitionState::Failed { position, attempts, .. } if position.number() == 5 && *attempts > 1);
    let state = consumer.state(P0, failed).await;
    assert!(format!("{state:?}").contains("poison"), "{state:?}");
    assert_eq!(handler.positions(P0), [1, 2, 3, 4]);
    let (_, record) = &records(&*states).await[&P0];
    assert_eq!(record.checkpoint.cursor.position.number(), 4);

    handler.behave(|_| Ok(()));
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

#[tokio::test]
async fn a_panic_in_a_long_batch_does_not_cost_a_try_an_event() {
    let (log, bus, handler) = (Log::new(), in_process(), Recorder::new());
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    handler.behave(move |events| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert!(events.iter().all(|e| e.position.number() != 900), "a bug");
        Ok(())
    });
    log.append_to(&stream_in(P0), 1_000).await;
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, patient());
    let head = log.heads().await[0];
    within_patience("all is passed", consumer.status.reached(P0, head)).await;
    assert_eq!(handler.positions(P0), (1..900).collect::<Vec<_>>());
    let tries = tries.load(Ordering::SeqCst);
    assert!(tries < 50, "{tries} tries");
}

#[tokio::test]
async fn a_log_that_is_away_is_waited_for() {
    let (log, bus, handler) = (Log::new(), in_process(), Recorder::new());
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
    consumer.is_live(&log).await;
    log.be_down(true);
    log.append(64).await;
    for partition in partitions().iter() {
        consumer.state(partition, backs_off).await;
    }
    assert_eq!(handler.count(), 0);
    log.be_down(false);
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

#[tokio::test]
async fn a_state_store_that_is_away_is_waited_for() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    states.be_down(true);
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append(64).await;
    for partition in partitions().iter() {
        consumer.state(partition, backs_off).await;
    }
    states.be_down(false);
    handler.has_all_of(&log).await;
    // And in the middle: what was handled is not handled again by the same process.
    states.be_down(true);
    log.append(64).await;
    for partition in partitions().iter() {
        consumer.state(partition, backs_off).await;
    }
    states.be_down(false);
    log.append(64).await;
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
}

#[tokio::test]
async fn answers_of_the_state_store_that_are_lost_do_no_harm() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    states.lose_answers(5);
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    for round in 0..20 {
        log.append(16).await;
        if round % 4 == 0 {
            states.lose_answers(3);
        }
        handler.has_all_of(&log).await;
    }
    eventually("answers were lost", || async {
        states.are_all_answers_lost()
    })
    .await;
    consumer.is_live(&log).await;
    consumer.subscription.stop().await;
    for (record, head) in records(&*states).await.values().zip(log.heads().await) {
        assert_eq!(record.1.checkpoint.cursor.position, head);
        assert_eq!(record.1.owner, None);
    }
}

#[tokio::test]
async fn it_stops_also_while_the_state_store_the_log_and_the_handler_fail() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append(64).await;
    handler.has_all_of(&log).await;
    handler.behave(|_| Err(HandlerError::transient("away")));
    log.append(64).await;
    for partition in partitions().iter() {
        consumer.state(partition, backs_off).await;
    }
    states.be_down(true);
    log.be_down(true);
    consumer.subscription.stop().await;
}

#[tokio::test]
async fn it_stops_also_when_a_record_has_changed_and_cannot_be_read() {
    let (log, states, bus, handler) = (Log::new(), States::new(), in_process(), Recorder::new());
    let options = SubscriptionOptions {
        lease: Duration::from_secs(3_600),
        ..quick()
    };
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, options);
    log.append(64).await;
    handler.has_all_of(&log).await;
    consumer.is_live(&log).await;
    states.be_down(true);
    change(&*states.inner(), P0, |record| record.with_paused(true)).await;
    // The observer sees the change; whoever looks closer has no answer.
    states.answer_loads(1);
    eventually("it was seen", || async { states.loads_to_answer() == 0 }).await;
    consumer.subscription.stop().await;
}
