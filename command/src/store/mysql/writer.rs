//! Appending, by a task for each lane that owns one connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use tidelog_domain::{Append, HistoryId, Partition, Partitions, Position, StreamId, Version};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::error::{Meaning, meaning, refused};
use super::known::{Head, Known};
use super::lost::{NEW_HISTORY, history_now};
use super::options::Address;
use super::script::{Base, KEY_ROW, Script};
use super::session::Session;
use crate::store::failure::{Cause, Failure};
use crate::store::keys::{KeyRow, Keys, ScopedKey, keys};
use crate::store::lane::{self, Job, Lane, Verdicts};
use crate::store::plan::{Place, Plan, Taint, partitions_to_lock, streams};

/// How often one transaction is tried.
const ATTEMPTS: usize = 5;

/// How long one transaction is tried for, the time to find out about a lost answer aside.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause before the next try; the pauses are random, so that two who met do not meet again.
const PAUSE: Duration = Duration::from_millis(50);

/// How often an idle lane pings, so that the server does not end its session.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Why a commit is in doubt that was answered.
const NO_TIME: &str = "the server did not say when the events were recorded";

/// What all lanes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) partitions: Partitions,
    pub(super) connect_timeout: Duration,
    pub(super) in_doubt_timeout: Duration,
    pub(super) known: Known,
}

/// Where the rows of a plan went.
pub(super) type Places = BTreeMap<Partition, Place>;

/// Why a transaction has to be tried again, or cannot be.
pub(super) enum Setback<'a> {
    /// A stream was not at the version that was known of it. Rolled back.
    Conflict,
    /// A head was not where it was known to be. Rolled back.
    HeadsMoved,
    /// An idempotency key was used before. Rolled back.
    KeyUsed(Cause),
    /// It may go well the next time. Nothing is committed.
    Again(Cause),
    /// The commit was not answered, by the session of this id.
    Doubt(Plan<'a>, Uuid, Cause),
    /// There is no use in trying again. Nothing is committed.
    Failed(Failure),
}

/// Starts the task of one lane. It ends when the last handle of the lane is gone.
pub(super) fn start(shared: Arc<Shared>) -> Lane {
    let (lane, jobs) = Lane::new();
    let session = None;
    tokio::spawn(Writer { shared, session }.run(jobs));
    lane
}

/// The one who writes by a lane.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// `None` until it is needed, and after it was lost.
    pub(super) session: Option<Session>,
}

impl Writer {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            tokio::select! {
                job = jobs.recv() => {
                    let Some(job) = job else { break };
                    let verdicts = lane::Writer::append(&mut self, &job.batch).await;
                    // Whoever asked may be gone; the batch is in the log all the same.
                    let _ = job.answer.send(verdicts);
                }
                () = tokio::time::sleep(PING_EVERY) => self.keep_alive().await,
            }
        }
        if let Some(session) = self.session {
            session.close().await;
        }
    }

    /// Keeps the server from ending the session; gets another one where that came too late.
    async fn keep_alive(&mut self) {
        if let Some(mut session) = self.session.take()
            && session.ping().await
        {
            self.session = Some(session);
        } else {
            // When the server is down the next append says so.
            self.session = self.connect().await.ok();
        }
    }

    pub(super) async fn connect(&self) -> Result<Session, sqlx::Error> {
        let session = Session::open(&self.shared.address.0, self.shared.connect_timeout).await?;
        self.shared.known.ask_for_heads();
        Ok(session)
    }

    /// A session that answered lately. Nothing was sent by it yet, so that an error here leaves no doubt.
    async fn session(&mut self) -> Result<Session, Failure> {
        if let Some(mut session) = self.session.take()
            && session.is_alive().await
        {
            return Ok(session);
        }
        Ok(self.connect().await?)
    }

    /// Tries once to append the batch: at one go when what is known decides it, else after asking for the versions.
    async fn attempt<'a>(
        &mut self,
        batch: &'a [Append],
        taint: &Taint,
        verify: bool,
    ) -> Result<(Plan<'a>, Places), Setback<'a>> {
        let mut session = self.session().await.map_err(Setback::Failed)?;
        let shared = Arc::clone(&self.shared);
        let history = shared.known.history();
        let known_plan = if verify {
            None
        } else {
            shared.known.plan(batch, shared.partitions, taint)
        };
        let done = match known_plan {
            Some(plan) => shared.append_known(&mut session, plan, history).await,
            None => shared.append_verified(&mut session, batch, taint).await,
        };
        if session.is_usable() {
            self.session = Some(session);
        }
        done
    }

    /// Refuses when the log was found to have lost events, until it has another history.
    async fn refuse_if_diverged(&mut self) -> Result<(), Failure> {
        let Some(how) = self.shared.known.diverged() else {
            return Ok(());
        };
        let mut session = self.session().await?;
        let now = history_now(&mut session).await;
        if session.is_usable() {
            self.session = Some(session);
        }
        let (now, before) = (now?, self.shared.known.history());
        self.shared.known.begin(now);
        if now == before { Err(how) } else { Ok(()) }
    }
}

impl lane::Writer for Writer {
    async fn append_together(
        &mut self,
        batch: &[Append],
        taint: Taint,
    ) -> Result<(Verdicts, Taint), Failure> {
        self.refuse_if_diverged().await?;
        let give_up = Instant::now() + PATIENCE;
        let mut verify = false;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.attempt(batch, &taint, verify).await {
                Ok((plan, places)) => return Ok(self.shared.settle(plan, &places)),
                Err(Setback::Conflict) => {
                    self.shared.known.be_wary();
                    verify = true;
                }
                Err(Setback::HeadsMoved) => self.shared.known.be_wary_of_heads(),
                Err(Setback::KeyUsed(cause)) => {
                    verify = true;
                    last = Some(cause);
                }
                Err(Setback::Again(cause)) => {
                    last = Some(cause);
                    tokio::time::sleep(PAUSE.mul_f64(rand::random())).await;
                }
                Err(Setback::Doubt(plan, session, cause)) => {
                    if let Some(places) = self.find_out(&plan, session, cause.clone()).await? {
                        return Ok(self.shared.settle(plan, &places));
                    }
                    verify = true;
                    last = Some(cause);
                }
                Err(Setback::Failed(failure)) => return Err(failure),
            }
            if Instant::now() > give_up {
                break;
            }
        }
        Err(Failure::Unavailable(
            last.unwrap_or_else(|| Cause::new("it was tried too often")),
        ))
    }
}

impl Shared {
    /// The result of a batch that is in the log.
    fn settle(&self, plan: Plan<'_>, places: &Places) -> (Verdicts, Taint) {
        self.known.committed(&plan, places);
        let taint = plan.taint.clone();
        (plan.settle(places), taint)
    }

    /// Appends in one trip, on the versions that are known: the unique key finds those that are not true any more.
    async fn append_known<'a>(
        &self,
        session: &mut Session,
        plan: Plan<'a>,
        history: HistoryId,
    ) -> Result<(Plan<'a>, Places), Setback<'a>> {
        let partitions: BTreeSet<Partition> = plan.counts.keys().copied().collect();
        let mut script = Script::default();
        begin(&mut script, &plan);
        let base = match self.known.heads(&partitions) {
            Some(heads) => Base::Known(heads),
            None if partitions.is_empty() => Base::Asked,
            None => {
                script.lock(&partitions, |partition| self.known.seen(partition));
                self.known.be_less_wary_of_heads();
                Base::Asked
            }
        };
        if self.known.history() != history {
            // The plan may rest on versions of the old one.
            return Err(Setback::Again(Cause::new(NEW_HISTORY)));
        }
        self.write(session, plan, script, &partitions, base, false)
            .await
    }

    /// Appends in two trips: the first locks the heads and asks for the versions.
    async fn append_verified<'a>(
        &self,
        session: &mut Session,
        batch: &'a [Append],
        taint: &Taint,
    ) -> Result<(Plan<'a>, Places), Setback<'a>> {
        let partitions = partitions_to_lock(batch, self.partitions);
        let streams = streams(batch);
        let mut script = Script::default();
        if !partitions.is_empty() {
            script
                .statement("START TRANSACTION")
                .lock(&partitions, |partition| self.known.seen(partition))
                .say_whether_lost(&partitions);
        }
        if !streams.is_empty() {
            script.versions(streams.iter().copied());
        }
        let keys: BTreeSet<&ScopedKey> = keys(batch).map(|key| &key.scoped).collect();
        if !keys.is_empty() {
            script.keys(keys);
        }
        let (versions, used) = if script.statements() > 0 {
            let trip = session.run(script).await;
            match trip.outcome {
                Ok(rows) if Script::says_lost(&rows) => {
                    session.roll_back().await;
                    return Err(self.find_what_is_lost(session, &partitions).await);
                }
                Ok(rows) => {
                    let versions = versions(&rows, streams).map_err(Failure::from);
                    let read = versions.and_then(|versions| Ok((versions, used(&rows)?)));
                    read.map_err(Setback::Failed)?
                }
                Err(error) => return Err(self.set_back(session, error, &partitions, true).await),
            }
        } else {
            (HashMap::new(), Keys::new())
        };
        for (stream, version) in &versions {
            self.known.is_at(stream, *version);
        }
        let plan = Plan::new(batch, self.partitions, versions, &used, taint.clone());
        if plan.has_conflict() {
            self.known.be_wary();
        } else {
            self.known.be_less_wary();
        }
        let mut script = Script::default();
        if partitions.is_empty() {
            begin(&mut script, &plan);
        }
        self.write(session, plan, script, &partitions, Base::Asked, true)
            .await
    }

    /// Writes what `plan` has and commits; `script` has what comes before.
    async fn write<'a>(
        &self,
        session: &mut Session,
        plan: Plan<'a>,
        mut script: Script,
        partitions: &BTreeSet<Partition>,
        base: Base,
        verified: bool,
    ) -> Result<(Plan<'a>, Places), Setback<'a>> {
        if plan.is_empty() {
            if !partitions.is_empty() {
                session.roll_back().await;
            }
            return Ok((plan, Places::new()));
        }
        script
            .write(&plan, &base, session.insert_max())
            .statement("COMMIT");
        if !session.takes(&script) {
            session.roll_back().await;
            let reason = "it is larger than the server's max_allowed_packet".to_owned();
            return Err(Setback::Failed(Failure::Refused(reason)));
        }
        let statements = script.statements();
        let trip = session.run(script).await;
        match trip.outcome {
            Ok(rows) => match places(&rows, trip.last_insert_id, &plan, &base) {
                Ok(places) => Ok((plan, places)),
                Err(error) => {
                    session.give_up();
                    Err(Setback::Doubt(plan, session.id(), Cause::new(error)))
                }
            },
            // Only an answer to a statement before the COMMIT says that there was no COMMIT.
            Err(error)
                if error.as_database_error().is_some() && trip.completed + 1 < statements =>
            {
                if let (Base::Known(_), Some(Meaning::Null)) = (&base, meaning(&error)) {
                    session.roll_back().await;
                    return Err(Setback::HeadsMoved);
                }
                Err(self.set_back(session, error, partitions, verified).await)
            }
            Err(error) => {
                session.give_up();
                Err(Setback::Doubt(plan, session.id(), Cause::new(error)))
            }
        }
    }

    /// What `error` means for a transaction that was not committed, which is ended here.
    async fn set_back<'a>(
        &self,
        session: &mut Session,
        error: sqlx::Error,
        partitions: &BTreeSet<Partition>,
        verified: bool,
    ) -> Setback<'a> {
        session.roll_back().await;
        match meaning(&error) {
            Some(Meaning::Conflict) if !verified => Setback::Conflict,
            // Also of a key that another process used since it was looked up.
            Some(Meaning::KeyUsed) => Setback::KeyUsed(Cause::new(error)),
            Some(Meaning::Null) => self.find_what_is_lost(session, partitions).await,
            Some(Meaning::Refused(number)) => Setback::Failed(refused(number)),
            None | Some(Meaning::Transient) => Setback::Again(Cause::new(error)),
            Some(Meaning::NotNow | Meaning::Conflict | Meaning::HeadBehind) => {
                Setback::Failed(error.into())
            }
        }
    }
}

/// Begins the transaction of `plan`, if it writes anything.
fn begin(script: &mut Script, plan: &Plan<'_>) {
    if !plan.is_empty() {
        script.statement("START TRANSACTION");
    }
}

/// What [`Script::keys`] asked for.
fn used(rows: &[MySqlRow]) -> Result<Keys, Failure> {
    let mut used = Keys::new();
    for row in rows {
        if !matches!(row.try_get(0), Ok(KEY_ROW)) {
            continue;
        }
        let key: &[u8] = row.try_get(1)?;
        let outcome: u64 = row.try_get(3)?;
        let found = KeyRow::from_columns(row.try_get(2)?, u8::from(outcome != 0), row.try_get(4)?)?;
        if let Ok(key) = key.try_into() {
            used.insert(key, found);
        }
    }
    Ok(used)
}

/// The versions that [`Script::versions`] asked for.
fn versions<'a>(
    rows: &[MySqlRow],
    streams: BTreeSet<&'a StreamId>,
) -> Result<HashMap<&'a StreamId, Version>, sqlx::Error> {
    let streams: Vec<_> = streams.into_iter().collect();
    let mut versions = HashMap::with_capacity(streams.len());
    for row in rows {
        let n = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        if let Some(stream) = streams.get(n) {
            let version: Option<u64> = row.try_get(1)?;
            versions.insert(*stream, Version::new(version.unwrap_or(0)));
        }
    }
    Ok(versions)
}

/// Where [`Script::write`] wrote the rows of `plan`: as it asked for it, or from the heads on that it moved.
fn places(
    rows: &[MySqlRow],
    last_insert_id: u64,
    plan: &Plan<'_>,
    base: &Base,
) -> Result<Places, sqlx::Error> {
    let mut places = Places::new();
    if let Base::Known(heads) = base {
        let micros = i64::try_from(last_insert_id).unwrap_or_default();
        if micros == 0 && !heads.is_empty() {
            return Err(sqlx::Error::Protocol(NO_TIME.to_owned()));
        }
        let recorded_at = DateTime::from_timestamp_micros(micros).unwrap_or_default();
        let place = |(partition, head): (&Partition, &Head)| {
            let base = head.next;
            (*partition, Place { base, recorded_at })
        };
        return Ok(heads.iter().map(place).collect());
    }
    for row in rows {
        let partition = Partition::new(row.try_get(0)?);
        let next: u64 = row.try_get(1)?;
        let count = plan.counts.get(&partition).copied().unwrap_or_default();
        let micros: i64 = row.try_get(2)?;
        places.insert(
            partition,
            Place {
                base: Position::new(next.saturating_sub(count)),
                recorded_at: DateTime::from_timestamp_micros(micros).unwrap_or_default(),
            },
        );
    }
    Ok(places)
}
