//! One event: what is in it, and what else happened because of the same request.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;
use tidelog_domain::StreamId;
use uuid::Uuid;

use super::asking::Asker;
use super::chain::{Picture, Step};
use super::events::LogEvent;
use super::layout::Shell;
use super::parameters::Parameters;
use super::text::{Moment, encoded, json as pretty, number, segment};
use super::{Page, Refusal, Shared, Site, html};
use crate::admin::log::Chain;
use crate::subscriptions::ParkedEntry;

const HERE: &str = "/admin/events";

#[derive(Template)]
#[template(path = "event.html")]
struct One {
    shell: Shell,
    event: LogEvent,
    at: Moment,
    payload: String,
    metadata: Option<String>,
    waits: Vec<Waits>,
    chain: Option<Pictured>,
}

/// A sequence that is set aside and holds up an event.
pub(super) struct Waits {
    pub(super) subscription: String,
    pub(super) sequence: String,
    pub(super) href: String,
}

/// The chain as the page has it.
struct Pictured {
    correlation_id: String,
    picture: Picture,
    label: String,
    more: bool,
}

/// The event was not found yet.
#[derive(Template)]
#[template(path = "event_not_yet.html")]
struct NotYet {
    shell: Shell,
    looked_at: String,
    href: String,
}

/// What the API says of an event.
#[derive(Deserialize)]
struct Said {
    event: LogEvent,
    chain: Option<Chain>,
}

impl Waits {
    /// What holds up the event of `stream` at this place, among all that is `parked`.
    pub(super) fn of(
        parked: &[ParkedEntry],
        stream: &str,
        partition: u16,
        place: u64,
    ) -> Vec<Self> {
        let id = StreamId::parse(stream).map(|stream| stream.document_id());
        let id = id.as_deref().unwrap_or(stream);
        let is_it = |own: &&ParkedEntry| {
            let is_of_it = own.sequence == stream || own.sequence == id;
            let waits = own.first == place || (is_of_it && (own.first..=own.last).contains(&place));
            own.partition == partition && waits
        };
        let waits = parked.iter().filter(is_it).map(|own| Self {
            subscription: own.subscription.clone(),
            sequence: own.sequence.clone(),
            href: format!(
                "/admin/parked/{}?{}",
                segment(&own.subscription),
                encoded([("sequence", own.sequence.as_str())])
            ),
        });
        waits.collect()
    }
}

impl Pictured {
    fn of(chain: &Chain, here: Uuid) -> Self {
        let picture = Picture::of(chain, here);
        let events = super::text::counted(picture.events as u64, "event", "events");
        let commands = super::text::counted(
            (picture.boxes.len() - picture.events) as u64,
            "command",
            "commands",
        );
        Self {
            correlation_id: chain.correlation_id.clone(),
            label: format!("{events} of {commands}, each caused by what is to the left of it"),
            picture,
            more: chain.more,
        }
    }
}

impl Site {
    /// All that is set aside.
    pub(super) async fn parked(&self, asker: &Asker) -> Result<Vec<ParkedEntry>, Refusal> {
        self.read(asker, &["parked"], &[]).await
    }
}

pub(super) async fn page(
    State(site): Shared,
    asker: Asker,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Page {
    let mut asked = vec![("payload", "true")];
    asked.extend(parameters.get("after").map(|after| ("after", after)));
    let answer = match site.try_answer(&asker, &["events", &name], &asked).await? {
        Ok(answer) => answer,
        Err(problem) => return not_yet(&site, &asker, &name, &problem),
    };
    let said: Said = super::asking::data(answer)?;
    let Said { event, chain } = said;
    let parked = site.parked(&asker).await?;
    let place = event.position.parse().unwrap_or_default();
    let here = Uuid::try_parse(&event.id).unwrap_or_default();
    html(&One {
        shell: site.shell(&event.event_type, HERE, Some(&asker.principal)),
        at: Moment::of(event.time),
        payload: event.data.as_ref().map(pretty).unwrap_or_default(),
        metadata: event.metadata.clone(),
        waits: Waits::of(&parked, &event.stream, event.partition, place),
        chain: chain.map(|chain| Pictured::of(&chain, here)),
        event,
    })
}

/// The log is large: it was looked at a part of it, and goes on when somebody says so.
fn not_yet(site: &Site, asker: &Asker, name: &str, problem: &Value) -> Page {
    let Some(next) = problem.get("next").and_then(Value::as_str) else {
        return Err(Refusal::again(problem));
    };
    let looked_at = problem.get("looked_at").and_then(Value::as_u64);
    html(&NotYet {
        shell: site.shell("Event", HERE, Some(&asker.principal)),
        looked_at: number(looked_at.unwrap_or_default()),
        href: format!("{HERE}/{}?{}", segment(name), encoded([("after", next)])),
    })
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_held_up_by_the_sequence_that_waits_at_it_or_before_it() {
        let since: DateTime<Utc> = DateTime::UNIX_EPOCH;
        let parked = json!([
            {"subscription": "post", "partition": 3, "sequence": "a", "state": "parked", "first": 5, "last": 9, "attempts": 1, "error": "", "since": since},
            {"subscription": "authors", "partition": 3, "sequence": "ann", "state": "parked", "first": 7, "last": 9, "attempts": 1, "error": "", "since": since},
        ]);
        let parked: Vec<ParkedEntry> = serde_json::from_value(parked).unwrap();
        let of = |stream: &str, partition, place| {
            let waits = Waits::of(&parked, stream, partition, place);
            waits.into_iter().map(|own| own.href).collect::<Vec<_>>()
        };
        let own = "/admin/parked/post?sequence=a";
        assert_eq!(of("post/a", 3, 5), [own]);
        assert_eq!(
            of("post/a", 3, 7),
            [own, "/admin/parked/authors?sequence=ann"]
        );
        for (stream, partition, place) in [
            ("post/a", 3, 4),
            ("post/a", 3, 10),
            ("post/a", 2, 5),
            ("post/b", 3, 6),
        ] {
            assert!(
                of(stream, partition, place).is_empty(),
                "{stream} {partition} {place}"
            );
        }
    }
}
