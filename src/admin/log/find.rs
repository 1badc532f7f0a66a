//! One event, found by whatever names it.

use chrono::{DateTime, TimeDelta, Utc};
use tidelog_command::store::EventStore;
use tidelog_domain::{
    ConsistencyToken, EventId, Partition, Position, RecordedEvent, StreamId, Version,
};
use tidelog_eventbus::{EventQuery, Start};
use tidelog_http::{Problem, ProblemKind};
use uuid::Uuid;

use super::problem;
use super::search::{Page, Search};

/// How far from the time in its id an event is looked for first: clocks differ, and a command may be tried for long.
const AROUND: TimeDelta = TimeDelta::minutes(10);

/// What names an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Its id.
    Id(EventId),
    /// Its place in its stream: `category/id@version`.
    Version(StreamId, Version),
    /// Its place in the log: `partition:position`.
    Position(Partition, Position),
}

/// What a search for one event came to.
pub(super) enum Outcome {
    /// It is there.
    Event(Box<RecordedEvent>),
    /// There is none.
    None,
    /// Not in the part that was looked at.
    NotYet(Page),
}

impl Name {
    /// Reads it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = Uuid::try_parse(text) {
            return Some(Self::Id(EventId::new(id)));
        }
        if let Some((stream, version)) = text.rsplit_once('@') {
            let stream = StreamId::parse(stream).ok()?;
            return Some(Self::Version(stream, Version::new(number(version)?)));
        }
        let (partition, position) = text.split_once(':')?;
        let partition = Partition::new(partition.parse().ok()?);
        Some(Self::Position(partition, Position::new(number(position)?)))
    }

    /// Looks for it in `log`; by its id from where `after` says.
    ///
    /// # Errors
    ///
    /// A [`Problem`].
    pub(super) async fn find(
        &self,
        log: &dyn EventStore,
        after: Option<ConsistencyToken>,
    ) -> Result<Outcome, Problem> {
        match self {
            Self::Id(id) => by_id(log, *id, after).await,
            Self::Version(stream, version) => {
                let before = Version::new(version.number() - 1);
                let read = log.read_stream(stream, before, 1).await.map_err(problem)?;
                Ok(one(read, |event| event.version == *version))
            }
            Self::Position(partition, position) => {
                let identity = log.identity().await.map_err(problem)?;
                if partition.number() >= identity.partitions.count() {
                    return Ok(Outcome::None);
                }
                let all = EventQuery::default();
                let found = log.search(*partition, *position..=*position, &all, true, 1);
                let found = found.await.map_err(problem)?;
                if let Some((_, why)) = found.unreadable.first() {
                    let detail = format!("The event cannot be understood: {why}.");
                    return Err(Problem::new(ProblemKind::Internal, detail));
                }
                Ok(one(found.events, |_| true))
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

fn one(events: Vec<RecordedEvent>, is_it: impl Fn(&RecordedEvent) -> bool) -> Outcome {
    let mut events = events.into_iter().filter(is_it);
    events
        .next()
        .map_or(Outcome::None, |event| Outcome::Event(Box::new(event)))
}

/// Looks around the time that is in the id, then through the whole log from its end.
async fn by_id(
    log: &dyn EventStore,
    id: EventId,
    after: Option<ConsistencyToken>,
) -> Result<Outcome, Problem> {
    let whole = Search {
        wanted: EventQuery {
            event_id: Some(id),
            ..EventQuery::default()
        },
        newest_first: true,
        limit: 1,
        ..Search::default()
    };
    if let (Some(made), None) = (made(id), &after) {
        let near = Search {
            since: Some(Start::Time(made - AROUND)),
            until: Some(made + AROUND),
            ..whole.clone()
        };
        let found = near.run(log).await?;
        if let Some(event) = found.events.into_iter().next() {
            return Ok(Outcome::Event(Box::new(event)));
        }
    }
    let mut page = Search { after, ..whole }.run(log).await?;
    match page.events.pop() {
        Some(event) => Ok(Outcome::Event(Box::new(event))),
        None if page.more => Ok(Outcome::NotYet(page)),
        None => Ok(Outcome::None),
    }
}

/// When an id was made, if it says so (a UUIDv7 does).
fn made(id: EventId) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.uuid().get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_in_three_ways() {
        let id = Uuid::now_v7();
        let named = Name::parse(&id.to_string());
        assert_eq!(named, Some(Name::Id(EventId::new(id))));
        let stream = StreamId::parse("post/7f3a").unwrap();
        let version = Some(Name::Version(stream, Version::new(3)));
        assert_eq!(Name::parse("post/7f3a@3"), version);
        let position = Some(Name::Position(Partition::new(12), Position::new(9)));
        assert_eq!(Name::parse("12:9"), position);
        for no_name in [
            "",
            "post/7f3a",
            "post/7f3a@0",
            "post@1",
            "12:0",
            "x:1",
            "12:",
            "70000:1",
        ] {
            assert_eq!(Name::parse(no_name), None, "{no_name}");
        }
    }
}
