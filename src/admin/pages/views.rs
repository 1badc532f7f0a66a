//! The views: browsed, replayed, rolled back.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tidelog_query::{LastReplay, ReplayReport, ReplayState, ViewReport};

use super::asking::Asker;
use super::confirm::{self, Ask, Field, Kind};
use super::layout::Shell;
use super::parameters::{Form, Parameters};
use super::text::{Moment, cell, json as pretty, number, span};
use super::{Page, Refusal, Shared, Site, html, nothing_here, see_other};
use crate::admin::actions::{self, Action};

const HERE: &str = "/admin/views";

/// How many columns a table of documents has at most: each document can be opened whole.
const MAX_COLUMNS: usize = 7;

/// What a filter can ask of a field.
const OPERATORS: &str = "ne, gt, gte, lt, lte, in, prefix, contains, exists";

struct Row {
    name: String,
    version: String,
    definition: &'static str,
    class: &'static str,
    replay: Option<Replay>,
    /// How the last one ended, where this process was asked for it.
    last: Option<Last>,
    previous: String,
    can_roll_back: bool,
}

struct Last {
    class: &'static str,
    text: &'static str,
    error: Option<String>,
    at: Moment,
}

struct Replay {
    state: &'static str,
    class: &'static str,
    events: u64,
    of: u64,
    percent: String,
    text: String,
}

#[derive(Template)]
#[template(path = "views.html")]
struct List {
    shell: Shell,
    may_act: bool,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "views_live.html")]
struct LiveList {
    may_act: bool,
    rows: Vec<Row>,
}

#[derive(Template)]
#[template(path = "view.html")]
struct Browse {
    shell: Shell,
    may_act: bool,
    name: String,
    plural: String,
    query: String,
    operators: &'static str,
    problem: Option<String>,
    columns: Vec<String>,
    rows: Vec<Document>,
    /// The query for the next page.
    next: Option<String>,
}

struct Document {
    /// Its stream, where it is made from one.
    stream: Option<String>,
    cells: Vec<String>,
    json: String,
}

impl Row {
    fn of(report: ViewReport) -> Self {
        let (definition, class) = match (report.version, report.is_current, report.is_refused) {
            (None, ..) => ("not built yet", "busy"),
            (_, true, _) => ("this program's", "ok"),
            (_, false, true) => ("of before, rolled back to", "off"),
            (_, false, false) => ("of before", "busy"),
        };
        let previous = report.previous.as_ref();
        let previous = previous.and_then(|own| Some((own.version?, own.keep)));
        Self {
            name: report.view,
            version: report
                .version
                .map_or_else(|| "–".to_owned(), |own| own.to_string()),
            definition,
            class,
            replay: report.replay.as_ref().map(Replay::of),
            last: report.last.map(Last::of),
            can_roll_back: previous.is_some(),
            previous: match previous {
                Some((version, true)) => format!("version {version}, kept"),
                Some((version, false)) => format!("version {version}"),
                None => "–".to_owned(),
            },
        }
    }
}

impl Last {
    fn of(last: LastReplay) -> Self {
        let (class, text) = match last.error {
            None => ("ok", "done"),
            Some(_) => ("bad", "failed"),
        };
        Self {
            class,
            text,
            error: last.error,
            at: Moment::of(last.ended_at),
        }
    }
}

impl Replay {
    fn of(report: &ReplayReport) -> Self {
        let (state, class) = match report.state {
            ReplayState::Building => ("building", "busy"),
            ReplayState::Comparing => ("comparing", "busy"),
            ReplayState::Switching => ("switching", "busy"),
            ReplayState::RollingBack => ("rolling back", "busy"),
            _ => ("left in the middle", "off"),
        };
        let left = report
            .eta_seconds
            .map(|left| format!(", {} left", span(left)));
        Self {
            state,
            class,
            events: report.events.min(report.of),
            of: report.of.max(1),
            percent: format!("{} %", report.events.saturating_mul(100) / report.of.max(1)),
            text: match report.of {
                // What there is to do is being found out.
                0 => format!("version {}", report.version),
                of => format!(
                    "version {}: {} of {} events{}",
                    report.version,
                    number(report.events),
                    number(of),
                    left.unwrap_or_default()
                ),
            },
        }
    }
}

async fn rows(site: &Site, asker: &Asker) -> Result<Vec<Row>, Refusal> {
    let reports: Vec<ViewReport> = site.read(asker, &["views"], &[]).await?;
    Ok(reports.into_iter().map(Row::of).collect())
}

pub(super) async fn list(State(site): Shared, asker: Asker, parameters: Parameters) -> Page {
    let shell = site.shell("Views", HERE, Some(&asker.principal));
    html(&List {
        shell: shell.live().saying(parameters.get("done")),
        may_act: asker.principal.may(&actions::REPLAY),
        rows: rows(&site, &asker).await?,
    })
}

pub(super) async fn live(State(site): Shared, asker: Asker) -> Page {
    html(&LiveList {
        may_act: asker.principal.may(&actions::REPLAY),
        rows: rows(&site, &asker).await?,
    })
}

pub(super) async fn browse(
    State(site): Shared,
    asker: Asker,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Page {
    let view = site.catalog.get(&name).ok_or_else(nothing_here)?;
    let plural = view.plural().to_owned();
    let category = view.category().map(str::to_owned);
    let query = parameters.get("query").unwrap_or_default();
    // A question mark is easily copied along.
    let query = query.trim().trim_start_matches('?').to_owned();
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let asked = encoded(&pairs);
    let (status, answer) = site.query(&format!("/{plural}?{asked}")).await?;
    let mut page = Browse {
        shell: site.shell(&name, HERE, Some(&asker.principal)),
        may_act: asker.principal.may(&actions::REPLAY),
        name,
        plural,
        query,
        operators: OPERATORS,
        problem: None,
        columns: Vec::new(),
        rows: Vec::new(),
        next: None,
    };
    if status == 200 {
        let documents = answer.get("data").and_then(Value::as_array);
        let documents = documents.map(Vec::as_slice).unwrap_or_default();
        page.columns = columns(documents);
        let stream = |own: &Value| {
            let id = own.get("id").and_then(Value::as_str)?;
            Some(format!("{}/{id}", category.as_ref()?))
        };
        let row = |own: &Value| Document {
            stream: stream(own),
            cells: page
                .columns
                .iter()
                .map(|name| cell(own.get(name)))
                .collect(),
            json: pretty(own),
        };
        page.rows = documents.iter().map(row).collect();
        let next = answer.get("next").and_then(Value::as_str);
        page.next = next.map(|cursor| {
            let others = pairs.into_iter().filter(|(name, _)| name != "after");
            let after = ("after".to_owned(), cursor.to_owned());
            encoded(&others.chain([after]).collect::<Vec<_>>())
        });
    } else {
        let detail = answer.get("detail").and_then(Value::as_str);
        page.problem = Some(detail.unwrap_or("The query cannot be answered.").to_owned());
    }
    html(&page)
}

/// Pairs as an address has them.
fn encoded(pairs: &[(String, String)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs).finish()
}

/// The columns for these documents: the id, then the first fields that are plain values, as they come.
fn columns(documents: &[Value]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let fields = documents.iter().filter_map(Value::as_object).flatten();
    let plain = fields.filter(|(_, value)| !value.is_object() && !value.is_array());
    let new = plain.filter(|&(name, _)| seen.insert(name.as_str()));
    let new = new.map(|(name, _)| name.clone());
    let (mut columns, others): (Vec<_>, Vec<_>) = new.partition(|name| name == "id");
    columns.extend(others);
    columns.truncate(MAX_COLUMNS);
    columns
}

/// What can be asked for here.
const ACTIONS: &[&Action] = &[&actions::REPLAY, &actions::ROLL_BACK, &actions::CLEAN];

pub(super) async fn confirm(
    State(site): Shared,
    asker: Asker,
    Path((name, wanted)): Path<(String, String)>,
) -> Page {
    let action = confirm::action(ACTIONS, &wanted)?;
    site.catalog.get(&name).ok_or_else(nothing_here)?;
    let ask = if *action == actions::REPLAY {
        let entries = site.look().await;
        let mut own = entries.iter().filter(|own| own.name == name);
        let is_paused = own.any(|own| own.partitions.iter().any(|own| own.paused_since.is_some()));
        replay(&name, is_paused)
    } else if *action == actions::ROLL_BACK {
        Ask {
            title: format!("Roll {name} back?"),
            lines: vec![
                "The version before is brought up to date and read again; the one that is read now becomes the version before.".to_owned(),
                "While it is read, this program does not replay the view by itself.".to_owned(),
            ],
            button: "Roll back",
            is_grave: true,
            back: HERE.to_owned(),
            ..Ask::default()
        }
    } else {
        Ask {
            title: format!("Let go of the version before of {name}?"),
            lines: vec![
                "Its documents are dropped, and there is no way back to it. The log has everything to build it again.".to_owned(),
            ],
            button: "Let go",
            is_grave: true,
            back: HERE.to_owned(),
            ..Ask::default()
        }
    };
    confirm::page(&site, &asker, action, HERE, ask)
}

/// The question before a replay.
fn replay(name: &str, is_paused: bool) -> Ask {
    const COMPARE: &[(&str, &str)] = &[
        ("sample", "a sample of the documents with the log"),
        ("full", "every document with the log"),
        ("counts", "only how many there are"),
        ("none", "nothing"),
    ];
    let mut lines = vec![
        "A new version is built from the log beside the one that is read. When it has caught up, readers are led to it; the one before is kept for a while, to roll back to.".to_owned(),
        "With a document's id, only that document is made what the log says, in the version that is read.".to_owned(),
    ];
    if is_paused {
        lines.push("The view is paused. The new version will not be.".to_owned());
    }
    Ask {
        title: format!("Replay {name}?"),
        lines,
        fields: vec![
            Field::new(
                "compare",
                "Compare before it is read",
                Kind::Choice(COMPARE),
            ),
            Field::new("throttle", "At most so many events a second", Kind::Number),
            Field::new(
                "keep",
                "Keep the version before until somebody lets go of it",
                Kind::Check,
            ),
            Field::new("document", "One document alone, by its id", Kind::Text),
        ],
        button: "Replay",
        back: HERE.to_owned(),
        ..Ask::default()
    }
}

pub(super) async fn act(
    State(site): Shared,
    asker: Asker,
    Path((name, wanted)): Path<(String, String)>,
    Form(form): Form,
) -> Page {
    let action = confirm::action(ACTIONS, &wanted)?;
    let one = form.get("document");
    let (body, at_once, code) = match one {
        _ if *action == actions::ROLL_BACK => (json!({}), false, "rolled-back"),
        _ if *action == actions::CLEAN => (json!({}), false, "cleaned"),
        Some(document) => (json!({"document": document}), false, "replayed"),
        None => {
            let body = json!({
                "compare": form.get("compare").unwrap_or("sample"),
                "throttle": form.number("throttle")?,
                "keep": form.get("keep").is_some(),
            });
            (body, true, "replaying")
        }
    };
    let segments = ["views", &name, &wanted];
    site.act(&asker, &segments, &body, at_once).await?;
    Ok(see_other(&format!("{HERE}?done={code}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_id_and_the_first_plain_fields() {
        let documents = [
            json!({"title": "A", "tags": ["x"], "id": "1", "author": {"name": "Ann"}}),
            json!({"title": "B", "id": "2", "words": 7, "tags": null}),
        ];
        assert_eq!(columns(&documents), ["id", "title", "words", "tags"]);
        assert!(columns(&[]).is_empty());
    }
}
