//! Whether the owner of a replay has fallen silent, on the clock of who listens.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Replaying;

/// The most that the time between two looks counts: a time when nobody could look (the store was down) says nothing.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Listens to the beat of a replay.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    heard: Option<Heard>,
}

#[derive(Debug)]
struct Heard {
    owner: String,
    beat: u64,
    looked_at: Instant,
    silent_for: Duration,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It is the first look at this replay.
    First,
    /// It has beaten since the last look.
    Alive,
    /// Nothing for so long.
    Silent(Duration),
}

impl Silence {
    /// Looks at a replay that runs, or says that it does.
    pub(crate) fn look(&mut self, running: &Replaying) -> Sign {
        let now = Instant::now();
        let fresh = |silent_for| Heard {
            owner: running.owner.clone(),
            beat: running.beat,
            looked_at: now,
            silent_for,
        };
        let (heard, sign) = match self.heard.take() {
            Some(heard) if heard.owner == running.owner && heard.beat == running.beat => {
                let since = now.saturating_duration_since(heard.looked_at);
                let silent_for = heard.silent_for + since.min(LONGEST_LOOK);
                (fresh(silent_for), Sign::Silent(silent_for))
            }
            Some(heard) if heard.owner == running.owner => (fresh(Duration::ZERO), Sign::Alive),
            _ => (fresh(Duration::ZERO), Sign::First),
        };
        self.heard = Some(heard);
        sign
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn running(owner: &str, beat: u64) -> Replaying {
        Replaying {
            collection: String::new(),
            number: 2,
            owner: owner.to_owned(),
            beat,
            switching: false,
            fingerprint: String::new(),
            history: None,
            kind: crate::store::Kind::Build,
            progress: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_that_was_listened_to_counts() {
        let mut silence = Silence::default();
        assert_eq!(silence.look(&running("a", 1)), Sign::First);
        advance(Duration::from_millis(400)).await;
        let silent = |ms| Sign::Silent(Duration::from_millis(ms));
        assert_eq!(silence.look(&running("a", 1)), silent(400));
        advance(Duration::from_secs(60)).await;
        assert_eq!(silence.look(&running("a", 1)), silent(1_400));
        assert_eq!(silence.look(&running("a", 2)), Sign::Alive);
        advance(Duration::from_millis(100)).await;
        assert_eq!(silence.look(&running("a", 2)), silent(100));
        assert_eq!(silence.look(&running("b", 2)), Sign::First);
    }
}
