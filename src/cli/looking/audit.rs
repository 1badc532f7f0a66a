//! `audit`: who did what in the administration, when, why, and what came of it.

use super::Failure;
use crate::admin::audit::AuditEntry;
use crate::cli::admin::{Admin, read};
use crate::cli::commands::{Outcome, say};
use crate::cli::operating::program;
use crate::cli::table::{NOTHING, short, table};

/// How many entries are asked for at once.
const AT_ONCE: u32 = 200;

/// The most characters of why something was done, and of why it was not.
const MAX_WHY: usize = 72;

/// Shows what was asked for last, before the entry `before` if one is named.
pub(super) async fn audit(
    admin: &Admin,
    mut before: Option<u64>,
    limit: u32,
    json: bool,
) -> Outcome {
    let (mut all, mut left) = (Vec::new(), limit);
    while left > 0 {
        let found = page(admin, &mut before, left.min(AT_ONCE)).await?;
        left = left.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        all.extend(found);
        if before.is_none() {
            break;
        }
    }
    if json {
        say(&serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if all.is_empty() {
        say("nothing was done");
        return Ok(());
    }
    say(listed(&all).trim_end());
    if let Some(before) = before {
        let program = program();
        say(&format!(
            "\nthere may be more:  {program} audit --before {before}"
        ));
    }
    Ok(())
}

/// One page; `before` says where the next one is.
async fn page(
    admin: &Admin,
    before: &mut Option<u64>,
    limit: u32,
) -> Result<Vec<AuditEntry>, Failure> {
    let (limit, start) = (limit.to_string(), before.map(|before| before.to_string()));
    let mut parameters = vec![("limit", limit.as_str())];
    parameters.extend(start.as_deref().map(|start| ("before", start)));
    let mut page = admin.page("audit", &[], &parameters).await?;
    *before = page.get("next").and_then(serde_json::Value::as_u64);
    read(
        page.get_mut("data")
            .map(serde_json::Value::take)
            .unwrap_or_default(),
    )
}

fn listed(all: &[AuditEntry]) -> String {
    let row = |own: &AuditEntry| {
        let outcome = own.ended.as_ref().map(|ended| ended.outcome.name());
        [
            own.at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            own.asked.by.clone(),
            own.asked.via.clone(),
            own.asked.action.clone(),
            own.asked.target.clone(),
            outcome.unwrap_or("not known").to_owned(),
            why(own),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(
        ["WHEN", "WHO", "VIA", "ACTION", "TARGET", "OUTCOME", "WHY"],
        &rows,
    )
}

/// Why it was not done; or why it was asked for, as far as somebody said.
fn why(own: &AuditEntry) -> String {
    let detail = own.ended.as_ref().and_then(|ended| ended.detail.as_deref());
    let reason = own
        .asked
        .said
        .get("reason")
        .and_then(|reason| reason.as_str());
    let why = detail.or(reason).filter(|why| !why.is_empty());
    why.map_or_else(|| NOTHING.to_owned(), |why| short(why, MAX_WHY))
}
