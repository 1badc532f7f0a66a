//! What works on the log: the bus, the views, the subscriptions.

use std::sync::Arc;

use tidelog_domain::{Cursor, Partition};
use tidelog_eventbus::{EventBus, LogError, LogReader};
use tidelog_query::store::IndexState;
use tidelog_query::{ReplayState, ViewReport};

use super::report::Report;
use super::why;
use crate::cli::admin::{Admin, read};
use crate::cli::operating::program;
use crate::cli::table::{are, counted};
use crate::cli::views::reports;
use crate::{App, SubscriptionEntry, WorkState};

/// Whether the log still has what was published.
pub(super) async fn history(admin: &Admin, bus: Option<Arc<dyn EventBus>>, report: &mut Report) {
    const CHECK: &str = "bus history";
    let (Admin::Here(here), Some(bus)) = (admin, bus) else {
        report.skip(CHECK, "the bus is inside of the process");
        return;
    };
    match published(&*here.log, &*bus).await {
        Ok(None) => report.ok(CHECK, "the log has what was published last"),
        Ok(Some(partition)) => report.fail(
            CHECK,
            format!("the log no longer has the event of partition {partition} that was published last: it was restored or replaced"),
            format!("stop the services, run `{} doctor --new-history`, and start them", program()),
        ),
        Err(error) => report.skip(CHECK, format!("not to be told: {}", why(&*error))),
    }
}

/// The first partition of which the log lacks what was published last.
async fn published(
    log: &dyn LogReader,
    bus: &dyn EventBus,
) -> Result<Option<Partition>, Box<dyn std::error::Error>> {
    let history = log.identity().await?.history;
    let heads = log.heads().await?;
    for (partition, head) in (0..).map(Partition::new).zip(heads) {
        let Some(last) = bus.last(history, partition).await? else {
            continue;
        };
        if last.position > head {
            // What is appended meanwhile is published too.
            let head = log.heads().await?.get(partition.index()).copied();
            if head.is_none_or(|head| last.position > head) {
                return Ok(Some(partition));
            }
        }
        match log.read(partition, last, 1).await {
            Err(LogError::Diverged { .. }) if last != Cursor::START => return Ok(Some(partition)),
            read => drop(read?),
        }
    }
    Ok(None)
}

/// Whether the views are read as this program defines them.
pub(super) async fn views(app: &App, admin: &Admin, report: &mut Report) {
    const CHECK: &str = "views";
    let all = match reports(app, admin).await {
        Ok(all) => all,
        Err(error) => {
            let advice = "see `read models` above";
            report.fail(CHECK, why(&*error), advice);
            return;
        }
    };
    let before = report.len();
    for own in &all {
        of_view(own, report);
    }
    if report.len() == before {
        report.ok(
            CHECK,
            format!(
                "{} read as this program defines them",
                are(count(&all), "view")
            ),
        );
    }
}

/// How many there are.
fn count<T>(all: &[T]) -> u64 {
    u64::try_from(all.len()).unwrap_or(u64::MAX)
}

fn of_view(own: &ViewReport, report: &mut Report) {
    const CHECK: &str = "views";
    let (view, program) = (&own.view, program());
    if own.version.is_none() {
        let found = format!("{view} is not built yet");
        report.warn(
            CHECK,
            found,
            "start a process with the role eventbus, which builds it",
        );
    } else if own.is_refused {
        let found = format!("{view} was rolled back from this program's definition");
        report.warn(
            CHECK,
            found,
            format!("when the cause is mended: {program} replay {view}"),
        );
    } else if !own.is_current {
        let found = format!("{view} is read as another program defines it");
        let advice =
            "start a process of this program with the role eventbus, which replays it by itself";
        report.warn(CHECK, found, advice);
    }
    let left = own.replay.as_ref();
    if left.is_some_and(|replay| replay.state == ReplayState::Left) {
        let found = format!("a replay of {view} was left in the middle");
        report.warn(
            CHECK,
            found,
            format!("{program} replay {view} goes on with it"),
        );
    }
    let missing = |state: IndexState| !matches!(state, IndexState::Ready | IndexState::Building);
    for index in own.indexes.iter().filter(|index| missing(index.state)) {
        let found = format!("{view} lacks the index {}", index.by);
        report.warn(
            CHECK,
            found,
            "start a process with the role eventbus, which makes it",
        );
    }
}

/// Whether the subscriptions get on.
pub(super) async fn subscriptions(admin: &Admin, report: &mut Report) {
    const CHECK: &str = "subscriptions";
    let listed = admin.get("subscriptions", &[], &[]).await;
    let all: Vec<SubscriptionEntry> = match listed.and_then(read) {
        Ok(all) => all,
        Err(error) => {
            report.fail(CHECK, why(&*error), "see what stands above");
            return;
        }
    };
    let before = report.len();
    for own in &all {
        of_subscription(own, report);
    }
    if report.len() == before {
        report.ok(
            CHECK,
            format!(
                "{} getting on, with nothing set aside",
                are(count(&all), "subscription")
            ),
        );
    }
}

fn of_subscription(own: &SubscriptionEntry, report: &mut Report) {
    const CHECK: &str = "subscriptions";
    let (name, program) = (&own.name, program());
    let see = format!("{program} subscriptions says more");
    if let Some(problem) = &own.problem {
        report.fail(CHECK, format!("{name}: {problem}"), see.clone());
    }
    let has = |state: WorkState| own.partitions.iter().any(|one| one.state == state);
    if has(WorkState::HistoryChanged) {
        let found = format!("{name} waits, because the log was restored or replaced");
        let advice = format!(
            "for a reaction: {program} restart {name} --from …; a view is replayed by itself"
        );
        report.fail(CHECK, found, advice);
    } else if has(WorkState::Failed) || has(WorkState::Full) || own.is_stalled() {
        report.fail(CHECK, format!("{name} stands still"), see);
    } else if has(WorkState::Unowned) {
        let found = format!("nobody works on {name}");
        report.warn(CHECK, found, "start a process with the role eventbus");
    }
    if has(WorkState::Paused) {
        let advice = format!("go on with {program} subscriptions resume {name}");
        report.warn(CHECK, format!("{name} is paused"), advice);
    }
    if own.parked() > 0 {
        let parked = u64::try_from(own.parked()).unwrap_or(u64::MAX);
        let found = format!("{name} has {} set aside", counted(parked, "sequence"));
        report.warn(
            CHECK,
            found,
            format!("{program} parked --subscription {name} shows them"),
        );
    }
}
