//! The benchmark as it goes: who takes part, in which order, and what is kept of it.

use std::time::{Duration, Instant};

use anyhow::Context;
use tidelog_test_support::{Engine, Server};

use crate::Options;
use crate::contenders::Kind;
use crate::database::Database;
use crate::machine::{Machine, Versions, durability};
use crate::others::Work;
use crate::part::Part;
use crate::report::{Followed, Limit, Loading, Measurement, Report, ms};
use crate::run::{Found, Load, run};
use crate::{limit, loading, views};

/// What other programs may take of the machine, from 0 to 1, beside an undisturbed run.
const UNDISTURBED: f64 = 0.05;

/// How long it is looked whether the machine is left alone.
const LOOK: Duration = Duration::from_secs(1);

/// The benchmark as it goes.
pub(crate) struct Bench {
    options: Options,
    server: Server,
    report: Report,
}

impl Bench {
    /// Starts the server.
    ///
    /// # Errors
    ///
    /// When it cannot be asked what it is.
    pub(crate) async fn start(options: Options) -> anyhow::Result<Self> {
        let machine = Machine::this();
        let server = Server::start(Engine::MySql).await;
        let settings = options.settings(durability(server.url()).await?);
        let report = Report {
            machine,
            versions: Versions::found(server.url()).await?,
            settings,
            measurements: Vec::new(),
            limits: Vec::new(),
            loading: Vec::new(),
            views: Vec::new(),
        };
        Ok(Self {
            options,
            server,
            report,
        })
    }

    /// Measures one part.
    ///
    /// # Errors
    ///
    /// When a contender fails, or has lost a command.
    pub(crate) async fn measure(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Loading => return self.load().await,
            Part::Views => return self.follow().await,
            _ => {}
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
        let once = async || self.once(part, kind, clients).await;
        let (found, others) = self.undisturbed(once).await?;
        eprintln!(
            "{part:?}, {clients} clients, {}: {:.0}/s, p99 {:.1?}, others took {:.0} % of the machine",
            kind.name(),
            found.rate,
            found.p99,
            others * 100.0
        );
        if let Some(error) = &found.error {
            eprintln!("  {} errors, the first of them: {error}", found.errors);
        }
        Ok(Found { others, ..found })
    }

    async fn once(&self, part: Part, kind: Kind, clients: usize) -> anyhow::Result<Found> {
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
        let found = run(&contender, load, clients, self.time()).await?;
        contender.close().await;
        let events = database.rows(kind.table()).await?;
        found.check(events).with_context(|| kind.name())?;
        drop(contender);
        database.drop().await?;
        Ok(found)
    }

    /// Does it `once` while other programs leave the machine alone, as far as the patience goes, and says which part of
    /// the machine they took.
    async fn undisturbed<T>(
        &self,
        mut once: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, f64)> {
        let deadline = Instant::now() + Duration::from_secs(self.options.patience);
        let mut best: Option<(T, f64)> = None;
        loop {
            while Instant::now() < deadline {
                let before = self.work();
                tokio::time::sleep(LOOK).await;
                if self.work().others_since(before) <= UNDISTURBED {
                    break;
                }
            }
            let before = self.work();
            let found = once().await?;
            let others = self.work().others_since(before);
            let least = match best {
                Some(best) if best.1 <= others => best,
                _ => (found, others),
            };
            if least.1 <= UNDISTURBED || Instant::now() >= deadline {
                return Ok(least);
            }
            best = Some(least);
        }
    }

    fn work(&self) -> Work {
        Work::so_far(self.server.process_id())
    }

    /// How long a run is measured.
    fn time(&self) -> Duration {
        Duration::from_secs(self.options.seconds)
    }

    /// The best that bare INSERTs reach now.
    async fn limit(&self, clients: usize) -> anyhow::Result<Limit> {
        let mut all = Vec::new();
        for rows_per_insert in limit::BATCHES {
            let once = async || {
                let database = Database::on(&self.server).await;
                let rate = limit::measure(&database, rows_per_insert, self.time()).await?;
                database.drop().await?;
                anyhow::Ok(rate)
            };
            let (rows_per_second, others) = self.undisturbed(once).await?;
            let share = others * 100.0;
            eprintln!(
                "Limit, {rows_per_insert} rows an INSERT: {rows_per_second:.0}/s, others took {share:.0} %"
            );
            all.push(Limit {
                clients,
                rows_per_insert,
                rows_per_second,
                others,
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
            let once = async || {
                let database = Database::on(&self.server).await;
                let took = loading::measure(kind, &database, pool, events).await?;
                database.drop().await?;
                anyhow::Ok(took)
            };
            let (took, others) = self.undisturbed(once).await?;
            eprintln!("Loading {events} events, {}: {took:.1?}", kind.name());
            self.report.loading.push(Loading {
                contender: kind.name(),
                events,
                snapshot: kind == Kind::Tidelog,
                ms: ms(took),
                others,
            });
        }
        Ok(())
    }

    /// Events into a view, the contenders in turn.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mongodb = Server::start(Engine::MongoDb).await;
        let kinds: Vec<Kind> = self.options.contenders(Part::Views).collect();
        let clients = match &self.options.clients[..] {
            [] => Part::Views.clients().to_vec(),
            given => given.to_vec(),
        };
        let rounds = self.options.rounds;
        for (clients, _) in clients
            .iter()
            .flat_map(|clients| (0..rounds).map(move |n| (*clients, n)))
        {
            for kind in &kinds {
                let load = (self.options.events, clients, self.options.pool);
                let once = async || {
                    let database = Database::on(&self.server).await;
                    let took = views::measure(*kind, &database, &mongodb, load).await?;
                    database.drop().await?;
                    anyhow::Ok(took)
                };
                let (took, others) = self.undisturbed(once).await?;
                eprintln!("{} events into a view, {}: {took:.1?}", load.0, kind.name());
                self.report.views.push(Followed {
                    contender: kind.name(),
                    clients,
                    events: load.0,
                    ms: ms(took),
                    others,
                });
            }
        }
        Ok(())
    }

    /// Prints the report, and writes it where that is asked for.
    ///
    /// # Errors
    ///
    /// When it cannot be written there.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
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
