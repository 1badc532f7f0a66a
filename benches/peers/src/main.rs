//! tidelog's speed beside that of its peers, and beside what the database can do: see `README.md` beside this package.
//!
//! The contenders take turns, so that a drift of the machine hits all of them: only ratios within one run mean anything.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints what it found, and rates are for people"
)]

mod bench;
mod contenders;
mod database;
mod evento;
mod limit;
mod loading;
mod machine;
mod mysql_es;
mod others;
mod part;
mod post;
mod report;
mod run;
mod tidelog;
mod views;

use std::path::PathBuf;

use clap::Parser;

use bench::Bench;
use contenders::Kind;
use part::Part;

/// Measures tidelog beside its peers, on servers and files of its own.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure; all of it where nothing is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How many clients, each with one command in flight; each part has its own numbers otherwise.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<usize>,
    /// How long each run is measured, after a second that does not count.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each run is made; the one of the median rate counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Only these contenders.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// How many connections the pool of a peer has.
    #[arg(long, default_value_t = 10)]
    pool: u32,
    /// How many events the long stream has.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// For how many seconds each run may wait until other programs leave the machine alone; a run that they disturbed is
    /// made again within that time, and the least disturbed one counts.
    #[arg(long, default_value_t = 0)]
    patience: u64,
    /// Writes `<out>.md` and `<out>.json`.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    /// What is written above the tables.
    fn settings(&self, durability: String) -> Vec<String> {
        let Self {
            seconds,
            rounds,
            pool,
            ..
        } = self;
        vec![
            format!("MySQL: {durability}; every connection to it is unencrypted (ssl-mode=disabled)"),
            format!("pool of a peer: {pool} connections; tidelog: 2 that append, 8 that read"),
            format!("{seconds} s a run after 1 s that does not count, {rounds} round(s), the median rate counts"),
            "a fresh database a run; one command in flight a client; a create, then three changes, one event of about 200 \
             bytes each"
                .to_owned(),
            "servers, contenders and load share the machine".to_owned(),
        ]
    }

    /// Those of the part that are asked for.
    fn contenders(&self, part: Part) -> impl Iterator<Item = Kind> {
        let all = part.contenders().iter().copied();
        all.filter(|kind| self.only.is_empty() || self.only.contains(kind))
    }
}

fn main() -> anyhow::Result<()> {
    // The peers and tidelog bring several providers of TLS; none is used, but one has to be chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let options = Options::parse();
        let mut parts = options.parts.clone();
        if parts.is_empty() {
            parts.extend(Part::ALL);
        }
        let mut bench = Bench::start(options).await?;
        for part in parts {
            bench.measure(part).await?;
        }
        bench.write()
    })
}
