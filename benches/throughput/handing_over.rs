//! The longest that an event waits for its handler while one of two processes stops, and while it comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidelog_domain::{Partition, Partitions, Position};
use tidelog_eventbus::{
    EventBus, LogReader, PartitionState, RedisEventBus, Relay, RelayOptions, StateStore, Tail,
    TailOptions,
};
use tidelog_test_support::Server;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::posts::Posts;
use crate::subscribing::{Counting, PAUSE, Subscribed, commit};

/// How many commands a second are committed meanwhile.
const PACE: u64 = 500;

/// For how long, each time.
const TIME: Duration = Duration::from_secs(3);

/// When something happens in it.
const MIDDLE: Duration = Duration::from_secs(1);

/// How often each is done.
const ROUNDS: usize = 5;

/// Two processes share a subscription: one stays, one comes and goes.
struct Group<'a> {
    posts: &'a Arc<Posts>,
    bus: Arc<dyn EventBus>,
    handler: Arc<Counting>,
}

/// Measures, and prints what it found.
pub(crate) async fn measure(posts: &Arc<Posts>, redis: &Server) {
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(redis.url(), "handed-over").unwrap());
    let relay = Relay::new(
        Partitions::DEFAULT,
        posts.log.clone(),
        bus.clone(),
        Some(posts.signal.clone()),
        RelayOptions::default(),
    );
    let stop = CancellationToken::new();
    let relaying = tokio::spawn(relay.run(stop.clone()));
    let came = Some(Mutex::new(HashMap::new()));
    let handler = Arc::new(Counting {
        came,
        ..Counting::default()
    });
    let group = Group {
        posts,
        bus,
        handler,
    };
    let stays = group.process("stays");
    stays.reached(&posts.log.heads().await.unwrap()).await;
    let mut waits: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        let leaves = group.process(&format!("leaves-{round}"));
        shared(&stays, &leaves).await;
        let [nothing, stopping, coming] = &mut waits;
        nothing.push(group.longest(async {}).await);
        stopping.push(group.longest(leaves.stop()).await);
        let mut back = None;
        let comes_back = async { back = Some(group.process(&format!("back-{round}"))) };
        coming.push(group.longest(comes_back).await);
        if let Some(back) = back {
            back.stop().await;
        }
    }
    stays.stop().await;
    stop.cancel();
    relaying.await.unwrap();
    println!(
        "The longest from a commit's answer to its handler, {PACE} commits a second for {TIME:?}, {ROUNDS} times\n"
    );
    println!("| meanwhile | median | most |\n|---|---|---|");
    for (what, mut waits) in ["nothing", "one of two processes stops", "it comes back"]
        .into_iter()
        .zip(waits)
    {
        waits.sort_unstable();
        let (median, most) = (waits[ROUNDS / 2], waits[ROUNDS - 1]);
        println!("| {what} | {median:.0?} | {most:.0?} |");
    }
    println!();
}

impl Group<'_> {
    fn process(&self, owner: &str) -> Subscribed {
        let log: Arc<dyn LogReader> = self.posts.log.clone();
        let tail = Tail::new(
            Partitions::DEFAULT,
            self.bus.clone(),
            log.clone(),
            None,
            TailOptions::default(),
        );
        let states: Arc<dyn StateStore> = self.posts.log.clone();
        let handler = self.handler.clone();
        Subscribed::start(owner, "handed-over", handler, states, log, tail)
    }

    /// The longest that an event waited for its handler while `happens` did.
    async fn longest(&self, happens: impl Future<Output = ()>) -> Duration {
        let happens = async {
            sleep(MIDDLE).await;
            happens.await;
        };
        let (answered, ()) = tokio::join!(commit(self.posts, PACE, TIME), happens);
        let is_handled = |place: &(Partition, Position)| {
            let came = self.handler.came.as_ref().unwrap();
            came.lock().unwrap().get(place).copied()
        };
        let mut longest = Duration::ZERO;
        for (place, answered) in answered {
            let came: Instant = loop {
                match is_handled(&place) {
                    Some(came) => break came,
                    None => sleep(PAUSE).await,
                }
            };
            longest = longest.max(came.saturating_duration_since(answered));
        }
        longest
    }
}

/// Waits until each of both has half of the partitions.
async fn shared(one: &Subscribed, other: &Subscribed) {
    let has_half = |own: &Subscribed| {
        let partitions = own.status.partitions();
        let works = partitions
            .iter()
            .filter(|own| matches!(own.state, PartitionState::Live | PartitionState::CatchingUp));
        works.count() == partitions.len() / 2
    };
    while !(has_half(one) && has_half(other)) {
        sleep(PAUSE).await;
    }
}
