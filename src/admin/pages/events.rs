//! Events, looked for in the log.

use askama::Template;
use axum::extract::State;
use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::Value;
use tidelog_http::Problem;

use super::asking::Asker;
use super::layout::Shell;
use super::parameters::Parameters;
use super::text::{Moment, encoded, number, segment};
use super::{Page, Refusal, Shared, html, see_other};
use crate::admin::log::names_event;

const HERE: &str = "/admin/events";

/// How many events a page has.
const EVENTS: usize = 50;

/// The most characters that are repeated of a field that makes no sense.
const MAX_QUOTED_CHARS: usize = 64;

/// An event as the log's API tells it.
#[derive(Deserialize)]
pub(super) struct LogEvent {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(rename = "subject")]
    pub(super) stream: String,
    #[serde(rename = "streamversion")]
    pub(super) version: String,
    #[serde(rename = "schemaversion")]
    pub(super) schema_version: String,
    pub(super) time: DateTime<Utc>,
    pub(super) partition: u16,
    pub(super) position: String,
    #[serde(rename = "correlationid")]
    pub(super) correlation: Option<String>,
    #[serde(rename = "causationid")]
    pub(super) causation: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) traceparent: Option<String>,
    /// The metadata as it stands there, where these do not say all of it.
    pub(super) metadata: Option<String>,
    pub(super) data: Option<Value>,
}

#[derive(Template)]
#[template(path = "events.html")]
struct List {
    shell: Shell,
    fields: Vec<Field>,
    rows: Vec<Row>,
    /// How far it was looked.
    looked: String,
    /// Where it goes on, and how that is called.
    next: Option<(String, &'static str)>,
    /// Where the newest are, if this is not the first page.
    newest: Option<String>,
    unreadable: Vec<String>,
    /// Whether the fields say what cannot be looked for.
    is_wrong: bool,
}

/// Something to look for.
struct Field {
    name: &'static str,
    label: &'static str,
    kind: &'static str,
    hint: &'static str,
    value: String,
    error: Option<String>,
}

struct Row {
    at: Moment,
    event_type: String,
    stream: String,
    version: String,
    place: String,
    correlation: Option<String>,
}

/// The fields: what each is called here and in the API.
const FIELDS: [(&str, &str, &str, &str, &str); 8] = [
    ("stream", "stream", "Stream", "text", "post/7f3a"),
    ("type", "type", "Type", "text", "post.created"),
    ("tenant", "tenant", "Tenant", "text", ""),
    ("correlation", "correlation", "Correlation id", "text", ""),
    ("from", "since", "From (UTC)", "datetime-local", ""),
    ("until", "until", "Before (UTC)", "datetime-local", ""),
    (
        "event",
        "",
        "One event",
        "text",
        "its id, post/7f3a@3 or 12:481",
    ),
    // Which command caused it: links bring it, and it is a field where there is one.
    ("causation", "causation", "Causation id", "text", ""),
];

impl Row {
    fn of(event: LogEvent) -> Self {
        Self {
            at: Moment::of(event.time),
            event_type: event.event_type,
            place: format!("{}:{}", event.partition, event.position),
            stream: event.stream,
            version: event.version,
            correlation: event.correlation,
        }
    }
}

pub(super) async fn list(State(site): Shared, asker: Asker, parameters: Parameters) -> Page {
    let mut fields = fields(&parameters);
    if let Some(event) = parameters.get("event") {
        let event = event.trim();
        if names_event(event) {
            return Ok(see_other(&format!("{HERE}/{}", segment(event))));
        }
        let error =
            "An id, a stream and version (post/7f3a@3), or a partition and position (12:481).";
        wrong(&mut fields, "event", error);
    }
    let asked = asked(&mut fields, &parameters);
    let mut page = List {
        shell: site.shell("Events", HERE, Some(&asker.principal)),
        fields,
        rows: Vec::new(),
        looked: String::new(),
        next: None,
        newest: None,
        unreadable: Vec::new(),
        is_wrong: false,
    };
    page.is_wrong = page.fields.iter().any(|field| field.error.is_some());
    if page.is_wrong {
        return html(&page);
    }
    let pairs: Vec<_> = asked
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    match site.try_answer(&asker, &["events"], &pairs).await? {
        Ok(answer) => page.found(answer, &parameters)?,
        Err(problem) => {
            let named = problem.get("parameter").and_then(Value::as_str);
            let field = FIELDS.iter().find(|(_, api, ..)| Some(*api) == named);
            let Some((name, ..)) = field else {
                return Err(Refusal::again(&problem));
            };
            let detail = problem.get("detail").and_then(Value::as_str);
            let detail = detail.unwrap_or("This cannot be looked for.");
            // Here it stands at the field.
            let wanted = detail.split_once("` must be ");
            let detail = wanted.map_or(detail.to_owned(), |(_, wanted)| {
                format!("It must be {wanted}")
            });
            wrong(&mut page.fields, name, &detail);
            page.is_wrong = true;
        }
    }
    html(&page)
}

/// The fields as they were filled in.
fn fields(parameters: &Parameters) -> Vec<Field> {
    let all = FIELDS.iter().map(|(name, _, label, kind, hint)| Field {
        name,
        label,
        kind,
        hint,
        value: parameters.get(name).unwrap_or_default().trim().to_owned(),
        error: None,
    });
    all.filter(|field| field.name != "causation" || !field.value.is_empty())
        .collect()
}

fn wrong(fields: &mut [Field], name: &str, error: &str) {
    let mut own = fields.iter_mut().filter(|field| field.name == name);
    if let Some(field) = own.next() {
        field.error = Some(error.to_owned());
    }
}

/// What the API is asked.
fn asked(fields: &mut [Field], parameters: &Parameters) -> Vec<(&'static str, String)> {
    let mut asked = vec![("limit", EVENTS.to_string())];
    for field in fields.iter_mut().filter(|field| !field.value.is_empty()) {
        let api = FIELDS.iter().find(|(name, ..)| *name == field.name);
        let api = api.map(|(_, api, ..)| *api).unwrap_or_default();
        let value = match (field.kind, time(&field.value)) {
            ("datetime-local", Some(time)) => {
                // As a browser wants it.
                field.value = time.format("%Y-%m-%dT%H:%M:%S").to_string();
                time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
            }
            ("datetime-local", None) => {
                // A browser has no room for it there.
                let text: String = field.value.drain(..).take(MAX_QUOTED_CHARS).collect();
                field.error = Some(format!("{text} is no time, such as 2026-05-01T12:00."));
                continue;
            }
            _ => field.value.clone(),
        };
        if !api.is_empty() {
            asked.push((api, value));
        }
    }
    asked.extend(
        parameters
            .get("after")
            .map(|after| ("after", after.to_owned())),
    );
    asked
}

/// A time as a browser sends it, without a zone, or as programs write it.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let local = |format| NaiveDateTime::parse_from_str(text, format).ok();
    let local = local("%Y-%m-%dT%H:%M:%S%.f").or_else(|| local("%Y-%m-%dT%H:%M"));
    local
        .map(|local| local.and_utc())
        .or_else(|| text.parse().ok())
}

impl List {
    /// Shows an answer.
    fn found(&mut self, mut answer: Value, parameters: &Parameters) -> Result<(), Problem> {
        let events = answer.get_mut("data").map(Value::take).unwrap_or_default();
        let events: Vec<LogEvent> =
            serde_json::from_value(events).map_err(|_| Problem::internal())?;
        self.rows = events.into_iter().map(Row::of).collect();
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let looked_at = answer.get("looked_at").and_then(Value::as_u64).unwrap_or(0);
        let back = text("looked_to").and_then(|text| text.parse::<DateTime<Utc>>().ok());
        let back = back.map(|time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string());
        self.looked = match back {
            Some(back) if self.rows.len() < EVENTS => {
                format!("Looked back to {back}, at {} events.", number(looked_at))
            }
            Some(_) => String::new(),
            None => "There are no earlier ones.".to_owned(),
        };
        let more = answer.get("more").and_then(Value::as_bool).unwrap_or(false);
        let pairs = || {
            FIELDS
                .iter()
                .filter_map(|(name, ..)| Some((*name, parameters.get(name)?)))
        };
        if let (true, Some(next)) = (more, text("next")) {
            let query = encoded(pairs().chain([("after", next)]));
            let name = if self.rows.len() < EVENTS {
                "Go on"
            } else {
                "Earlier"
            };
            self.next = Some((format!("{HERE}?{query}"), name));
        }
        if parameters.get("after").is_some() {
            self.newest = Some(format!("{HERE}?{}", encoded(pairs())));
        }
        let unreadable = answer.get("unreadable").and_then(Value::as_array);
        let row = |row: &Value| {
            let text = |name: &str| row.get(name).map(Value::to_string).unwrap_or_default();
            let why = row.get("why").and_then(Value::as_str).unwrap_or_default();
            format!("{}:{}: {why}", text("partition"), text("position"))
        };
        self.unreadable = unreadable.into_iter().flatten().map(row).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_browsers_and_as_programs_write_them() {
        let noon = "2026-05-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap();
        for text in [
            "2026-05-01T12:00",
            "2026-05-01T12:00:00",
            "2026-05-01T14:00:00+02:00",
        ] {
            assert_eq!(time(text), Some(noon), "{text}");
        }
        assert_eq!(time("yesterday"), None);
    }

    #[test]
    fn a_field_that_is_no_time_says_so_and_is_not_asked_for() {
        let parameters = Parameters::of(b"stream=post/1&from=soon&until=2026-05-01T12:00&event=x");
        let mut fields = fields(&parameters);
        let asked = asked(&mut fields, &parameters);
        let expected = [
            ("limit", "50".to_owned()),
            ("stream", "post/1".to_owned()),
            ("until", "2026-05-01T12:00:00Z".to_owned()),
        ];
        assert_eq!(asked, expected);
        let wrong = fields.iter().filter(|field| field.error.is_some());
        assert_eq!(wrong.map(|field| field.name).collect::<Vec<_>>(), ["from"]);
    }
}
