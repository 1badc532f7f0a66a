//! The past of a document, read from the log: the events of its stream, and what the document was after any of them.
//!
//! The log is the truth, and its own past does not change: nothing here waits for a view, and no view is read.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tidelog_domain::{DecodeError, Folding, RecordedEvent, StreamId, Version, ViewDefinition};
use tidelog_eventbus::{LogError, StreamReader};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::projector::after_event;
use crate::store::Document;

/// How many pages are read at a time: where commands are taken too, they take connections and memory from them.
const MAX_READERS: usize = 2;

/// How long a read waits for its turn.
const TURN: Duration = Duration::from_secs(1);

/// How many events are read at once for a fold.
const FOLD_PAGE: usize = 200;

/// The most events that one document is folded from to be shown as it was.
pub(crate) const MAX_FOLDED_EVENTS: usize = 100_000;

/// Reads the past from a log. Cloning gives another handle with the same bounds.
#[derive(Clone)]
pub(crate) struct History {
    log: Arc<dyn StreamReader>,
    readers: Arc<Semaphore>,
}

/// Why the past cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// Others are reading, and it was waited long enough.
    #[error("{MAX_READERS} others are reading the log")]
    Busy,
    /// The document was made from too many events.
    #[error("the document was made from more than {MAX_FOLDED_EVENTS} events")]
    TooLong,
    /// An event cannot be read for the view.
    #[error("version {version} of {stream} cannot be read for the view")]
    Unreadable {
        /// Its stream.
        stream: StreamId,
        /// Its version there.
        version: Version,
        /// Why.
        source: DecodeError,
    },
}

/// A moment of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Right after the event of this version.
    Version(Version),
    /// At this time, by the log's clock: after the last event that was recorded until then.
    Time(DateTime<Utc>),
}

impl Then {
    /// Whether `event` had happened.
    fn includes(self, event: &RecordedEvent) -> bool {
        match self {
            Self::Version(version) => event.version <= version,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

impl History {
    pub(crate) fn new(log: Arc<dyn StreamReader>) -> Self {
        Self {
            log,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// The events of `stream` after a version, at most `limit`, fewer where they are large; empty at its end.
    ///
    /// # Errors
    ///
    /// [`HistoryError::Log`]; [`HistoryError::Busy`].
    pub(crate) async fn events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, HistoryError> {
        let _turn = self.turn().await?;
        Ok(self.log.read_stream(stream, after, limit).await?)
    }

    /// The document of `view` that is made from `stream`, as it was `then`; tombstones included. `None` where it was not there yet, or
    /// the stream has no such version.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub(crate) async fn document(
        &self,
        view: &dyn ViewDefinition,
        stream: &StreamId,
        then: Then,
    ) -> Result<Option<Document>, HistoryError> {
        if view.folding() != Folding::FullState {
            return self.folded(view, stream, then).await;
        }
        let Some(first) = self.event(stream, Version::new(1)).await? else {
            return Ok(None);
        };
        let Some(last) = self.last(stream, &first, then).await? else {
            return Ok(None);
        };
        let key = &stream.document_id();
        if !touches(view, key, &first) || !touches(view, key, &last) {
            return self.folded(view, stream, then).await;
        }
        // What the last event says replaces everything before, but for when it all began.
        let mut document = after(view, None, key, &last)?;
        document.created_at = first.recorded_at;
        Ok(Some(document))
    }

    /// The document, folded from the stream's first event on.
    async fn folded(
        &self,
        view: &dyn ViewDefinition,
        stream: &StreamId,
        then: Then,
    ) -> Result<Option<Document>, HistoryError> {
        let (mut document, mut version, mut read) = (None, Version::NONE, 0);
        let key = &stream.document_id();
        loop {
            let page = self.events(stream, version, FOLD_PAGE).await?;
            read += page.len();
            if read > MAX_FOLDED_EVENTS {
                return Err(HistoryError::TooLong);
            }
            let is_end = page.is_empty();
            for event in page {
                if !then.includes(&event) {
                    return Ok(document);
                }
                version = event.version;
                if touches(view, key, &event) {
                    document = Some(after(view, document, key, &event)?);
                }
                if then == Then::Version(version) {
                    return Ok(document);
                }
            }
            if is_end {
                // A version that is not there yet shows nothing, and a time to come what there is now.
                return Ok(document.filter(|_| matches!(then, Then::Time(_))));
            }
        }
    }

    /// The last event of `stream` that had happened `then`, of which `first` is the first one.
    ///
    /// Time never runs backwards in a stream, so it is found by doubling and halving steps.
    async fn last(
        &self,
        stream: &StreamId,
        first: &RecordedEvent,
        then: Then,
    ) -> Result<Option<RecordedEvent>, HistoryError> {
        if let Then::Version(version) = then {
            return self.event(stream, version).await;
        }
        if !then.includes(first) {
            return Ok(None);
        }
        let (mut last, mut step) = (first.clone(), 1);
        let mut beyond = loop {
            let version = last.version.plus(step);
            match self.event(stream, version).await? {
                Some(event) if then.includes(&event) => (last, step) = (event, step * 2),
                _ => break version.number(),
            }
        };
        while beyond - last.version.number() > 1 {
            let middle = last.version.number().midpoint(beyond);
            match self.event(stream, Version::new(middle)).await? {
                Some(event) if then.includes(&event) => last = event,
                _ => beyond = middle,
            }
        }
        Ok(Some(last))
    }

    /// The event of this version.
    async fn event(
        &self,
        stream: &StreamId,
        version: Version,
    ) -> Result<Option<RecordedEvent>, HistoryError> {
        let before = Version::new(version.number().saturating_sub(1));
        let found = self.events(stream, before, 1).await?.into_iter().next();
        Ok(found.filter(|event| event.version == version))
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, HistoryError> {
        match timeout(TURN, self.readers.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(HistoryError::Busy),
        }
    }
}

/// Whether `event` changes the document `key`.
fn touches(view: &dyn ViewDefinition, key: &str, event: &RecordedEvent) -> bool {
    // An event whose keys cannot be read changes nothing before it can; projecting it says why.
    view.filter().matches(event)
        && view
            .keys(event)
            .map_or(true, |keys| keys.iter().any(|one| one == key))
}

/// The document after `event`.
fn after(
    view: &dyn ViewDefinition,
    before: Option<Document>,
    key: &str,
    event: &RecordedEvent,
) -> Result<Document, HistoryError> {
    after_event(view, before, key, event).map_err(|source| HistoryError::Unreadable {
        stream: event.stream.clone(),
        version: event.version,
        source,
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::testing::{Change, Log, folded, posts, titles};

    async fn write(log: &Log, id: &str, title: &str) {
        let change = Change::Write(title.to_owned(), "ann".to_owned());
        log.change(id, &change).await.unwrap();
    }

    #[tokio::test]
    async fn a_document_of_each_version_and_time_is_the_fold_up_to_there() {
        let log = Log::new(1);
        for n in 0..40 {
            write(&log, "p", &format!("title {n}")).await;
            write(&log, "beside", "title").await;
        }
        log.change("p", &Change::Delete).await.unwrap();
        let history = History::new(Arc::new(log.store.clone()));
        let stream = StreamId::new("post", "p").unwrap();
        let events = history.events(&stream, Version::NONE, 100).await.unwrap();
        for view in [posts(), titles()] {
            for (n, event) in events.iter().enumerate() {
                let expected = folded(&*view, &events[..=n]).remove("p");
                for then in [Then::Version(event.version), Then::Time(event.recorded_at)] {
                    let found = history.document(&*view, &stream, then).await.unwrap();
                    // Several events may have the same time: the last of them is what was then.
                    let same_time = events.get(n + 1).map(|next| next.recorded_at);
                    if matches!(then, Then::Time(time) if same_time == Some(time)) {
                        continue;
                    }
                    let told = found.map(|doc| (doc.data, doc.version.number(), doc.deleted));
                    let expected = expected.clone();
                    let expected = expected.map(|doc| (doc.data, doc.version, doc.deleted));
                    assert_eq!(told, expected, "{} {then:?}", view.name());
                }
            }
            let last = events.last().unwrap();
            let later = Then::Time(last.recorded_at + TimeDelta::days(1));
            let found = history.document(&*view, &stream, later).await.unwrap();
            assert!(found.is_some(), "{}", view.name());
            for then in [
                Then::Time(events[0].recorded_at - TimeDelta::microseconds(1)),
                Then::Version(last.version.next()),
            ] {
                let found = history.document(&*view, &stream, then).await.unwrap();
                assert_eq!(found, None, "{} {then:?}", view.name());
            }
        }
    }

    #[tokio::test]
    async fn an_event_that_cannot_be_read_is_named() {
        let log = Log::new(1);
        write(&log, "p", "one").await;
        log.append("p", "post.updated", &json!("no object")).await;
        let history = History::new(Arc::new(log.store.clone()));
        let stream = StreamId::new("post", "p").unwrap();
        let second = Then::Version(Version::new(2));
        let found = history.document(&*posts(), &stream, second).await;
        match found {
            Err(HistoryError::Unreadable { version, .. }) => assert_eq!(version, Version::new(2)),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_its_turn_too_long_is_told_so() {
        let log = Log::new(1);
        let history = History::new(Arc::new(log.store.clone()));
        let stream = StreamId::new("post", "p").unwrap();
        let one = history.turn().await.unwrap();
        let two = history.turn().await.unwrap();
        let busy = history.events(&stream, Version::NONE, 1).await;
        assert!(matches!(busy, Err(HistoryError::Busy)), "{busy:?}");
        drop((one, two));
        assert_eq!(history.events(&stream, Version::NONE, 1).await.unwrap(), []);
    }
}
