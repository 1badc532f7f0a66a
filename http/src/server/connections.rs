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

/// How long a head may take while places are scarce, and 16 KiB of a body or of an answer, unless it is all there is.
const SCARCE_SLOW: Duration = Duration::from_secs(2);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has no request: nothing was sent since it was opened, or since the last answer.
    Idle,
    /// The head of a request, or the handshake of TLS, is on its way.
    Head,
    /// The body of a request is waited for.
    Body,
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
    slow_body: Counter,
    slow_reader: Counter,
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
    /// Since when the client has not taken all that was sent to it, or 16 KiB more of it: it is not idle then, whatever the phase says.
    blocked_since: Option<Instant>,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TooLong {
    Idle,
    Head,
    Body,
    Reading,
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
            slow_body: rejected(service, "slow-body"),
            slow_reader: rejected(service, "slow-reader"),
            idle: rejected(service, "idle"),
        }))
    }

    /// Counts a new connection, whose first bytes are the head of a request, or a handshake.
    pub(super) fn count(&self, phase: Phase) -> Counted {
        let activity = Arc::new(Activity {
            doing: Mutex::new(Doing {
                phase,
                since: Instant::now(),
                blocked_since: None,
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
            let Some(what) = activity.doing().too_long(now, settings, is_scarce) else {
                continue;
            };
            match what {
                TooLong::Head => self.0.slow_head.increment(1),
                TooLong::Body => self.0.slow_body.increment(1),
                TooLong::Reading => self.0.slow_reader.increment(1),
                // An idle connection is closed sooner or later: nobody is turned away, unless for the sake of others.
                TooLong::Idle if is_scarce => self.0.idle.increment(1),
                TooLong::Idle => {}
            }
            activity.cut.cancel();
        }
    }
}

impl Doing {
    /// What the connection has done for too long, if anything.
    fn too_long(
        &self,
        now: Instant,
        settings: &ServerSettings,
        is_scarce: bool,
    ) -> Option<TooLong> {
        let usually = |ms| Some(Duration::from_millis(ms));
        // The time of bodies and answers is kept by those who read and write them, while there are places enough.
        let (what, since, usual, scarce) = match (self.blocked_since, self.phase) {
            (Some(since), _) => (TooLong::Reading, since, None, SCARCE_SLOW),
            (None, Phase::Idle) => {
                let usual = usually(settings.idle_timeout_ms);
                (TooLong::Idle, self.since, usual, SCARCE_IDLE)
            }
            (None, Phase::Head) => {
                let usual = usually(settings.header_timeout_ms);
                (TooLong::Head, self.since, usual, SCARCE_SLOW)
            }
            (None, Phase::Body) => (TooLong::Body, self.since, None, SCARCE_SLOW),
            (None, Phase::Busy) => return None,
        };
        let scarce = is_scarce.then_some(scarce);
        let most = usual.into_iter().chain(scarce).min()?;
        (now.duration_since(since) >= most).then_some(what)
    }
}

/// Whether so many connections are open that more than three quarters of the places are taken.
fn is_scarce(open: usize, places: usize) -> bool {
    open.saturating_mul(4) > places.saturating_mul(3)
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

    /// The client took bytes, or does not: whether it has more to take. It has time anew then.
    pub(super) fn told(&self, is_blocked: bool) {
        let (mut doing, now) = (self.doing(), Instant::now());
        if doing.blocked_since.is_some() && !is_blocked {
            doing.since = now;
        }
        doing.blocked_since = is_blocked.then_some(now);
    }

    /// The body of the request is waited for. The time counts from the first call, until [`Activity::has_come`].
    pub(super) fn waits_for_body(&self) {
        let mut doing = self.doing();
        if doing.phase == Phase::Busy {
            doing.phase = Phase::Body;
            doing.since = Instant::now();
        }
    }

    /// The body of the request has come, or enough of it, or nobody waits for it any more.
    pub(super) fn has_come(&self) {
        let mut doing = self.doing();
        if doing.phase == Phase::Body {
            doing.phase = Phase::Busy;
        }
    }

    /// Whether the client has more to take.
    #[cfg(test)]
    pub(super) fn is_blocked(&self) -> bool {
        self.doing().blocked_since.is_some()
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
    fn places_are_scarce_where_three_quarters_are_taken() {
        assert!(!is_scarce(3, 4) && is_scarce(4, 4) && is_scarce(3073, 4096));
    }

    #[tokio::test(start_paused = true)]
    async fn while_places_are_scarce_who_is_slow_goes_soon_and_who_asks_nothing_soonest() {
        let settings = ServerSettings::default();
        let began = Instant::now();
        for (phase, is_blocked, usual, scarce) in [
            (Phase::Idle, false, Some(IDLE), Some(SCARCE_IDLE)),
            (Phase::Head, false, Some(HEAD), Some(SCARCE_SLOW)),
            (Phase::Body, false, None, Some(SCARCE_SLOW)),
            (Phase::Busy, false, None, None),
            (Phase::Idle, true, None, Some(SCARCE_SLOW)),
            (Phase::Busy, true, None, Some(SCARCE_SLOW)),
        ] {
            let doing = Doing {
                phase,
                since: began,
                blocked_since: is_blocked.then_some(began),
            };
            let ends_after = |most: Duration, is_scarce| {
                let ended = |after| doing.too_long(began + after, &settings, is_scarce);
                ended(most).is_some() && ended(most - Duration::from_millis(1)).is_none()
            };
            for (most, is_scarce) in [(usual, false), (scarce, true)] {
                let as_said = match most {
                    Some(most) => ends_after(most, is_scarce),
                    None => doing
                        .too_long(began + 10 * IDLE, &settings, is_scarce)
                        .is_none(),
                };
                assert!(as_said, "{phase:?} {is_blocked} {is_scarce}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_on_has_time_anew_and_one_that_drips_has_not() {
        let settings = ServerSettings {
            max_connections: 1,
            ..ServerSettings::default()
        };
        let connections = Connections::new(settings);
        let one = connections.count(Phase::Idle);
        let _request = one.activity.busy();
        for _ in 0..3 {
            one.activity.waits_for_body();
            sleep(SCARCE_SLOW - Duration::from_millis(1)).await;
            connections.look(Instant::now());
            one.activity.has_come();
        }
        assert!(!one.activity.cut.is_cancelled());
        one.activity.waits_for_body();
        sleep(SCARCE_SLOW / 2).await;
        one.activity.waits_for_body();
        sleep(SCARCE_SLOW / 2).await;
        connections.look(Instant::now());
        assert!(one.activity.cut.is_cancelled());
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
