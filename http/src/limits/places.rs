//! Places for requests, and who has one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::bound::Bound;

/// Places for requests. Cloning gives another handle to the same.
#[derive(Clone)]
pub(super) struct Places {
    bound: Arc<Mutex<Bound>>,
    began: Instant,
}

impl Places {
    pub(super) fn new(bound: Bound) -> Self {
        Self {
            bound: Arc::new(Mutex::new(bound)),
            began: Instant::now(),
        }
    }

    /// A place, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        self.enter().then(|| {
            Place(Seat(Arc::new(Shared {
                places: self.clone(),
                now: Mutex::new(Now::Taken),
            })))
        })
    }

    fn enter(&self) -> bool {
        let time = self.began.elapsed();
        self.bound().enter(time)
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        // Nothing panics while it is held.
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one request, for as long as this lives.
pub(super) struct Place(Seat);

impl Place {
    /// What those get who handle the request.
    pub(super) fn seat(&self) -> Seat {
        self.0.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.become_now(Now::Over);
    }
}

/// A request's hold of its place. Cloning gives another handle to the same.
///
/// Whoever handles the request gives the place back while there is nothing to do but wait for the client. Once the [`Place`] is gone there
/// is nothing to give back or to take again.
#[derive(Clone)]
pub(super) struct Seat(Arc<Shared>);

struct Shared {
    places: Places,
    now: Mutex<Now>,
}

/// How it is with a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Now {
    Taken,
    /// It was given back, and may be taken again.
    Left,
    /// The request is through.
    Over,
}

impl Seat {
    /// Gives the place back, until it is taken again.
    pub(super) fn leave(&self) {
        self.become_now(Now::Left);
    }

    /// Takes a place again, if it was given back. Says whether there was one.
    pub(super) fn take_again(&self) -> bool {
        let mut now = self.now();
        let may = *now != Now::Left || self.0.places.enter();
        if may && *now == Now::Left {
            *now = Now::Taken;
        }
        may
    }

    fn become_now(&self, next: Now) {
        let mut now = self.now();
        if *now == Now::Taken {
            self.0.places.bound().leave();
        }
        if *now != Now::Over {
            *now = next;
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing panics while it is held.
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_given_back_is_anybodys_until_it_is_taken_again() {
        let places = Places::new(Bound::new(1));
        let first = places.take().unwrap();
        let seat = first.seat();
        assert!(places.take().is_none());
        seat.leave();
        seat.leave();
        let second = places.take().unwrap();
        assert!(places.take().is_none() && !seat.take_again());
        drop(second);
        assert!(seat.take_again() && seat.take_again());
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }

    #[test]
    fn who_is_through_takes_no_place_again() {
        let places = Places::new(Bound::new(1));
        for leaves in [true, false] {
            let place = places.take().unwrap();
            let seat = place.seat();
            if leaves {
                seat.leave();
            }
            drop(place);
            assert!(seat.take_again());
            seat.leave();
        }
        let place = places.take();
        assert!(place.is_some() && places.take().is_none());
    }
}
