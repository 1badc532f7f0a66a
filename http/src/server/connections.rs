//! The connections of a listener: what each of them is doing, and who does it for too long.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::ServerSettings;
use crate::rejected::rejected;

/// The pause between two looks at all connections.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a connection may be idle while places are scarce.
const SCARCE_IDLE: Duration = Duration::from_secs(1);

/// How long a head may take while places are scarce.
const SCARCE_HEAD: Duration = Duration::from_secs(2);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has no request: nothing was sent since it was opened, or since the last answer.
    Idle,
    /// The head of a request, or the handshake of TLS, is on its way.
    Head,
    /// A request is being handled, or its answer is on the way.
    Busy,
}

/// The connections of one listener. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    settings: ServerSettings,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    count: Gauge,
    slow_head: Counter,
    idle: Counter,
}

/// What one connection is doing, as those who serve it tell.
pub(super) struct Activity {
    doing: Mutex<Doing>,
    /// Ends the connection.
    pub(super) cut: CancellationToken,
}

#[derive(Clone, Copy)]
struct Doing {
    phase: Phase,
    since: Instant,
    /// The client has not taken all that was sent to it: it is not idle, whatever the phase says.
    is_blocked: bool,
}

/// A connection that is counted while this lives.
pub(super) struct Counted {
    connections: Connections,
    number: u64,
    pub(super) activity: Arc<Activity>,
}

/// A connection has a request while this lives.
pub(super) struct Busy(Arc<Activity>);

impl Connections {
    pub(super) fn new(settings: ServerSettings) -> Self {
        let service = settings.service;
        Self(Arc::new(Inner {
            settings,
            next: AtomicU64::new(0),
            open: Mutex::default(),
            count: metrics::gauge!("tidelog_http_connections", "service" => service),
            slow_head: rejected(service, "slow-head"),
            idle: rejected(service, "idle"),
        }))
    }

    /// Counts a new connection, whose first bytes are the head of a request, or a handshake.
    pub(super) fn count(&self, phase: Phase) -> Counted {
        let activity = Arc::new(Activity {
            doing: Mutex::new(Doing {
                phase,
                since: Instant::now(),
                is_blocked: false,
            }),
            cut: CancellationToken::new(),
        });
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, Arc::clone(&activity));
        self.0.count.increment(1);
        Counted {
            connections: self.clone(),
            number,
            activity,
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        // Nothing panics while it is held.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends, again and again, the connections that do for too long what they are doing.
    pub(super) async fn watch(self) -> Infallible {
        loop {
            sleep(LOOK_EVERY).await;
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        let open = self.open();
        let settings = &self.0.settings;
        let is_scarce = is_scarce(open.len(), settings.max_connections);
        for activity in open.values() {
            let doing = *activity.doing();
            let may_last = match doing.phase {
                _ if doing.is_blocked => None,
                phase => may_last(phase, settings, is_scarce),
            };
            if may_last.is_some_and(|most| now.duration_since(doing.since) >= most) {
                match doing.phase {
                    Phase::Head => self.0.slow_head.increment(1),
                    // An idle connection is closed sooner or later: nobody is turned away, unless for the sake of others.
                    _ if is_scarce => self.0.idle.increment(1),
                    _ => {}
                }
                activity.cut.cancel();
            }
        }
    }
}

/// Whether so many connections are open that more than three quarters of the places are taken.
fn is_scarce(open: usize, places: usize) -> bool {
    open.saturating_mul(4) > places.saturating_mul(3)
}

/// How long a connection may do this.
fn may_last(phase: Phase, settings: &ServerSettings, is_scarce: bool) -> Option<Duration> {
    let (usual_ms, scarce) = match phase {
        Phase::Idle => (settings.idle_timeout_ms, SCARCE_IDLE),
        Phase::Head => (settings.header_timeout_ms, SCARCE_HEAD),
        Phase::Busy => return None,
    };
    let usual = Duration::from_millis(usual_ms);
    Some(if is_scarce { usual.min(scarce) } else { usual })
}

impl Activity {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        // Nothing panics while it is held.
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut doing = self.doing();
        doing.phase = phase;
        doing.since = Instant::now();
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        let mut doing = self.doing();
        if doing.phase == Phase::Idle {
            doing.phase = Phase::Head;
            doing.since = Instant::now();
        }
    }

    /// The client took bytes, or does not: whether it has more to take.
    pub(super) fn told(&self, is_blocked: bool) {
        let mut doing = self.doing();
        if doing.is_blocked && !is_blocked {
            doing.since = Instant::now();
        }
        doing.is_blocked = is_blocked;
    }

    /// Whether the client has more to take.
    #[cfg(test)]
    pub(super) fn is_blocked(&self) -> bool {
        self.doing().is_blocked
    }

    /// Nothing is under way.
    pub(super) fn idle(&self) {
        self.enter(Phase::Idle);
    }

    /// A request came.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.enter(Phase::Busy);
        Busy(Arc::clone(self))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
        self.connections.0.count.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);
    const HEAD: Duration = Duration::from_secs(10);

    #[test]
    fn while_places_are_scarce_who_asks_nothing_goes_soonest() {
        let settings = ServerSettings::default();
        for (phase, is_scarce, most) in [
            (Phase::Idle, false, Some(IDLE)),
            (Phase::Head, false, Some(HEAD)),
            (Phase::Idle, true, Some(SCARCE_IDLE)),
            (Phase::Head, true, Some(SCARCE_HEAD)),
            (Phase::Busy, false, None),
            (Phase::Busy, true, None),
        ] {
            assert_eq!(may_last(phase, &settings, is_scarce), most, "{phase:?}");
        }
        assert!(!is_scarce(3, 4) && is_scarce(4, 4) && is_scarce(3073, 4096));
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_ended_by_what_it_does_and_for_how_long() {
        let connections = Connections::new(ServerSettings::default());
        let all = [(); 4].map(|()| connections.count(Phase::Idle));
        let [idle, head, busy, blocked] = all.each_ref().map(|one| &one.activity);
        head.heard();
        let _request = busy.busy();
        blocked.told(true);
        let is_cut = || all.each_ref().map(|one| one.activity.cut.is_cancelled());
        connections.look(Instant::now() + HEAD - Duration::from_millis(1));
        assert_eq!(is_cut(), [false; 4]);
        connections.look(Instant::now() + HEAD);
        assert_eq!(is_cut(), [false, true, false, false]);
        connections.look(Instant::now() + IDLE);
        assert_eq!(is_cut(), [true, true, false, false]);
        assert!(idle.cut.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_again_once_its_answer_was_taken() {
        let connections = Connections::new(ServerSettings::default());
        let one = connections.count(Phase::Idle);
        one.activity.heard();
        let request = one.activity.busy();
        one.activity.told(true);
        drop(request);
        sleep(IDLE).await;
        connections.look(Instant::now());
        assert!(!one.activity.cut.is_cancelled(), "while it reads");
        one.activity.told(false);
        connections.look(Instant::now() + IDLE - Duration::from_millis(1));
        assert!(!one.activity.cut.is_cancelled());
        connections.look(Instant::now() + IDLE);
        assert!(one.activity.cut.is_cancelled());
    }
}
