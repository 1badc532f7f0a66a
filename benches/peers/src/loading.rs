//! How long the first command to a long stream takes, when all of its events have to be read for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};

use crate::contenders::Kind;
use crate::database::Database;
use crate::post::{Contender, Import, PostCommand, changed, created};

/// How many events are written by one command.
const BY_ONE: usize = 1_000;

/// How often it is loaded; the median counts.
const TIMES: usize = 3;

/// The id of the stream.
const LONG: &str = "long";

/// The ids of others, in all parts of a store.
const SHORT: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// All ids.
const ALL: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", LONG];

/// How long a store that was just opened takes for the first command to a stream of `events` events.
///
/// # Errors
///
/// When a command fails.
pub(crate) async fn measure(
    kind: Kind,
    database: &Database,
    connections: u32,
    events: usize,
) -> anyhow::Result<Duration> {
    let contender = kind.open(database, connections).await?;
    for id in ALL {
        send(&contender, id, PostCommand::Create(created(0))).await?;
    }
    // mysql-es reads the whole stream for each command, so it gets one.
    let by_one = if kind == Kind::MysqlEs {
        events
    } else {
        BY_ONE
    };
    for _ in 0..events.div_ceil(by_one) {
        send(
            &contender,
            LONG,
            PostCommand::Import(Import { events: by_one }),
        )
        .await?;
    }
    contender.close().await;
    let written = database.rows(kind.table()).await?;
    ensure!(written > events as u64, "the log has {written} events");
    let mut took = Vec::new();
    for number in 0..TIMES {
        let fresh = kind.open(database, connections).await?;
        // Its connections are there, and have been used.
        for id in SHORT {
            send(&fresh, id, PostCommand::Change(changed(number))).await?;
        }
        let began = Instant::now();
        send(&fresh, LONG, PostCommand::Change(changed(number))).await?;
        took.push(began.elapsed());
        fresh.close().await;
    }
    took.sort_unstable();
    took.get(TIMES / 2).copied().context("it was loaded")
}

async fn send(
    contender: &Arc<dyn Contender>,
    id: &str,
    command: PostCommand,
) -> anyhow::Result<()> {
    let sent = contender.send(id, &command).await;
    sent.map_err(|miss| anyhow!("a command to the stream {id} failed: {miss:?}"))
}
