//! The streams: found by name; the history of one, with its states and what is different between two of them.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;

use super::asking::Asker;
use super::event::Waits;
use super::events::LogEvent;
use super::layout::Shell;
use super::parameters::Parameters;
use super::text::{Moment, cell, encoded, json as pretty, number};
use super::{Page, Refusal, Shared, html};
use crate::admin::diff::{Change, difference};
use crate::admin::log::{Difference, History, StateEntry};

const HERE: &str = "/admin/streams";

/// How many streams a page has.
const STREAMS: &str = "50";

/// How many events of a stream a page has.
const EVENTS: u64 = 25;

/// How many changes of an event are shown in its row: all are in the difference between the versions.
const ROW_CHANGES: usize = 4;

#[derive(Template)]
#[template(path = "streams.html")]
struct List {
    shell: Shell,
    prefix: String,
    categories: Vec<String>,
    rows: Vec<Row>,
    next: Option<String>,
}

struct Row {
    stream: String,
    version: String,
}

#[derive(Deserialize)]
struct Said {
    stream: String,
    version: u64,
}

#[derive(Template)]
#[template(path = "stream.html")]
struct One {
    shell: Shell,
    category: String,
    stream: String,
    last: u64,
    rows: Vec<EventRow>,
    waits: Vec<Waits>,
    /// From where on there are no states, and why.
    end: Option<String>,
    compared: Option<Compared>,
    /// What the fields are filled with.
    version: u64,
    compare: u64,
    /// The fields are wrong.
    problem: Option<String>,
    earlier: Option<String>,
    later: Option<String>,
}

struct EventRow {
    version: u64,
    event_type: String,
    at: Moment,
    place: String,
    is_here: bool,
    state: Option<StateOf>,
    /// Why there is none.
    why: Option<String>,
    changes: Vec<ChangeRow>,
    more: usize,
}

struct StateOf {
    json: String,
    ended: bool,
}

struct ChangeRow {
    path: String,
    /// `None` where there was nothing.
    before: Option<String>,
    /// `None` where there is nothing any more.
    after: Option<String>,
}

struct Compared {
    version: u64,
    compare: u64,
    changes: Vec<ChangeRow>,
    more: usize,
    why: Option<String>,
}

impl ChangeRow {
    fn of(change: &Change) -> Self {
        let path = change.path.strip_prefix('/').unwrap_or("all of it");
        Self {
            path: path.to_owned(),
            before: change.before.as_ref().map(shown),
            after: change.after.as_ref().map(shown),
        }
    }
}

/// A value of a change, of which nothing is left out that can be seen.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) if text.trim().is_empty() => format!("{text:?}"),
        value => cell(Some(value)),
    }
}

impl Compared {
    fn of(difference: &Difference) -> Self {
        Self {
            version: difference.version,
            compare: difference.compare,
            changes: difference.changes.iter().map(ChangeRow::of).collect(),
            more: difference.more,
            why: difference.why.clone(),
        }
    }
}

pub(super) async fn list(State(site): Shared, asker: Asker, parameters: Parameters) -> Page {
    let prefix = parameters.get("prefix").unwrap_or_default().trim();
    let mut asked = vec![("limit", STREAMS)];
    asked.extend((!prefix.is_empty()).then_some(("prefix", prefix)));
    asked.extend(parameters.get("after").map(|after| ("after", after)));
    let (found, next) = site.read_page::<Said>(&asker, &["streams"], &asked).await?;
    let rows = found.into_iter().map(|own| Row {
        stream: own.stream,
        version: number(own.version),
    });
    let next = next
        .as_str()
        .map(|next| encoded([("prefix", prefix), ("after", next)]));
    html(&List {
        shell: site.shell("Streams", HERE, Some(&asker.principal)),
        prefix: prefix.to_owned(),
        categories: site.categories.clone(),
        rows: rows.collect(),
        next: next.map(|query| format!("{HERE}?{query}")),
    })
}

pub(super) async fn one(
    State(site): Shared,
    asker: Asker,
    Path((category, id)): Path<(String, String)>,
    parameters: Parameters,
) -> Page {
    let (version, compare) = (parameters.number("version")?, parameters.number("compare")?);
    let of_version = version.map_or(0, |version| version.saturating_sub(1) / EVENTS * EVENTS);
    let after = parameters.number("after")?.unwrap_or(of_version);
    // With the state before its first event, it can be said what that event changed.
    let (from, limit) = match after {
        0 => (0, EVENTS),
        _ => (after - 1, EVENTS + 1),
    };
    let (from, limit) = (from.to_string(), limit.to_string());
    let mut asked = vec![
        ("states", "true".to_owned()),
        ("after", from),
        ("limit", limit),
    ];
    let page = asked.len();
    asked.extend(version.map(|own| ("version", own.to_string())));
    asked.extend(compare.map(|own| ("compare", own.to_string())));
    let pairs: Vec<_> = asked
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let segments = ["streams", &category, &id];
    let (answer, problem) = match site.try_answer(&asker, &segments, &pairs).await? {
        Ok(answer) => (answer, None),
        // The versions cannot be compared: its history is shown all the same.
        Err(problem) if problem.get("parameter").is_some() && pairs.len() > page => {
            let pairs = pairs.get(..page).unwrap_or_default();
            let again = site.try_answer(&asker, &segments, pairs).await?;
            let again = again.map_err(|problem| Refusal::again(&problem))?;
            let detail = problem.get("detail").and_then(Value::as_str);
            (
                again,
                Some(detail.unwrap_or("They cannot be compared.").to_owned()),
            )
        }
        Err(problem) => return Err(Refusal::again(&problem)),
    };
    let history: History = super::asking::data(answer)?;
    let parked = site.parked(&asker).await?;
    let events = history.events.iter().cloned();
    let events: Result<Vec<LogEvent>, _> = events.map(serde_json::from_value).collect();
    let events = events.map_err(super::asking::defect)?;
    let (rows, waits) = rows(&events, &history, after, version, &parked);
    let last = history.version;
    let href = |after: u64| format!("{HERE}/{}?after={after}", history.stream);
    html(&One {
        shell: site.shell(&history.stream, HERE, Some(&asker.principal)),
        earlier: (after > 0).then(|| href(after.saturating_sub(EVENTS))),
        later: (after + EVENTS < last).then(|| href(after + EVENTS)),
        version: version.unwrap_or(last),
        compare: compare.unwrap_or_else(|| version.unwrap_or(last).saturating_sub(1)),
        end: history.states_end.as_ref().map(|end| match end.version {
            1 => format!("There are no states: {}", end.why),
            version => format!("From version {version} on there are no states: {}", end.why),
        }),
        compared: history.difference.as_ref().map(Compared::of),
        category,
        stream: history.stream,
        last,
        rows,
        waits,
        problem,
    })
}

/// The rows of the events after version `after`, and what holds them up.
fn rows(
    events: &[LogEvent],
    history: &History,
    after: u64,
    here: Option<u64>,
    parked: &[crate::subscriptions::ParkedEntry],
) -> (Vec<EventRow>, Vec<Waits>) {
    let states = history.states.as_deref().unwrap_or_default();
    let state = |version| {
        states
            .iter()
            .find(|own: &&StateEntry| own.version == version)
    };
    let empty = Value::Object(serde_json::Map::new());
    let (mut rows, mut waits) = (Vec::new(), Vec::<Waits>::new());
    for event in events {
        let version = event.version.parse::<u64>().unwrap_or_default();
        if version <= after {
            continue;
        }
        let own = state(version);
        let now = own.and_then(|own| own.state.as_ref());
        let before = match version {
            1 => Some(&empty),
            _ => state(version - 1).and_then(|own| own.state.as_ref()),
        };
        let (changes, more) = match (before, now) {
            (Some(before), Some(now)) => difference(before, now),
            _ => (Vec::new(), 0),
        };
        let place = event.position.parse().unwrap_or_default();
        for one in Waits::of(parked, &event.stream, event.partition, place) {
            if waits.iter().all(|own| own.href != one.href) {
                waits.push(one);
            }
        }
        rows.push(EventRow {
            version,
            event_type: event.event_type.clone(),
            at: Moment::of(event.time),
            place: format!("{}:{}", event.partition, event.position),
            is_here: here == Some(version),
            state: now.map(|now| StateOf {
                json: pretty(now),
                ended: own.is_some_and(|own| own.lifecycle.as_deref() == Some("ended")),
            }),
            why: own.and_then(|own| own.why.clone()).or_else(|| {
                let end = history.states_end.as_ref();
                end.filter(|end| end.version == version && version > 1)
                    .map(|end| end.why.clone())
            }),
            more: more + changes.len().saturating_sub(ROW_CHANGES),
            changes: changes
                .iter()
                .take(ROW_CHANGES)
                .map(ChangeRow::of)
                .collect(),
        });
    }
    (rows, waits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_its_event_changed() {
        let event = |version: u64| {
            json!({"id": "x", "type": "post.updated", "subject": "post/1", "streamversion": version.to_string(), "schemaversion": "1",
                "time": "2026-05-01T12:00:00Z", "partition": 3, "position": version.to_string()})
        };
        let history = json!({"stream": "post/1", "version": 4, "events": [event(2), event(3), event(4)],
            "states": [{"version": 2, "lifecycle": "live", "state": {"title": "A", "tags": []}},
                {"version": 3, "lifecycle": "ended", "state": {"title": "", "words": null}}],
            "states_end": {"version": 4, "why": "it is no JSON"}});
        let history: History = serde_json::from_value(history).unwrap();
        let events = history.events.iter().cloned();
        let events: Vec<LogEvent> = events
            .map(|own| serde_json::from_value(own).unwrap())
            .collect();
        let (rows, waits) = rows(&events, &history, 2, Some(3), &[]);
        assert!(waits.is_empty());
        let [third, fourth] = &rows[..] else {
            panic!("two rows")
        };
        let changes = third.changes.iter();
        let text = |value: &Option<String>| value.clone().unwrap_or("-".to_owned());
        let changes: Vec<_> = changes
            .map(|own| format!("{}: {} > {}", own.path, text(&own.before), text(&own.after)))
            .collect();
        assert_eq!(
            changes,
            ["title: A > \"\"", "tags: [] > -", "words: - > null"]
        );
        assert!(third.is_here && third.state.as_ref().is_some_and(|own| own.ended));
        assert_eq!(fourth.why.as_deref(), Some("it is no JSON"));
        assert!(fourth.changes.is_empty() && fourth.state.is_none());
    }
}
