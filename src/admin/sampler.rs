//! Looks at the log, the subscriptions and the backends every other second, for the pages.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tidelog_command::store::EventStore;
use tidelog_domain::Partition;
use tidelog_eventbus::EventBus;
use tidelog_query::store::ReadStore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::subscriptions::{STALL_PATIENCE, SubscriptionEntry, Subscriptions};

/// How often it looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// How many looks it remembers: five minutes.
const KEPT: usize = 150;

/// How long a backend may take to answer.
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
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) store: Arc<dyn ReadStore>,
    /// What they are, for people: the log, the bus, the read models.
    pub(crate) descriptions: [String; 3],
    pub(crate) subscriptions: Subscriptions,
    /// A view whose alias is looked up, to see whether the store answers.
    pub(crate) any_view: String,
}

/// Looks again and again, until `stop`.
pub(crate) async fn watch(sources: Sources, samples: Samples, stop: CancellationToken) {
    loop {
        let look = async {
            let (backends, count) = sources.backends().await;
            let subscriptions = timeout(PATIENCE * 3, sources.subscriptions.glance()).await;
            samples.add(backends, count, subscriptions.ok());
            sleep(INTERVAL).await;
        };
        if stop.run_until_cancelled(look).await.is_none() {
            return;
        }
    }
}

impl Sources {
    /// How the backends answer, and how many events the log has.
    async fn backends(&self) -> (Vec<Backend>, Option<u64>) {
        let log = async {
            let heads = self.log.heads().await.map_err(|error| error.to_string())?;
            Ok(heads.iter().map(|head| head.number()).sum())
        };
        let bus = async {
            let identity = self.log.identity().await;
            let Ok(identity) = identity else {
                // That says nothing of the bus, and its own line says it of the log.
                return Err("not asked, as the log does not answer".to_owned());
            };
            let last = self.bus.last(identity.history, Partition::new(0)).await;
            last.map(|_| ()).map_err(|error| error.to_string())
        };
        let store = async {
            let alias = self.store.load_alias(&self.any_view).await;
            alias.map(|_| ()).map_err(|error| error.to_string())
        };
        let ((log, count), (bus, _), (store, _)) =
            tokio::join!(asked(log), asked(bus), asked(store));
        let [of_log, of_bus, of_store] = self.descriptions.clone();
        let backends = [
            ("log", of_log, log),
            ("bus", of_bus, bus),
            ("read models", of_store, store),
        ];
        let since = Utc::now();
        let backend = |(name, description, health)| Backend {
            name,
            description,
            health,
            since,
        };
        (backends.map(backend).into(), count)
    }
}

/// How a backend answers a question, and what.
async fn asked<T>(question: impl Future<Output = Result<T, String>>) -> (Health, Option<T>) {
    let begun = Instant::now();
    let answer = timeout(PATIENCE, question).await;
    let took = begun.elapsed();
    match answer {
        Ok(Ok(answer)) if took >= SLOW => (Health::Slow { took }, Some(answer)),
        Ok(Ok(answer)) => (Health::Up { took }, Some(answer)),
        Ok(Err(why)) => (Health::Down { why }, None),
        Err(_) => {
            let why = format!("no answer within {} s", PATIENCE.as_secs());
            (Health::Down { why }, None)
        }
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
