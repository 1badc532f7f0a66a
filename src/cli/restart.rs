//! `restart`: where a reaction goes on, when only an operator can say.

use serde_json::json;

use super::admin::Admin;
use super::commands::{Outcome, say};
use crate::App;
use crate::settings::Settings;

/// Has the reaction `name` go on at `from`, for a reason, which may be empty.
pub(super) async fn restart(
    app: &App,
    settings: Settings,
    name: &str,
    from: &str,
    reason: &str,
) -> Outcome {
    app.check()?;
    let admin = Admin::reach(app, settings).await?;
    let from_there = json!({"from": from, "reason": reason});
    admin
        .post("reactions", name, "restart", &from_there)
        .await?;
    say(&format!("{name} goes on from {from}"));
    Ok(())
}
