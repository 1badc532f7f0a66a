//! What a process measures, for Prometheus: what is computed from the statuses when it is asked for, and what was [recorded].

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use tidelog_command::CommandService;
use tidelog_eventbus::{PartitionStatus, RelayPartition, RelayState, RelayStatus};
use tidelog_http::Readiness;
use tidelog_query::{LiveViews, ViewState};

use super::recorded;
use crate::subscriptions::{STALL_PATIENCE, Subscriptions, WorkState};

/// The text format of Prometheus.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What there is to measure in a process. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Metrics {
    role: &'static str,
    readiness: Readiness,
    commands: Arc<OnceLock<Arc<CommandService>>>,
    relay: Arc<OnceLock<RelayStatus>>,
    /// The subscriptions, and the name by which this process owns partitions.
    subscriptions: Arc<OnceLock<(Subscriptions, String)>>,
    views: Arc<OnceLock<LiveViews>>,
}

impl Metrics {
    /// Of a process that runs `role`, with nothing to measure yet but whether it is ready.
    pub(super) fn new(role: &'static str, readiness: Readiness) -> Self {
        recorded::begin();
        Self {
            role,
            readiness,
            commands: Arc::default(),
            relay: Arc::default(),
            subscriptions: Arc::default(),
            views: Arc::default(),
        }
    }

    /// From now on also of the commands.
    pub(super) fn of_commands(&self, commands: Arc<CommandService>) {
        let _ = self.commands.set(commands);
    }

    /// From now on also of the relay.
    pub(super) fn of_relay(&self, relay: RelayStatus) {
        // Only the first counts: a process starts its services once.
        let _ = self.relay.set(relay);
    }

    /// From now on also of the subscriptions, whose partitions this process owns as `owner`.
    pub(super) fn of_subscriptions(&self, subscriptions: Subscriptions, owner: &str) {
        let _ = self.subscriptions.set((subscriptions, owner.to_owned()));
    }

    /// From now on also of what is done for the views.
    pub(super) fn of_views(&self, views: LiveViews) {
        let _ = self.views.set(views);
    }

    /// All of them, as they are now.
    pub(super) fn response(&self) -> Response {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.text()).into_response()
    }

    fn text(&self) -> String {
        let mut text = Text::default();
        text.family("tidelog_build_info", "The program's version and role.");
        let build = [("version", env!("CARGO_PKG_VERSION")), ("role", self.role)];
        text.sample(&build, 1.0);
        readiness_metrics(&mut text, &self.readiness);
        if let Some(commands) = self.commands.get() {
            command_metrics(&mut text, commands);
        }
        if let Some(relay) = self.relay.get() {
            relay_metrics(&mut text, &relay.partitions());
        }
        if let Some((subscriptions, owner)) = self.subscriptions.get() {
            let running = subscriptions.running().into_iter();
            let running = running.map(|(name, kind, status)| Seen {
                name,
                kind: kind.name(),
                partitions: status.partitions(),
            });
            subscription_metrics(&mut text, &running.collect::<Vec<_>>(), owner);
        }
        if let Some(views) = self.views.get() {
            view_metrics(&mut text, views);
        }
        text.page + &recorded::page()
    }
}

fn readiness_metrics(text: &mut Text, readiness: &Readiness) {
    text.family("tidelog_ready", "1 when the part is ready.");
    for (part, state) in readiness.parts() {
        text.sample(&[("part", part)], flag(state.is_ok()));
    }
    text.family(
        "tidelog_backend_up",
        "1 when the backend answered when it was last asked, which is every 2 s.",
    );
    for (backend, state) in readiness.backends() {
        text.sample(&[("backend", backend)], flag(state.is_ok()));
    }
}

fn command_metrics(text: &mut Text, commands: &CommandService) {
    text.family(
        "tidelog_append_queue_commands",
        "How many commands wait for their turn.",
    );
    text.sample(
        &[],
        count(u64::try_from(commands.waiting()).unwrap_or(u64::MAX)),
    );
    text.counters(
        "tidelog_snapshots_total",
        "Snapshots of states, by what became of them.",
    );
    let snapshots = commands.snapshots();
    for (outcome, number) in [
        ("written", snapshots.written),
        ("left-out", snapshots.left_out),
        ("failed", snapshots.failed),
    ] {
        text.sample(&[("outcome", outcome)], count(number));
    }
}

/// A subscription as it is now.
struct Seen {
    name: String,
    kind: &'static str,
    partitions: Vec<PartitionStatus>,
}

/// A metric of a partition: its name, what it is, and its value.
type Metric<'a, P> = (&'static str, &'static str, &'a dyn Fn(&P) -> f64);

fn subscription_metrics(text: &mut Text, all: &[Seen], owner: &str) {
    let now = Utc::now();
    let metrics: [Metric<'_, PartitionStatus>; 8] = [
        (
            "tidelog_subscription_head_position",
            "The log's last position, as far as this process knows.",
            &|own| count(own.head.number()),
        ),
        (
            "tidelog_subscription_checkpoint_position",
            "The last position that was handled, set aside or passed over.",
            &|own| count(own.cursor.position.number()),
        ),
        (
            "tidelog_subscription_lag_events",
            "How many events it is behind the log.",
            &|own| count(own.lag()),
        ),
        (
            "tidelog_subscription_lag_seconds",
            "For how long the oldest event that is not handled has been waiting.",
            &|own| own.lag_time(now).as_secs_f64(),
        ),
        (
            "tidelog_subscription_parked_sequences",
            "How many sequences are set aside.",
            &|own| count(u64::try_from(own.parked.len()).unwrap_or(u64::MAX)),
        ),
        (
            "tidelog_subscription_stalled",
            "1 when it is behind and has not come any further for 5 s, though it is not paused.",
            &|own| flag(own.is_stalled(STALL_PATIENCE)),
        ),
        (
            "tidelog_subscription_owned",
            "1 when this process works on it.",
            &|own| flag(own.owner.as_deref() == Some(owner)),
        ),
        (
            "tidelog_subscription_heartbeat_seconds",
            "How long ago its state record was last seen to change; its owner changes it every few seconds.",
            &|own| {
                let heartbeat = own.heartbeat.map(|at| at.elapsed().as_secs_f64());
                heartbeat.unwrap_or(f64::NAN)
            },
        ),
    ];
    for (name, help, value) in metrics {
        text.family(name, help);
        for (labels, own) in labelled(all) {
            text.sample(&labels.of(), value(own));
        }
    }
    text.family(
        "tidelog_subscription_state",
        "1 for what it is doing in this process: the label `state`.",
    );
    for (labels, own) in labelled(all) {
        let state = WorkState::told(&own.state);
        let state = state.map_or("standby", |(state, _)| state.name());
        let [subscription, kind, partition] = labels.of();
        text.sample(&[subscription, kind, partition, ("state", state)], 1.0);
    }
}

fn view_metrics(text: &mut Text, views: &LiveViews) {
    text.family(
        "tidelog_view_state",
        "1 for what this process does for a view: the label `state`.",
    );
    for (view, state) in views.states() {
        let state = match state {
            ViewState::Starting => "starting",
            ViewState::Building { .. } => "building",
            ViewState::Following { .. } => "following",
            ViewState::Replaying { .. } => "replaying",
            _ => "waiting",
        };
        text.sample(&[("view", &view), ("state", state)], 1.0);
    }
}

/// The labels of a partition.
struct Labels<'a> {
    subscription: &'a str,
    kind: &'static str,
    partition: String,
}

impl Labels<'_> {
    fn of(&self) -> [(&'static str, &str); 3] {
        [
            ("subscription", self.subscription),
            ("kind", self.kind),
            ("partition", &self.partition),
        ]
    }
}

fn labelled(all: &[Seen]) -> impl Iterator<Item = (Labels<'_>, &PartitionStatus)> {
    all.iter().flat_map(|seen| {
        seen.partitions.iter().map(|own| {
            let labels = Labels {
                subscription: &seen.name,
                kind: seen.kind,
                partition: own.partition.to_string(),
            };
            (labels, own)
        })
    })
}

fn relay_metrics(text: &mut Text, partitions: &[RelayPartition]) {
    let metrics: [Metric<'_, RelayPartition>; 3] = [
        (
            "tidelog_relay_head_position",
            "The log's last position, as far as this process knows.",
            &|own| count(own.head.number()),
        ),
        (
            "tidelog_relay_published_position",
            "The last position that this process knows to be on the bus.",
            &|own| count(own.published.number()),
        ),
        (
            "tidelog_relay_lag_events",
            "How many events the bus is behind the log. Subscriptions read the log then.",
            &|own| count(own.lag()),
        ),
    ];
    for (name, help, value) in metrics {
        text.family(name, help);
        for own in partitions {
            text.sample(&[("partition", &own.partition.to_string())], value(own));
        }
    }
    text.family(
        "tidelog_relay_state",
        "1 for what it is doing: the label `state`.",
    );
    for own in partitions {
        let state = match own.state {
            RelayState::Starting => "starting",
            RelayState::Publishing => "publishing",
            RelayState::BackingOff { .. } => "backing-off",
            RelayState::Diverged { .. } => "history-changed",
            _ => "stopped",
        };
        let partition = own.partition.to_string();
        text.sample(&[("partition", &partition), ("state", state)], 1.0);
    }
}

/// A page.
#[derive(Default)]
struct Text {
    page: String,
    /// Whose samples follow.
    name: &'static str,
}

impl Text {
    /// Begins the gauges `name`.
    fn family(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "gauge");
    }

    /// Begins the counters `name`.
    fn counters(&mut self, name: &'static str, help: &str) {
        self.begin(name, help, "counter");
    }

    fn begin(&mut self, name: &'static str, help: &str, kind: &str) {
        self.name = name;
        // Writing to a text cannot fail.
        let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a value of the metric that was begun last.
    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let value = if value.is_nan() {
            "NaN".to_owned()
        } else {
            value.to_string()
        };
        let _ = writeln!(self.page, "{}{{{}}} {value}", self.name, labels.join(","));
    }
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\");
    value.replace('"', "\\\"").replace('\n', r"\n")
}

/// A count as a gauge has it: exact up to 2^53.
fn count(number: u64) -> f64 {
    number as f64
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_help_type_and_escaped_labels() {
        let mut text = Text::default();
        text.family("tidelog_thing_seconds", "How long a thing took.");
        text.sample(&[("name", "a\"b\\c\nd"), ("partition", "3")], 1.5);
        text.sample(&[("name", "e")], count(u64::from(u32::MAX)));
        text.sample(&[], f64::NAN);
        assert_eq!(
            text.page,
            "# HELP tidelog_thing_seconds How long a thing took.\n# TYPE tidelog_thing_seconds gauge\n\
             tidelog_thing_seconds{name=\"a\\\"b\\\\c\\nd\",partition=\"3\"} 1.5\n\
             tidelog_thing_seconds{name=\"e\"} 4294967295\n\
             tidelog_thing_seconds{} NaN\n"
        );
    }
}
