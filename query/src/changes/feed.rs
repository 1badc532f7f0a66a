//! The one task that looks for changes of a view, however many listen.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, RecordedEvent, ViewDefinition};
use tidelog_eventbus::{PartitionState, PartitionStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::mailbox::{At, Change, Mailbox, Wanted};
use super::place::{LiveId, Place, Positions, Touch};
use super::touched::Touched;
use super::{ChangesError, Joined, Shared};
use crate::consistency::{Watches, moved, watches};
use crate::store::Document;

/// The shortest time between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two looks, when nothing has come for a while.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause when looking fails.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);

/// How many events of a partition are looked at in one round.
const ROUND_EVENTS: usize = 1_000;

/// How many documents are read at once.
pub(super) const GET_DOCUMENTS: usize = 1_000;

/// In how many rounds a document is passed over that is ahead of its view's checkpoints: it is told with its later event.
const MAX_DEFERRALS: u8 = 3;

/// Somebody who wants to listen.
pub(super) struct Join {
    pub(super) wanted: Wanted,
    pub(super) answer: oneshot::Sender<Result<Joined, ChangesError>>,
}

/// The task.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) view: Arc<dyn ViewDefinition>,
    pub(super) joins: mpsc::UnboundedReceiver<Join>,
    listeners: Vec<Arc<Mailbox>>,
    /// Up to where the listeners were told; none before the first look.
    told: Option<watch::Sender<Arc<Place>>>,
    /// The documents that were passed over.
    deferred: HashMap<String, Deferral>,
}

/// How a document was passed over.
struct Deferral {
    /// In how many rounds in a row.
    rounds: u8,
    /// Up to where everything had been told before the first of them.
    since: Arc<LiveId>,
}

impl Feed {
    pub(super) fn new(
        shared: Arc<Shared>,
        view: Arc<dyn ViewDefinition>,
        joins: mpsc::UnboundedReceiver<Join>,
    ) -> Self {
        Self {
            shared,
            view,
            joins,
            listeners: Vec::new(),
            told: None,
            deferred: HashMap::new(),
        }
    }

    /// Tells changes until nobody listens any more.
    pub(super) async fn run(mut self) {
        let (mut pause, mut failures) = (SHORTEST_PAUSE, 0_u32);
        let mut waiting: Vec<Join> = Vec::new();
        loop {
            let begun = Instant::now();
            while let Ok(join) = self.joins.try_recv() {
                waiting.push(join);
            }
            // Watched before the look: what moves in between wakes at once.
            let moves = self.moves();
            let round = self.round().await;
            let is_busy = matches!(round, Ok(true));
            self.admit(std::mem::take(&mut waiting), &round);
            match round {
                Ok(_) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        let causes = tidelog_domain::causes(&error);
                        tracing::warn!(
                            view = self.view.name(),
                            error = causes,
                            "changes cannot be told; trying on"
                        );
                    }
                    failures = failures.saturating_add(1);
                }
            }
            if self.retire() {
                return;
            }
            pause = match (failures, is_busy) {
                (0, true) => SHORTEST_PAUSE,
                (0, false) => (pause * 2).min(LONGEST_PAUSE),
                _ => (pause * 2).min(LONGEST_BACK_OFF),
            };
            // Where looking fails, waiting is all that helps.
            let moves = if failures > 0 { Watches::new() } else { moves };
            tokio::select! {
                join = self.joins.recv() => waiting.extend(join),
                () = sleep(pause) => {}
                () = moved(moves) => sleep_until(begun + SHORTEST_PAUSE).await,
            }
        }
    }

    /// Ends the task if nobody listens. Who comes now starts a new one.
    fn retire(&mut self) -> bool {
        self.listeners
            .retain(|mailbox| Arc::strong_count(mailbox) > 1);
        let mut feeds = self.shared.feeds();
        let is_idle = self.listeners.is_empty() && self.joins.is_empty();
        if is_idle {
            feeds.remove(self.view.name());
        }
        is_idle
    }

    /// Lets those in who want to listen: they hear what comes after where everybody is now.
    fn admit(&mut self, joins: Vec<Join>, round: &Result<bool, ChangesError>) {
        for join in joins {
            let joined = match (round, &self.told) {
                (Err(error), _) => Err(error.again()),
                (Ok(_), None) => Err(ChangesError::NotBuilt),
                (Ok(_), Some(told)) => {
                    let mailbox = Arc::new(Mailbox::new(join.wanted));
                    self.listeners.push(mailbox.clone());
                    let place = told.borrow().clone();
                    Ok(Joined {
                        mailbox,
                        place,
                        told: told.subscribe(),
                    })
                }
            };
            // Who has gone meanwhile is taken off at the next look.
            let _ = join.answer.send(joined);
        }
    }

    /// What moves when the view goes on, where its subscription runs here.
    fn moves(&self) -> Watches {
        let told = self.told.as_ref();
        let status = told.and_then(|told| self.shared.live.get(&told.borrow().collection));
        status.as_ref().map(watches).unwrap_or_default()
    }

    /// Looks how far the view is, and tells what has changed since the last look. Says whether there was anything.
    ///
    /// It is all or nothing: after an error everybody is where he was, and the next round tells the same.
    async fn round(&mut self) -> Result<bool, ChangesError> {
        let Some(seen) = self.look().await? else {
            self.start_anew(None);
            return Ok(false);
        };
        let before = self.told.as_ref().map(|told| told.borrow().clone());
        let Some(before) = before.filter(|before| before.is_of(&seen)) else {
            self.start_anew(Some(seen));
            return Ok(false);
        };
        let (after, touched) = self.touched(&before, &seen).await?;
        let released = before.released_by(&seen);
        let has_moved = after.positions() != before.positions() || !released.is_empty();
        if !has_moved && after.parked_mark() == before.parked_mark() {
            return Ok(false);
        }
        let after = Arc::new(after);
        let changes = self.changes(&before, &after, released, touched).await?;
        for change in &changes {
            for mailbox in &self.listeners {
                mailbox.put(change);
            }
        }
        if let Some(told) = &self.told {
            told.send_replace(after);
        }
        Ok(true)
    }

    /// Everybody begins again, at `place`.
    fn start_anew(&mut self, place: Option<Place>) {
        for mailbox in self.listeners.drain(..) {
            mailbox.reset();
        }
        self.deferred.clear();
        self.told = place.map(|place| watch::Sender::new(Arc::new(place)));
    }

    /// Which documents the events between `before` and `seen` touch, and how far that is: not all of the way, where there are many.
    async fn touched(
        &self,
        before: &Place,
        seen: &Place,
    ) -> Result<(Place, BTreeMap<Touch, String>), ChangesError> {
        let mut after = seen.clone();
        let mut touched = Touched::default();
        let is_wanted =
            |_: &Touch, id: &str| self.listeners.iter().any(|one| one.wanted.may_be(id));
        for (partition, cursor) in &seen.cursors {
            let mut at = before.cursor(*partition);
            if cursor.position > at.position {
                let read = self.shared.log.read(*partition, at, ROUND_EVENTS).await;
                let events = read.map_err(ChangesError::Log)?;
                let seen_of = |event: &&RecordedEvent| event.position <= cursor.position;
                for event in events.iter().filter(seen_of) {
                    at = event.cursor();
                    touched.add(&*self.view, event, seen, is_wanted);
                }
            }
            after.cursors.insert(*partition, at);
        }
        Ok((after, touched.in_order()))
    }

    /// The changes from `before` to `after`, in the order in which they are told: first of what waited, then by the log.
    async fn changes(
        &mut self,
        before: &Place,
        after: &Place,
        released: Vec<String>,
        touched: BTreeMap<Touch, String>,
    ) -> Result<Vec<Change>, ChangesError> {
        let released = released.into_iter().map(|id| (None, id));
        let touched = touched.into_iter().map(|(touch, id)| (Some(touch), id));
        let ids: Vec<_> = released.chain(touched).collect();
        let documents = self
            .shared
            .documents(&after.collection, ids.iter().map(|(_, id)| id.as_str()))
            .await?;
        let told = (Arc::new(LiveId::at(before)), Arc::new(LiveId::at(after)));
        let waited = Arc::new(LiveId {
            positions: Positions::new(),
            ..LiveId::at(before)
        });
        let mut changes = Vec::with_capacity(ids.len());
        for (touched, id) in ids {
            let document = documents.get(&id).cloned();
            let is_ahead = |document: &Arc<Document>| !after.covers(&document.applied);
            if touched.is_some() && document.as_ref().is_some_and(is_ahead) {
                // What it has applied beyond is found in a later round, and by whoever resumes from here.
                let deferral = self.deferred.entry(id.clone());
                let deferral = deferral.or_insert_with(|| Deferral {
                    rounds: 0,
                    since: told.0.clone(),
                });
                deferral.rounds += 1;
                if deferral.rounds < MAX_DEFERRALS {
                    continue;
                }
            }
            let deferral = self.deferred.remove(&id);
            let since = match (&touched, deferral) {
                // When what waited was applied is known only now: whoever came back meanwhile may know of it.
                (None, _) => waited.clone(),
                (_, Some(deferral)) => deferral.since,
                (_, None) => told.0.clone(),
            };
            let at = At {
                before: told.0.clone(),
                after: told.1.clone(),
                touched,
                since,
            };
            changes.push(Change::of(id, document, at));
        }
        Ok(changes)
    }

    /// How far the version of the view is that is read now; `None` where there is none.
    async fn look(&self) -> Result<Option<Place>, ChangesError> {
        let current = self.shared.versions.current(self.view.name()).await;
        let Some(current) = current.map_err(ChangesError::Store)? else {
            return Ok(None);
        };
        let collection = current.alias.collection.clone();
        let known = self.told.as_ref().map(|told| told.borrow().clone());
        let known = known.filter(|known| known.collection == collection);
        let here = self.shared.live.get(&collection);
        let here = here.map(|status| status.partitions());
        // What another process works on, or what has not begun, is better known by its record.
        let is_here = |status: &PartitionStatus| {
            !matches!(
                status.state,
                PartitionState::Starting
                    | PartitionState::Standby { .. }
                    | PartitionState::HistoryChanged { .. }
                    | PartitionState::Stopped
            )
        };
        let mut place = match (here, &known) {
            (Some(partitions), Some(known)) if partitions.iter().all(is_here) => Place {
                collection,
                history: known.history,
                cursors: partitions.iter().map(|p| (p.partition, p.cursor)).collect(),
                parked: partitions
                    .into_iter()
                    .map(|p| (p.partition, p.parked))
                    .collect(),
            },
            _ => self.shared.recorded(collection).await?,
        };
        // A record may lag a moment behind what was seen in this process.
        if let Some(known) = known.filter(|known| known.history == place.history) {
            for (partition, told) in &known.cursors {
                let own = place.cursors.entry(*partition).or_insert(Cursor::START);
                if own.position < told.position {
                    *own = *told;
                }
            }
        }
        Ok(Some(place))
    }
}

impl Change {
    pub(super) fn of(id: String, document: Option<Arc<Document>>, at: At) -> Self {
        let bytes = document.as_ref().map_or(0, |document| document.weight());
        Self {
            bytes: bytes.saturating_add(id.len()),
            id,
            document,
            at,
        }
    }
}
