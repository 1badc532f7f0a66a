//! `/api/streams`: the streams by name, and the events of one with its states.

use std::collections::BTreeSet;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidelog_domain::{StreamId, Version};
use tidelog_http::{Problem, ProblemKind, require_json_answer};

use super::entry::entry;
use super::events::{flag, page_limit, version};
use super::search::last_version;
use super::states::{Folded, StateEntry, StatesEnd, fold};
use super::{Answer, LogView, answer, malformed, problem};
use crate::admin::diff::{Change, difference};
use crate::subscriptions::http::{Parameters, known};

/// How many streams, or events of one, a page has when nobody says.
const DEFAULT_LIMIT: usize = 100;

/// How many events a page with states may have.
const MAX_STATES: usize = 100;

/// `GET /api/streams?prefix=&after=&limit=`. A prefix without a `/` is a whole category (`post`, `acme:post`), one that ends with `:` a whole
/// tenant (`acme:`).
pub(super) async fn list(
    State(view): State<LogView>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    require_json_answer(&headers)?;
    let [prefix, after, limit] = known(parameters, ["prefix", "after", "limit"])?;
    let mut prefix = prefix.unwrap_or_default();
    if !prefix.is_empty() && !prefix.contains('/') && !prefix.ends_with(':') {
        prefix.push('/');
    }
    let after = after.map(|name| StreamId::parse(&name)).transpose();
    let after = after.map_err(|_| malformed("after", "the name of a stream, such as post/7f3a"))?;
    let limit = page_limit(limit)?.unwrap_or(DEFAULT_LIMIT);
    let found = view.log.streams(&prefix, after.as_ref(), limit).await;
    let found = found.map_err(problem)?;
    let next = found.last().filter(|_| found.len() == limit);
    let next = next.map(|(stream, _)| stream.to_string());
    let stream = |(stream, version): &(StreamId, Version)| json!({"stream": stream.as_str(), "version": version});
    let data: Vec<_> = found.iter().map(stream).collect();
    answer(json!({"data": data, "next": next}))
}

/// A stream: some of its events, and what it was after them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    /// The stream.
    pub(crate) stream: String,
    /// The version of its last event.
    pub(crate) version: u64,
    /// The events of this page, as CloudEvents.
    pub(crate) events: Vec<Value>,
    /// The states after them, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) states: Option<Vec<StateEntry>>,
    /// From which version on there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) states_end: Option<StatesEnd>,
    /// What is different between the two versions that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<Difference>,
}

/// What is different between the states of two versions.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// The version that is looked at.
    pub(crate) version: u64,
    /// The one that it is compared with; 0 is before the first event.
    pub(crate) compare: u64,
    /// What changed from the state at `compare` to the one at `version`.
    pub(crate) changes: Vec<Change>,
    /// How many changes there are beyond these.
    pub(crate) more: usize,
    /// Why they cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Difference {
    fn of(folded: &Folded, (version, compare): (u64, u64)) -> Self {
        let states = folded
            .at(compare)
            .and_then(|before| Ok((before, folded.at(version)?)));
        let (changes, more, why) = match states {
            Ok((before, after)) => {
                let (changes, more) = difference(&before, &after);
                (changes, more, None)
            }
            Err(why) => (Vec::new(), 0, Some(why)),
        };
        Self {
            version,
            compare,
            changes,
            more,
            why,
        }
    }
}

/// `GET /api/streams/{category}/{id}?after=&limit=&payload=&states=&version=&compare=`: the events of a stream, oldest first; with
/// `states`, also what it was after each; with `version` or `compare`, what is different between these two (the last, and the one
/// before it, unless said otherwise).
pub(super) async fn show(
    State(view): State<LogView>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Answer {
    require_json_answer(&headers)?;
    let names = ["after", "limit", "payload", "states", "version", "compare"];
    let [after, limit, payload, states, at, compare] = known(parameters, names)?;
    let no_stream = || Problem::new(ProblemKind::NotFound, "The log has no such stream.");
    let Ok(Path((category, id))) = path else {
        return Err(no_stream());
    };
    let stream = StreamId::parse(&format!("{category}/{id}")).map_err(|_| no_stream())?;
    let after = version("after", after)?.unwrap_or(0);
    let with_states = flag("states", states)?.unwrap_or(false);
    let limit = page_limit(limit)?.unwrap_or(DEFAULT_LIMIT);
    if with_states && limit > MAX_STATES {
        return Err(malformed(
            "limit",
            &format!("at most {MAX_STATES} with states"),
        ));
    }
    let with_payload = flag("payload", payload)?.unwrap_or(false);
    let (at, compare) = (version("version", at)?, version("compare", compare)?);
    let last = last_version(&*view.log, &stream).await?;
    if last == Version::NONE {
        return Err(no_stream());
    }
    let compared = compared(last.number(), at, compare)?;
    let read = view.log.read_stream(&stream, Version::new(after), limit);
    let events = read.await.map_err(problem)?;
    let next = events.last().map(|event| event.version);
    let next = next.filter(|version| *version < last);

    let on_page = events.iter().filter(|_| with_states);
    let on_page: BTreeSet<u64> = on_page.map(|event| event.version.number()).collect();
    let both = compared.into_iter().flat_map(|(at, compare)| [at, compare]);
    let wanted = on_page.iter().copied().chain(both.filter(|own| *own > 0));
    let folded = fold(&view, &stream, wanted.collect()).await?;

    let events = events.iter();
    let history = History {
        stream: stream.as_str().to_owned(),
        version: last.number(),
        events: events
            .map(|event| entry(&view.app, event, with_payload))
            .collect(),
        difference: compared.map(|versions| Difference::of(&folded, versions)),
        states: with_states.then(|| {
            let states = folded.states.into_values();
            states
                .filter(|own| on_page.contains(&own.version))
                .collect()
        }),
        states_end: folded.end.filter(|_| with_states),
    };
    answer(json!({"data": history, "next": next}))
}

/// The versions that are to be compared, if any are, of a stream whose last version is `last`.
fn compared(
    last: u64,
    version: Option<u64>,
    compare: Option<u64>,
) -> Result<Option<(u64, u64)>, Problem> {
    if version.is_none() && compare.is_none() {
        return Ok(None);
    }
    let version = version.unwrap_or(last);
    if !(1..=last).contains(&version) {
        let wanted = format!("a version of the stream, from 1 to {last}");
        return Err(malformed("version", &wanted));
    }
    let compare = compare.unwrap_or(version - 1);
    if compare > last {
        let wanted = format!("a version of the stream, from 0 (before the first) to {last}");
        return Err(malformed("compare", &wanted));
    }
    Ok(Some((version, compare)))
}
