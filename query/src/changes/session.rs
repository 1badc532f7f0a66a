//! What one client is told: the present state, then each change, until it goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Cursor, Partition, ViewDefinition, causes};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::mailbox::{At, Change, Closed, Interest, MAX_PENDING_BYTES, Next, Wanted};
use super::place::{LiveId, Place, Positions, Touch, mark};
use super::touched::Touched;
use super::{Changes, ChangesError, Joined};
use crate::store::{Document, Query};

/// After how much silence a client is told where it is, so that it knows that the connection lives, and goes on from there.
pub(crate) const BEAT: Duration = Duration::from_secs(15);

/// How long a client may take to accept a message.
const STALL: Duration = Duration::from_secs(30);

/// The most events that a client may be behind to go on: beyond it, it begins anew.
pub(crate) const MAX_BEHIND: u64 = 10_000;

/// How many events are read at once for a client that goes on.
const RESUME_EVENTS: usize = 1_000;

/// How many documents are read at once for a client that goes on.
const RESUME_DOCUMENTS: usize = 20;

/// The most bytes that the documents of a live list have together at its start: 16 MiB.
pub(crate) const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// How long a client that comes back is kept waiting for this process to be told how far the view is. It is a moment after a restart.
const RESUME_PATIENCE: Duration = Duration::from_secs(5);

/// How often the first documents are read again that are ahead of the view's checkpoints.
const FIRST_READS: u32 = 4;

/// The pause before they are read again, which doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(15);

/// The longest pause between two attempts to go on.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a client asked for.
#[derive(Clone)]
pub(crate) struct Asked {
    /// The view.
    pub(crate) view: Arc<dyn ViewDefinition>,
    /// Which documents, at most how many of them, and in which order the first come.
    pub(crate) query: Query,
    /// The one document that is asked for; none for a list.
    pub(crate) id: Option<String>,
    /// All of it as a text: who asks for something else cannot go on from where it was.
    pub(crate) question: String,
}

impl Asked {
    fn wanted(&self) -> Wanted {
        Wanted {
            interest: match &self.id {
                Some(id) => Interest::Document(id.clone()),
                None => Interest::Fitting(self.query.filter.clone()),
            },
            deleted: self.query.deleted,
        }
    }
}

/// What is told.
#[derive(Debug)]
pub(crate) enum Shown {
    /// The one document as it is.
    State(Arc<Document>),
    /// All documents that fit, as they are.
    Page(Vec<Arc<Document>>),
    /// A document as it is now.
    Changed(Arc<Document>),
    /// A document that is not among those asked for, or not any more.
    Removed(String),
    /// What was told counts no longer: it begins anew.
    Reset,
    /// Nothing more comes, because of this.
    Dropped(&'static str),
    /// Nothing has changed.
    Beat,
}

/// A message to the client, and what it goes on from once it has it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) shown: Shown,
    pub(crate) id: Option<LiveId>,
}

/// Why a client cannot listen.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Changes cannot be told now.
    Now(ChangesError),
    /// There is no such document.
    Missing,
    /// More documents fit, or larger ones, than a client may listen to.
    TooMany,
}

impl From<ChangesError> for Refused {
    fn from(error: ChangesError) -> Self {
        Self::Now(error)
    }
}

/// A client that listens.
pub(crate) struct Session {
    changes: Changes,
    asked: Asked,
    stop: CancellationToken,
    /// The documents that the client knows, each with the revision that was told here; 0 where it was told elsewhere.
    told: HashMap<String, u64>,
    /// The hash of what is asked, and of the version of the view that it is asked of.
    question: u64,
    /// Before everybody is here, the client may know of others too.
    known_from: Positions,
    out: mpsc::Sender<Message>,
    _place: OwnedSemaphorePermit,
}

/// The documents that a client knows, and from where on it knows no others.
type Known = (HashMap<String, u64>, Positions);

/// How it begins.
enum Start {
    Fresh(Joined, Vec<Arc<Document>>),
    Resumed(LiveId),
}

/// The client has gone, or the service stops.
struct Gone;

impl Session {
    /// Begins to tell `changes` of what is `asked`, from `last` on where it is given. The messages end when the receiver is dropped, when `stop`
    /// is cancelled, or after [`Shown::Dropped`].
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub(crate) async fn begin(
        changes: Changes,
        asked: Asked,
        last: Option<LiveId>,
        stop: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Result<mpsc::Receiver<Message>, Refused> {
        let start = match last {
            Some(last) => Start::Resumed(last),
            None => {
                let (joined, documents) = first(&changes, &asked).await?;
                if asked.id.is_some() && documents.is_empty() {
                    return Err(Refused::Missing);
                }
                Start::Fresh(joined, documents)
            }
        };
        let (out, messages) = mpsc::channel(1);
        let session = Self {
            changes,
            asked,
            stop,
            told: HashMap::new(),
            known_from: Positions::new(),
            question: 0,
            out,
            _place: place,
        };
        tokio::spawn(async move {
            // How it ended is nobody's concern: the client sees the end.
            let _ = session.run(start).await;
        });
        Ok(messages)
    }

    async fn run(mut self, start: Start) -> Result<(), Gone> {
        let mut joined = match start {
            Start::Fresh(joined, documents) => {
                self.tell_first(&joined, documents).await?;
                joined
            }
            Start::Resumed(last) => self.go_on(last).await?,
        };
        loop {
            match self.listen(&mut joined).await? {
                Closed::Slow => return self.drop_because("slow").await,
                Closed::Reset => joined = self.anew().await?,
            }
        }
    }

    /// Tells changes until there are no more of this version of the view.
    async fn listen(&mut self, joined: &mut Joined) -> Result<Closed, Gone> {
        let mut beat = Instant::now() + BEAT;
        loop {
            // Looked at first: all up to there is in the mailbox, so when that is empty it has been told.
            let place = joined.told.borrow_and_update().clone();
            match joined.mailbox.take() {
                Next::Closed(closed) => return Ok(closed),
                Next::Change(change) => {
                    if self.tell(change).await? {
                        beat = Instant::now() + BEAT;
                    }
                }
                Next::Nothing if beat <= Instant::now() => {
                    self.send(Shown::Beat, Some(LiveId::at(&place))).await?;
                    beat = Instant::now() + BEAT;
                }
                Next::Nothing => tokio::select! {
                    () = joined.mailbox.arrived() => {}
                    () = sleep_until(beat) => {}
                    () = self.out.closed() => return Err(Gone),
                    () = self.stop.cancelled() => return Err(Gone),
                },
            }
        }
    }

    /// Tells a change, unless it says nothing new. Says whether it did.
    async fn tell(&mut self, change: Change) -> Result<bool, Gone> {
        let id = change.at.id();
        let may_know = !change.at.since.covers(&self.known_from);
        let shown = match change.document {
            Some(document) => {
                let told = self.told.get(&document.id);
                if told.is_some_and(|told| *told >= document.revision) {
                    return Ok(false);
                }
                self.told.insert(document.id.clone(), document.revision);
                if self.asked.id.is_none() && self.told.len() > self.asked.query.limit {
                    self.drop_because("too-many").await?;
                    return Err(Gone);
                }
                Shown::Changed(document)
            }
            None if self.told.remove(&change.id).is_some() || may_know => Shown::Removed(change.id),
            None => return Ok(false),
        };
        self.send(shown, Some(id)).await?;
        Ok(true)
    }

    /// Tells what there is at the start.
    async fn tell_first(
        &mut self,
        joined: &Joined,
        documents: Vec<Arc<Document>>,
    ) -> Result<(), Gone> {
        self.known_from.clear();
        let told = documents.iter();
        self.told = told.map(|doc| (doc.id.clone(), doc.revision)).collect();
        self.question = mark(&joined.place.collection, &self.asked.question);
        let id = LiveId::at(&joined.place);
        let shown = match &self.asked.id {
            None => Shown::Page(documents),
            Some(id) => match documents.into_iter().next() {
                Some(document) => Shown::State(document),
                None => Shown::Removed(id.clone()),
            },
        };
        self.send(shown, Some(id)).await
    }

    /// Begins anew, since what was told is of another version of the view.
    async fn anew(&mut self) -> Result<Joined, Gone> {
        self.send(Shown::Reset, None).await?;
        let mut pause = FIRST_PAUSE;
        loop {
            match first(&self.changes, &self.asked).await {
                Ok((joined, documents)) => {
                    self.tell_first(&joined, documents).await?;
                    return Ok(joined);
                }
                Err(Refused::TooMany) => {
                    self.drop_because("too-many").await?;
                    return Err(Gone);
                }
                Err(Refused::Missing) => {}
                Err(Refused::Now(error)) => self.wait(&mut pause, &error).await?,
            }
        }
    }

    /// Tells what has changed since `last`, and listens.
    async fn go_on(&mut self, last: LiveId) -> Result<Joined, Gone> {
        let mut pause = FIRST_PAUSE;
        let deadline = Instant::now() + RESUME_PATIENCE;
        loop {
            let joined = self
                .changes
                .join(&self.asked.view, self.asked.wanted())
                .await;
            let joined = match joined {
                Ok(joined) => joined,
                Err(error) => {
                    self.wait(&mut pause, &error).await?;
                    continue;
                }
            };
            let place = &joined.place;
            let is_behind = last.behind(place) > MAX_BEHIND;
            self.question = mark(&place.collection, &self.asked.question);
            if !last.fits(place, self.question) || is_behind {
                return self.anew().await;
            }
            if !place.covers(&last.positions) {
                // This process does not know yet how far the view was told to be by another, or before.
                if Instant::now() > deadline {
                    return self.anew().await;
                }
                self.pause(&mut pause).await?;
                continue;
            }
            let missed = {
                let _turn = self.turn().await?;
                self.missed(&last, place).await
            };
            match missed {
                Ok((None, _)) => return self.anew().await,
                Ok((Some(changes), known)) => {
                    (self.told, self.known_from) = known;
                    for change in changes {
                        self.tell(change).await?;
                    }
                    return Ok(joined);
                }
                Err(Refused::Now(error)) => self.wait(&mut pause, &error).await?,
                Err(Refused::TooMany | Refused::Missing) => {
                    self.drop_because("too-many").await?;
                    return Err(Gone);
                }
            }
        }
    }

    /// Waits until few enough others look for what they missed: each may hold some megabytes.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Gone> {
        let turns = self.changes.shared.resumes.clone();
        tokio::select! {
            turn = turns.acquire_owned() => turn.map_err(|_| Gone),
            () = self.out.closed() => Err(Gone),
            () = self.stop.cancelled() => Err(Gone),
        }
    }

    /// The changes between `last` and `place`, as far as they are about what is asked, and what the client knows after them. `None` for
    /// changes of more bytes than may wait for a client.
    async fn missed(
        &self,
        last: &LiveId,
        place: &Arc<Place>,
    ) -> Result<(Option<Vec<Change>>, Known), Refused> {
        let changes = self.changes_since(last, place).await?;
        Ok((changes, self.known(place).await?))
    }

    /// What a client knows that was told everything up to `place`, at most: what fits now, and whatever an event behind `place` and up to
    /// the log's heads has taken out since.
    async fn known(&self, place: &Place) -> Result<Known, Refused> {
        if let Some(id) = &self.asked.id {
            return Ok((HashMap::from([(id.clone(), 0)]), Positions::new()));
        }
        let fitting = read(&self.changes, &self.asked, &place.collection).await?;
        let heads = self.changes.shared.log.heads().await;
        let heads = heads.map_err(ChangesError::Log)?;
        let heads = (0..=u16::MAX).map(Partition::new).zip(heads);
        let known = fitting.iter().map(|document| (document.id.clone(), 0));
        Ok((known.collect(), heads.collect()))
    }

    /// The changes between `last` and `place`, as far as they are about what is asked. `None` where they have more bytes than may wait for
    /// a client.
    async fn changes_since(
        &self,
        last: &LiveId,
        place: &Arc<Place>,
    ) -> Result<Option<Vec<Change>>, ChangesError> {
        let wanted = self.asked.wanted();
        let touched = self.touched(last, place, &wanted).await?;
        let touched: Vec<_> = touched.into_iter().collect();
        let (before, after) = (Arc::new(last.clone()), Arc::new(LiveId::at(place)));
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for touched in touched.chunks(RESUME_DOCUMENTS) {
            let ids = touched.iter().map(|(_, id)| id.as_str());
            let shared = &self.changes.shared;
            let documents = shared.documents(&place.collection, ids).await?;
            for (touch, id) in touched {
                let document = documents.get(id).cloned();
                // What is ahead has a later event, which comes to the mailbox.
                let is_ahead = |document: &Arc<Document>| !place.covers(&document.applied);
                if !document.as_ref().is_some_and(is_ahead) {
                    let document = document.filter(|document| wanted.shows(document));
                    let at = At {
                        before: before.clone(),
                        after: after.clone(),
                        touched: Some(*touch),
                        since: before.clone(),
                    };
                    let change = Change::of(id.clone(), document, at);
                    bytes += change.bytes;
                    changes.push(change);
                }
            }
            if bytes > MAX_PENDING_BYTES {
                return Ok(None);
            }
        }
        Ok(Some(changes))
    }

    /// The documents that the events behind `last` touch, up to `place`, each by the last event that does.
    async fn touched(
        &self,
        last: &LiveId,
        place: &Place,
        wanted: &Wanted,
    ) -> Result<BTreeMap<Touch, String>, ChangesError> {
        let mut touched = Touched::default();
        for (partition, end) in &place.cursors {
            let mut at = Cursor {
                position: last.position(*partition),
                event_id: None,
            };
            while at.position < end.position {
                let log = &self.changes.shared.log;
                let events = log.read(*partition, at, RESUME_EVENTS).await;
                let events = events.map_err(ChangesError::Log)?;
                let Some(read_to) = events.last() else { break };
                at = read_to.cursor();
                let events = events.iter();
                for event in events.filter(|event| event.position <= end.position) {
                    let is_new =
                        |touch: &Touch, id: &str| !last.has_told(touch) && wanted.may_be(id);
                    touched.add(&*self.asked.view, event, place, is_new);
                }
            }
        }
        Ok(touched.in_order())
    }

    async fn drop_because(&self, reason: &'static str) -> Result<(), Gone> {
        self.send(Shown::Dropped(reason), None).await
    }

    async fn send(&self, shown: Shown, id: Option<LiveId>) -> Result<(), Gone> {
        let question = self.question;
        let id = id.map(|id| LiveId { question, ..id });
        let message = Message { shown, id };
        tokio::select! {
            sent = timeout(STALL, self.out.send(message)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Gone),
            },
            () = self.stop.cancelled() => Err(Gone),
        }
    }

    /// Waits before the next attempt, after `error`.
    async fn wait(&self, pause: &mut Duration, error: &ChangesError) -> Result<(), Gone> {
        tracing::warn!(
            view = self.asked.view.name(),
            error = causes(error),
            "a live client cannot go on; trying on"
        );
        self.pause(pause).await
    }

    async fn pause(&self, pause: &mut Duration) -> Result<(), Gone> {
        tokio::select! {
            () = sleep(*pause) => {
                *pause = (*pause * 2).min(LONGEST_PAUSE);
                Ok(())
            }
            () = self.out.closed() => Err(Gone),
            () = self.stop.cancelled() => Err(Gone),
        }
    }
}

/// Listens, and reads what there is. What it is, is all up to where it listens from and no further, if that can be had: then who goes on from
/// here is told nothing twice.
async fn first(changes: &Changes, asked: &Asked) -> Result<(Joined, Vec<Arc<Document>>), Refused> {
    let mut pause = FIRST_PAUSE;
    let mut reads = 1;
    loop {
        let joined = changes.join(&asked.view, asked.wanted()).await?;
        let documents = read(changes, asked, &joined.place.collection).await?;
        let is_ahead = documents
            .iter()
            .any(|document| !joined.place.covers(&document.applied));
        if !is_ahead || reads == FIRST_READS {
            return Ok((joined, documents));
        }
        sleep(pause).await;
        (pause, reads) = (pause * 2, reads + 1);
    }
}

/// The documents that are asked for.
async fn read(
    changes: &Changes,
    asked: &Asked,
    collection: &str,
) -> Result<Vec<Arc<Document>>, Refused> {
    let shared = &changes.shared;
    let Some(id) = &asked.id else {
        let query = Query {
            limit: asked.query.limit.saturating_add(1),
            max_bytes: Some(MAX_LIST_BYTES),
            ..asked.query.clone()
        };
        let found = shared.store.find(collection, &query).await;
        let found = found.map_err(ChangesError::Store)?;
        if found.len() > asked.query.limit || query.is_filled(&found) {
            return Err(Refused::TooMany);
        }
        return Ok(found.into_iter().map(Arc::new).collect());
    };
    let mut found = shared
        .documents(collection, std::iter::once(id.as_str()))
        .await?;
    let wanted = asked.wanted();
    let found = found.remove(id).filter(|document| wanted.shows(document));
    Ok(found.into_iter().collect())
}
