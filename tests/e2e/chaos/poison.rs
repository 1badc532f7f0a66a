//! One event of a thousand streams cannot be handled.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use tidelog_eventbus::ParkedState;
use tidelog_test_support::{Engine, Signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::kit::{Expected, Ground, POISON, Watcher, add, begin, on_each_bus, within};
use crate::client::Client;
use crate::log::Row;
use crate::view::View;

/// The one with the poison is `0`.
const STREAMS: usize = 1_001;

/// Each is fed by about ten streams.
const SHARED: usize = 100;

/// How many writes are followed into the views, before and after.
const PROBES: usize = 60;

/// The lag that the others may have.
const LAG: Duration = Duration::from_secs(1);

fn groups(stream: usize) -> Vec<String> {
    vec![format!("c{}", stream % SHARED)]
}

/// Writes to each of the streams, several at once.
async fn all(client: &Client, create: bool, streams: std::ops::Range<usize>) {
    let mut writers = JoinSet::new();
    for first in 0..16 {
        let (client, streams) = (client.clone(), streams.clone());
        writers.spawn(async move {
            for stream in streams.skip(first).step_by(16) {
                match create {
                    true => begin(&client, &stream.to_string(), &groups(stream)).await,
                    false => add(&client, &stream.to_string(), 1, &groups(stream)).await,
                }
            }
        });
    }
    writers.join_all().await;
}

/// The view's documents in MongoDB.
async fn collection(ground: &Ground, view: &str) -> mongodb::Collection<Document> {
    let client = mongodb::Client::with_uri_str(&ground.backends.mongodb_url)
        .await
        .unwrap();
    let name = View::on(&ground.backends).await.collection(view).await;
    client.default_database().unwrap().collection(&name)
}

/// How many events a document has.
async fn version(collection: &mongodb::Collection<Document>, id: &str) -> i64 {
    let found = collection.find_one(doc! { "_id": id }).await.unwrap();
    found.map_or(0, |document| document.get_i64("version").unwrap())
}

/// Writes to streams other than those that share a document with the poison, one after the other, and says how long the answer was before the
/// effect in both views: the median, and the longest.
async fn lags(ground: &Ground, client: &Client) -> [Duration; 2] {
    let (sheets, clubs) = (
        collection(ground, "sheet").await,
        collection(ground, "club").await,
    );
    let mut lags = Vec::new();
    for stream in (1..STREAMS)
        .filter(|stream| stream % SHARED != 0)
        .step_by(13)
        .take(PROBES)
    {
        let (id, group) = (stream.to_string(), groups(stream));
        let before = [
            version(&sheets, &id).await,
            version(&clubs, &group[0]).await,
        ];
        add(client, &id, 1, &group).await;
        let written = Instant::now();
        within("a write to be projected", async || {
            let now = [
                version(&sheets, &id).await,
                version(&clubs, &group[0]).await,
            ];
            (now == before.map(|old| old + 1))
                .then_some(())
                .ok_or(format!("{now:?}"))
        })
        .await;
        lags.push(written.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    lags.sort_unstable();
    [lags[lags.len() / 2], lags[lags.len() - 1]]
}

async fn poison_stops_its_own_sequence_and_no_other_until_it_is_mended(bus: Engine) {
    let ground = Ground::fresh(bus).await;
    let commands = ground.launch("command");
    let client = commands.ready().await;
    let poisoned = ground.poisoned("sheet,club").launch("eventbus");
    let watcher = Watcher::start(&ground).await;
    all(&client, true, 0..STREAMS).await;
    let full = Expected::of(&ground.rows().await, |_, _| true);
    within("all streams to be projected", async || {
        full.compare(&ground).await
    })
    .await;
    let before = lags(&ground, &client).await;

    add(&client, "0", POISON, &groups(0)).await;
    add(&client, "0", 1, &groups(0)).await;
    let after = lags(&ground, &client).await;
    all(&client, false, 0..STREAMS).await;
    eprintln!("lag, median and longest: {before:?} without poison, {after:?} with it");
    // By the median, as a machine that does other things too has its moments.
    assert!(
        after[0] < LAG.max(10 * before[0]),
        "the others lag: {after:?}"
    );

    let rows = ground.rows().await;
    let poison = rows
        .iter()
        .find(|row| row.payload["amount"] == POISON)
        .unwrap();
    let waits = |row: &Row, key: &str| {
        ["0", "c0"].contains(&key)
            && row.partition == poison.partition
            && row.position >= poison.position
    };
    let without = Expected::of(&rows, |row, key| !waits(row, key));
    within("all others to be projected", async || {
        without.compare(&ground).await
    })
    .await;
    for (view, sequence) in [("sheet", "0"), ("club", "c0")] {
        let first = within("the sequence to be parked", async || {
            let states = ground.states(view).await;
            let parked = states.iter().flat_map(|(partition, _, own)| {
                own.parked
                    .iter()
                    .map(move |parked| (i64::from(partition.number()), parked))
            });
            let parked: Vec<_> = parked.collect();
            match parked.as_slice() {
                [(partition, one)] if one.state == ParkedState::Parked => Ok((
                    *partition,
                    one.sequence.clone(),
                    one.first.number(),
                    one.attempts,
                )),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let position = poison.position.unsigned_abs();
        assert_eq!(first, (poison.partition, sequence.to_owned(), position, 5));
    }
    within("nothing else to have moved", async || {
        without.compare(&ground).await
    })
    .await;

    poisoned.signal(Signal::Term);
    poisoned.ended().await;
    let mended = ground.launch("eventbus");
    mended.ready().await;
    // It does not come right by itself.
    without.compare(&ground).await.unwrap();
    for view in ["sheet", "club"] {
        let asked = ground.operations(view).await.retry_all().await.unwrap();
        assert_eq!(asked.len(), 1);
    }
    ground.comes_to_the_fold().await;
    watcher.finish().await;
    mended.kill();
}

on_each_bus!(poison_stops_its_own_sequence_and_no_other_until_it_is_mended,);
