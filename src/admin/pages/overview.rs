//! The first page: what waits for somebody, and how everything is.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use chrono::Utc;

use super::asking::Asker;
use super::layout::Shell;
use super::subscriptions::Row;
use super::text::{Moment, counted, number, short_span};
use super::{Page, Shared, Site, html};
use crate::admin::sampler::{Backend, Health};
use crate::subscriptions::{SubscriptionEntry, WorkState};

/// The size of the picture of the throughput, in its own units.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 46.0;

/// Over how long the throughput is that stands there as a number.
const RECENT: Duration = Duration::from_secs(10);

/// How long the picture looks back.
const BACK: Duration = Duration::from_secs(300);

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    shell: Shell,
    live: Live,
}

#[derive(Template)]
#[template(path = "overview_live.html")]
struct LiveOverview {
    live: Live,
}

/// What is renewed by itself.
struct Live {
    /// Whether anything was looked at yet.
    is_known: bool,
    attention: Vec<Attention>,
    rate: String,
    /// The picture: the line, and what is below it.
    line: String,
    area: String,
    spark_label: String,
    events: String,
    lag: String,
    lag_note: String,
    parked: String,
    parked_note: &'static str,
    backends: Vec<BackendRow>,
    subscriptions: Vec<Row>,
    as_of: String,
}

/// Something that somebody should look at.
struct Attention {
    class: &'static str,
    what: &'static str,
    text: String,
    href: String,
    link: &'static str,
}

struct BackendRow {
    name: &'static str,
    state: &'static str,
    class: &'static str,
    since: Moment,
    answer: String,
    description: String,
}

impl BackendRow {
    fn of(backend: &Backend) -> Self {
        let (class, answer) = match &backend.health {
            Health::Up { took } => ("ok", short_answer(*took)),
            Health::Slow { took } => ("busy", short_answer(*took)),
            Health::Down { why } => ("bad", why.clone()),
        };
        Self {
            name: backend.name,
            state: backend.health.name(),
            class,
            since: Moment::of(backend.since),
            answer,
            description: backend.description.clone(),
        }
    }
}

fn short_answer(took: Duration) -> String {
    match took.as_millis() {
        0 => "under 1 ms".to_owned(),
        millis => format!("{millis} ms"),
    }
}

impl Live {
    fn of(site: &Site) -> Self {
        let backends = site.samples.backends();
        let entries = site.samples.subscriptions().unwrap_or_default();
        let rates = site.samples.rates();
        let (line, area, highest) = picture(&rates);
        let lag: u64 = entries.iter().map(SubscriptionEntry::lag_events).sum();
        let seconds = entries.iter().map(SubscriptionEntry::lag_seconds);
        let longest = short_span(seconds.fold(0.0, f64::max));
        let parked: usize = entries.iter().map(SubscriptionEntry::parked).sum();
        Self {
            is_known: !backends.is_empty(),
            attention: attention(&backends, &entries),
            rate: rate(recent(&rates)),
            line,
            area,
            spark_label: format!("the last five minutes, at most {} a second", rate(highest)),
            events: site.samples.events().map_or_else(|| "–".to_owned(), number),
            lag: number(lag),
            lag_note: match lag {
                0 => "events".to_owned(),
                1 => format!("event, for {longest}"),
                _ => format!("events, the oldest for {longest}"),
            },
            parked: number(parked as u64),
            parked_note: if parked == 1 { "sequence" } else { "sequences" },
            backends: backends.iter().map(BackendRow::of).collect(),
            subscriptions: entries.iter().map(Row::of).collect(),
            as_of: Utc::now().format("%H:%M:%S UTC").to_string(),
        }
    }
}

/// What somebody should look at, the worst first.
fn attention(backends: &[Backend], entries: &[SubscriptionEntry]) -> Vec<Attention> {
    let mut all = Vec::new();
    for backend in backends {
        if let Health::Down { why } = &backend.health {
            all.push(Attention {
                class: "bad",
                what: "Down",
                text: format!("The {}: {why}", backend.name),
                href: "/health/ready".to_owned(),
                link: "readiness",
            });
        }
    }
    for entry in entries {
        let name: String = url::form_urlencoded::byte_serialize(entry.name.as_bytes()).collect();
        let of_it = |class, what, text| Attention {
            class,
            what,
            text,
            href: format!("/admin/subscriptions/{name}"),
            link: "look",
        };
        let behind = counted(entry.lag_events(), "event", "events");
        if entry.is_stalled() {
            let text = format!("{} stands still, {behind} behind", entry.name);
            all.push(of_it("bad", "Stalled", text));
        }
        if let Some(problem) = &entry.problem {
            let text = format!("{}: {problem}", entry.name);
            all.push(of_it("bad", "Not to be read", text));
        }
        if entry.parked() > 0 {
            let sequences = counted(entry.parked() as u64, "sequence", "sequences");
            all.push(Attention {
                class: "bad",
                what: "Set aside",
                text: format!("{sequences} of {}", entry.name),
                href: format!("/admin/parked?subscription={name}"),
                link: "show",
            });
        }
        let mut states = entry.partitions.iter().map(|own| own.state);
        if states.any(|state| state == WorkState::Paused) {
            let text = format!("{}, {behind} behind", entry.name);
            all.push(of_it("off", "Paused", text));
        }
    }
    all
}

/// Events a second in the last seconds.
fn recent(rates: &[(Duration, f64)]) -> f64 {
    let recent = rates.iter().filter(|(age, _)| *age <= RECENT);
    let recent: Vec<_> = recent.map(|(_, rate)| *rate).collect();
    if recent.is_empty() {
        return 0.0;
    }
    recent.iter().sum::<f64>() / recent.len() as f64
}

/// A rate as people read it.
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        return format!("{rate:.1}");
    }
    number(Duration::from_secs_f64(rate.clamp(0.0, 1e12)).as_secs())
}

/// The line of the rates and the area below it, and the highest of them.
fn picture(rates: &[(Duration, f64)]) -> (String, String, f64) {
    let highest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    // A quiet log is a line at the bottom.
    let scale = HEIGHT / highest.max(1.0);
    let points: Vec<_> = rates
        .iter()
        .map(|(age, rate)| {
            let back = (age.as_secs_f64() / BACK.as_secs_f64()).min(1.0);
            let (x, y) = (WIDTH * (1.0 - back), HEIGHT - rate * scale + 1.0);
            (x, format!("{x:.1},{y:.1}"))
        })
        .collect();
    let line: Vec<_> = points.iter().map(|(_, point)| point.as_str()).collect();
    let line = line.join(" ");
    let area = match (points.first(), points.last()) {
        (Some((from, _)), Some((to, _))) => {
            let floor = HEIGHT + 2.0;
            format!("{from:.1},{floor} {line} {to:.1},{floor}")
        }
        _ => String::new(),
    };
    (line, area, highest)
}

pub(super) async fn page(State(site): Shared, asker: Asker) -> Page {
    html(&Overview {
        shell: site
            .shell("Overview", "/admin", Some(&asker.principal))
            .live(),
        live: Live::of(&site),
    })
}

pub(super) async fn live(State(site): Shared) -> Page {
    let live = Live::of(&site);
    html(&LiveOverview { live })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_goes_from_the_oldest_rate_to_the_newest() {
        let seconds = Duration::from_secs;
        let rates = [
            (seconds(300), 0.0),
            (seconds(150), 50.0),
            (seconds(0), 100.0),
        ];
        let (line, area, highest) = picture(&rates);
        assert_eq!(line, "0.0,47.0 150.0,24.0 300.0,1.0");
        assert_eq!(area, "0.0,48 0.0,47.0 150.0,24.0 300.0,1.0 300.0,48");
        assert!((highest - 100.0).abs() < f64::EPSILON);
        assert_eq!(picture(&[]), (String::new(), String::new(), 0.0));
        assert_eq!(rate(recent(&rates)), "100");
        assert_eq!(rate(0.26), "0.3");
        assert_eq!(rate(0.0), "0");
    }
}
