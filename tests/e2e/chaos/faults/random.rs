//! Processes that are started and killed at random, with handlers that fail at random, while the bus' server is killed and emptied and MongoDB
//! stopped; in the manner of Akka's `EventSourcedChaosSpec`.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidelog_domain::Partitions;
use tidelog_test_support::{
    Durability, Engine, Server, ServerOptions, fresh_mongodb_database, shared,
};
use tokio::time::{Instant, sleep};

use crate::chaos::kit::{Ground, Load, Program, Watcher, Writers, empty, on_each_bus};
use crate::log::fresh_log;
use crate::services::Backends;

/// How long each seed lasts.
const LASTS: Duration = Duration::from_secs(60);

/// How many seeds the long form has.
const SEEDS: usize = 20;

/// How many processes there are at once, at most.
const PROCESSES: usize = 8;

/// How many of a thousand tries to handle an event fail.
const FAILING: u32 = 20;

/// How long MongoDB is stopped.
const MONGODB_STOPS: Duration = Duration::from_secs(10);

const STREAMS: usize = 64;

async fn whatever_dies_at_whatever_time_nothing_is_lost_or_done_twice_in_a_view(engine: Engine) {
    let is_long = std::env::var_os("TIDELOG_TEST_LONG").is_some();
    let told = std::env::var("TIDELOG_CHAOS_SEED").ok();
    let told = told.map(|seed| seed.parse().expect("TIDELOG_CHAOS_SEED is a number"));
    let count = if is_long && told.is_none() { SEEDS } else { 1 };
    for _ in 0..count {
        let seed = told.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        eprintln!("TIDELOG_CHAOS_SEED={seed} repeats what comes now");
        chaos(engine, seed, LASTS).await;
    }
}

async fn chaos(engine: Engine, seed: u32, lasts: Duration) {
    let mut random = StdRng::seed_from_u64(seed.into());
    let durability = match random.random() {
        true => Durability::Full,
        false => Durability::Relaxed,
    };
    let options = ServerOptions {
        durability,
        ..ServerOptions::default()
    };
    let mut bus = Server::start_with(engine, options).await;
    let mut mongodb = Server::start(Engine::MongoDb).await;
    let backends = Backends {
        database_url: fresh_log(shared::mysql().await, Partitions::DEFAULT)
            .await
            .service,
        bus_url: bus.url().to_owned(),
        mongodb_url: fresh_mongodb_database(&mongodb),
    };
    let ground = Ground::on(backends).await;
    let mut commands = ground.launch("command");
    let client = commands.ready().await;
    let mut crowd = Crowd::new(ground.clone(), seed);
    let watcher = Watcher::start(&ground).await;
    let load = Load {
        streams: STREAMS,
        pause: Duration::from_millis(40),
        seed: seed.into(),
    };
    let mut writers = Writers::start(&client, load);
    let until = Instant::now() + lasts;
    tokio::join!(
        crowd.until(until),
        bus_breaks(&mut bus, random, until),
        mongodb_stops(&mut mongodb, lasts, &mut writers),
    );
    writers.finish().await;
    commands.assert_runs();
    crowd.calms_down();
    ground.comes_to_the_fold().await;
    watcher.finish().await;
}

/// Processes that come and go.
struct Crowd {
    ground: Ground,
    random: StdRng,
    alive: Vec<Program>,
    /// How many were started, and killed.
    started: u32,
    killed: u32,
}

impl Crowd {
    fn new(ground: Ground, seed: u32) -> Self {
        let mut new = Self {
            ground,
            random: StdRng::seed_from_u64(u64::from(seed) + 1),
            alive: Vec::new(),
            started: 0,
            killed: 0,
        };
        new.begin();
        new
    }

    /// Starts and kills until then.
    async fn until(&mut self, end: Instant) {
        while Instant::now() < end {
            let pause = self.random.random_range(200..2_000);
            sleep(Duration::from_millis(pause)).await;
            // The more there are, the likelier one has to go.
            if self.random.random_range(0..PROCESSES) < self.alive.len() {
                let victim = self.random.random_range(0..self.alive.len());
                self.alive.swap_remove(victim).kill();
                self.killed += 1;
            } else {
                self.begin();
            }
            self.alive.iter_mut().for_each(Program::assert_runs);
        }
    }

    fn begin(&mut self) {
        self.started += 1;
        // Each has dice of its own.
        let ground = self.ground.failing(FAILING, self.random.random());
        self.alive.push(ground.launch("eventbus"));
    }

    /// From now on nobody is killed, and somebody is there.
    fn calms_down(&mut self) {
        while self.alive.len() < 2 {
            self.begin();
        }
        eprintln!(
            "{} processes were started, {} killed",
            self.started, self.killed
        );
        assert!(self.killed > 0);
    }
}

/// Kills and empties the bus' server again and again.
async fn bus_breaks(bus: &mut Server, mut random: StdRng, until: Instant) {
    while Instant::now() < until {
        let pause = random.random_range(2_000..8_000);
        sleep(Duration::from_millis(pause)).await;
        match random.random() {
            true => empty(bus).await,
            false => {
                bus.kill();
                let pause = random.random_range(0..3_000);
                sleep(Duration::from_millis(pause)).await;
                bus.restart().await;
            }
        }
    }
}

/// Stops MongoDB in the middle, during which commands are taken as before.
async fn mongodb_stops(mongodb: &mut Server, lasts: Duration, writers: &mut Writers) {
    sleep(lasts / 3).await;
    mongodb.stop().await;
    let before = writers.written();
    sleep(MONGODB_STOPS).await;
    let meanwhile = writers.written() - before;
    mongodb.restart().await;
    eprintln!("{meanwhile} writes were accepted while MongoDB was down");
    assert!(meanwhile > 0);
}

on_each_bus!(whatever_dies_at_whatever_time_nothing_is_lost_or_done_twice_in_a_view);
