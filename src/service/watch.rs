//! Watches what runs in the process, for its readiness.

use std::time::Duration;

use tidelog_eventbus::{PartitionState, RelayState, RelayStatus};
use tidelog_http::Part;
use tidelog_query::LiveViews;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Says on `part`, until `stop`, whether the log is still the one that the bus and the views were made from.
///
/// A backend that is down leaves the process ready: commands are accepted without the bus and the views, and reads
/// are answered from the views as they are.
pub(super) async fn watch(
    relay: RelayStatus,
    live: LiveViews,
    part: Part,
    stop: CancellationToken,
) {
    loop {
        match diverged(&relay, &live) {
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
fn diverged(relay: &RelayStatus, live: &LiveViews) -> Option<String> {
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
    view.map(|view| format!("the view's version {}", view.name()))
}
