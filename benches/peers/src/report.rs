//! What was found, as JSON and as Markdown.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::Serialize;

use crate::machine::{Machine, Versions};
use crate::part::Part;
use crate::run::Found;

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    pub(crate) settings: Vec<String>,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) loading: Vec<Loading>,
    pub(crate) views: Vec<Followed>,
}

/// One contender under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) part: Part,
    pub(crate) contender: String,
    pub(crate) clients: usize,
    pub(crate) commands_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) conflicts: u64,
    pub(crate) errors: u64,
    /// Which part of the machine other programs took meanwhile, from 0 to 1.
    pub(crate) others: f64,
    /// Commands a second, as a multiple of those of the part's reference.
    pub(crate) rate_ratio: Option<f64>,
    /// The p99, as a multiple of that of the part's reference.
    pub(crate) p99_ratio: Option<f64>,
    /// Commands a second, as a part of the bare rows a second of the same round.
    pub(crate) of_limit: Option<f64>,
}

/// What bare INSERTs reached beside the runs with `clients`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limit {
    pub(crate) clients: usize,
    /// The size that was the fastest.
    pub(crate) rows_per_insert: usize,
    pub(crate) rows_per_second: f64,
    pub(crate) others: f64,
}

/// The first command to a long stream.
#[derive(Debug, Serialize)]
pub(crate) struct Loading {
    pub(crate) contender: String,
    pub(crate) events: usize,
    pub(crate) snapshot: bool,
    pub(crate) ms: f64,
    pub(crate) others: f64,
}

/// Events into a view.
#[derive(Debug, Serialize)]
pub(crate) struct Followed {
    pub(crate) contender: String,
    pub(crate) clients: usize,
    pub(crate) events: usize,
    pub(crate) ms: f64,
    pub(crate) others: f64,
}

impl Followed {
    fn rate(&self) -> f64 {
        self.events as f64 / self.ms * 1000.0
    }
}

impl Measurement {
    /// From what was found of `contender`, and of the part's reference in the same round.
    pub(crate) fn new(
        part: Part,
        contender: String,
        clients: usize,
        found: &Found,
        reference: Option<&Found>,
        limit: Option<&Limit>,
    ) -> Self {
        let of = |mine: f64, other: f64| (other > 0.0).then_some(mine / other);
        let (rate, p99) = (found.rate, found.p99.as_secs_f64());
        Self {
            part,
            contender,
            clients,
            commands_per_second: rate,
            p50_ms: ms(found.p50),
            p99_ms: ms(found.p99),
            conflicts: found.conflicts,
            errors: found.errors,
            others: found.others,
            rate_ratio: reference.and_then(|other| of(rate, other.rate)),
            p99_ratio: reference.and_then(|other| of(p99, other.p99.as_secs_f64())),
            of_limit: limit.and_then(|limit| of(rate, limit.rows_per_second)),
        }
    }
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}\n", self.machine.text(), self.versions.text())?;
        for setting in &self.settings {
            writeln!(f, "- {setting}")?;
        }
        for part in Part::ALL {
            self.table(f, part)?;
        }
        self.loading(f)?;
        self.views(f)
    }
}

impl Report {
    fn table(&self, f: &mut Formatter<'_>, part: Part) -> fmt::Result {
        let rows: Vec<_> = self
            .measurements
            .iter()
            .filter(|row| row.part == part)
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let reference = part.reference().name();
        writeln!(f, "\n### {}\n", part.title())?;
        writeln!(
            f,
            "| clients | | commands/s | p50 | p99 | × {reference} | its p99 × | of the limit | conflicts | errors | others |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for (index, row) in rows.iter().enumerate() {
            writeln!(
                f,
                "| {} | {} | {:.0} | {:.1} ms | {:.1} ms | {} | {} | {} | {} | {} | {:.0} % |",
                row.clients,
                row.contender,
                row.commands_per_second,
                row.p50_ms,
                row.p99_ms,
                shown(row.rate_ratio),
                shown(row.p99_ratio),
                row.of_limit
                    .map_or_else(String::new, |part| format!("{:.0} %", part * 100.0)),
                row.conflicts,
                row.errors,
                row.others * 100.0
            )?;
            let next = rows.get(index + 1).map(|next| next.clients);
            if part == Part::Commands && next != Some(row.clients) {
                self.limit(f, row.clients)?;
            }
        }
        Ok(())
    }

    fn limit(&self, f: &mut Formatter<'_>, clients: usize) -> fmt::Result {
        let beside = self.limits.iter().filter(|limit| limit.clients == clients);
        for limit in beside {
            let (rows, rate) = (limit.rows_per_insert, limit.rows_per_second);
            let others = limit.others * 100.0;
            writeln!(
                f,
                "| | limit: {rows} rows an INSERT | {rate:.0} | | | | | | | | {others:.0} % |"
            )?;
        }
        Ok(())
    }

    fn loading(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.loading.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n### The first command to a long stream\n")?;
        writeln!(
            f,
            "| | events | snapshot | time | events/s | others |\n|---|---|---|---|---|---|"
        )?;
        for row in &self.loading {
            let snapshot = if row.snapshot { "yes" } else { "no" };
            let rate = row.events as f64 / row.ms * 1000.0;
            let (contender, events, ms) = (&row.contender, row.events, row.ms);
            let others = row.others * 100.0;
            writeln!(
                f,
                "| {contender} | {events} | {snapshot} | {ms:.1} ms | {rate:.0} | {others:.0} % |"
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn views(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.views.is_empty() {
            return Ok(());
        }
        let reference = Part::Views.reference().name();
        writeln!(f, "\n### {}\n", Part::Views.title())?;
        writeln!(
            f,
            "| | clients | events | events/s | × {reference} | others |\n|---|---|---|---|---|---|"
        )?;
        let mut other = None;
        for row in &self.views {
            if row.contender == reference {
                other = Some(row.rate());
            }
            let ratio = shown(other.map(|other| row.rate() / other));
            let (contender, clients, events) = (&row.contender, row.clients, row.events);
            let (rate, others) = (row.rate(), row.others * 100.0);
            writeln!(
                f,
                "| {contender} | {clients} | {events} | {rate:.0} | {ratio} | {others:.0} % |"
            )?;
        }
        Ok(())
    }
}

/// Two digits at least.
fn shown(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}
