//! How many entries are read at once: as many as come within the time-out, and take no more memory than they should.

/// How many are read at once at first, and at most.
const FIRST: usize = 16;
const MOST: usize = 500;

/// About how many bytes are read at once.
const BYTES: usize = 4 * 1024 * 1024;

/// It grows while reads go well, and shrinks when one fails: it may be a time-out, for which large messages on a slow line are enough.
pub(in crate::messaging) struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pace {
    pub(in crate::messaging) fn at_once(&self) -> usize {
        self.0
    }

    /// A read brought so many entries, of so many bytes in all.
    pub(in crate::messaging) fn came(&mut self, entries: usize, bytes: usize) {
        if entries == 0 {
            return;
        }
        let fit = BYTES / (bytes / entries).max(1);
        let most = if entries < self.0 { self.0 } else { self.0 * 2 };
        self.0 = most.min(fit).clamp(1, MOST);
    }

    /// A read failed.
    pub(in crate::messaging) fn failed(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_entries_are_soon_read_by_the_hundred() {
        let mut pace = Pace::default();
        for _ in 0..6 {
            pace.came(pace.at_once(), 100 * pace.at_once());
        }
        assert_eq!(pace.at_once(), MOST);
        pace.came(1, 100);
        assert_eq!(pace.at_once(), MOST, "there were no more");
    }

    #[test]
    fn large_entries_are_read_a_few_at_a_time() {
        let mut pace = Pace::default();
        pace.came(16, 16 * 1024 * 1024);
        assert_eq!(pace.at_once(), 4);
        pace.came(1, 16 * 1024 * 1024);
        assert_eq!(pace.at_once(), 1);
    }

    #[test]
    fn on_a_slow_line_fewer_and_fewer_are_read_until_they_come() {
        let mut pace = Pace::default();
        for expected in [8, 4, 2, 1, 1] {
            pace.failed();
            assert_eq!(pace.at_once(), expected);
        }
        pace.came(1, 1024 * 1024);
        assert_eq!(pace.at_once(), 2);
    }
}
