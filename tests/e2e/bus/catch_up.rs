//! Catching up from the log alone: what a replay is made of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tidelog_domain::{Partition, Position};
use tidelog_eventbus::{
    CatchUp, CatchUpError, CatchUpProgress, EventBus, FailurePolicy, Handler, HandlerError,
    InProcessEventBus,
};
use tokio_util::sync::CancellationToken;

use super::kit::{Consumer, Log, Recorder, States, partitions, quick, records, stream_in};

const P0: Partition = Partition::new(0);

fn catch_up(log: &Log, states: &Arc<States>, handler: &Arc<Recorder>) -> CatchUp {
    CatchUp {
        name: "view".to_owned(),
        owner: "replay".to_owned(),
        handler: Arc::clone(handler) as Arc<dyn Handler>,
        states: states.clone(),
        log: log.reader(),
        page_max_events: 7,
        concurrent_partitions: 2,
        policy: FailurePolicy::default(),
        permission: None,
        throttle: None,
    }
}

async fn run(catch_up: &CatchUp, heads: &[Position]) -> Result<(), CatchUpError> {
    catch_up
        .run_to(heads, &|_| {}, &CancellationToken::new())
        .await
}

async fn is_at(states: &States, heads: &[Position]) {
    let stored = records(states).await;
    let stored = stored.values().map(|(_, record)| {
        assert_eq!(record.owner, None, "it was given back");
        record.checkpoint.cursor.position
    });
    assert!(stored.eq(heads.iter().copied()));
}

#[tokio::test]
async fn it_handles_everything_up_to_the_heads_and_no_more() {
    let (log, states, handler) = (Log::new(), States::new(), Recorder::new());
    log.append(300).await;
    let heads = log.heads().await;
    log.append(300).await;
    let catch_up = catch_up(&log, &states, &handler);
    let told = Mutex::new(vec![0; partitions().iter().count()]);
    let progress = |progress: CatchUpProgress<'_>| {
        if let CatchUpProgress::Reached {
            partition, events, ..
        } = progress
        {
            told.lock().unwrap()[partition.index()] += events as u64;
        }
    };
    let never = CancellationToken::new();
    let done = catch_up.run_to(&heads, &progress, &never);
    done.await.unwrap();
    let up_to: Vec<_> = heads.iter().map(|head| head.number()).collect();
    assert_eq!(*told.lock().unwrap(), up_to);
    assert_eq!(handler.count() as u64, up_to.iter().sum::<u64>());
    is_at(&states, &heads).await;

    run(&catch_up, &log.heads().await).await.unwrap();
    handler.has_all_of(&log).await;
    is_at(&states, &log.heads().await).await;
}

#[tokio::test]
async fn a_subscription_goes_on_where_it_ended() {
    let (log, states, handler) = (Log::new(), States::new(), Recorder::new());
    log.append(300).await;
    let catch_up = catch_up(&log, &states, &handler);
    run(&catch_up, &log.heads().await).await.unwrap();
    log.append(300).await;
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let _consumer = Consumer::start("a", &log, &bus, states, &handler, quick());
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn the_stream_of_an_event_that_cannot_be_handled_is_set_aside_for_who_follows_live() {
    let (log, states, handler) = (Log::new(), States::new(), Recorder::new());
    log.append_to(&stream_in(P0), 20).await;
    handler.behave(
        |events| match events.iter().find(|e| e.position.number() == 11) {
            Some(culprit) => Err(HandlerError::permanent(culprit, "poison")),
            None => Ok(()),
        },
    );
    let catch_up = catch_up(&log, &states, &handler);
    run(&catch_up, &log.heads().await).await.unwrap();
    assert_eq!(handler.positions(P0), (1..=10).collect::<Vec<_>>());
    let (_, record) = &records(&*states).await[&P0];
    assert_eq!(record.checkpoint.cursor.position.number(), 20);
    let parked: Vec<_> = record.parked.iter().collect();
    assert_eq!((parked.len(), parked[0].first.number()), (1, 11));

    handler.behave(|_| Ok(()));
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let _consumer = Consumer::start("a", &log, &bus, states, &handler, quick());
    handler.has_all_of(&log).await;
}

#[tokio::test]
async fn it_ends_where_it_cannot_be_told_what_waits_or_too_much_does() {
    let (log, states) = (Log::new(), States::new());
    let handler = Recorder::keyed(|event| match event.position.number() {
        11 => Err(HandlerError::permanent(event, "whose is it?")),
        _ => Ok(vec![event.stream.to_string()]),
    });
    log.append_to(&stream_in(P0), 20).await;
    let fails_at = |position: u64| {
        handler.behave(move |events| {
            match events.iter().find(|e| e.position.number() == position) {
                Some(culprit) => Err(HandlerError::permanent(culprit, "poison")),
                None => Ok(()),
            }
        });
    };
    fails_at(11);
    let mut catch_up = catch_up(&log, &states, &handler);
    let ended = run(&catch_up, &log.heads().await).await;
    assert!(
        matches!(&ended, Err(CatchUpError::Handler { partition, source: HandlerError::Permanent { position, .. } }) if *partition == P0 && position.number() == 11),
        "{ended:?}"
    );
    let at = || async {
        records(&*states).await[&P0]
            .1
            .checkpoint
            .cursor
            .position
            .number()
    };
    assert_eq!(at().await, 10);
    fails_at(15);
    catch_up.policy.max_parked = 0;
    let ended = run(&catch_up, &log.heads().await).await;
    assert!(
        matches!(&ended, Err(CatchUpError::Full { max: 0, .. })),
        "{ended:?}"
    );
    assert_eq!(at().await, 14);
}

#[tokio::test]
async fn what_is_unavailable_is_waited_for_and_told_of() {
    let (log, states, handler) = (Log::new(), States::new(), Recorder::new());
    log.append(100).await;
    let heads = log.heads().await;
    let tries = AtomicUsize::new(0);
    log.be_down(true);
    let progress = |progress: CatchUpProgress<'_>| {
        if let CatchUpProgress::Retrying { .. } = progress {
            // The log comes back; then the state store is away for a while, and loses answers.
            match tries.fetch_add(1, Ordering::SeqCst) {
                2 => {
                    log.be_down(false);
                    states.be_down(true);
                }
                8 => {
                    states.lose_answers(3);
                    states.be_down(false);
                }
                _ => {}
            }
        }
    };
    let catch_up = catch_up(&log, &states, &handler);
    let never = CancellationToken::new();
    let done = catch_up.run_to(&heads, &progress, &never);
    done.await.unwrap();
    assert!(tries.load(Ordering::SeqCst) > 8);
    handler.has_all_of(&log).await;
}
