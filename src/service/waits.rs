//! The alarm when nothing can be done for a view: it can be neither built nor followed, so it has no subscription that could stall.

use std::collections::BTreeMap;
use std::time::Instant;

use tidelog_query::ViewState;

use crate::subscriptions::STALL_PATIENCE;

/// The views for which nothing can be done.
#[derive(Default)]
pub(super) struct Waits(BTreeMap<String, Wait>);

struct Wait {
    since: Instant,
    is_told: bool,
}

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Waits { view: String, reason: String },
    GoesOn { view: String },
}

impl Waits {
    /// What has changed since the last look, `now`. A view that waits is told of once it has for a while: for the replay of another process
    /// it waits a moment, too.
    pub(super) fn look(
        &mut self,
        states: BTreeMap<String, ViewState>,
        now: Instant,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for (view, state) in states {
            let ViewState::Waiting { reason } = state else {
                if self.0.remove(&view).is_some_and(|wait| wait.is_told) {
                    changes.push(Change::GoesOn { view });
                }
                continue;
            };
            let wait = self.0.entry(view.clone()).or_insert_with(|| Wait {
                since: now,
                is_told: false,
            });
            if !wait.is_told && now.duration_since(wait.since) >= STALL_PATIENCE {
                wait.is_told = true;
                changes.push(Change::Waits { view, reason });
            }
        }
        changes
    }
}

impl Change {
    pub(super) fn tell(&self) {
        match self {
            Self::Waits { view, reason } => tracing::warn!(
                view,
                reason,
                "this process can do nothing for the view, and tries again: the version that is read stays, and gets new events only \
                 from a process whose definition it has"
            ),
            Self::GoesOn { view } => tracing::info!(view, "the view goes on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(state: ViewState) -> BTreeMap<String, ViewState> {
        BTreeMap::from([("post".to_owned(), state)])
    }

    fn waiting(reason: &str) -> BTreeMap<String, ViewState> {
        states(ViewState::Waiting {
            reason: reason.to_owned(),
        })
    }

    #[test]
    fn a_view_that_waits_is_told_of_once_and_again_when_it_goes_on() {
        let mut waits = Waits::default();
        let begun = Instant::now();
        let later = begun + STALL_PATIENCE;
        assert_eq!(waits.look(waiting("no log"), begun), []);
        let told = Change::Waits {
            view: "post".to_owned(),
            reason: "an event".to_owned(),
        };
        // The reason is the one of now.
        assert_eq!(waits.look(waiting("an event"), later), [told]);
        assert_eq!(waits.look(waiting("an event"), later), []);
        let goes_on = Change::GoesOn {
            view: "post".to_owned(),
        };
        let replaying = || states(ViewState::Replaying { events: 0, of: 9 });
        assert_eq!(waits.look(replaying(), later), [goes_on]);
        assert_eq!(waits.look(replaying(), later), []);
    }

    #[test]
    fn a_view_that_waits_for_a_moment_is_no_alarm() {
        let mut waits = Waits::default();
        let begun = Instant::now();
        let later = begun + STALL_PATIENCE;
        assert_eq!(waits.look(waiting("another process replays it"), begun), []);
        assert_eq!(waits.look(states(ViewState::Starting), begun), []);
        assert_eq!(waits.look(waiting("another process replays it"), later), []);
    }
}
