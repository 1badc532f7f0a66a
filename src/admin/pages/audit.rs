//! The record of what was done.

use askama::Template;
use axum::extract::State;
use serde_json::Value;

use super::asking::Asker;
use super::layout::Shell;
use super::parameters::Parameters;
use super::text::Moment;
use super::{Page, Shared, html};
use crate::admin::audit::{AuditEntry, Outcome};

/// How many entries a page has.
const ENTRIES: &str = "50";

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    shell: Shell,
    rows: Vec<Row>,
    /// Before which entry the next page begins.
    next: Option<u64>,
}

struct Row {
    number: u64,
    at: Moment,
    by: String,
    via: String,
    action: String,
    target: String,
    outcome: &'static str,
    class: &'static str,
    detail: Option<String>,
    said: String,
}

impl Row {
    fn of(entry: AuditEntry) -> Self {
        let (outcome, detail) = match entry.ended {
            Some(ended) => (Some(ended.outcome), ended.detail),
            None => (None, None),
        };
        let class = match outcome {
            Some(Outcome::Done) => "ok",
            Some(Outcome::Begun) | None => "busy",
            Some(Outcome::Refused) => "off",
            Some(Outcome::Failed) => "bad",
        };
        Self {
            number: entry.number,
            at: Moment::of(entry.at),
            by: entry.asked.by,
            via: entry.asked.via,
            action: entry.asked.action,
            target: entry.asked.target,
            outcome: outcome.map_or("not known", Outcome::name),
            class,
            detail,
            said: said(&entry.asked.said),
        }
    }
}

/// What was said about an action, in a line.
fn said(said: &Value) -> String {
    let Value::Object(members) = said else {
        return String::new();
    };
    let parts = members.iter().filter_map(|(name, value)| match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(format!("{name}: {text}")),
        other => Some(format!("{name}: {other}")),
    });
    parts.collect::<Vec<_>>().join(", ")
}

pub(super) async fn page(State(site): Shared, asker: Asker, parameters: Parameters) -> Page {
    let before = parameters.number("before")?.map(|own| own.to_string());
    let mut asked = vec![("limit", ENTRIES)];
    asked.extend(before.as_deref().map(|before| ("before", before)));
    let (entries, next) = site
        .read_page::<AuditEntry>(&asker, &["audit"], &asked)
        .await?;
    html(&Audit {
        shell: site.shell("Audit", "/admin/audit", Some(&asker.principal)),
        rows: entries.into_iter().map(Row::of).collect(),
        next: next.as_u64(),
    })
}
