//! The subscriptions: how far they are; pause and resume.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tidelog_http::{Problem, ProblemKind};

use super::asking::Asker;
use super::confirm::{self, Ask, Field, Kind};
use super::layout::Shell;
use super::parameters::{Form, Parameters};
use super::text::{counted, number, short_span};
use super::{Page, Refusal, Shared, Site, html, nothing_here, see_other};
use crate::admin::actions::{self, Action};
use crate::subscriptions::{PartitionEntry, SubscriptionEntry, SubscriptionKind, WorkState};

const HERE: &str = "/admin/subscriptions";

/// How long a page waits for a look at the subscriptions, where a backend does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A subscription in a table.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) state: String,
    pub(super) class: &'static str,
    pub(super) stalled: bool,
    pub(super) problem: Option<String>,
    pub(super) lag: String,
    pub(super) lag_time: String,
    pub(super) parked: String,
    pub(super) is_parked: bool,
}

#[derive(Template)]
#[template(path = "subscriptions.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "subscriptions_table.html")]
struct LiveList {
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "subscription.html")]
struct One {
    shell: Shell,
    may_act: bool,
    is_paused: bool,
    /// Whether it can be made to begin elsewhere.
    is_reaction: bool,
    live: Live,
}

#[derive(Template)]
#[template(path = "subscription_live.html")]
struct LiveOne {
    live: Live,
}

/// A subscription and its partitions.
struct Live {
    own: Row,
    behind: String,
    parked: String,
    /// Why it does what it does, where that is the same for all partitions.
    reason: Option<String>,
    partitions: Vec<PartitionRow>,
}

struct PartitionRow {
    partition: u16,
    state: &'static str,
    class: &'static str,
    reason: Option<String>,
    stalled: bool,
    checkpoint: String,
    head: String,
    lag: String,
    lag_time: String,
    parked: usize,
    requests: usize,
    owner: String,
    heartbeat: String,
}

/// How a state is shown.
const fn class(state: WorkState) -> &'static str {
    match state {
        WorkState::Live => "ok",
        WorkState::CatchingUp | WorkState::Starting => "busy",
        WorkState::Paused => "off",
        WorkState::Unowned
        | WorkState::BackingOff
        | WorkState::Full
        | WorkState::Failed
        | WorkState::HistoryChanged => "bad",
    }
}

/// How much a state is to be seen, where partitions differ: the more, the worse.
const fn weight(state: WorkState) -> u8 {
    match state {
        WorkState::Live => 0,
        WorkState::CatchingUp => 1,
        WorkState::Starting => 2,
        WorkState::Paused => 3,
        WorkState::Unowned => 4,
        WorkState::BackingOff => 5,
        WorkState::Full => 6,
        WorkState::Failed => 7,
        WorkState::HistoryChanged => 8,
    }
}

impl Row {
    pub(super) fn of(entry: &SubscriptionEntry) -> Self {
        let (state, class) = state(entry);
        Self {
            name: entry.name.clone(),
            kind: entry.kind.name(),
            state,
            class,
            stalled: entry.is_stalled(),
            problem: entry.problem.clone(),
            lag: number(entry.lag_events()),
            lag_time: short_span(entry.lag_seconds()),
            parked: entry.parked().to_string(),
            is_parked: entry.parked() > 0,
        }
    }
}

/// What a subscription is doing: what most needs to be seen of its partitions.
fn state(entry: &SubscriptionEntry) -> (String, &'static str) {
    let states = entry.partitions.iter().map(|own| own.state);
    let Some(worst) = states.clone().max_by_key(|state| weight(*state)) else {
        return match entry.problem {
            Some(_) => ("cannot be read".to_owned(), "bad"),
            None => ("not begun".to_owned(), "busy"),
        };
    };
    let (like_it, all) = (
        states.filter(|state| *state == worst).count(),
        entry.partitions.len(),
    );
    let text = if like_it == all {
        worst.name().to_owned()
    } else {
        format!("{}, {like_it} of {all}", worst.name())
    };
    (text, class(worst))
}

impl PartitionRow {
    fn of(entry: &PartitionEntry) -> Self {
        let heartbeat = entry.heartbeat_seconds.map(short_span);
        Self {
            partition: entry.partition,
            state: entry.state.name(),
            class: class(entry.state),
            reason: entry.reason.clone(),
            stalled: entry.stalled,
            checkpoint: number(entry.checkpoint),
            head: number(entry.head),
            lag: number(entry.lag_events),
            lag_time: short_span(entry.lag_seconds),
            parked: entry.parked,
            requests: entry.requests,
            owner: entry.owner.clone().unwrap_or_else(|| "nobody".to_owned()),
            heartbeat: heartbeat.unwrap_or_else(|| "–".to_owned()),
        }
    }
}

impl Live {
    fn of(entry: &SubscriptionEntry) -> Self {
        let mut partitions: Vec<_> = entry.partitions.iter().map(PartitionRow::of).collect();
        let first = partitions.first().and_then(|own| own.reason.clone());
        let reason = first.filter(|_| {
            let mut pairs = partitions.iter().zip(partitions.iter().skip(1));
            pairs.all(|(own, next)| own.reason == next.reason)
        });
        if reason.is_some() {
            partitions.iter_mut().for_each(|own| own.reason = None);
        }
        Self {
            own: Row::of(entry),
            behind: counted(entry.lag_events(), "event", "events"),
            parked: counted(entry.parked() as u64, "sequence", "sequences"),
            reason,
            partitions,
        }
    }
}

impl Site {
    /// The subscriptions as they are now; where a backend keeps one waiting, as they were seen last.
    pub(super) async fn look(&self) -> Vec<SubscriptionEntry> {
        match tokio::time::timeout(PATIENCE, self.subscriptions.glance()).await {
            Ok(entries) => entries,
            Err(_) => self.samples.subscriptions().unwrap_or_default(),
        }
    }

    /// The subscriptions as they were seen last, a moment ago.
    pub(super) async fn last_look(&self) -> Vec<SubscriptionEntry> {
        match self.samples.subscriptions() {
            Some(entries) => entries,
            None => self.look().await,
        }
    }
}

fn rows(entries: &[SubscriptionEntry]) -> Vec<Row> {
    entries.iter().map(Row::of).collect()
}

pub(super) async fn list(State(site): Shared, asker: Asker) -> Page {
    html(&List {
        shell: site
            .shell("Subscriptions", HERE, Some(&asker.principal))
            .live(),
        rows: rows(&site.look().await),
    })
}

pub(super) async fn live_list(State(site): Shared) -> Page {
    let rows = rows(&site.last_look().await);
    html(&LiveList { rows })
}

pub(super) async fn one(
    State(site): Shared,
    asker: Asker,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Page {
    let all = site.look().await;
    let entry = find(&all, &name)?;
    let shell = site.shell(&name, HERE, Some(&asker.principal));
    html(&One {
        shell: shell.live().saying(parameters.get("done")),
        may_act: asker.principal.may(&actions::PAUSE),
        is_reaction: entry.kind == SubscriptionKind::Reaction,
        is_paused: entry
            .partitions
            .iter()
            .any(|own| own.paused_since.is_some()),
        live: Live::of(entry),
    })
}

pub(super) async fn live_one(State(site): Shared, Path(name): Path<String>) -> Page {
    let all = site.last_look().await;
    let live = Live::of(find(&all, &name)?);
    html(&LiveOne { live })
}

fn find<'a>(all: &'a [SubscriptionEntry], name: &str) -> Result<&'a SubscriptionEntry, Refusal> {
    let found = all.iter().find(|own| own.name == name);
    found.ok_or_else(nothing_here)
}

/// What can be asked for here.
const ACTIONS: &[&Action] = &[&actions::PAUSE, &actions::RESUME, &actions::RESTART];

pub(super) async fn confirm(
    State(site): Shared,
    asker: Asker,
    Path((name, wanted)): Path<(String, String)>,
) -> Page {
    let action = confirm::action(ACTIONS, &wanted)?;
    known(&site, &name)?;
    let back = place(&name, None);
    let ask = if *action == actions::RESTART {
        confirm::allowed(&asker, action)?;
        let all = site.look().await;
        match find(&all, &name)?.kind {
            SubscriptionKind::Reaction => restart(&name, back),
            _ => return Err(nothing_here()),
        }
    } else if *action == actions::PAUSE {
        Ask {
            title: format!("Pause {name}?"),
            lines: vec![
                "It finishes what it is at, and stands still in every process until it is resumed. Nothing is lost: it goes on where it stands.".to_owned(),
                "Meanwhile reads are answered from what there is, and a read that waits for a write is told that it is not there yet.".to_owned(),
            ],
            fields: vec![Field::new("reason", "Reason", Kind::Text)],
            button: "Pause",
            back,
            ..Ask::default()
        }
    } else {
        Ask {
            title: format!("Resume {name}?"),
            lines: vec!["It goes on with the next event where it stands.".to_owned()],
            button: "Resume",
            back,
            ..Ask::default()
        }
    };
    confirm::page(&site, &asker, action, HERE, ask)
}

/// The question before a reaction goes on elsewhere.
fn restart(name: &str, back: String) -> Ask {
    const FROM: &[(&str, &str)] = &[
        ("now", "after the last event that there is now"),
        ("beginning", "at the first event of the log"),
        ("there", "at the time or the token below"),
    ];
    Ask {
        title: format!("Restart {name}?"),
        lines: vec![
            "It goes on at the place that you choose, in all partitions. What it did before is not undone: events that come again are reacted to again, and those in between that are passed over are not reacted to at all.".to_owned(),
            "What it has set aside is forgotten. Whether it is paused stays.".to_owned(),
        ],
        fields: vec![
            Field::new("from", "It goes on", Kind::Choice(FROM)),
            Field::new("there", "A time, such as 2026-05-01T12:00:00Z, or a consistency token", Kind::Text),
            Field::new("reason", "Reason", Kind::Text).required(),
        ],
        button: "Restart",
        is_grave: true,
        back,
        ..Ask::default()
    }
}

/// What is asked of the API to restart a reaction.
fn restarting(form: &Parameters) -> Result<Value, Problem> {
    let from = match form.get("from").unwrap_or_default() {
        "there" => form.get("there").map(str::trim).ok_or_else(|| {
            let detail =
                "Where it is to go on is missing: a time or a consistency token. Nothing was done.";
            Problem::new(ProblemKind::Invalid, detail)
        })?,
        from => from,
    };
    Ok(json!({"from": from, "reason": form.get("reason")}))
}

pub(super) async fn act(
    State(site): Shared,
    asker: Asker,
    Path((name, wanted)): Path<(String, String)>,
    Form(form): Form,
) -> Page {
    let action = confirm::action(ACTIONS, &wanted)?;
    if *action == actions::RESTART {
        let segments = ["reactions", &name, &wanted];
        let body = restarting(&form)?;
        let _: Value = site.act(&asker, &segments, &body, false).await?;
        return Ok(see_other(&place(&name, Some("restarted"))));
    }
    let pauses = *action == actions::PAUSE;
    let body = if pauses {
        json!({"reason": form.get("reason").unwrap_or_default()})
    } else {
        json!({})
    };
    let segments = ["subscriptions", &name, &wanted];
    let done = site.act(&asker, &segments, &body, false).await?;
    let rests = done.get("at_rest").and_then(Value::as_bool);
    let code = match rests {
        _ if !pauses => "resumed",
        Some(true) => "paused",
        _ => "pausing",
    };
    Ok(see_other(&place(&name, Some(code))))
}

/// Whether the program has a subscription of this name.
pub(super) fn known(site: &Arc<Site>, name: &str) -> Result<(), Problem> {
    let mut names = site.subscriptions.names();
    if names.any(|own| own == name) {
        return Ok(());
    }
    let detail = "The program has no subscription of this name.";
    Err(Problem::new(ProblemKind::NotFound, detail))
}

/// The page of a subscription, saying what was just done.
fn place(name: &str, done: Option<&str>) -> String {
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let done = done.map(|code| format!("?done={code}"));
    format!("{HERE}/{name}{}", done.unwrap_or_default())
}
