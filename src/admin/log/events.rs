//! `/api/events`: a search, and one event with what it belongs to.

use std::str::FromStr;

use axum::extract::State;
use axum::http::HeaderMap;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use tidelog_domain::{ConsistencyToken, Metadata, RecordedEvent, StreamId, Tenant};
use tidelog_eventbus::{EventQuery, Start};
use tidelog_http::{Problem, ProblemKind, require_json_answer};
use uuid::Uuid;

use super::chain::Chain;
use super::entry::entry;
use super::find::{Name, Outcome};
use super::search::{Bounds, Page, Search};
use super::{Answer, LogView, answer, malformed};
use crate::subscriptions::http::{Name as PathName, Parameters, known, name};

/// How many events a page has when nobody says.
const DEFAULT_LIMIT: usize = 50;

/// How many it may have.
pub(super) const MAX_LIMIT: usize = 1_000;

/// How many events of one correlation id are shown.
const MAX_CHAIN: usize = 200;

/// How long before an event the others of its chain are looked for.
const CHAIN_BEFORE: TimeDelta = TimeDelta::minutes(10);

/// `GET /api/events?type=&stream=&tenant=&correlation=&causation=&since=&until=&order=&limit=&after=&payload=`.
pub(super) async fn list(
    State(view): State<LogView>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    require_json_answer(&headers)?;
    let [
        event_type,
        stream,
        tenant,
        correlation,
        causation,
        since,
        until,
        order,
        limit,
        after,
        payload,
    ] = known(
        parameters,
        [
            "type",
            "stream",
            "tenant",
            "correlation",
            "causation",
            "since",
            "until",
            "order",
            "limit",
            "after",
            "payload",
        ],
    )?;
    let search = Search {
        wanted: EventQuery {
            event_type,
            correlation_id: correlation,
            causation_id: read(
                "causation",
                "the id of a command",
                causation,
                parsed::<Uuid>,
            )?,
            event_id: None,
            tenant: read("tenant", "the name of a tenant", tenant, |text| {
                Tenant::new(text).ok()
            })?,
        },
        stream: read("stream", "a stream, such as post/7f3a", stream, |text| {
            StreamId::parse(text).ok()
        })?,
        since: read(
            "since",
            "a time, such as 2026-05-01T12:00:00Z, or now",
            since,
            start,
        )?,
        until: read(
            "until",
            "a time, such as 2026-05-01T12:00:00Z",
            until,
            parsed,
        )?,
        after: after_page(after)?,
        newest_first: read("order", "newest or oldest", order, is_newest)?.unwrap_or(true),
        limit: page_limit(limit)?.unwrap_or(DEFAULT_LIMIT),
        bounds: Bounds::default(),
    };
    let with_payload = flag("payload", payload)?.unwrap_or(false);
    let turn = view.turn().await?;
    let page = search.run(&*view.log).await?;
    drop(turn);
    let next = (page.more || !search.newest_first).then(|| page.next.to_string());
    let events = page.events.iter();
    let events: Vec<_> = events
        .map(|event| entry(&view.app, event, with_payload))
        .collect();
    let mut body = json!({"data": events});
    looked(&mut body, &page);
    add(&mut body, "next", json!(next));
    add(&mut body, "more", json!(page.more));
    if !page.unreadable.is_empty() {
        let row = |(partition, position, why): &(_, _, String)| json!({"partition": partition, "position": position, "why": why});
        let rows: Vec<_> = page.unreadable.iter().map(row).collect();
        add(&mut body, "unreadable", json!(rows));
    }
    answer(body)
}

/// `GET /api/events/{event}?payload=&chain=&after=`.
pub(super) async fn show(
    State(view): State<LogView>,
    path: PathName,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    let named = name(path)?;
    require_json_answer(&headers)?;
    let [payload, chain, after] = known(parameters, ["payload", "chain", "after"])?;
    let with_payload = flag("payload", payload)?.unwrap_or(false);
    let with_chain = flag("chain", chain)?.unwrap_or(true);
    let after = after_page(after)?;
    let wanted = Name::parse(&named).ok_or_else(|| {
        let detail = "An event is named by its id, by its stream and version (post/7f3a@3), or by its partition and position \
                      (12:481).";
        Problem::new(ProblemKind::MalformedRequest, detail)
    })?;
    let turn = view.turn().await?;
    let event = match wanted.find(&*view.log, after).await? {
        Outcome::Event(event) => event,
        Outcome::None => return Err(no_event()),
        Outcome::NotYet(page) => return Err(not_yet(&page)),
    };
    let chain = match with_chain {
        true => chain_of(&view, &event).await?,
        false => None,
    };
    drop(turn);
    let event = entry(&view.app, &event, with_payload);
    answer(json!({"data": {"event": event, "chain": chain}}))
}

/// The events that share the correlation id of `event`; `None` where it has none.
async fn chain_of(view: &LogView, event: &RecordedEvent) -> Result<Option<Chain>, Problem> {
    let metadata = event.metadata.decode::<Metadata>().unwrap_or_default();
    let correlation_id = metadata.correlation_id;
    if correlation_id.is_empty() {
        return Ok(None);
    }
    let search = Search {
        wanted: EventQuery {
            correlation_id: Some(correlation_id.clone()),
            // Clients choose these ids: another tenant's may be the same.
            tenant: event.stream.tenant(),
            ..EventQuery::default()
        },
        since: Some(Start::Time(event.recorded_at - CHAIN_BEFORE)),
        limit: MAX_CHAIN,
        ..Search::default()
    };
    let mut page = search.run(&*view.log).await?;
    // It belongs to it, however much there is.
    if !page.events.iter().any(|other| other.id == event.id) {
        page.events.push(event.clone());
    }
    Ok(Some(Chain::of(&correlation_id, &page.events, page.more)))
}

/// Says how much of the log was looked at.
fn looked(body: &mut Value, page: &Page) {
    let time = page.looked_to;
    let time = time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
    add(body, "looked_at", json!(page.looked_at));
    add(body, "looked_to", json!(time));
}

fn add(body: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = body {
        members.insert(name.to_owned(), value);
    }
}

fn no_event() -> Problem {
    Problem::new(ProblemKind::NotFound, "The log has no such event.")
}

/// It is not in the part that was looked at; `next` goes on with the rest.
fn not_yet(page: &Page) -> Problem {
    let mut body = json!({});
    looked(&mut body, page);
    let time = body.get("looked_to").and_then(Value::as_str);
    let detail = format!(
        "The event is not among the {} events that were looked at, back to {}. Ask again with `after`, which goes on.",
        page.looked_at,
        time.unwrap_or("the end of the log"),
    );
    let problem = Problem::new(ProblemKind::NotFound, detail);
    let problem = problem.with("next", json!(page.next.to_string()));
    problem.with("looked_at", json!(page.looked_at))
}

/// The value of a parameter, if it is there.
fn read<T>(
    parameter: &str,
    wanted: &str,
    value: Option<String>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let value = value.as_deref().map(|text| read(text).ok_or(()));
    value.transpose().map_err(|()| malformed(parameter, wanted))
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn start(text: &str) -> Option<Start> {
    match text {
        "now" => Some(Start::Now),
        _ => text.parse::<DateTime<Utc>>().ok().map(Start::Time),
    }
}

fn is_newest(text: &str) -> Option<bool> {
    match text {
        "newest" => Some(true),
        "oldest" => Some(false),
        _ => None,
    }
}

/// How many of something a page is to have.
pub(super) fn page_limit(limit: Option<String>) -> Result<Option<usize>, Problem> {
    let wanted = format!("a whole number from 1 to {MAX_LIMIT}");
    read("limit", &wanted, limit, |text| {
        parsed(text).filter(|limit| (1..=MAX_LIMIT).contains(limit))
    })
}

pub(super) fn flag(parameter: &str, value: Option<String>) -> Result<Option<bool>, Problem> {
    read(parameter, "true or false", value, parsed)
}

/// A version of a stream.
pub(super) fn version(parameter: &str, value: Option<String>) -> Result<Option<u64>, Problem> {
    read(parameter, "a version, a whole number", value, parsed)
}

fn after_page(after: Option<String>) -> Result<Option<ConsistencyToken>, Problem> {
    let wanted = "what an earlier page gave as `next`, unchanged";
    read("after", wanted, after, parsed)
}
