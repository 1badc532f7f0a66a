//! A process that is asked to stop: another one goes on at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidelog_test_support::{Engine, Signal};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::kit::{Ground, Load, SUBSCRIPTIONS, Watcher, Writers, on_each_bus, within};
use crate::log::Row;
use crate::view::View;

/// How often it is looked what is in the view.
const LOOK: Duration = Duration::from_millis(10);

/// Microseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros().try_into().unwrap()
}

/// That a hand-over takes under a second is printed, as a machine may be slow. What is checked is that nobody has to wait for a lease to
/// end: the process that is gone has nothing any more.
async fn a_process_that_stops_hands_over_without_a_pause(bus: Engine) {
    let ground = Ground::fresh(bus).await;
    let commands = ground.launch("command");
    let client = commands.ready().await;
    let (leaving, staying) = (ground.launch("eventbus"), ground.launch("eventbus"));
    let watcher = Watcher::start(&ground).await;
    for subscription in SUBSCRIPTIONS {
        within("the two to have an equal share", async || {
            let mut shares: BTreeMap<_, usize> = BTreeMap::new();
            for (.., own) in ground.states(subscription).await {
                *shares.entry(own.owner).or_default() += 1;
            }
            let is_equal = shares.values().eq(&[8, 8]);
            is_equal
                .then_some(())
                .ok_or(format!("{subscription}: {shares:?}"))
        })
        .await;
    }
    let load = Load {
        streams: 64,
        pause: Duration::from_millis(30),
        seed: 0,
    };
    let mut writers = Writers::start(&client, load);
    let looking = Looking::start(&ground);
    writers.write(200).await;
    let half = now();
    writers.write(200).await;
    let asked = now();
    leaving.signal(Signal::Term);
    leaving.ended().await;
    let ended = now();
    let owners = owners(&ground).await;
    assert!(
        owners.len() <= 1,
        "the process that is gone kept something: {owners:?}"
    );
    writers.write(400).await;
    writers.finish().await;
    ground.comes_to_the_fold().await;
    let rows = ground.rows().await;
    let late = [
        ("the view", looking.finish(&rows).await),
        ("the reaction", seen(&ground, &rows).await),
    ];
    eprintln!("the process took {} ms to end", (ended - asked) / 1_000);
    for (what, delays) in late {
        // With the events on their way when the process was asked.
        let during = longest(&rows, &delays, |at| (half..ended).contains(&at));
        let before = longest(&rows, &delays, |at| at < half);
        eprintln!(
            "{what}: {} ms from commit to effect at most, {} ms before",
            during / 1_000,
            before / 1_000
        );
    }
    watcher.finish().await;
    drop(staying);
}

/// Who has partitions of any subscription.
async fn owners(ground: &Ground) -> BTreeSet<String> {
    let mut owners = BTreeSet::new();
    for subscription in SUBSCRIPTIONS {
        let states = ground.states(subscription).await;
        owners.extend(states.into_iter().filter_map(|(.., own)| own.owner));
    }
    owners
}

/// The longest delay of the events that were recorded when it is meant.
fn longest(rows: &[Row], delays: &BTreeMap<String, i64>, is_meant: impl Fn(i64) -> bool) -> i64 {
    let meant = rows.iter().filter(|row| is_meant(row.recorded_at));
    meant
        .map(|row| delays[&row.event_id])
        .max()
        .expect("events were written then")
}

/// How long after its commit the reaction was done with each event, for the first time; by MySQL's clock.
async fn seen(ground: &Ground, rows: &[Row]) -> BTreeMap<String, i64> {
    let mut first = BTreeMap::new();
    for (id, _, _, at) in ground.seen().await {
        first.entry(id).or_insert(at);
    }
    rows.iter()
        .map(|row| (row.event_id.clone(), first[&row.event_id] - row.recorded_at))
        .collect()
}

/// Looks again and again which versions the view has.
struct Looking {
    stop: CancellationToken,
    task: JoinHandle<Vec<(i64, BTreeMap<String, i64>)>>,
}

impl Looking {
    fn start(ground: &Ground) -> Self {
        let stop = CancellationToken::new();
        let (until, backends) = (stop.clone(), ground.backends.clone());
        let task = tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(async {
                let view = View::on(&backends).await;
                let mut looks = Vec::new();
                while !until.is_cancelled() {
                    let documents = view.documents("sheet").await.into_iter();
                    looks.push((
                        now(),
                        documents.map(|(id, found)| (id, found.version)).collect(),
                    ));
                    sleep(LOOK).await;
                }
                looks
            })
        });
        Self { stop, task }
    }

    /// How long after its commit each event was in the view, at most.
    async fn finish(self, rows: &[Row]) -> BTreeMap<String, i64> {
        // One more look, at all of it.
        sleep(10 * LOOK).await;
        self.stop.cancel();
        let looks = self.task.await.unwrap();
        let delay = |row: &Row| {
            let has = |look: &&(i64, BTreeMap<String, i64>)| {
                look.1
                    .get(row.id())
                    .is_some_and(|version| *version >= row.version)
            };
            let (at, _) = looks.iter().find(has).expect("the view came to have it");
            at - row.recorded_at
        };
        rows.iter()
            .map(|row| (row.event_id.clone(), delay(row)))
            .collect()
    }
}

on_each_bus!(a_process_that_stops_hands_over_without_a_pause,);
