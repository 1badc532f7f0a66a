//! Publishing: each message names the one before it, so that NATS turns down what is not the next.

use std::sync::Arc;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, Republish, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures_util::future::join_all;
use tidelog_domain::{Cursor, HistoryId, Partition, Position, RecordedEvent, causes};

use super::connection::Session;
use super::{MAX_AGE, NatsEventBus};
use crate::bus::BusError;
use crate::lock::lock;
use crate::wire;

/// The most events that are sent in one go.
const CHUNK_MAX_EVENTS: usize = 500;

/// The most bytes of events that are sent in one go (a single event may have more), so that a slow line does not run into the
/// response timeout.
const CHUNK_MAX_BYTES: usize = 1024 * 1024;

/// What the headers of a message may take, which count as a part of it.
const HEADER_BYTES: usize = 256;

/// How often it is begun anew in a row because others published meanwhile, or because the stream was gone, without having got any
/// further.
const MAX_ATTEMPTS: usize = 8;

/// An event on the bus: its position in the log, and the place of its message in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) sequence: u64,
}

/// What is known of one partition by who publishes to it.
#[derive(Default)]
pub(super) struct Lane {
    /// Whether its stream was made, or found.
    is_made: bool,
    /// The last message of a history, where it is known for sure to be the last of the whole stream too.
    last: Option<(HistoryId, Place)>,
    /// The last event that did not fit.
    left_out: Option<Position>,
}

/// How far one attempt came.
enum Attempt {
    /// All is there.
    Done,
    /// Others published meanwhile.
    Overtaken,
    /// There is no stream.
    NoStream,
}

/// One message, and the position of its event.
type Outgoing = (Position, Bytes);

impl NatsEventBus {
    pub(super) async fn publish_to(
        &self,
        history: HistoryId,
        partition: Partition,
        mut events: &[RecordedEvent],
    ) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        let session = self
            .connection
            .session()
            .await
            .map_err(BusError::unavailable)?;
        let lane = Arc::clone(lock(&self.lanes).entry(partition).or_default());
        let mut lane = lane.lock().await;
        let mut attempts = 0;
        while attempts < MAX_ATTEMPTS {
            if !lane.is_made {
                self.make_stream(&session, partition).await?;
                lane.is_made = true;
            }
            let before = events.len();
            let attempt = self.attempt(&session, &mut lane, history, partition, &mut events);
            match attempt.await.inspect_err(|_| lane.last = None)? {
                Attempt::Done => return Ok(()),
                Attempt::Overtaken => lane.last = None,
                Attempt::NoStream => *lane = Lane::default(),
            }
            attempts = if events.len() < before {
                0
            } else {
                attempts + 1
            };
        }
        let why = "others publish to it all the time, or its stream comes and goes";
        Err(BusError::unavailable(std::io::Error::other(why)))
    }

    /// Publishes what of `events` is not there yet, and takes away from them what is there.
    async fn attempt(
        &self,
        session: &Session,
        lane: &mut Lane,
        history: HistoryId,
        partition: Partition,
        events: &mut &[RecordedEvent],
    ) -> Result<Attempt, BusError> {
        let subject = self.names.subject(history, partition);
        let known = lane.last.filter(|(of, _)| *of == history);
        // One that was only asked for may not be the last of the stream: other histories are there too.
        let (mut last, mut is_last_of_stream) = match known {
            Some((_, place)) => (place, true),
            None => {
                let found = self.last_stored(session, history, partition).await?;
                (found.map(|(place, _)| place).unwrap_or_default(), false)
            }
        };
        loop {
            let new = events.partition_point(|event| event.position <= last.position);
            *events = events.get(new..).unwrap_or_default();
            let count = if is_last_of_stream {
                CHUNK_MAX_EVENTS
            } else {
                1
            };
            let (messages, left) = self.chunk(session, lane, events, count);
            if messages.is_empty() {
                *events = left;
                if left.is_empty() {
                    return Ok(Attempt::Done);
                }
                continue;
            }
            let (reached, failed) = send(session, &subject, last, messages).await;
            if let Some(reached) = reached {
                (last, is_last_of_stream) = (reached, true);
                lane.last = Some((history, last));
            }
            match failed.map(|error| (error.kind(), error)) {
                None => *events = left,
                Some((PublishErrorKind::WrongLastSequence, _)) => return Ok(Attempt::Overtaken),
                Some((PublishErrorKind::StreamNotFound, _)) => return Ok(Attempt::NoStream),
                Some((_, error)) => return Err(bus_error(error)),
            }
        }
    }

    /// The messages of as many of `events` as go at once, at most `count`, and the events that are left.
    fn chunk<'e>(
        &self,
        session: &Session,
        lane: &mut Lane,
        mut events: &'e [RecordedEvent],
        count: usize,
    ) -> (Vec<Outgoing>, &'e [RecordedEvent]) {
        let max_payload = session.client.max_payload().saturating_sub(HEADER_BYTES);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some((event, rest)) = events.split_first() {
            if messages.len() == count || bytes > CHUNK_MAX_BYTES {
                break;
            }
            events = rest;
            let why = match wire::encode(&self.app, event) {
                Ok(body) if body.len() <= max_payload => {
                    bytes += body.len();
                    messages.push((event.position, Bytes::from(body)));
                    continue;
                }
                Ok(body) => format!(
                    "it has {} bytes, and the server's max_payload leaves {max_payload}",
                    body.len()
                ),
                Err(error) => causes(&error),
            };
            // A hole, which consumers fill from the log. Holding all later ones back for it would be worse.
            if lane.left_out < Some(event.position) {
                lane.left_out = Some(event.position);
                tracing::error!(
                    partition = %event.partition, position = %event.position, error = why,
                    "an event cannot be put on the bus; consumers read it from the log"
                );
            }
        }
        (messages, events)
    }

    /// The last message of `history`, and the event in it; asked of the stream's leader.
    pub(super) async fn last_stored(
        &self,
        session: &Session,
        history: HistoryId,
        partition: Partition,
    ) -> Result<Option<(Place, Cursor)>, BusError> {
        let stream = self.names.stream(partition);
        let stream = session.jetstream.get_stream_no_info(stream).await;
        let subject = self.names.subject(history, partition);
        let stream = stream.map_err(BusError::unavailable)?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => {
                let event = decode(&message.payload, message.sequence, partition)?;
                let place = Place {
                    position: event.position,
                    sequence: message.sequence,
                };
                Ok(Some((place, event.cursor())))
            }
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(own)
                    if own.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(BusError::unavailable(error)),
            },
        }
    }

    /// Makes the stream of `partition`, or sees to it that it is as the settings have it.
    async fn make_stream(&self, session: &Session, partition: Partition) -> Result<(), BusError> {
        let config = self.config(partition);
        let Err(error) = session.jetstream.create_stream(&config).await else {
            return Ok(());
        };
        let is_there = matches!(error.kind(), CreateStreamErrorKind::JetStream(own)
            if own.error_code() == ErrorCode::STREAM_NAME_EXIST);
        if !is_there {
            return Err(stream_error(error));
        }
        let updated = session.jetstream.update_stream(&config).await;
        updated.map(|_| ()).map_err(stream_error)
    }

    fn config(&self, partition: Partition) -> Config {
        let subjects = self.names.subjects(partition);
        let max_bytes = self
            .keep_bytes
            .map_or(-1, |share| i64::try_from(share).unwrap_or(i64::MAX));
        Config {
            name: self.names.stream(partition),
            description: Some("a tail of the log of tidelog".to_owned()),
            republish: Some(Republish {
                source: subjects.clone(),
                destination: self.names.repeated(partition),
                headers_only: true,
            }),
            subjects: vec![subjects],
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_messages: i64::try_from(self.keep).unwrap_or(i64::MAX),
            max_bytes,
            max_age: MAX_AGE,
            num_replicas: self.connection.place().replicas,
            allow_direct: true,
            ..Config::default()
        }
    }
}

/// Sends all `messages` at once, each on condition that the one before it is the last of its subject, and waits for the answers. Gives
/// how far it came, and the first failure.
async fn send(
    session: &Session,
    subject: &str,
    last: Place,
    messages: Vec<Outgoing>,
) -> (Option<Place>, Option<PublishError>) {
    let (mut positions, mut awaited) = (Vec::new(), Vec::new());
    for ((position, body), expected) in messages.into_iter().zip(last.sequence..) {
        let message = PublishMessage::build()
            .payload(body)
            .expected_last_subject_sequence(expected);
        positions.push(position);
        match session
            .jetstream
            .send_publish(subject.to_owned(), message)
            .await
        {
            Ok(acknowledged) => awaited.push(acknowledged.into_future()),
            Err(error) => {
                let (reached, failed) = answers(&positions, join_all(awaited).await);
                return (reached, failed.or(Some(error)));
            }
        }
    }
    answers(&positions, join_all(awaited).await)
}

fn answers(
    positions: &[Position],
    answers: Vec<Result<jetstream::publish::PublishAck, PublishError>>,
) -> (Option<Place>, Option<PublishError>) {
    let mut reached = None;
    for (position, answer) in positions.iter().zip(answers) {
        match answer {
            Ok(acknowledged) => {
                reached = Some(Place {
                    position: *position,
                    sequence: acknowledged.sequence,
                });
            }
            Err(error) => return (reached, Some(error)),
        }
    }
    (reached, None)
}

/// The event in a message.
pub(super) fn decode(
    body: &[u8],
    sequence: u64,
    partition: Partition,
) -> Result<RecordedEvent, BusError> {
    let corrupt = |why: &str| BusError::Corrupt {
        partition,
        what: format!("message {sequence}: {why}"),
    };
    let event = wire::decode(body).map_err(|error| corrupt(&causes(&error)))?;
    if event.partition != partition {
        return Err(corrupt("its event belongs to another partition"));
    }
    Ok(event)
}

/// What an answer to a message means.
fn bus_error(error: PublishError) -> BusError {
    let own = std::error::Error::source(&error);
    let own = own.and_then(|own| own.downcast_ref::<jetstream::Error>());
    if own.is_some_and(|own| is_full(own.error_code())) {
        BusError::Full(Box::new(error))
    } else {
        BusError::unavailable(error)
    }
}

fn stream_error(error: CreateStreamError) -> BusError {
    match error.kind() {
        CreateStreamErrorKind::JetStream(own) if is_full(own.error_code()) => {
            BusError::Full(Box::new(error))
        }
        _ => BusError::unavailable(error),
    }
}

/// Whether an error of JetStream's is that it has no room.
pub(crate) fn is_full(code: ErrorCode) -> bool {
    [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::STREAM_STORE_FAILED,
    ]
    .contains(&code)
}
