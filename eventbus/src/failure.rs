//! What a handler says when it cannot handle an event, and what a subscription makes of it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::subscription::Cause;

/// Why one event was not handled, and what is to be done about it.
///
/// Any error becomes one by `?`: a [permanent](FailureKind::Permanent) one, unless the subscription's
/// [policy](FailurePolicy::classify) knows better. (For that it cannot be an error itself.)
#[derive(Debug)]
pub struct Failure {
    /// What is to be done.
    pub kind: FailureKind,
    /// What went wrong, for people.
    pub cause: Cause,
}

/// What is to be done about an event that was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// Something is unavailable: try again, without end. The partition waits, visibly; the others go on.
    Transient,
    /// This event cannot be handled by this code: its sequence is set aside and tried again, a bounded number of times, then
    /// parked. All other sequences go on.
    Permanent,
    /// Its sequence is set aside for this long, then tried again. It does not count as an attempt.
    RetryAfter(Duration),
    /// Its sequence is parked at once, for an operator.
    Park,
    /// The event is passed over for good, and that is recorded. For reactions: a [`Handler`](crate::Handler) names it among what it
    /// [skipped](crate::Handled::skipped).
    Skip,
}

impl Failure {
    /// Something is unavailable: to be tried again, without end.
    pub fn transient(cause: impl Into<Cause>) -> Self {
        Self::new(FailureKind::Transient, cause)
    }

    /// This event cannot be handled: to be tried again a few times, then parked.
    pub fn permanent(cause: impl Into<Cause>) -> Self {
        Self::new(FailureKind::Permanent, cause)
    }

    /// Not now: to be tried again after `delay`. The other sequences go on meanwhile.
    pub fn retry_after(delay: Duration, cause: impl Into<Cause>) -> Self {
        Self::new(FailureKind::RetryAfter(delay), cause)
    }

    /// To be parked at once: trying again does not help.
    pub fn park(cause: impl Into<Cause>) -> Self {
        Self::new(FailureKind::Park, cause)
    }

    /// To be passed over for good, because of `reason`, which is recorded.
    pub fn skip(reason: impl Into<Cause>) -> Self {
        Self::new(FailureKind::Skip, reason)
    }

    fn new(kind: FailureKind, cause: impl Into<Cause>) -> Self {
        Self {
            kind,
            cause: cause.into(),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::permanent(error)
    }
}

/// Says of an error what is to be done about it; `None` where it does not know.
pub type Classify = Arc<dyn Fn(&(dyn Error + 'static)) -> Option<FailureKind> + Send + Sync>;

/// What a subscription does about events that cannot be handled.
#[derive(Clone)]
pub struct FailurePolicy {
    /// How long the first wait is, at most (each wait is drawn evenly from zero up to its bound). 1 s.
    pub first_delay: Duration,
    /// By how much the bound grows with each attempt. 2.
    pub factor: f64,
    /// The highest bound. 60 s.
    pub max_delay: Duration,
    /// How often an event that fails for good is tried before its sequence is parked, the first time included. 5; 1 parks at
    /// the first failure.
    pub attempts: u32,
    /// How many sequences of one partition may be set aside, at most. At the cap the partition waits, visibly, until an operator has made
    /// room: nothing is dropped. 256.
    pub max_parked: usize,
    /// Which errors of handlers are transient, and which permanent, where the handler does not say so itself: asked for each error
    /// that came by `?`, and for its sources. None.
    pub classify: Option<Classify>,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(1),
            factor: 2.0,
            max_delay: Duration::from_secs(60),
            attempts: 5,
            max_parked: 256,
            classify: None,
        }
    }
}

impl FailurePolicy {
    /// How long to wait at most before the try after `attempts` of them.
    #[must_use]
    pub fn delay_bound(&self, attempts: u32) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first_delay.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(self.max_delay)
            .min(self.max_delay)
    }

    /// How long to wait before the try after `attempts` of them: full jitter.
    pub(crate) fn delay(&self, attempts: u32) -> Duration {
        rand::random_range(Duration::ZERO..=self.delay_bound(attempts))
    }

    /// What is to be done about `failure`: what it says itself, unless it came by `?`.
    #[must_use]
    pub fn judge(&self, failure: &Failure) -> FailureKind {
        match failure.kind {
            FailureKind::Permanent => self.kind_of(&*failure.cause),
            said => said,
        }
    }

    /// What is to be done about a permanent failure because of `cause`: what the policy says of it or of the first of its sources
    /// that it knows.
    #[must_use]
    pub fn kind_of(&self, cause: &(dyn Error + 'static)) -> FailureKind {
        let Some(classify) = &self.classify else {
            return FailureKind::Permanent;
        };
        let mut next = Some(cause);
        while let Some(error) = next {
            if let Some(kind) = classify(error) {
                return kind;
            }
            next = error.source();
        }
        FailureKind::Permanent
    }
}

impl fmt::Debug for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailurePolicy")
            .field("first_delay", &self.first_delay)
            .field("factor", &self.factor)
            .field("max_delay", &self.max_delay)
            .field("attempts", &self.attempts)
            .field("max_parked", &self.max_parked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_the_factor_up_to_the_cap() {
        let policy = FailurePolicy::default();
        let bounds = (1..=8).map(|attempts| policy.delay_bound(attempts).as_secs());
        assert_eq!(bounds.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.delay_bound(u32::MAX), policy.max_delay);
        assert!((0..100).all(|_| policy.delay(3) <= Duration::from_secs(4)));
    }

    #[test]
    fn the_policy_knows_an_error_by_any_of_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let policy = FailurePolicy {
            classify: Some(Arc::new(|error| {
                let io = error.downcast_ref::<std::io::Error>()?;
                (io.kind() == std::io::ErrorKind::TimedOut).then_some(FailureKind::Transient)
            })),
            ..FailurePolicy::default()
        };
        let error = |kind| Outer(std::io::Error::from(kind));
        let kind_of = |kind| policy.kind_of(&error(kind));
        assert_eq!(
            kind_of(std::io::ErrorKind::TimedOut),
            FailureKind::Transient
        );
        assert_eq!(
            kind_of(std::io::ErrorKind::NotFound),
            FailureKind::Permanent
        );
    }

    #[test]
    fn any_error_becomes_a_permanent_failure() {
        fn fails() -> Result<u32, Failure> {
            Ok("one".parse::<u32>()?)
        }
        assert_eq!(fails().unwrap_err().kind, FailureKind::Permanent);
    }
}
