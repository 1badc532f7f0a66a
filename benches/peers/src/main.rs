//! tidelog's speed beside that of its peers, and beside what the database can do: see `README.md` beside this package.
//!
//! The contenders take turns, so that a drift of the machine hits all of them: only ratios within one run mean anything.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints what it found, and rates are for people"
)]

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

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tidelog_test_support::{Engine, Server};

use contenders::Kind;
use database::Database;
use machine::{Machine, Versions};
use others::Work;
use part::Part;
use report::{Limit, Loading, Measurement, Report};
use run::{Found, Load, run};

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
    #[arg(long, default_value_t = 32)]
    pool: u32,
    /// How many events the long stream has.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
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

/// The benchmark as it goes.
struct Bench {
    options: Options,
    server: Server,
    report: Report,
}

fn main() -> anyhow::Result<()> {
    // The peers and tidelog bring several providers of TLS; none is used, but one has to be chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut bench = Bench::start(Options::parse()).await?;
        let all = bench.options.parts.is_empty();
        for part in Part::ALL {
            if all || bench.options.parts.contains(&part) {
                bench.measure(part).await?;
            }
        }
        bench.write()
    })
}

impl Bench {
    async fn start(options: Options) -> anyhow::Result<Self> {
        let machine = Machine::this();
        let server = Server::start(Engine::MySql).await;
        let settings = options.settings(machine::durability(server.url()).await?);
        let report = Report {
            machine,
            versions: Versions::found(server.url()).await?,
            settings,
            measurements: Vec::new(),
            limits: Vec::new(),
            loading: Vec::new(),
        };
        Ok(Self {
            options,
            server,
            report,
        })
    }

    async fn measure(&mut self, part: Part) -> anyhow::Result<()> {
        if part == Part::Loading {
            return self.load().await;
        }
        let clients = if self.options.clients.is_empty() {
            part.clients().to_vec()
        } else {
            self.options.clients.clone()
        };
        for clients in clients {
            self.compare(part, clients).await?;
        }
        Ok(())
    }

    /// All contenders of a part in turn, as often as there are rounds.
    async fn compare(&mut self, part: Part, clients: usize) -> anyhow::Result<()> {
        let kinds: Vec<Kind> = self.options.contenders(part).collect();
        let mut found: Vec<Vec<Found>> = kinds.iter().map(|_| Vec::new()).collect();
        let mut limits = Vec::new();
        for _ in 0..self.options.rounds {
            for (kind, found) in kinds.iter().zip(&mut found) {
                found.push(self.run(part, *kind, clients).await?);
            }
            if part == Part::Commands {
                limits.push(self.limit(clients).await?);
            }
        }
        let found: Vec<Found> = found
            .into_iter()
            .filter_map(|of| median(of, |f| f.rate))
            .collect();
        let limit = median(limits, |limit| limit.rows_per_second);
        let reference = kinds.iter().position(|kind| *kind == part.reference());
        let reference = reference.and_then(|index| found.get(index));
        for (kind, one) in kinds.iter().zip(&found) {
            let name = kind.name();
            let row = Measurement::new(part, name, clients, one, reference, limit.as_ref());
            self.report.measurements.push(row);
        }
        self.report.limits.extend(limit);
        Ok(())
    }

    /// One contender on a fresh database.
    async fn run(&self, part: Part, kind: Kind, clients: usize) -> anyhow::Result<Found> {
        let name = kind.name();
        let database = match part {
            Part::File => Database::in_file()?,
            _ => Database::on(&self.server).await,
        };
        let contender = kind.open(&database, self.options.pool).await?;
        let load = if part == Part::Hot {
            Load::Hot
        } else {
            Load::Own
        };
        let time = Duration::from_secs(self.options.seconds);
        let before = Work::so_far(self.server.process_id());
        let mut found = run(&contender, load, clients, time).await?;
        let after = Work::so_far(self.server.process_id());
        found.others = after.others_since(before);
        contender.close().await;
        eprintln!(
            "{part:?}, {clients} clients, {name}: {:.0}/s, p99 {:.1?}, others took {:.0} % of the machine",
            found.rate,
            found.p99,
            found.others * 100.0
        );
        if let Some(error) = &found.error {
            eprintln!("  {} errors, the first of them: {error}", found.errors);
        }
        let events = database.rows(kind.table()).await?;
        found.check(events).with_context(|| name)?;
        drop(contender);
        database.drop().await?;
        Ok(found)
    }

    /// The best that bare INSERTs reach now.
    async fn limit(&self, clients: usize) -> anyhow::Result<Limit> {
        let mut all = Vec::new();
        for rows_per_insert in limit::BATCHES {
            let database = Database::on(&self.server).await;
            let time = Duration::from_secs(self.options.seconds);
            let rows_per_second = limit::measure(&database, rows_per_insert, time).await?;
            eprintln!("Limit, {rows_per_insert} rows an INSERT: {rows_per_second:.0}/s");
            database.drop().await?;
            all.push(Limit {
                clients,
                rows_per_insert,
                rows_per_second,
            });
        }
        let best = all
            .into_iter()
            .max_by(|a, b| a.rows_per_second.total_cmp(&b.rows_per_second));
        best.context("there are sizes")
    }

    /// The first command to a long stream.
    async fn load(&mut self) -> anyhow::Result<()> {
        let (events, pool) = (self.options.events, self.options.pool);
        for kind in self.options.contenders(Part::Loading) {
            let database = Database::on(&self.server).await;
            let took = loading::measure(kind, &database, pool, events).await?;
            eprintln!("Loading {events} events, {}: {took:.1?}", kind.name());
            database.drop().await?;
            self.report.loading.push(Loading {
                contender: kind.name(),
                events,
                snapshot: false,
                ms: report::ms(took),
            });
        }
        Ok(())
    }

    /// Prints the report, and writes it where that is asked for.
    fn write(&self) -> anyhow::Result<()> {
        println!("{}", self.report);
        if let Some(out) = &self.options.out {
            let json = serde_json::to_string_pretty(&self.report)? + "\n";
            std::fs::write(out.with_extension("json"), json)?;
            std::fs::write(out.with_extension("md"), self.report.to_string())?;
        }
        Ok(())
    }
}

/// The one of the median rate; nothing of nothing.
fn median<T>(mut all: Vec<T>, rate: impl Fn(&T) -> f64) -> Option<T> {
    all.sort_unstable_by(|a, b| rate(a).total_cmp(&rate(b)));
    let middle = all.len() / 2;
    all.into_iter().nth(middle)
}
