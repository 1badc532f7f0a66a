//! What could not be handled: seen, tried again, skipped.

use askama::Template;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tidelog_http::{Problem, ProblemKind};

use super::asking::Asker;
use super::confirm::{self, Ask, Field, Kind};
use super::layout::Shell;
use super::parameters::{Form, Parameters};
use super::subscriptions::known;
use super::text::{Moment, counted, json as pretty};
use super::{Page, Refusal, Shared, html, see_other};
use crate::admin::actions::{self, Action};
use crate::subscriptions::{
    Outcome, ParkedEntry, ParkedEventEntry, SequenceState, ShownEvent, SkippedEntry,
};

const HERE: &str = "/admin/parked";

/// How many sequences a page has at most.
const MAX_ROWS: usize = 500;

struct Row {
    subscription: String,
    sequence: String,
    state: &'static str,
    class: &'static str,
    attempts: u32,
    since: Moment,
    error: String,
}

#[derive(Template)]
#[template(path = "parked.html")]
struct List {
    shell: Shell,
    may_act: bool,
    /// The subscription, where it is of one alone.
    only: Option<String>,
    names: Vec<String>,
    rows: Vec<Row>,
    more: usize,
}

#[derive(Template)]
#[template(path = "sequence.html")]
struct One {
    shell: Shell,
    may_act: bool,
    name: String,
    sequence: String,
    shown: Vec<Shown>,
}

/// A sequence in a partition, with the event that it waits at.
struct Shown {
    partition: u16,
    state: &'static str,
    class: &'static str,
    since: Moment,
    attempts: String,
    first: u64,
    last: u64,
    behind: Option<String>,
    error: String,
    event: Option<Event>,
}

struct Event {
    id: String,
    event_type: String,
    place: String,
    schema_version: u32,
    stream: String,
    version: u64,
    recorded: Moment,
    metadata: String,
    payload_bytes: usize,
    payload: Option<String>,
}

#[derive(Template)]
#[template(path = "skipped.html")]
struct Skipped {
    shell: Shell,
    name: String,
    rows: Vec<SkippedRow>,
}

struct SkippedRow {
    at: Moment,
    sequences: String,
    partition: u16,
    position: u64,
    reason: String,
}

const fn class(state: SequenceState) -> &'static str {
    match state {
        SequenceState::Retrying => "busy",
        SequenceState::Parked => "bad",
        SequenceState::Waiting => "off",
    }
}

impl Row {
    fn of(entry: &ParkedEntry) -> Self {
        Self {
            subscription: entry.subscription.clone(),
            sequence: entry.sequence.clone(),
            state: entry.state.name(),
            class: class(entry.state),
            attempts: entry.attempts,
            since: Moment::of(entry.since),
            error: entry.error.clone(),
        }
    }
}

impl Shown {
    fn of(entry: ParkedEventEntry) -> Self {
        let parked = entry.parked;
        Self {
            partition: parked.partition,
            state: parked.state.name(),
            class: class(parked.state),
            since: Moment::of(parked.since),
            attempts: counted(u64::from(parked.attempts), "time", "times"),
            first: parked.first,
            last: parked.last,
            behind: parked.behind,
            error: parked.error,
            event: entry
                .event
                .map(|event| Event::of(event, parked.partition, parked.first)),
        }
    }
}

impl Event {
    fn of(event: ShownEvent, partition: u16, position: u64) -> Self {
        Self {
            place: format!("{partition}:{position}"),
            id: event.id,
            event_type: event.event_type,
            schema_version: event.schema_version,
            stream: event.stream,
            version: event.version,
            recorded: Moment::of(event.recorded_at),
            metadata: pretty(&event.metadata),
            payload_bytes: event.payload_bytes,
            payload: event.payload.as_ref().map(pretty),
        }
    }
}

pub(super) async fn list(State(site): Shared, asker: Asker, parameters: Parameters) -> Page {
    let only = parameters.get("subscription").map(str::to_owned);
    let filter = only.iter().map(|name| ("subscription", name.as_str()));
    let filter: Vec<_> = filter.collect();
    let entries: Vec<ParkedEntry> = site.read(&asker, &["parked"], &filter).await?;
    let shell = site.shell("Set aside", HERE, Some(&asker.principal));
    html(&List {
        shell: shell.saying(parameters.get("done")),
        may_act: asker.principal.may(&actions::RETRY),
        only,
        names: site.subscriptions.names().map(str::to_owned).collect(),
        rows: entries.iter().take(MAX_ROWS).map(Row::of).collect(),
        more: entries.len().saturating_sub(MAX_ROWS),
    })
}

pub(super) async fn one(
    State(site): Shared,
    asker: Asker,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Page {
    known(&site, &name)?;
    let Some(sequence) = parameters.get("sequence") else {
        return Ok(see_other(&all_of(&name, None)));
    };
    let payload = parameters.get("payload").unwrap_or("false");
    let asked = [("sequence", sequence), ("payload", payload)];
    let shown: Vec<ParkedEventEntry> = site.read(&asker, &["parked", &name], &asked).await?;
    let shell = site.shell(sequence, HERE, Some(&asker.principal));
    html(&One {
        shell: shell.saying(parameters.get("done")),
        may_act: asker.principal.may(&actions::RETRY),
        name,
        sequence: sequence.to_owned(),
        shown: shown.into_iter().map(Shown::of).collect(),
    })
}

pub(super) async fn skipped(State(site): Shared, asker: Asker, Path(name): Path<String>) -> Page {
    let entries: Vec<SkippedEntry> = site.read(&asker, &["skipped", &name], &[]).await?;
    let mut entries = entries;
    entries.sort_by_key(|own| std::cmp::Reverse(own.at));
    let rows = entries.into_iter().map(|own| SkippedRow {
        at: Moment::of(own.at),
        sequences: own.sequences.join(", "),
        partition: own.partition,
        position: own.position,
        reason: own.reason,
    });
    html(&Skipped {
        shell: site.shell("Skipped", HERE, Some(&asker.principal)),
        name,
        rows: rows.collect(),
    })
}

/// What can be asked for here.
const ACTIONS: &[&Action] = &[&actions::RETRY, &actions::SKIP];

pub(super) async fn confirm(
    State(site): Shared,
    asker: Asker,
    Path((name, wanted)): Path<(String, String)>,
    parameters: Parameters,
) -> Page {
    let action = confirm::action(ACTIONS, &wanted)?;
    confirm::allowed(&asker, action)?;
    known(&site, &name)?;
    let sequence = parameters.get("sequence").map(str::to_owned);
    let ask = match sequence {
        _ if *action == actions::SKIP => skip(&name, &parameters)?,
        Some(sequence) => Ask {
            title: format!("Retry {sequence} of {name}?"),
            lines: vec![
                "Its events are handled in order, from the one that it waits at. If that fails again, all of it waits as before.".to_owned(),
            ],
            button: "Retry",
            back: of_sequence(&name, &sequence, None),
            hidden: vec![("sequence", sequence)],
            ..Ask::default()
        },
        None => Ask {
            title: format!("Retry all of {name}?"),
            lines: vec![
                "Everything that is set aside is handled in order. What fails again waits as before."
                    .to_owned(),
            ],
            button: "Retry all",
            back: all_of(&name, None),
            ..Ask::default()
        },
    };
    confirm::page(&site, &asker, action, HERE, ask)
}

/// The question before an event is skipped: the one that was seen, and no other.
fn skip(name: &str, parameters: &Parameters) -> Result<Ask, Refusal> {
    let missing = || {
        let detail = "Which event is to be skipped is missing: begin at the page of its sequence.";
        Problem::new(ProblemKind::MalformedRequest, detail)
    };
    let sequence = parameters.get("sequence").ok_or_else(missing)?;
    let position = parameters.number("position")?.ok_or_else(missing)?;
    let partition = parameters.number("partition")?.ok_or_else(missing)?;
    Ok(Ask {
        title: format!("Skip an event of {sequence}?"),
        lines: vec![
            format!("The event at position {position} of partition {partition} is passed over by {name}, as if it had nothing to say to it; the sequence goes on with its next one."),
            "The event stays in the log, and a replay of a view sees it again. That it was skipped, and why, is kept.".to_owned(),
        ],
        fields: vec![Field::new("reason", "Reason", Kind::Text).required()],
        hidden: vec![
            ("sequence", sequence.to_owned()),
            ("partition", partition.to_string()),
            ("position", position.to_string()),
        ],
        button: "Skip",
        is_grave: true,
        back: of_sequence(name, sequence, None),
    })
}

pub(super) async fn act(
    State(site): Shared,
    asker: Asker,
    Path((name, wanted)): Path<(String, String)>,
    Form(form): Form,
) -> Page {
    let skips = *confirm::action(ACTIONS, &wanted)? == actions::SKIP;
    let sequence = form.get("sequence");
    let body = match sequence {
        _ if skips => json!({
            "sequence": sequence.unwrap_or_default(),
            "reason": form.get("reason").unwrap_or_default(),
            "partition": form.number("partition")?,
            "position": form.number("position")?,
        }),
        Some(sequence) => json!({"sequence": sequence}),
        None => json!({"all": true}),
    };
    let segments = ["parked", &name, &wanted];
    let done: Value = site.act(&asker, &segments, &body, false).await?;
    let outcomes: Vec<Outcome> = serde_json::from_value(done).unwrap_or_default();
    let code = code(skips, &outcomes);
    let is_gone = matches!(code, "retried" | "skipped");
    Ok(see_other(&match sequence {
        Some(sequence) if !is_gone => of_sequence(&name, sequence, Some(code)),
        _ => all_of(&name, Some(code)),
    }))
}

/// What came of it, in a word.
fn code(skips: bool, outcomes: &[Outcome]) -> &'static str {
    let left = outcomes.iter().find(|own| !own.done);
    let again = outcomes.iter().any(|own| !own.parked.is_empty());
    match left {
        Some(own) if own.paused => "waits-for-resume",
        Some(_) => "asked",
        None if again && skips => "skipped-next-waits",
        None if again => "retried-in-vain",
        None if skips => "skipped",
        None => "retried",
    }
}

/// The page of what is set aside of a subscription.
fn all_of(name: &str, done: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("subscription", name);
    query.extend_pairs(done.map(|code| ("done", code)));
    format!("{HERE}?{}", query.finish())
}

/// The page of a sequence.
fn of_sequence(name: &str, sequence: &str, done: Option<&str>) -> String {
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("sequence", sequence);
    query.extend_pairs(done.map(|code| ("done", code)));
    format!("{HERE}/{name}?{}", query.finish())
}
