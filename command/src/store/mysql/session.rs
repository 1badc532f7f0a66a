//! A connection that appends: its settings, its trips to the server, and how its end is made certain.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Either, Row, raw_sql};
use tokio::time::timeout;
use uuid::Uuid;

use super::script::{Script, lock_name};

/// What every connection is set to. Strict, so that a NULL or a text too long is an error; unique keys are checked whatever the
/// server's default; no wait for a table's lock is endless.
pub(super) const SETTINGS: &str = "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',time_zone='+00:00',\
     autocommit=1,unique_checks=1,lock_wait_timeout=5;SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// What a connection that appends is set to besides. It waits 3 s for a head; when its process stops while it holds one, also in
/// the middle of a statement that it sends, the server ends it after 5 s.
const WRITER_SETTINGS: &str =
    "SET SESSION innodb_lock_wait_timeout=3,wait_timeout=5,net_read_timeout=5,net_write_timeout=5";

/// The most bytes of a trip on an encrypted connection: what one TLS record holds, with a little for the protocol.
///
/// The driver leaves Nagle's algorithm on. It sends a record a time, and the last one of several waits until the server's delayed
/// acknowledgement of the one before, 40 ms later. A trip each costs less by far.
const MAX_RECORD: usize = 16 * 1024 - 64;

/// The bytes at which an INSERT ends and the next one begins on an encrypted connection: less than a record has, so that a trip can
/// end after each.
const INSERT_MAX_IN_RECORD: usize = 12 * 1024;

/// The same on one that is not encrypted: each statement costs an answer, and waking up for it. Far less than any
/// `max_allowed_packet` of use.
const INSERT_MAX: usize = 256 * 1024;

/// Why a session cannot be used whose lock the server did not give.
const NO_LOCK: &str = "the server gave no user lock (GET_LOCK), which is needed to find out about a lost answer: a cluster or \
     a proxy without them cannot keep the log";

/// How long one trip may take: longer than a wait for a lock.
const TRIP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that was idle for longer is tried before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How long the server waits for a session to end.
const END_PATIENCE_S: u32 = 3;

/// A connection that appends.
#[derive(Debug)]
pub(super) struct Session {
    connection: MySqlConnection,
    /// Names a user lock that the session holds for as long as it lives on the server.
    id: Uuid,
    /// The most bytes that the server takes in one trip.
    max_packet: usize,
    /// The most bytes that are sent in one trip where there are several statements.
    max_trip: usize,
    /// The bytes at which an INSERT ends.
    insert_max: usize,
    used: Instant,
    broken: bool,
}

/// What came of a script.
#[derive(Debug)]
pub(super) struct Trip {
    /// How many of its statements are known to have been done.
    pub(super) completed: usize,
    /// What a statement of it gave to `LAST_INSERT_ID(value)`, which its OK brings back; 0 when none did.
    pub(super) last_insert_id: u64,
    /// The rows of all of them, or the error that ended it.
    pub(super) outcome: Result<Vec<MySqlRow>, sqlx::Error>,
}

impl Session {
    /// Connects, within `patience`.
    pub(super) async fn open(
        options: &MySqlConnectOptions,
        patience: Duration,
    ) -> Result<Self, sqlx::Error> {
        let id = Uuid::from_u128(rand::random());
        let connect = async {
            let mut connection = options.connect().await?;
            let mut script = Script::default();
            script.statement(&format!(
                "{SETTINGS};{WRITER_SETTINGS};\
                 SELECT GET_LOCK({},0),CAST(@@max_allowed_packet AS UNSIGNED);\
                 SHOW SESSION STATUS LIKE 'Ssl_cipher'",
                lock_name(id)
            ));
            let sql = AssertSqlSafe(script.into_text());
            let rows = raw_sql(sql).fetch_all(&mut connection).await?;
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            // Without it nobody could make sure that this session has ended.
            if row.try_get::<Option<i64>, _>(0)? != Some(1) {
                return Err(sqlx::Error::Configuration(NO_LOCK.into()));
            }
            let max_packet = usize::try_from(row.try_get::<u64, _>(1)?).unwrap_or(usize::MAX);
            let cipher = rows.get(1).map(|row| row.try_get_unchecked::<&[u8], _>(1));
            let is_encrypted = cipher.transpose()?.is_some_and(|cipher| !cipher.is_empty());
            Ok(Self {
                connection,
                id,
                max_packet,
                max_trip: if is_encrypted { MAX_RECORD } else { max_packet },
                insert_max: if is_encrypted {
                    INSERT_MAX_IN_RECORD
                } else {
                    INSERT_MAX
                },
                used: Instant::now(),
                broken: false,
            })
        };
        timeout(patience, connect)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    /// Which session it is, for [`Session::make_sure_of_the_end`].
    pub(super) const fn id(&self) -> Uuid {
        self.id
    }

    /// The bytes at which an INSERT is to end and the next one to begin.
    pub(super) const fn insert_max(&self) -> usize {
        self.insert_max
    }

    /// Whether the server takes `script`.
    pub(super) fn takes(&self, script: &Script) -> bool {
        // The command's byte, and a little for the protocol.
        script.longest_trip(self.max_trip).saturating_add(64) < self.max_packet
    }

    /// Whether it can be used again.
    pub(super) const fn is_usable(&self) -> bool {
        !self.broken
    }

    /// Runs `script`. After an error of the server the transaction is still open.
    pub(super) async fn run(&mut self, script: Script) -> Trip {
        let (mut completed, mut last_insert_id) = (0, 0);
        let mut rows = Vec::new();
        let done = async {
            for trip in script.trips(self.max_trip) {
                let sql = AssertSqlSafe(trip.to_owned());
                let mut results = raw_sql(sql).fetch_many(&mut self.connection);
                while let Some(result) = results.try_next().await? {
                    match result {
                        Either::Left(done) => {
                            completed += 1;
                            last_insert_id = done.last_insert_id().max(last_insert_id);
                        }
                        Either::Right(row) => rows.push(row),
                    }
                }
            }
            Ok(())
        };
        let done = timeout(TRIP_TIMEOUT, done)
            .await
            .unwrap_or_else(|_| Err(timed_out()));
        self.used = Instant::now();
        if let Err(error) = &done {
            // A trip that was cut off leaves half an answer in the connection.
            self.broken |= error.as_database_error().is_none();
        }
        Trip {
            completed,
            last_insert_id,
            outcome: done.map(|()| rows),
        }
    }

    /// Never use it again: nobody knows what its next answer is about.
    pub(super) const fn give_up(&mut self) {
        self.broken = true;
    }

    /// Ends the transaction. When that fails the connection is given up, and the server ends the transaction with it.
    pub(super) async fn roll_back(&mut self) {
        if self.broken {
            return;
        }
        let mut script = Script::default();
        script.statement("ROLLBACK");
        self.broken = self.run(script).await.outcome.is_err();
    }

    /// Says whether the server is still there, asking only after a while.
    pub(super) async fn is_alive(&mut self) -> bool {
        self.is_usable() && (self.used.elapsed() < TRUSTED_FOR || self.ping().await)
    }

    /// Asks whether the server is still there, which also keeps it from ending the session.
    pub(super) async fn ping(&mut self) -> bool {
        let answered = timeout(PING_TIMEOUT, self.connection.ping()).await;
        self.broken |= !matches!(answered, Ok(Ok(())));
        self.used = Instant::now();
        !self.broken
    }

    /// Makes sure that the session `id`, whose connection was lost, has ended on the server: after that it commits nothing more.
    /// Says whether it has.
    ///
    /// By its user lock, which the server frees when a session has ended. Without it, a batch that still was on its way could
    /// be committed after we looked for it.
    pub(super) async fn make_sure_of_the_end(&mut self, id: Uuid) -> Result<bool, sqlx::Error> {
        let name = lock_name(id);
        let mut script = Script::default();
        script.statement(&format!("SELECT CAST(IS_USED_LOCK({name}) AS UNSIGNED)"));
        let rows = self.run(script).await.outcome?;
        let holder: Option<u64> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
        if let Some(holder) = holder {
            let mut script = Script::default();
            script.statement(&format!("KILL CONNECTION {holder}"));
            // It may have ended just now, or be another user's; the lock tells.
            let _ = self.run(script).await;
        }
        let mut script = Script::default();
        script
            .statement(&format!(
                "SELECT CAST(GET_LOCK({name},{END_PATIENCE_S}) AS SIGNED)"
            ))
            .statement(&format!("DO RELEASE_LOCK({name})"));
        let rows = self.run(script).await.outcome?;
        let got: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
        Ok(got == Some(1))
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        // The server notices without it.
        let _ = timeout(PING_TIMEOUT, self.connection.close()).await;
    }
}

/// The server did not answer in time.
fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the database did not answer in time",
    ))
}
