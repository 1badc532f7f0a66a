//! Watches the log's history, for the process' readiness and its tokens.

use std::sync::Arc;
use std::time::Duration;

use tidelog_command::CommandService;
use tidelog_eventbus::{PartitionState, RelayState, RelayStatus};
use tidelog_http::Part;
use tidelog_query::LiveViews;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::reactions::{Reactions, diverged as diverged_reaction};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells `commands`, until `stop`, which history the log has: an operator may give it a new one at any time.
pub(super) async fn tell_history(
    relay: RelayStatus,
    commands: Arc<CommandService>,
    stop: CancellationToken,
) {
    loop {
        if let Some(history) = relay.history() {
            commands.history_is(history);
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Says on `part`, until `stop`, whether the log is still the one that the bus, the views and the reactions have read.
///
/// A backend that is down leaves the process ready: commands are accepted without the bus and the views, and reads
/// are answered from the views as they are.
pub(super) async fn diverged(
    relay: RelayStatus,
    live: LiveViews,
    reactions: Reactions,
    part: Part,
    stop: CancellationToken,
) {
    loop {
        match who_diverged(&relay, &live, &reactions) {
            Some(what) => part.not_ready(format!(
                "{what} has read events that the log does not have: it was restored or replaced; stop the services, then run \
                 `doctor --new-history`"
            )),
            None => part.ready(),
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Who has noticed that the log went back in time.
fn who_diverged(relay: &RelayStatus, live: &LiveViews, reactions: &Reactions) -> Option<String> {
    let has = |state: &RelayState| matches!(state, RelayState::Diverged { .. });
    if relay
        .partitions()
        .iter()
        .any(|partition| has(&partition.state))
    {
        return Some("the event bus".to_owned());
    }
    let has = |state: &PartitionState| matches!(state, PartitionState::Diverged { .. });
    let mut views = live.all().into_iter();
    let view = views.find(|view| {
        view.partitions()
            .iter()
            .any(|partition| has(&partition.state))
    });
    let view = view.map(|view| format!("the view's version {}", view.name()));
    view.or_else(|| diverged_reaction(reactions))
}
