//! `migrate --dry-run`: which migrations are due.

use serde_json::json;

use super::commands::{Outcome, or_embedded, say};
use super::exit::{Exit, ended};
use crate::inspection::inspect;
use crate::settings::{Role, Settings};

/// Says which migrations are due, with their statements if `sql`; nothing is made, changed or locked.
pub(super) async fn dry_run(settings: Settings, sql: bool, json: bool) -> Outcome {
    // It looks at the log alone, whatever the process would run.
    let settings = Settings {
        role: Role::All,
        ..or_embedded(settings)
    };
    let due = inspect(&settings).await?.pending;
    if json {
        let entry = |own: &tidelog_command::store::PendingMigration| {
            let mut entry = json!({"number": own.number, "description": own.description});
            if let (Some(entry), true) = (entry.as_object_mut(), sql) {
                entry.insert("sql".to_owned(), json!(own.sql));
            }
            entry
        };
        let due: Vec<_> = due.iter().map(entry).collect();
        say(&serde_json::to_string_pretty(&due)?);
    } else if due.is_empty() {
        say("no migration is due: the log's database is of this program's version");
    } else {
        for own in &due {
            say(&format!("due   {:04} {}", own.number, own.description));
            if sql {
                say(&format!("\n{}\n", own.sql.trim_end()));
            }
        }
    }
    match due.is_empty() {
        true => Ok(()),
        false => Err(ended(Exit::Attention, "")),
    }
}
