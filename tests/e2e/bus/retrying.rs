//! What was set aside is tried again: soon enough, not too soon, and never as another sequence than it was set aside as.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidelog_domain::{Partition, Position, RecordedEvent};
use tidelog_eventbus::{
    Ask, EventBus, EventFailure, Failure, FailurePolicy, Handled, Handler, HandlerError,
    InProcessEventBus, ParkedState, PartitionState, Request, StateRecord, SubscriptionOptions,
    TroubleKind,
};

use super::kit::{
    Careful, Consumer, Log, Recorder, States, change, eventually, quick, records, stream_in,
    streams_in,
};

const P0: Partition = Partition::new(0);

fn in_process() -> Arc<dyn EventBus> {
    Arc::new(InProcessEventBus::new())
}

fn with(policy: FailurePolicy) -> SubscriptionOptions {
    SubscriptionOptions { policy, ..quick() }
}

/// The record of the partition, as soon as there is one.
async fn record(states: &States) -> StateRecord {
    let stored = async || records(states).await.remove(&P0);
    eventually("there is a record", async || stored().await.is_some()).await;
    stored().await.unwrap().1
}

async fn retry_all(states: &States) {
    let request = Request::now(Ask::RetryAll);
    change(states, P0, |record| record.asked(request.clone()).unwrap()).await;
}

#[tokio::test]
async fn a_long_sequence_that_is_retried_is_handled_in_batches() {
    let (log, states, handler) = (Log::new(), States::new(), Recorder::new());
    let broken = Arc::new(AtomicBool::new(true));
    let (is_broken, batches) = (broken.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = batches.clone();
    handler.behave(move |events| {
        counted.fetch_add(1, Ordering::SeqCst);
        match is_broken.load(Ordering::SeqCst) {
            true => Err(HandlerError::permanent(&events[0], "poison")),
            false => Ok(()),
        }
    });
    let options = with(FailurePolicy {
        attempts: 1,
        ..quick().policy
    });
    let bus = in_process();
    let _consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, options);
    log.append_to(&stream_in(P0), 5_000).await;
    eventually("all of it waits", || async {
        let parked = record(&states).await.parked;
        parked.iter().any(|own| own.last.number() == 5_000)
    })
    .await;
    broken.store(false, Ordering::SeqCst);
    let before = batches.load(Ordering::SeqCst);
    retry_all(&states).await;
    handler.has_all_of(&log).await;
    let batches = batches.load(Ordering::SeqCst) - before;
    assert!(batches < 200, "{batches} batches of 5,000 events");
}

#[tokio::test]
async fn what_failed_in_a_batch_that_is_retried_waits_again_and_the_rest_is_handled_once() {
    let (log, states) = (Log::new(), States::new());
    // Two sequences in one stream, and every tenth event belongs to both.
    let names = |position: u64| match position % 10 {
        0 => vec!["even".to_owned(), "odd".to_owned()],
        rest if rest % 2 == 0 => vec!["even".to_owned()],
        _ => vec!["odd".to_owned()],
    };
    let handler = Careful::with_sequences(move |event| names(event.position.number()));
    handler.fail(|_| Some(Failure::permanent("poison")));
    let options = with(FailurePolicy {
        attempts: 1,
        ..quick().policy
    });
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, options);
    log.append_to(&stream_in(P0), 1_000).await;
    consumer.status.reached(P0, log.heads().await[0]).await;
    // At 501 the odd ones fail again, and at 510 the even ones meet them.
    handler.fail(|event| (event.position.number() == 501).then(|| Failure::permanent("again")));
    retry_all(&states).await;
    eventually("both wait again", || async {
        let parked = record(&states).await.parked;
        let first = |name| parked.get(name).map(|own| own.first.number());
        first("odd") == Some(501) && first("even") == Some(510)
    })
    .await;
    let odd: Vec<u64> = (1..501).filter(|n| n % 2 == 1 || n % 10 == 0).collect();
    let even: Vec<u64> = (1..510).filter(|n| n % 2 == 0).collect();
    assert_eq!((handler.of("odd"), handler.of("even")), (odd, even));
    // What something unavailable stands in the way of is waited for.
    let tries = AtomicUsize::new(0);
    handler.fail(move |event| {
        let fails = event.position.number() == 777 && tries.fetch_add(1, Ordering::SeqCst) < 3;
        fails.then(|| Failure::transient("a moment"))
    });
    retry_all(&states).await;
    eventually("both are free", || async {
        record(&states).await.parked.is_empty()
    })
    .await;
    let all = |is_it: fn(u64) -> bool| (1..=1_000).filter(|n| is_it(*n)).collect::<Vec<u64>>();
    assert_eq!(handler.of("even"), all(|n| n % 2 == 0));
    assert_eq!(handler.of("odd"), all(|n| n % 2 == 1 || n % 10 == 0));
}

#[tokio::test]
async fn a_panic_while_telling_the_sequences_holds_the_partition_up_and_loses_nothing() {
    let (log, states) = (Log::new(), States::new());
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let handler = Recorder::keyed(move |event| {
        let fails = event.position.number() == 5 && is_broken.load(Ordering::SeqCst);
        assert!(!fails, "a bug in the keys");
        Ok(vec!["one document".to_owned()])
    });
    let is_broken = broken.clone();
    handler.behave(move |events| {
        let fifth = events.iter().find(|event| event.position.number() == 5);
        match fifth.filter(|_| is_broken.load(Ordering::SeqCst)) {
            Some(fifth) => Err(HandlerError::permanent(fifth, "a bug in the keys")),
            None => Ok(()),
        }
    });
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 9).await;
    let failed = |state: &PartitionState| matches!(state, PartitionState::Failed { position, attempts, .. } if position.number() == 5 && *attempts > 1);
    consumer.state(P0, failed).await;
    assert_eq!(handler.positions(P0), [1, 2, 3, 4]);
    assert!(record(&states).await.parked.is_empty());
    // Who asks from elsewhere is told why.
    eventually("its record says why", || async {
        let trouble = record(&states).await.trouble;
        trouble.is_some_and(|own| {
            own.kind == TroubleKind::Failed && own.reason.contains("at position 5")
        })
    })
    .await;
    broken.store(false, Ordering::SeqCst);
    handler.has_all_of(&log).await;
    eventually("its record says that it is over", || async {
        record(&states).await.trouble.is_none()
    })
    .await;
}

#[tokio::test]
async fn an_event_that_belongs_to_another_sequence_now_is_not_passed_over() {
    let (log, states) = (Log::new(), States::new());
    let moved = Arc::new(AtomicBool::new(false));
    let has_moved = moved.clone();
    let handler = Careful::with_sequences(move |event| {
        let is_fifth = event.position.number() == 5;
        match is_fifth && !has_moved.load(Ordering::SeqCst) {
            true => vec!["wrong".to_owned()],
            false => vec!["right".to_owned()],
        }
    });
    handler.fail(|event| (event.position.number() == 5).then(|| Failure::permanent("poison")));
    let options = with(FailurePolicy {
        attempts: 1,
        ..quick().policy
    });
    let bus = in_process();
    let _consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, options);
    log.append_to(&stream_in(P0), 9).await;
    eventually("the others are handled", || async {
        handler.of("right") == [1, 2, 3, 4, 6, 7, 8, 9]
    })
    .await;
    moved.store(true, Ordering::SeqCst);
    handler.fail(|_| None);
    retry_all(&states).await;
    eventually("it says why it goes on waiting", || async {
        let parked = record(&states).await.parked;
        let own = parked.get("wrong").cloned();
        own.is_some_and(|own| {
            own.error.contains("right")
                && own.state == ParkedState::Parked
                && own.first.number() == 5
        })
    })
    .await;
    assert_eq!(handler.of("right"), [1, 2, 3, 4, 6, 7, 8, 9]);
}

#[tokio::test]
async fn what_is_to_be_retried_later_is_not_retried_earlier_by_another_process() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    handler.fail(move |event| {
        let is_first = event.position.number() == 1;
        is_first.then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            // As long as the type can say: nobody adds that to a time.
            Failure::retry_after(Duration::MAX, "in a while")
        })
    });
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&stream_in(P0), 1).await;
    let other = streams_in(P0).nth(1).unwrap();
    eventually("it is set aside", || async {
        !record(&states).await.parked.is_empty()
    })
    .await;
    consumer.subscription.stop().await;
    let later = chrono::TimeDelta::hours(1);
    change(&*states, P0, |record| {
        let mut progress = record.progress();
        let why = tidelog_eventbus::Why {
            error: "in a while".to_owned(),
            counts: false,
            state: ParkedState::Retrying,
            not_before: Some(chrono::Utc::now() + later),
            at: chrono::Utc::now(),
        };
        progress.parked = Default::default();
        let names = [stream_in(P0)];
        progress.parked.set_aside(Position::new(1), &names, &why);
        record.with_progress(&progress)
    })
    .await;
    let before = tries.load(Ordering::SeqCst);
    let _consumer = Consumer::start("b", &log, &bus, states.clone(), &handler, quick());
    log.append_to(&other, 100).await;
    eventually("the others go on", || async {
        handler.of(&other).len() == 100
    })
    .await;
    assert_eq!(tries.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_partition_that_has_no_room_writes_its_record_no_more_than_another() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    handler.fail(|_| Some(Failure::permanent("poison")));
    let options = SubscriptionOptions {
        lease: Duration::from_secs(24 * 60 * 60),
        ..with(FailurePolicy {
            attempts: 1,
            max_parked: 1,
            ..quick().policy
        })
    };
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, options);
    for stream in streams_in(P0).take(3) {
        log.append_to(&stream, 1).await;
    }
    let is_full = |state: &PartitionState| matches!(state, PartitionState::Full { .. });
    consumer.state(P0, is_full).await;
    let told = || async {
        let trouble = record(&states).await.trouble;
        trouble.is_some_and(|own| own.kind == TroubleKind::Full)
    };
    eventually("its record says why", told).await;
    let (revision, _) = records(&*states).await[&P0];
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(records(&*states).await[&P0].0, revision);
}

/// Says of the third event at first that something is unavailable, and from then on that it cannot be handled at all.
#[derive(Default)]
struct Turning(AtomicBool);

#[async_trait]
impl Handler for Turning {
    async fn handle(
        &self,
        _: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        let Some(third) = events.iter().find(|event| event.position.number() == 3) else {
            return Ok(Handled::default());
        };
        if self.0.swap(true, Ordering::SeqCst) {
            return Err(HandlerError::permanent(third, "for good"));
        }
        let failed = EventFailure {
            position: third.position,
            failure: Failure::transient("a moment"),
        };
        Ok(Handled {
            failed: vec![failed],
            ..Handled::default()
        })
    }
}

#[tokio::test]
async fn a_failure_for_good_after_one_that_passes_sets_aside_what_it_is_about_alone() {
    let (log, states, handler) = (Log::new(), States::new(), Arc::new(Turning::default()));
    let options = with(FailurePolicy {
        attempts: 1,
        ..quick().policy
    });
    let names: Vec<_> = streams_in(P0).take(2).collect();
    for stream in [&names[0], &names[1], &names[0], &names[1], &names[0]] {
        log.append_to(stream, 1).await;
    }
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, options);
    consumer.status.reached(P0, log.heads().await[0]).await;
    eventually("it is parked", async || {
        let parked = record(&states).await.parked;
        let waits: Vec<_> = parked
            .iter()
            .map(|own| (&*own.sequence, own.first.number()))
            .collect();
        waits == [(&*names[0], 3)] && parked.get(&names[0]).unwrap().error.contains("for good")
    })
    .await;
}
