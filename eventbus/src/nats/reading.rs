//! Reading: many messages at one request, of any server that keeps the stream, and without a consumer that would have to be
//! looked after.
//!
//! Positions are not places in the stream, so a reader remembers the place of the last event that it gave out, and begins the next read
//! *at* it: another event there means that the stream was lost and made anew. A reader without such a memory asks for the last
//! message and goes back from it: as positions grow at least as fast as places do, what it looks for is at most as many places before it
//! as there are positions between.

use std::time::Duration;

use futures_util::future::try_join_all;
use tidelog_domain::{HistoryId, Partition, Position, RecordedEvent};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::NatsEventBus;
use super::connection::Session;
use super::news::Stored;
use super::paging::page;
use super::publishing::{Place, decode};
use crate::bus::BusError;
use crate::lock::lock;

/// The most messages that are asked for at once.
const PAGE_MAX_MESSAGES: usize = 1_000;

/// How often it is looked for events although there are no news of any: news may be lost.
const LOOK: Duration = Duration::from_secs(1);

/// How long it is waited at first before it is looked again for an event that there are news of: the server that was asked may not
/// have it yet.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Of how many partitions it is remembered how far they were read.
const MAX_PLACES: usize = 4_096;

impl NatsEventBus {
    pub(super) async fn read_from(
        &self,
        history: HistoryId,
        after: &[(Partition, Position)],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let deadline = Instant::now() + wait;
        let session = self
            .connection
            .session()
            .await
            .map_err(BusError::unavailable)?;
        let news = session.news.of(history, self.names.news(history)).await;
        let mut news = news.map_err(BusError::unavailable)?;
        let mut due = after.to_vec();
        let mut pause = LOOK;
        loop {
            let seen = news.borrow_and_update().clone();
            let reads = due.iter().map(|&(partition, position)| {
                self.read_one(&session, history, partition, position, limit)
            });
            let found = try_join_all(reads).await?.concat();
            if !found.is_empty() || Instant::now() >= deadline {
                return Ok(found);
            }
            let look_at = deadline.min(Instant::now() + pause);
            let fresh = wait_for_news(&mut news, &seen, after, look_at).await;
            if Instant::now() >= deadline && fresh.is_empty() {
                return Ok(Vec::new());
            }
            pause = match fresh.is_empty() {
                true => (2 * pause).min(LOOK),
                false => LOOK_AGAIN,
            };
            due = if fresh.is_empty() {
                after.to_vec()
            } else {
                fresh
            };
            // A connection that was lost does not come back to this session.
            self.connection
                .session()
                .await
                .map_err(BusError::unavailable)?;
        }
    }

    /// What there is of `partition` after `position` now.
    async fn read_one(
        &self,
        session: &Session,
        history: HistoryId,
        partition: Partition,
        position: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, BusError> {
        let key = (history, partition);
        let known = lock(&self.places).get(&key).copied();
        let known = known.filter(|place| place.position == position);
        if let Some(place) = known {
            let found = self.pages(session, key, place, Some(place), limit).await?;
            if let Some(found) = found {
                return Ok(found);
            }
            lock(&self.places).remove(&key);
        }
        let Some((last, _)) = self.last_stored(session, history, partition).await? else {
            return Ok(Vec::new());
        };
        let Some(between) = last.position.number().checked_sub(position.number() + 1) else {
            return Ok(Vec::new());
        };
        let from = Place {
            position,
            sequence: last.sequence.saturating_sub(between).max(1),
        };
        let found = self.pages(session, key, from, None, limit).await?;
        Ok(found.unwrap_or_default())
    }

    /// The events after `from.position`, of the messages from `from.sequence` on; `None` where `expected` is not where it was.
    async fn pages(
        &self,
        session: &Session,
        (history, partition): (HistoryId, Partition),
        from: Place,
        expected: Option<Place>,
        limit: usize,
    ) -> Result<Option<Vec<RecordedEvent>>, BusError> {
        let subject = self.names.subject(history, partition);
        let stream = self.names.stream(partition);
        let (mut found, mut reached, mut sequence) = (Vec::new(), from, from.sequence);
        let mut expected = expected;
        loop {
            let count = limit.saturating_sub(found.len()).saturating_add(1);
            let page = page(
                session,
                &stream,
                &subject,
                sequence,
                count.min(PAGE_MAX_MESSAGES),
            )
            .await
            .map_err(BusError::Unavailable)?;
            if expected.is_some() && page.messages.is_empty() {
                return Ok(None);
            }
            if page.is_nobodys {
                return Err(odd("no server has the stream now"));
            }
            for (place, message) in page.messages {
                let event = decode(&message.payload, place, partition)?;
                let expected = expected.take().filter(|own| own.sequence == place);
                if expected.is_some_and(|own| own.position != event.position) {
                    return Ok(None);
                }
                sequence = place + 1;
                // Should two publishers ever have got between each other, this keeps their events apart.
                if event.position > reached.position && found.len() < limit {
                    reached = Place {
                        position: event.position,
                        sequence: place,
                    };
                    found.push(event);
                }
            }
            if page.is_last || found.len() >= limit {
                break;
            }
        }
        if !found.is_empty() {
            let mut places = lock(&self.places);
            if places.len() >= MAX_PLACES {
                places.clear();
            }
            places.insert((history, partition), reached);
        }
        Ok(Some(found))
    }
}

/// Waits for news of any of the partitions, at most until then; gives those that there are news of.
async fn wait_for_news(
    news: &mut watch::Receiver<Stored>,
    seen: &Stored,
    after: &[(Partition, Position)],
    until: Instant,
) -> Vec<(Partition, Position)> {
    let fresh = |stored: &Stored| {
        let fresh = after
            .iter()
            .filter(|(own, _)| stored.get(own) != seen.get(own));
        fresh.copied().collect::<Vec<_>>()
    };
    loop {
        let found = fresh(&news.borrow_and_update());
        if !found.is_empty() {
            return found;
        }
        match timeout_at(until, news.changed()).await {
            Ok(Ok(())) => {}
            Err(_) => return Vec::new(),
            Ok(Err(_)) => {
                // Nobody listens any more: the connection was lost, or other histories came in between.
                tokio::time::sleep_until(until).await;
                return Vec::new();
            }
        }
    }
}

fn odd(what: &str) -> BusError {
    BusError::unavailable(std::io::Error::other(what.to_owned()))
}
