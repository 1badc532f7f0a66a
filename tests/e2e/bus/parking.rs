//! An event that cannot be handled holds up its own sequences alone, and comes back in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidelog_domain::{Partition, RecordedEvent};
use tidelog_eventbus::{
    Ask, EventBus, Failure, FailurePolicy, InProcessEventBus, ParkedSequence, ParkedState,
    PartitionState, Request, StateRecord, StateStore, SubscriptionOptions,
};

use super::kit::{
    Careful, Consumer, Log, States, change, eventually, partitions, quick, records, streams_in,
    within_patience,
};

const P0: Partition = Partition::new(0);

fn in_process() -> Arc<dyn EventBus> {
    Arc::new(InProcessEventBus::new())
}

/// Parks at the first failure.
fn parking() -> SubscriptionOptions {
    trying(1)
}

fn trying(attempts: u32) -> SubscriptionOptions {
    let options = quick();
    SubscriptionOptions {
        policy: FailurePolicy {
            attempts,
            ..options.policy
        },
        ..options
    }
}

async fn parked(states: &dyn StateStore) -> Vec<ParkedSequence> {
    let records = records(states).await;
    records
        .values()
        .flat_map(|(_, record)| record.parked.iter().cloned())
        .collect()
}

async fn ask(states: &dyn StateStore, what: Ask) {
    let request = Request::now(what);
    change(states, P0, |record| record.asked(request.clone()).unwrap()).await;
}

async fn asked_for_is_done(states: &dyn StateStore) {
    eventually("the requests are done", || async {
        records(states).await[&P0].1.requests.is_empty()
    })
    .await;
}

fn is_poison(event: &RecordedEvent, stream: &str) -> bool {
    event.stream.as_str() == stream
}

/// Two streams of the first partition, with events in turn: `a` at odd positions, `b` at even ones.
async fn two_streams(log: &Log, rounds: usize) -> (String, String) {
    let mut names = streams_in(P0);
    let (a, b) = (names.next().unwrap(), names.next().unwrap());
    for _ in 0..rounds {
        log.append_to(&a, 1).await;
        log.append_to(&b, 1).await;
    }
    (a, b)
}

async fn has(handler: &Careful, sequence: &str, positions: &[u64]) {
    let got = || handler.of(sequence);
    eventually(&format!("{sequence} has {positions:?}"), || async {
        got() == positions
    })
    .await;
}

#[tokio::test]
async fn a_poison_event_holds_up_its_own_stream_alone_and_is_tried_again_by_itself() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let (a, b) = two_streams(&log, 3).await;
    let poison = a.clone();
    handler.fail(move |event| {
        let fails = is_poison(event, &poison) && event.position.number() >= 3;
        fails.then(|| Failure::permanent("poison"))
    });
    let options = trying(u32::MAX);
    let consumer = Consumer::start("a", &log, &in_process(), states.clone(), &handler, options);
    has(&handler, &b, &[2, 4, 6]).await;
    log.append(256).await;
    for (partition, head) in partitions().iter().zip(log.heads().await) {
        within_patience("all go on", consumer.status.reached(partition, head)).await;
    }
    assert_eq!(handler.of(&a), [1]);
    eventually("it is written, and tried again", || async {
        let parked = parked(&*states).await;
        parked.len() == 1 && parked[0].attempts > 1
    })
    .await;
    let of_it = &parked(&*states).await[0];
    assert_eq!((&*of_it.sequence, of_it.first.number()), (&*a, 3));
    assert_eq!(of_it.state, ParkedState::Retrying);
    assert!(of_it.error.contains("poison"), "{}", of_it.error);
    let visible = consumer.status.partitions()[0].parked.len();
    assert_eq!(visible, 1);

    handler.fail(|_| None);
    eventually("it is free again", || async {
        parked(&*states).await.is_empty()
    })
    .await;
    let all = log.events(P0).await;
    let of_a = all.iter().filter(|event| event.stream.as_str() == a);
    let of_a: Vec<_> = of_a.map(|event| event.position.number()).collect();
    has(&handler, &a, &of_a).await;
}

#[tokio::test]
async fn after_its_attempts_it_waits_for_an_operator() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let (a, b) = two_streams(&log, 1).await;
    let poison = a.clone();
    handler.fail(move |event| is_poison(event, &poison).then(|| Failure::permanent("poison")));
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, trying(3));
    eventually("it is parked", || async {
        let parked = parked(&*states).await;
        parked.len() == 1 && parked[0].state == ParkedState::Parked
    })
    .await;
    assert_eq!(parked(&*states).await[0].attempts, 3);
    // It is there after a restart, and stays while others go on.
    consumer.subscription.stop().await;
    handler.fail(|_| None);
    let consumer = Consumer::start("b", &log, &bus, states.clone(), &handler, trying(3));
    log.append_to(&b, 1).await;
    log.append_to(&a, 1).await;
    has(&handler, &b, &[2, 3]).await;
    consumer.status.reached(P0, log.heads().await[0]).await;
    assert_eq!(handler.of(&a), Vec::<u64>::new());

    ask(
        &*states,
        Ask::Retry {
            sequence: a.clone(),
        },
    )
    .await;
    has(&handler, &a, &[1, 4]).await;
    asked_for_is_done(&*states).await;
    assert_eq!(parked(&*states).await, []);
}

#[tokio::test]
async fn a_skipped_event_is_recorded_and_the_rest_of_its_sequence_goes_on() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let (a, _) = two_streams(&log, 3).await;
    let poison = a.clone();
    handler.fail(move |event| {
        let fails = is_poison(event, &poison) && event.position.number() == 3;
        fails.then(|| Failure::park("poison"))
    });
    let _consumer = Consumer::start("a", &log, &in_process(), states.clone(), &handler, quick());
    eventually("it is parked", || async {
        !parked(&*states).await.is_empty()
    })
    .await;
    let skip = |position: u64| Ask::Skip {
        sequence: a.clone(),
        position: tidelog_domain::Position::new(position),
        reason: "a test order".to_owned(),
    };
    // Not its first event: nothing happens.
    ask(&*states, skip(5)).await;
    asked_for_is_done(&*states).await;
    assert_eq!(parked(&*states).await.len(), 1);
    ask(&*states, skip(3)).await;
    has(&handler, &a, &[1, 5]).await;
    asked_for_is_done(&*states).await;
    assert_eq!(parked(&*states).await, []);
    let skipped = records(&*states).await[&P0].1.skipped.clone();
    assert_eq!(skipped.len(), 1);
    assert_eq!(
        (skipped[0].position.number(), &*skipped[0].reason),
        (3, "a test order")
    );
}

#[tokio::test]
async fn an_event_of_a_document_that_two_streams_feed_waits_with_it() {
    let (log, states) = (Log::new(), States::new());
    let mut names = streams_in(P0);
    let (a, b, c) = (
        names.next().unwrap(),
        names.next().unwrap(),
        names.next().unwrap(),
    );
    // `a` and `b` both count in the document "sum", each event of `b` in one of its own too.
    let of_a = a.clone();
    let of_b = b.clone();
    let handler = Careful::with_sequences(move |event| match event.stream.as_str() {
        stream if stream == of_a => vec!["sum".to_owned()],
        stream if stream == of_b => vec!["sum".to_owned(), "own".to_owned()],
        other => vec![other.to_owned()],
    });
    let poison = a.clone();
    handler.fail(move |event| is_poison(event, &poison).then(|| Failure::permanent("poison")));
    for stream in [&c, &a, &c, &b, &c, &a] {
        log.append_to(stream, 1).await;
    }
    let bus = in_process();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, parking());
    within_patience("all", consumer.status.reached(P0, log.heads().await[0])).await;
    assert_eq!(handler.of(&c), [1, 3, 5]);
    assert_eq!(handler.of("sum"), Vec::<u64>::new());
    assert_eq!(handler.of("own"), Vec::<u64>::new());
    let waits: Vec<_> = parked(&*states).await;
    let firsts: Vec<_> = waits
        .iter()
        .map(|own| (&*own.sequence, own.first.number(), own.last.number()))
        .collect();
    assert_eq!(firsts, [("own", 4, 4), ("sum", 2, 6)]);
    handler.fail(|_| None);
    ask(&*states, Ask::RetryAll).await;
    has(&handler, "sum", &[2, 4, 6]).await;
    has(&handler, "own", &[4]).await;
    asked_for_is_done(&*states).await;
    assert_eq!(parked(&*states).await, []);
}

#[tokio::test]
async fn at_the_cap_the_partition_waits_visibly_and_nothing_is_dropped() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let names: Vec<_> = streams_in(P0).take(4).collect();
    for name in &names {
        log.append_to(name, 1).await;
    }
    let good = names[3].clone();
    handler.fail(move |event| {
        let fails = !is_poison(event, &good);
        fails.then(|| Failure::permanent("poison"))
    });
    let mut options = parking();
    options.policy.max_parked = 2;
    let consumer = Consumer::start("a", &log, &in_process(), states.clone(), &handler, options);
    let full = |state: &PartitionState| matches!(state, PartitionState::Full { parked: 2, max: 2 });
    consumer.state(P0, full).await;
    assert!(handler.of(&names[3]).len() <= 1);
    assert_eq!(parked(&*states).await.len(), 2);
    handler.fail(|_| None);
    ask(
        &*states,
        Ask::Retry {
            sequence: names[0].clone(),
        },
    )
    .await;
    // There is room for the third, so that what comes after it goes on.
    has(&handler, &names[0], &[1]).await;
    has(&handler, &names[3], &[4]).await;
    eventually("the third is set aside", || async {
        let parked = parked(&*states).await;
        let parked: Vec<_> = parked.iter().map(|own| own.first.number()).collect();
        parked == [2, 3]
    })
    .await;
    ask(&*states, Ask::RetryAll).await;
    has(&handler, &names[1], &[2]).await;
    has(&handler, &names[2], &[3]).await;
}

#[tokio::test]
async fn what_is_unavailable_for_one_event_does_not_have_the_others_handled_twice() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let (a, b) = two_streams(&log, 3).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let away = a.clone();
    handler.fail(move |event| {
        let fails = is_poison(event, &away) && counted.fetch_add(1, Ordering::SeqCst) < 5;
        fails.then(|| Failure::transient("the mail server is away"))
    });
    let _consumer = Consumer::start("a", &log, &in_process(), states.clone(), &handler, quick());
    // The handler itself insists on each sequence's order, and that nothing comes twice.
    has(&handler, &a, &[1, 3, 5]).await;
    has(&handler, &b, &[2, 4, 6]).await;
    assert_eq!(parked(&*states).await, []);
}

#[tokio::test]
async fn retry_after_sets_the_sequence_aside_without_counting() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let (a, b) = two_streams(&log, 2).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let later = a.clone();
    handler.fail(move |event| {
        let fails = is_poison(event, &later) && counted.fetch_add(1, Ordering::SeqCst) < 8;
        fails.then(|| Failure::retry_after(Duration::from_millis(20), "not before noon"))
    });
    let _consumer = Consumer::start(
        "a",
        &log,
        &in_process(),
        states.clone(),
        &handler,
        trying(2),
    );
    has(&handler, &b, &[2, 4]).await;
    has(&handler, &a, &[1, 3]).await;
    assert!(tries.load(Ordering::SeqCst) > 8);
}

#[tokio::test]
async fn another_process_goes_on_with_what_was_set_aside() {
    let (log, states, handler) = (Log::new(), States::new(), Careful::new());
    let (a, _) = two_streams(&log, 2).await;
    let poison = a.clone();
    handler.fail(move |event| is_poison(event, &poison).then(|| Failure::permanent("poison")));
    let bus = in_process();
    states.lose_answers(3);
    let options = trying(u32::MAX);
    let first = Consumer::start("a", &log, &bus, states.clone(), &handler, options.clone());
    eventually("it is set aside", || async {
        !parked(&*states).await.is_empty()
    })
    .await;
    first.subscription.kill().await;
    let one: Vec<StateRecord> = records(&*states)
        .await
        .into_values()
        .map(|(_, record)| record)
        .collect();
    let in_all: usize = one.iter().map(|record| record.parked.len()).sum();
    assert_eq!(in_all, 1);
    handler.fail(|_| None);
    let _second = Consumer::start("b", &log, &bus, states.clone(), &handler, options);
    has(&handler, &a, &[1, 3]).await;
    eventually("it is free again", || async {
        parked(&*states).await.is_empty()
    })
    .await;
}
