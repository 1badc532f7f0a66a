//! Looks at the log, the subscriptions and what the backends answer every other second, for the pages.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tidelog_command::store::EventStore;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::service::reach::{Answers, Asked};
use crate::subscriptions::{STALL_PATIENCE, SubscriptionEntry, Subscriptions};

/// How many looks it remembers: five minutes.
const KEPT: usize = 150;

/// What pages call the backends.
const NAMES: [&str; 3] = ["log", "bus", "read models"];

/// How long the log may take to say how much it has.
const PATIENCE: Duration = Duration::from_secs(1);

/// From when on an answer counts as slow.
const SLOW: Duration = Duration::from_millis(250);

/// What was seen. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub(crate) struct Samples(Arc<RwLock<Seen>>);

#[derive(Default)]
struct Seen {
    /// How many events the log had, and when it was asked.
    counts: VecDeque<(Instant, u64)>,
    /// The looks at the subscriptions, as far back as tells whether one stands still.
    looks: VecDeque<(Instant, Vec<SubscriptionEntry>)>,
    backends: Vec<Backend>,
}

/// A backend, as it answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// What it is: the log, the bus, the read models.
    pub(crate) name: &'static str,
    /// What it is made of.
    pub(crate) description: String,
    pub(crate) health: Health,
    /// Since when it is so.
    pub(crate) since: DateTime<Utc>,
}

/// How a backend answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Up { took: Duration },
    Slow { took: Duration },
    Down { why: String },
}

impl Health {
    fn of(answer: Asked) -> Self {
        match answer {
            Asked::Answered { took } if took >= SLOW => Self::Slow { took },
            Asked::Answered { took } => Self::Up { took },
            Asked::Failed { why } => Self::Down { why },
            // That says nothing of it, and the log's line says it of the log.
            Asked::Not => Self::Down {
                why: "not asked, as the log does not answer".to_owned(),
            },
        }
    }

    /// Its name.
    #[cfg(feature = "pages")]
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Up { .. } => "up",
            Self::Slow { .. } => "slow",
            Self::Down { .. } => "down",
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What is looked at.
pub(crate) struct Sources {
    pub(crate) log: Arc<dyn EventStore>,
    /// How the backends answer.
    pub(crate) reached: watch::Receiver<Answers>,
    /// What they are, for people: the log, the bus, the read models.
    pub(crate) descriptions: [String; 3],
    pub(crate) subscriptions: Subscriptions,
}

/// Looks whenever the backends were asked, until `stop`.
pub(crate) async fn watch(mut sources: Sources, samples: Samples, stop: CancellationToken) {
    loop {
        let look = async {
            sources.reached.changed().await.ok()?;
            let (backends, count) = (sources.backends(), sources.count().await);
            let subscriptions = timeout(PATIENCE * 3, sources.subscriptions.glance()).await;
            samples.add(backends, count, subscriptions.ok());
            Some(())
        };
        if stop.run_until_cancelled(look).await.flatten().is_none() {
            return;
        }
    }
}

impl Sources {
    /// How the backends answered last.
    fn backends(&self) -> Vec<Backend> {
        let Some(answers) = self.reached.borrow().clone() else {
            return Vec::new();
        };
        let since = Utc::now();
        let named = NAMES.into_iter().zip(self.descriptions.clone());
        let backend = |((name, description), answer)| Backend {
            name,
            description,
            health: Health::of(answer),
            since,
        };
        named.zip(answers).map(backend).collect()
    }

    /// How many events the log has, if it says so.
    async fn count(&self) -> Option<u64> {
        let heads = timeout(PATIENCE, self.log.heads()).await.ok()?.ok()?;
        Some(heads.iter().map(|head| head.number()).sum())
    }
}

impl Samples {
    fn add(
        &self,
        mut backends: Vec<Backend>,
        count: Option<u64>,
        look: Option<Vec<SubscriptionEntry>>,
    ) {
        let now = Instant::now();
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for backend in &mut backends {
            let mut before = seen.backends.iter();
            let before = before.find(|before| before.name == backend.name);
            if let Some(before) = before.filter(|own| own.health.is_like(&backend.health)) {
                backend.since = before.since;
            }
        }
        seen.backends = backends;
        if let Some(count) = count {
            seen.counts.push_back((now, count));
            while seen.counts.len() > KEPT {
                seen.counts.pop_front();
            }
        }
        if let Some(look) = look {
            seen.looks.push_back((now, look));
            // The latest that is old enough stays, so that there is one to compare with.
            while seen
                .looks
                .get(1)
                .is_some_and(|(at, _)| at.elapsed() >= STALL_PATIENCE)
            {
                seen.looks.pop_front();
            }
        }
    }

    /// The backends as they answered last; none before the first look.
    pub(crate) fn backends(&self) -> Vec<Backend> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.backends.clone()
    }

    /// The subscriptions as they were last, with whether they stand still; `None` before the first look.
    pub(crate) fn subscriptions(&self) -> Option<Vec<SubscriptionEntry>> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (_, last) = seen.looks.back()?;
        let before = seen.looks.front();
        let before = before.filter(|(at, _)| at.elapsed() >= STALL_PATIENCE);
        Some(match before {
            Some((_, before)) => Subscriptions::judged(last.clone(), before),
            None => last.clone(),
        })
    }

    /// How many events there are, if that is known.
    pub(crate) fn events(&self) -> Option<u64> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.counts.back().map(|(_, count)| *count)
    }

    /// How many events a second were appended between each two looks, by all processes, oldest first, each with its age.
    pub(crate) fn rates(&self) -> Vec<(Duration, f64)> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let later = seen.counts.iter().skip(1);
        let pairs = seen.counts.iter().zip(later);
        pairs
            .map(|((before, from), (at, to))| {
                let seconds = at.duration_since(*before).as_secs_f64().max(0.001);
                (at.elapsed(), to.saturating_sub(*from) as f64 / seconds)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(health: Health) -> Backend {
        Backend {
            name: "log",
            description: String::new(),
            health,
            since: Utc::now(),
        }
    }

    #[test]
    fn a_backend_is_down_since_it_was_first_seen_so() {
        let samples = Samples::default();
        let down = |why: &str| Health::Down {
            why: why.to_owned(),
        };
        let mut last = None;
        for (health, is_new) in [
            (down("refused"), true),
            (down("no answer"), false),
            (Health::Up { took: SLOW }, true),
        ] {
            samples.add(vec![backend(health)], None, None);
            let since = samples.backends()[0].since;
            assert_eq!(last != Some(since), is_new);
            last = Some(since);
            // So that two looks differ.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn throughput_is_what_the_log_grew_by() {
        let samples = Samples::default();
        for count in 0..KEPT as u64 + 10 {
            samples.add(Vec::new(), Some(count * 3), None);
        }
        samples.add(Vec::new(), None, None);
        let rates = samples.rates();
        assert_eq!(rates.len(), KEPT - 1);
        assert!(rates.iter().all(|(_, rate)| *rate > 0.0));
        assert_eq!(samples.events(), Some((KEPT as u64 + 9) * 3));
    }
}
