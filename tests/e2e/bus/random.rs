//! Whatever fails and whenever a process ends, each sequence gets all of its events in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tidelog_domain::{Partition, RecordedEvent};
use tidelog_eventbus::{
    Ask, EventBus, EventFailure, Failure, FailurePolicy, Handled, Handler, HandlerError,
    InProcessEventBus, ParkedState, Request, SubscriptionOptions,
};

use super::kit::{Consumer, Log, States, change, eventually, quick, records, stream_in};

const P0: Partition = Partition::new(0);

const SEEDS: usize = 4;

const EVENTS: usize = 400;

/// The sequences that there are. An event belongs to one or two of them.
const SEQUENCES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Applies an event to each of its sequences that has not come so far yet, as a projection does; and fails at random, before an
/// event, between its sequences or after it.
struct Moody {
    dice: Mutex<StdRng>,
    applied: Mutex<BTreeMap<&'static str, Vec<u64>>>,
}

/// What a try to handle an event comes to, if not to nothing special.
enum Mood {
    /// The event fails, and says so.
    Fails(Failure),
    /// The whole batch does.
    Panics,
}

impl Moody {
    fn mood(&self) -> Option<Mood> {
        let mut dice = self.dice.lock().unwrap();
        Some(match dice.random_range(0..100) {
            0..2 => Mood::Panics,
            2 => Mood::Fails(Failure::permanent("no")),
            3 => Mood::Fails(Failure::transient("a moment")),
            4 => Mood::Fails(Failure::retry_after(Duration::from_millis(3), "later")),
            _ => return None,
        })
    }

    fn apply(&self, event: &RecordedEvent, sequence: &'static str) {
        let position = event.position.number();
        let mut applied = self.applied.lock().unwrap();
        let of_it = applied.entry(sequence).or_default();
        if of_it.last().is_none_or(|last| *last < position) {
            of_it.push(position);
        }
    }
}

/// Always the same for a position.
fn sequences_of(position: u64) -> Vec<&'static str> {
    let mut random = StdRng::seed_from_u64(position);
    let count = random.random_range(1..=2);
    SEQUENCES
        .choose_multiple(&mut random, count)
        .copied()
        .collect()
}

#[async_trait]
impl Handler for Moody {
    fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
        let names = sequences_of(event.position.number());
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn handle(
        &self,
        _: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        let mut outcome = Handled::default();
        let mut held_up: Vec<&str> = Vec::new();
        for event in events {
            let sequences = sequences_of(event.position.number());
            let waits = sequences.iter().any(|own| held_up.contains(own));
            let mut mood = if waits { None } else { self.mood() };
            if !waits && mood.is_none() {
                for sequence in &sequences {
                    self.apply(event, sequence);
                    // What it has done by then, it has done.
                    mood = mood.or_else(|| self.mood());
                    if mood.is_some() {
                        break;
                    }
                }
            }
            match mood {
                Some(Mood::Panics) => panic!("a bad mood"),
                Some(Mood::Fails(failure)) => outcome.failed.push(EventFailure {
                    position: event.position,
                    failure,
                }),
                None if !waits => continue,
                None => {}
            }
            held_up.extend(sequences);
        }
        tokio::task::yield_now().await;
        Ok(outcome)
    }
}

#[tokio::test]
async fn whatever_fails_each_sequence_gets_all_of_its_events() {
    for _ in 0..SEEDS {
        let seed = rand::random_range(0..1_000_000);
        eprintln!("the seed is {seed}");
        all_come(seed).await;
    }
}

async fn all_come(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (log, states) = (Log::new(), States::new());
    let handler = Arc::new(Moody {
        dice: Mutex::new(StdRng::seed_from_u64(seed + 1)),
        applied: Mutex::default(),
    });
    let options = SubscriptionOptions {
        lease: Duration::from_millis(100),
        watch_interval: Duration::from_millis(5),
        policy: FailurePolicy {
            first_delay: Duration::from_millis(2),
            max_delay: Duration::from_millis(10),
            attempts: *[2, u32::MAX].choose(&mut random).unwrap(),
            max_parked: *[4, 256].choose(&mut random).unwrap(),
            ..FailurePolicy::default()
        },
        log_page_max_events: random.random_range(1..100),
        live_batch_max_events: random.random_range(1..100),
        ..quick()
    };
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let begin = |round: usize| {
        let owner = format!("process {round}");
        Consumer::start(
            &owner,
            &log,
            &bus,
            states.clone(),
            &handler,
            options.clone(),
        )
    };
    let mut consumer = begin(0);
    let mut appended = 0;
    let mut round = 0;
    while appended < EVENTS {
        let count = random.random_range(1..50);
        log.append_to(&stream_in(P0), count).await;
        appended += count;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        round += 1;
        let successor = match random.random_range(0..4) {
            0 => {
                consumer.subscription.stop().await;
                begin(round)
            }
            1 => {
                consumer.subscription.kill().await;
                begin(round)
            }
            _ => continue,
        };
        consumer = successor;
    }
    eventually("all is handled, and nothing is set aside", || async {
        let Some((_, own)) = records(&*states).await.remove(&P0) else {
            return false;
        };
        // Somebody has an eye on what is parked.
        if own
            .parked
            .iter()
            .any(|own| own.state == ParkedState::Parked)
            && own.requests.is_empty()
        {
            let request = Request::now(Ask::RetryAll);
            change(&*states, P0, |record| {
                record.asked(request.clone()).unwrap()
            })
            .await;
        }
        own.parked.is_empty() && own.checkpoint.cursor.position.number() == appended as u64
    })
    .await;
    drop(consumer);
    for sequence in SEQUENCES {
        let all = 1..=appended as u64;
        let expected: Vec<u64> = all
            .filter(|position| sequences_of(*position).contains(&sequence))
            .collect();
        let applied = handler.applied.lock().unwrap();
        let of_it = applied.get(sequence).cloned().unwrap_or_default();
        let missing: Vec<_> = expected.iter().filter(|own| !of_it.contains(own)).collect();
        assert!(
            missing.is_empty(),
            "seed {seed}: {sequence} has not got {missing:?}"
        );
        assert_eq!(of_it, expected, "seed {seed}");
    }
}
