//! A search over all partitions, in the order of time, for as long as it is worth it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tidelog_command::store::{EventStore, ReadFrom, StreamRead};
use tidelog_domain::{
    ConsistencyToken, HistoryId, Partition, Position, RecordedEvent, StreamId, Version,
};
use tidelog_eventbus::{EventQuery, LogError, LogSearch, Start};
use tidelog_http::Problem;

use super::{history_changed, problem, start_problem, store_problem};

/// How much one search looks at; the next one goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// So many events: a million.
    max_looked_at: u64,
    /// For so long: 2 s.
    max_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_looked_at: 1_000_000,
            max_time: Duration::from_secs(2),
        }
    }
}

impl Bounds {
    /// Whether there is some left of it.
    fn allow(self, looked_at: u64, begun: Instant) -> bool {
        looked_at < self.max_looked_at && begun.elapsed() < self.max_time
    }
}

/// How many events of a stream are read at once.
const STREAM_PAGE: usize = 50;

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// Which events.
    pub(crate) wanted: EventQuery,
    /// Only of this stream.
    pub(crate) stream: Option<StreamId>,
    /// Only events recorded then or later.
    pub(crate) since: Option<Start>,
    /// Only events recorded before.
    pub(crate) until: Option<DateTime<Utc>>,
    /// What an earlier page gave as `next`.
    pub(crate) after: Option<ConsistencyToken>,
    /// The newest come first, else the oldest.
    pub(crate) newest_first: bool,
    /// How many at most, from 1.
    pub(crate) limit: usize,
    /// How much is looked at for them.
    pub(crate) bounds: Bounds,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// The events, in the order of their times.
    pub(crate) events: Vec<RecordedEvent>,
    /// The rows that cannot be understood, and might have been wanted: where, and why.
    pub(crate) unreadable: Vec<(Partition, Position, String)>,
    /// How many events were looked at.
    pub(crate) looked_at: u64,
    /// All that is wanted was found up to this time; `None` where nothing is left to look at.
    pub(crate) looked_to: Option<DateTime<Utc>>,
    /// Where the next page goes on.
    pub(crate) next: ConsistencyToken,
    /// Whether there is something left to look at now.
    pub(crate) more: bool,
}

impl Search {
    /// Looks into `log`.
    ///
    /// # Errors
    ///
    /// A [`Problem`]: the log cannot be read, or has another history than `after`.
    pub(crate) async fn run(&self, log: &dyn EventStore) -> Result<Page, Problem> {
        let identity = log.identity().await.map_err(problem)?;
        if let Some(after) = &self.after
            && after.history != identity.history
        {
            return Err(history_changed());
        }
        let positions = match &self.stream {
            Some(stream) => {
                let partition = stream.partition(identity.partitions);
                return self
                    .of_stream(log, identity.history, partition, stream)
                    .await;
            }
            None => self.lanes(log, identity.history).await?,
        };
        let mut merge = Merge {
            search: self,
            lanes: positions,
            unreadable: Vec::new(),
            looked_at: 0,
            begun: Instant::now(),
        };
        let events = merge.run(log).await.map_err(problem)?;
        Ok(merge.page(events, identity.history))
    }

    /// What is to be looked at of each partition.
    async fn lanes(&self, log: &dyn EventStore, history: HistoryId) -> Result<Vec<Lane>, Problem> {
        let heads = log.heads().await.map_err(problem)?;
        let at = async |start: &Start| {
            let cursors = start.cursors(log, history).await.map_err(start_problem)?;
            Ok::<_, Problem>(cursors.into_iter().map(|cursor| cursor.position.number()))
        };
        let mut lanes: Vec<Lane> = (0..)
            .map(Partition::new)
            .zip(&heads)
            .map(Lane::new)
            .collect();
        if let Some(since) = &self.since {
            for (lane, before) in lanes.iter_mut().zip(at(since).await?) {
                lane.first = before + 1;
            }
        }
        if let Some(until) = self.until {
            for (lane, last) in lanes.iter_mut().zip(at(&Start::Time(until)).await?) {
                lane.last = lane.last.min(last);
            }
        }
        for (partition, position) in self.after.iter().flat_map(|after| &after.positions) {
            let Some(lane) = lanes.get_mut(partition.index()) else {
                continue;
            };
            let position = position.number();
            if self.newest_first {
                lane.last = lane.last.min(position.saturating_sub(1));
            } else {
                lane.first = lane.first.max(position.saturating_add(1));
            }
        }
        Ok(lanes)
    }

    /// Whether an event that was read is wanted.
    fn fits(&self, event: &RecordedEvent) -> bool {
        let since = match &self.since {
            Some(Start::Time(since)) => event.recorded_at >= *since,
            _ => true,
        };
        since && self.until.is_none_or(|until| event.recorded_at < until) && self.wanted.fits(event)
    }

    /// Looks into one stream, which needs no search. Its cursor has the version in the place of the position.
    async fn of_stream(
        &self,
        log: &dyn EventStore,
        history: HistoryId,
        partition: Partition,
        stream: &StreamId,
    ) -> Result<Page, Problem> {
        let last = last_version(log, stream).await?;
        let (mut first, mut last) = (1, last.number());
        let named = |after: &ConsistencyToken| after.positions.first().map(|(_, at)| at.number());
        match self.after.as_ref().and_then(named) {
            Some(version) if self.newest_first => last = last.min(version.saturating_sub(1)),
            Some(version) => first = version.saturating_add(1),
            None if self.since == Some(Start::Now) => first = last + 1,
            None => {}
        }
        let (mut events, mut looked_at, mut looked_to) = (Vec::new(), 0, None);
        let begun = Instant::now();
        while first <= last
            && events.len() < self.limit
            && (looked_at == 0 || self.bounds.allow(looked_at, begun))
        {
            let page = stream_page(log, stream, (first, last), self.newest_first).await?;
            if page.is_empty() {
                break;
            }
            for event in page {
                looked_at += 1;
                looked_to = Some(event.recorded_at);
                if self.newest_first {
                    last = event.version.number() - 1;
                } else {
                    first = event.version.number() + 1;
                }
                if self.fits(&event) {
                    events.push(event);
                }
                if events.len() == self.limit {
                    break;
                }
            }
        }
        let at = if self.newest_first {
            last + 1
        } else {
            first - 1
        };
        let more = first <= last;
        Ok(Page {
            events,
            unreadable: Vec::new(),
            looked_at,
            looked_to: looked_to.filter(|_| more),
            next: ConsistencyToken {
                history,
                positions: vec![(partition, Position::new(at))],
                tenant: None,
            },
            more,
        })
    }
}

/// The version of the last event of `stream`; [`Version::NONE`] where there is none.
///
/// # Errors
///
/// A [`Problem`].
pub(super) async fn last_version(
    log: &dyn EventStore,
    stream: &StreamId,
) -> Result<Version, Problem> {
    let read = StreamRead {
        stream: stream.clone(),
        from: ReadFrom::Last,
    };
    let pages = log.read_streams(&[read], 1).await.map_err(store_problem)?;
    let last = pages.first().and_then(|page| page.events.last());
    Ok(last.map_or(Version::NONE, |last| last.version))
}

/// The first events of the versions `first..=last` of a stream, or the last ones, in the order asked for.
async fn stream_page(
    log: &dyn EventStore,
    stream: &StreamId,
    (first, last): (u64, u64),
    newest_first: bool,
) -> Result<Vec<RecordedEvent>, Problem> {
    let count = u64::try_from(STREAM_PAGE).unwrap_or(u64::MAX);
    if !newest_first {
        let read = log.read_stream(stream, Version::new(first - 1), STREAM_PAGE);
        let mut page = read.await.map_err(problem)?;
        page.retain(|event| event.version.number() <= last);
        return Ok(page);
    }
    // A page of large events may be short, and it is the end of the stream that is wanted.
    let mut after = last.saturating_sub(count).max(first - 1);
    let mut page = Vec::new();
    while after < last {
        let wanted = usize::try_from(last - after).unwrap_or(STREAM_PAGE);
        let read = log.read_stream(stream, Version::new(after), wanted).await;
        let read = read.map_err(problem)?;
        let Some(end) = read.last() else { break };
        after = end.version.number();
        page.extend(read);
    }
    page.reverse();
    Ok(page)
}

/// What is left to look at of a partition, and what was found there and not given yet.
#[derive(Debug)]
struct Lane {
    partition: Partition,
    first: u64,
    last: u64,
    hits: VecDeque<RecordedEvent>,
    /// When the last event was recorded that was looked at; nothing that is left is on the near side of it.
    reached: Option<DateTime<Utc>>,
}

impl Lane {
    fn new((partition, head): (Partition, &Position)) -> Self {
        Self {
            partition,
            first: 1,
            last: head.number(),
            hits: VecDeque::new(),
            reached: None,
        }
    }

    /// Whether it may have more to find.
    const fn is_open(&self) -> bool {
        self.first <= self.last
    }

    /// Where the next page goes on.
    fn cursor(&self, newest_first: bool) -> Position {
        let pending = self.hits.front().map(|event| event.position.number());
        Position::new(if newest_first {
            pending.unwrap_or(self.last) + 1
        } else {
            pending.unwrap_or(self.first).saturating_sub(1)
        })
    }
}

/// Several partitions, of which the events are given in the order of time.
struct Merge<'s> {
    search: &'s Search,
    lanes: Vec<Lane>,
    unreadable: Vec<(Partition, Position, String)>,
    looked_at: u64,
    begun: Instant,
}

impl Merge<'_> {
    async fn run(&mut self, log: &dyn LogSearch) -> Result<Vec<RecordedEvent>, LogError> {
        let mut events = Vec::new();
        while events.len() < self.search.limit {
            let (next, behind) = (self.next_hit(), self.behind());
            match (next, behind) {
                (Some(lane), None) => events.extend(self.take(lane)),
                (Some(lane), Some(behind)) if self.is_before(lane, behind) => {
                    events.extend(self.take(lane));
                }
                (_, Some(behind)) if self.may_look(behind) => {
                    let limit = self.search.limit - events.len();
                    self.look(log, behind, limit).await?;
                }
                _ => break,
            }
        }
        Ok(events)
    }

    /// The lane whose next hit comes first.
    fn next_hit(&self) -> Option<usize> {
        let fronts = self.lanes.iter().enumerate();
        let fronts = fronts.filter_map(|(at, lane)| Some((at, lane.hits.front()?.recorded_at)));
        self.first_of(fronts)
    }

    /// The lane that was looked at least far, of those whose next hit is not known.
    fn behind(&self) -> Option<usize> {
        let open = self.lanes.iter().enumerate();
        let mut open = open.filter(|(_, lane)| lane.is_open() && lane.hits.is_empty());
        let new = open.clone().find(|(_, lane)| lane.reached.is_none());
        if let Some((at, _)) = new {
            return Some(at);
        }
        let reached = open.by_ref();
        self.first_of(reached.filter_map(|(at, lane)| Some((at, lane.reached?))))
    }

    fn first_of(&self, times: impl Iterator<Item = (usize, DateTime<Utc>)>) -> Option<usize> {
        let first = if self.search.newest_first {
            // Of several the first one.
            times.reduce(|a, b| if b.1 > a.1 { b } else { a })
        } else {
            times.reduce(|a, b| if b.1 < a.1 { b } else { a })
        };
        first.map(|(at, _)| at)
    }

    /// Whether the next hit of `lane` comes before all that may be found in `behind`.
    fn is_before(&self, lane: usize, behind: usize) -> bool {
        let hit = self.lanes.get(lane).and_then(|lane| lane.hits.front());
        let reached = self.lanes.get(behind).and_then(|lane| lane.reached);
        match (hit, reached) {
            (Some(hit), Some(reached)) if self.search.newest_first => hit.recorded_at >= reached,
            (Some(hit), Some(reached)) => hit.recorded_at <= reached,
            _ => false,
        }
    }

    /// Whether there is time left. Each partition is looked at once in any case, so that a page always gets further.
    fn may_look(&self, lane: usize) -> bool {
        let is_new = |lane: &Lane| lane.reached.is_none();
        self.lanes.get(lane).is_some_and(is_new)
            || self.search.bounds.allow(self.looked_at, self.begun)
    }

    fn take(&mut self, lane: usize) -> Option<RecordedEvent> {
        self.lanes.get_mut(lane)?.hits.pop_front()
    }

    /// Looks at the next part of a lane.
    async fn look(
        &mut self,
        log: &dyn LogSearch,
        lane: usize,
        limit: usize,
    ) -> Result<(), LogError> {
        let newest_first = self.search.newest_first;
        let Some(lane) = self.lanes.get_mut(lane) else {
            return Ok(());
        };
        let range = Position::new(lane.first)..=Position::new(lane.last);
        let wanted = &self.search.wanted;
        let found = log.search(lane.partition, range, wanted, newest_first, limit);
        let found = found.await?;
        let before = lane.last - lane.first;
        let looked_to = found.looked_to.number().clamp(lane.first, lane.last);
        if newest_first {
            lane.last = looked_to - 1;
        } else {
            lane.first = looked_to + 1;
        }
        let left = (lane.last + 1).saturating_sub(lane.first);
        self.looked_at += (before + 1).saturating_sub(left);
        let last = found.events.last();
        let last = last.filter(|last| last.position == found.looked_to);
        let reached = last.map(|last| last.recorded_at);
        let rows = found.unreadable.into_iter();
        self.unreadable
            .extend(rows.map(|(position, why)| (lane.partition, position, why)));
        lane.hits.extend(found.events);
        lane.reached = match reached {
            Some(reached) => Some(reached),
            None => time_at(log, lane.partition, found.looked_to)
                .await?
                .or(lane.reached),
        };
        Ok(())
    }

    fn page(self, events: Vec<RecordedEvent>, history: HistoryId) -> Page {
        let newest_first = self.search.newest_first;
        let is_left = |lane: &Lane| lane.is_open() || !lane.hits.is_empty();
        let more = self.lanes.iter().any(is_left);
        let limit_reached = events.len() >= self.search.limit;
        let open = self.lanes.iter().filter(|lane| lane.is_open());
        let reached = open.filter_map(|lane| lane.reached);
        let reached = if newest_first {
            reached.max()
        } else {
            reached.min()
        };
        let looked_to = match events.last() {
            Some(last) if limit_reached => Some(last.recorded_at),
            _ => reached,
        };
        let cursor = |lane: &Lane| (lane.partition, lane.cursor(newest_first));
        Page {
            next: ConsistencyToken {
                history,
                positions: self.lanes.iter().map(cursor).collect(),
                tenant: None,
            },
            looked_to: looked_to.filter(|_| more),
            events,
            unreadable: self.unreadable,
            looked_at: self.looked_at,
            more,
        }
    }
}

/// When the event at `position` was recorded, if that can be told.
async fn time_at(
    log: &dyn LogSearch,
    partition: Partition,
    position: Position,
) -> Result<Option<DateTime<Utc>>, LogError> {
    let all = EventQuery::default();
    let found = log.search(partition, position..=position, &all, true, 1);
    Ok(found.await?.events.first().map(|event| event.recorded_at))
}

#[cfg(test)]
mod tests;
