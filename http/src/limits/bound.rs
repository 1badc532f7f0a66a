//! How many at a time, where who keeps it full gets a shorter queue.

use std::time::Duration;

/// After how long it is decided anew.
const WINDOW: Duration = Duration::from_millis(100);

/// What it never goes below, unless less is asked for: enough for the appender to fill its batches.
const LEAST: usize = 48;

/// In how many windows without anybody being turned away it is as wide as it can be.
const WINDOWS_TO_OPEN: usize = 16;

/// How many there may be at a time.
///
/// A burst may be as large as there is room for. Where somebody is turned away, window after window, more is asked for than is done, so that those
/// who are let in only wait for each other: then there may be half as many after each, down to [`LEAST`]. When nobody is turned away any more, it
/// opens again in 1.6 s.
#[derive(Debug)]
pub(super) struct Bound {
    most: usize,
    least: usize,
    now: usize,
    taken: usize,
    was_full: bool,
    /// When the window began, since any beginning.
    began: Duration,
}

impl Bound {
    pub(super) fn new(most: usize) -> Self {
        Self::between(LEAST.min(most), most)
    }

    /// A bound that stays as it is: for what does not keep the others waiting.
    pub(super) const fn fixed(most: usize) -> Self {
        Self::between(most, most)
    }

    const fn between(least: usize, most: usize) -> Self {
        Self {
            most,
            least,
            now: most,
            taken: 0,
            was_full: false,
            began: Duration::ZERO,
        }
    }

    /// Lets one more in at `time`, if there may be one.
    pub(super) fn enter(&mut self, time: Duration) -> bool {
        self.decide(time);
        let may = self.taken < self.now;
        self.taken += usize::from(may);
        self.was_full |= !may;
        may
    }

    /// One has gone.
    pub(super) const fn leave(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    fn decide(&mut self, time: Duration) {
        let windows = time.saturating_sub(self.began).as_millis() / WINDOW.as_millis();
        if windows == 0 {
            return;
        }
        let mut quiet = usize::try_from(windows).unwrap_or(usize::MAX);
        if std::mem::take(&mut self.was_full) {
            self.now = (self.now / 2).max(self.least);
            quiet -= 1;
        }
        let step = self.most.div_ceil(WINDOWS_TO_OPEN);
        let opened = self.now.saturating_add(quiet.saturating_mul(step));
        self.now = opened.min(self.most);
        self.began = time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(windows: u32) -> Duration {
        WINDOW * windows
    }

    /// How many are let in at `time` before one is turned away; all of them leave again.
    fn fill(bound: &mut Bound, time: Duration) -> usize {
        let mut count = 0;
        while bound.enter(time) {
            count += 1;
        }
        (0..count).for_each(|_| bound.leave());
        count
    }

    #[test]
    fn a_burst_has_all_the_room_there_is() {
        let mut bound = Bound::new(512);
        assert_eq!(fill(&mut bound, at(0)), 512);
    }

    #[test]
    fn who_keeps_it_full_gets_a_shorter_queue_and_who_stops_gets_all_of_it_back() {
        let mut bound = Bound::new(512);
        let room: Vec<_> = (0..12).map(|n| fill(&mut bound, at(n))).collect();
        assert_eq!(room[..6], [512, 256, 128, 64, LEAST, LEAST]);
        // One window was full, the others were not.
        assert!(bound.enter(at(13)));
        assert_eq!(fill(&mut bound, at(13)), LEAST + 32 - 1);
        assert_eq!(fill(&mut bound, at(40)), 512 - 1);
    }

    #[test]
    fn a_small_bound_and_a_fixed_one_stay_what_they_are() {
        for (mut bound, most) in [(Bound::new(2), 2), (Bound::fixed(2_000), 2_000)] {
            for n in 0..20 {
                assert_eq!(fill(&mut bound, at(n)), most);
            }
        }
    }
}
