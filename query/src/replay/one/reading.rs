//! What of the log the replay of some documents reads: which documents it is about, and what becomes of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use tidelog_domain::{
    Cursor, EventFilter, Folding, Partition, Position, RecordedEvent, StreamId, Version,
    document_key, document_tenant,
};

use super::{Mending, Only, Reached};
use crate::projector::stand_in;
use crate::replay::fold::{self, Folded};
use crate::replay::{Replay, ReplayError, ReplayProgress};

/// How many documents of one aggregate are replayed at once.
const MAX_DOCUMENTS: usize = 1_000;

/// Some documents, folded so far.
#[derive(Clone)]
pub(super) struct Fold {
    pub(super) cursors: BTreeMap<Partition, Cursor>,
    /// `None`: no event was of it yet.
    pub(super) documents: HashMap<String, Option<Folded>>,
}

impl Fold {
    /// Of `keys`, from the beginning of these partitions.
    pub(super) fn of(keys: &[String], partitions: Vec<Partition>) -> Self {
        let cursors = partitions.into_iter().map(|it| (it, Cursor::START));
        Self {
            cursors: cursors.collect(),
            documents: keys.iter().map(|key| (key.clone(), None)).collect(),
        }
    }

    /// The document `key`, as far as it is folded.
    pub(super) fn document(&self, key: &str) -> Option<&Folded> {
        self.documents.get(key)?.as_ref()
    }

    /// The same of one document.
    pub(super) fn only(&self, key: &str) -> Self {
        Self {
            cursors: self.cursors.clone(),
            documents: HashMap::from([(key.to_owned(), self.document(key).cloned())]),
        }
    }
}

impl Mending<'_> {
    /// The keys of the documents of `only`, in order.
    pub(super) async fn keys(
        &self,
        only: &Only,
        reached: &Reached,
    ) -> Result<Vec<String>, ReplayError> {
        let name = match only {
            Only::Document(key) => return Ok(vec![key.clone()]),
            Only::Aggregate(name) => name,
        };
        let stream = StreamId::parse(name).ok();
        let id = stream.as_ref().map(StreamId::document_id);
        let id = id.as_deref().unwrap_or(name);
        let nothing = || ReplayError::NothingOf {
            view: self.view.name().to_owned(),
            aggregate: name.clone(),
        };
        if let Some(category) = self.view.category() {
            let is_of_view = stream.as_ref().is_none_or(|it| it.category() == category);
            return is_of_view.then(|| vec![id.to_owned()]).ok_or_else(nothing);
        }
        let is_of_it = |event: &RecordedEvent| match &stream {
            Some(stream) => event.stream == *stream,
            None => event.stream.document_id() == id,
        };
        let partitions = match (&stream, self.view.filter()) {
            (Some(stream), _) => vec![stream.partition(self.log.partitions)],
            (None, EventFilter::Category(category)) => self.partitions_of_stream(category, id),
            (None, EventFilter::Types(_)) => self.log.partitions.iter().collect(),
        };
        let mut keys = HashSet::new();
        for partition in partitions {
            let mut cursor = Cursor::START;
            let at = reached.position(partition);
            while let Some(page) = self.page(partition, &mut cursor, at).await? {
                let events = page
                    .iter()
                    .filter(|event| self.view.filter().matches(event));
                for event in events.filter(|event| is_of_it(event) && !reached.skips(event)) {
                    keys.extend(
                        fold::keys(self.view, event).map_err(|why| self.set_aside(name, why))?,
                    );
                }
                if keys.len() > MAX_DOCUMENTS {
                    return Err(ReplayError::TooMany {
                        view: self.view.name().to_owned(),
                        aggregate: name.clone(),
                        max: MAX_DOCUMENTS,
                    });
                }
            }
        }
        let mut keys: Vec<String> = keys.into_iter().collect();
        keys.sort_unstable();
        if keys.is_empty() {
            Err(nothing())
        } else {
            Ok(keys)
        }
    }

    /// The partitions that may have events of the documents of `keys`.
    pub(super) fn partitions_of(&self, keys: &[String]) -> Vec<Partition> {
        match (self.view.category(), keys) {
            (Some(category), [key]) => self.partitions_of_stream(category, key),
            _ => self.log.partitions.iter().collect(),
        }
    }

    /// The partition of the stream that the document `id` is made from; none where no stream can be called that.
    fn partitions_of_stream(&self, category: &str, id: &str) -> Vec<Partition> {
        let tenant = document_tenant(id);
        let stream = StreamId::of(tenant.as_ref(), category, document_key(id)).ok();
        let partition = stream.map(|stream| stream.partition(self.log.partitions));
        partition.into_iter().collect()
    }

    /// Goes on with `fold` up to `ends`, or to the log's end.
    pub(super) async fn fold_to(
        &self,
        fold: &mut Fold,
        ends: &HashMap<Partition, Position>,
        reached: &Reached,
    ) -> Result<(), ReplayError> {
        let Fold { cursors, documents } = fold;
        for (partition, cursor) in cursors {
            let end = ends.get(partition).copied().unwrap_or(Position::START);
            while let Some(page) = self.page(*partition, cursor, end).await? {
                let events = page
                    .iter()
                    .filter(|event| self.view.filter().matches(event));
                for event in events {
                    self.apply(event, reached, documents)?;
                }
            }
        }
        Ok(())
    }

    /// Folds `event` into those of `documents` that it touches.
    fn apply(
        &self,
        event: &RecordedEvent,
        reached: &Reached,
        documents: &mut HashMap<String, Option<Folded>>,
    ) -> Result<(), ReplayError> {
        let is_skipped = reached.skips(event);
        let keys = match fold::keys(self.view, event) {
            Ok(keys) => keys,
            Err(_) if is_skipped => return Ok(()),
            Err(why) => return Err(self.set_aside(event.stream.as_str(), why)),
        };
        for key in keys {
            let Some(folded) = documents.get_mut(&key) else {
                continue;
            };
            if !is_skipped {
                *folded = Some(fold::next(self.view, folded.take(), &key, event));
            } else if self.view.folding() == Folding::FullState && event.version == Version::new(1)
            {
                // As the projector does it, so that the next event is not taken to be of a document that is lost.
                *folded = Some(Folded {
                    document: stand_in(key, event),
                    is_known: true,
                    unreadable: None,
                });
            }
        }
        Ok(())
    }

    /// The next events of `partition` after `cursor`, up to `end`; `None` when there is none.
    async fn page(
        &self,
        partition: Partition,
        cursor: &mut Cursor,
        end: Position,
    ) -> Result<Option<Vec<RecordedEvent>>, ReplayError> {
        if cursor.position >= end {
            return Ok(None);
        }
        let Replay { log, options, .. } = self.replay;
        let from = *cursor;
        let limit = options.page_max_events;
        let page = self.persist(|| async { Ok(log.read(partition, from, limit).await?) });
        let mut page = page.await?;
        self.meter.add(page.len());
        (self.progress)(ReplayProgress::Folded(self.meter.progress()));
        page.retain(|event| event.position <= end);
        match page.last() {
            Some(last) => {
                *cursor = last.cursor();
                Ok(Some(page))
            }
            None => Ok(None),
        }
    }
}
