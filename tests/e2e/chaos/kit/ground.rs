//! What processes of the program share: the servers, and what is on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor;
use tidelog_command::store::{MySqlEventStore, MySqlOptions};
use tidelog_domain::Partition;
use tidelog_eventbus::{Operations, StateRecord, StateStore};
use tidelog_query::store::{MongoOptions, MongoReadStore};
use tidelog_test_support::{Engine, fresh_mysql_database, shared};
use tokio::time::{Instant, sleep};

use super::domain::{FAILING, POISONED, SEED};
use super::program::SEEN;
use super::{Expected, Program};
use crate::log::{Row, connect, read};
use crate::services::Backends;
use crate::view::View;

/// The documents that tallies share.
pub(crate) const GROUPS: usize = 8;

/// What the program has subscriptions for.
pub(crate) const SUBSCRIPTIONS: [&str; 3] = ["sheet", "club", "witness"];

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What has not come about by then will not. Only a test that fails waits for it.
const BOUND: Duration = Duration::from_secs(300);

/// The servers, and what processes on them are told.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) backends: Backends,
    /// The database of the table `seen`.
    seen: String,
    /// How many of a thousand tries to handle an event fail, and by which dice.
    failing: (u32, u32),
    /// The views that poison is poison to.
    poisoned: &'static str,
}

/// The state records of a subscription, with their revisions.
pub(crate) type States = Vec<(Partition, u64, StateRecord)>;

impl Ground {
    pub(crate) async fn on(backends: Backends) -> Self {
        let seen = fresh_mysql_database(shared::mysql().await).await;
        let table = "CREATE TABLE seen (number BIGINT AUTO_INCREMENT PRIMARY KEY, event_id CHAR(32) NOT NULL, \
             stream VARCHAR(200) NOT NULL, version BIGINT NOT NULL, at DATETIME(6) NOT NULL)";
        connect(&seen).await.execute(table).await.unwrap();
        Self {
            backends,
            seen,
            failing: (0, 0),
            poisoned: "",
        }
    }

    /// On the shared servers, with the bus on `engine`.
    pub(crate) async fn fresh(engine: Engine) -> Self {
        let bus_url = super::bus::shared(engine).await.url().to_owned();
        let backends = Backends {
            bus_url,
            ..Backends::fresh().await
        };
        Self::on(backends).await
    }

    /// The same for processes where so many of a thousand tries to handle an event fail, by dice of this seed.
    pub(crate) fn failing(&self, failing: u32, seed: u32) -> Self {
        let failing = (failing, seed);
        Self {
            failing,
            ..self.clone()
        }
    }

    /// The same for processes to whose `views` poison is poison.
    pub(crate) fn poisoned(&self, views: &'static str) -> Self {
        Self {
            poisoned: views,
            ..self.clone()
        }
    }

    /// Starts a process of `role`.
    pub(crate) fn launch(&self, role: &str) -> Program {
        self.launch_with(role, &[])
    }

    /// The same with more variables, or others.
    pub(crate) fn launch_with(&self, role: &str, more: &[(&str, &str)]) -> Program {
        let (failing, seed) = (self.failing.0.to_string(), self.failing.1.to_string());
        let any = "127.0.0.1:0";
        let mut variables = vec![
            ("TIDELOG_ROLE", role),
            ("TIDELOG_COMMAND_ADDR", any),
            ("TIDELOG_QUERY_ADDR", any),
            ("TIDELOG_ADMIN_ADDR", any),
            ("TIDELOG_WAIT_FOR_BACKENDS", "5m"),
            ("TIDELOG_LOG", "error"),
            (SEEN, &self.seen),
            (FAILING, &failing),
            (SEED, &seed),
            (POISONED, self.poisoned),
        ];
        variables.extend(self.backends.settings());
        variables.extend(more.iter().copied());
        Program::launch(&variables)
    }

    /// The log, which nobody writes to any more.
    pub(crate) async fn rows(&self) -> Vec<Row> {
        read(&self.backends.database_url).await
    }

    /// What the reaction has seen, in the order in which it was done with it: event, stream, version, and microseconds since 1970.
    pub(crate) async fn seen(&self) -> Vec<(String, String, i64, i64)> {
        let columns = "SELECT CAST(event_id AS CHAR), CAST(stream AS CHAR), version, \
             TIMESTAMPDIFF(MICROSECOND, '1970-01-01', at) FROM seen ORDER BY number";
        let mut connection = connect(&self.seen).await;
        sqlx::query_as(columns)
            .fetch_all(&mut connection)
            .await
            .unwrap()
    }

    /// Where the records of `subscription` are, and what they are called there; once its view is made.
    pub(crate) async fn states_of(&self, subscription: &str) -> (Arc<dyn StateStore>, String) {
        if subscription == "witness" {
            return (self.log().await, subscription.to_owned());
        }
        let collection = View::on(&self.backends)
            .await
            .collection(subscription)
            .await;
        let (url, options) = (&self.backends.mongodb_url, MongoOptions::default());
        let store = MongoReadStore::connect(url, &options).await.unwrap();
        (Arc::new(store), collection)
    }

    /// The records of `subscription`.
    pub(crate) async fn states(&self, subscription: &str) -> States {
        let (states, name) = self.states_of(subscription).await;
        states.load_states(&name).await.unwrap()
    }

    /// What an operator does with `subscription`.
    pub(crate) async fn operations(&self, subscription: &str) -> Operations {
        let (states, name) = self.states_of(subscription).await;
        Operations::new(name, states, self.log().await)
    }

    async fn log(&self) -> Arc<MySqlEventStore> {
        let options = MySqlOptions::from_url(&self.backends.database_url).unwrap();
        Arc::new(MySqlEventStore::connect(options).await.unwrap())
    }

    /// Waits until all partitions of all subscriptions have an owner of whom this holds.
    pub(crate) async fn owned(&self, what: &str, by: impl Fn(&StateRecord) -> bool) {
        for subscription in SUBSCRIPTIONS {
            within(what, async || {
                let states = self.states(subscription).await;
                let owned = |(.., own): &&(_, _, StateRecord)| own.owner.is_some() && by(own);
                let count = states.iter().filter(owned).count();
                (count == 16)
                    .then_some(())
                    .ok_or(format!("{subscription}: {count}"))
            })
            .await;
        }
    }

    /// Waits until everything is as the log has it, which nobody writes to any more: all subscriptions are at its end, the views equal
    /// the fold, the reaction has seen each event, and nothing is set aside. Checks that nothing was done twice in a view, nor out of
    /// order anywhere.
    pub(crate) async fn comes_to_the_fold(&self) {
        let rows = self.rows().await;
        let expected = Expected::of(&rows, |_, _| true);
        // What is to be done again, is done again before this.
        self.at_the_end(&rows).await;
        within("the views to equal the fold", async || {
            expected.compare(self).await
        })
        .await;
        for subscription in SUBSCRIPTIONS {
            within("nothing to be set aside", async || {
                let states = self.states(subscription).await;
                let parked = states.iter().find(|(.., own)| !own.parked.is_empty());
                parked.map_or(Ok(()), |own| Err(format!("{subscription}: {own:?}")))
            })
            .await;
        }
        let seen = within("the reaction to have seen each event", async || {
            expected.all_seen(self.seen().await)
        })
        .await;
        expected.assert_seen_in_order(&seen);
    }
}

impl Ground {
    /// Waits until the checkpoints of all subscriptions are at the end of the log.
    async fn at_the_end(&self, rows: &[Row]) {
        let mut heads: BTreeMap<i64, i64> = BTreeMap::new();
        for row in rows {
            heads.insert(row.partition, row.position);
        }
        for subscription in SUBSCRIPTIONS {
            within("a subscription to be at the end of the log", async || {
                let states = self.states(subscription).await;
                let reached = states.iter().map(|(partition, _, own)| {
                    let position = own.checkpoint.cursor.position.number();
                    (i64::from(partition.number()), position.cast_signed())
                });
                let reached: BTreeMap<_, _> = reached.filter(|(_, at)| *at > 0).collect();
                (reached == heads)
                    .then_some(())
                    .ok_or(format!("{subscription}: {reached:?} of {heads:?}"))
            })
            .await;
        }
    }
}

/// Waits for a condition, for as long as any machine may need.
pub(crate) async fn within<T>(what: &str, condition: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => {
                panic!("waited for {what} in vain: {reason}")
            }
            Err(_) => sleep(POLL).await,
        }
    }
}
