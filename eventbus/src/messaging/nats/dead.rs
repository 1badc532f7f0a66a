//! Dead letters.

use std::borrow::Cow;
use std::time::Duration;

use async_nats::header::{
    HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID, NATS_ROLLUP, NATS_TIME_STAMP,
};
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::json;

use super::link::{Failed, Link, entry_id, milliseconds, sequence};
use crate::messaging::bus::{DeadEntry, EntryId};
use crate::messaging::names::{Channel, Group};
use crate::nats::paging::page;
use crate::nats::place::RESPONSE_TIMEOUT;

/// The header of a message that is for one group alone.
pub(super) const GROUP: &str = "Tidelog-Group";

/// The headers of a dead letter: why, as a text of JSON, and after how many tries.
const ERROR: &str = "Tidelog-Error";
const ATTEMPTS: &str = "Tidelog-Attempts";

/// What a dead letter says that has no room for its error.
const LOST_ERROR: &str = "it is in the worker's log";

/// How many dead letters are asked for at once.
const PAGE_MAX: usize = 500;

/// How often, and after which wait, it is asked again where nobody answers for a stream that is there.
const MAX_ASKED_AGAIN: u32 = 20;
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// For how long it is remembered which tries of a message do not count: 7 days.
const TRIES_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Link {
    /// Makes a dead letter of a message, unless it is one.
    pub(super) async fn bury(
        &self,
        subject: String,
        body: Bytes,
        error: &str,
        attempts: u32,
    ) -> Result<(), Failed> {
        let bury = async |error: &str| {
            let mut headers = HeaderMap::new();
            // As JSON it has no line breaks.
            headers.insert(ERROR, serde_json::to_string(error)?);
            headers.insert(ATTEMPTS, attempts.to_string());
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
            self.record(subject.clone(), headers, body.clone()).await
        };
        let buried = match bury(error).await {
            Err(Failed::TooLarge { .. }) => bury(LOST_ERROR).await,
            buried => buried,
        };
        match buried {
            Err(failed) if failed.is_overtaken() => Ok(()),
            buried => buried,
        }
    }

    /// Remembers how many deliveries of a message do not count.
    pub(super) async fn uncount(&self, subject: String, deliveries: u32) -> Result<(), Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        headers.insert("Nats-TTL", format!("{}s", TRIES_TTL.as_secs()));
        let body = deliveries.to_string().into();
        self.record(subject, headers, body).await
    }

    /// Stores a message in the stream of dead letters, which is made by its first.
    async fn record(&self, subject: String, headers: HeaderMap, body: Bytes) -> Result<(), Failed> {
        let store = || {
            self.store(
                subject.clone(),
                Some(headers.clone()),
                body.clone(),
                RESPONSE_TIMEOUT,
            )
        };
        let stored = match store().await {
            Err(Failed::NoStream) => {
                self.make_records().await?;
                store().await
            }
            stored => stored,
        };
        stored.map(drop)
    }

    pub(super) async fn list_dead(
        &self,
        group: &Group,
        channel: &Channel,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<DeadEntry>, Failed> {
        let session = self.session().await?;
        let (stream, subjects) = (self.names.records(), self.names.dead(group, "*", channel));
        let mut from = after.and_then(|after| sequence(after)).unwrap_or(0) + 1;
        let (mut found, mut asked_again) = (Vec::new(), 0);
        while found.len() < limit {
            let count = (limit - found.len()).min(PAGE_MAX);
            let page = page(&session, &stream, &subjects, from, count).await;
            let page = page.map_err(Failed::Other)?;
            if page.is_nobodys && self.is_kept(&stream).await? {
                if asked_again == MAX_ASKED_AGAIN {
                    let why = "no server has the stream of dead letters now";
                    return Err(Failed::other(std::io::Error::other(why)));
                }
                // It is being made, or goes to another server.
                asked_again += 1;
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            for (place, message) in page.messages {
                from = place + 1;
                let headers = message.headers.unwrap_or_default();
                found.push(dead(place, message.payload, &headers));
            }
            if page.is_last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Whether there is such a stream.
    async fn is_kept(&self, stream: &str) -> Result<bool, Failed> {
        let what = format!("STREAM.MSG.GET.{stream}");
        let asked = self
            .call::<IgnoredAny>(&what, &json!({ "last_by_subj": ">" }))
            .await;
        match asked {
            Err(Failed::Api(error)) => {
                Ok(error.error_code() != async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND)
            }
            asked => asked.map(|_| true),
        }
    }

    pub(super) async fn retry_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, Failed> {
        let Some(letter) = self.letter(group, channel, entry).await? else {
            return Ok(false);
        };
        // Of all who do this with the letter as it is now, one gets through.
        let subject = letter.subject.to_string();
        let mut headers = HeaderMap::new();
        for name in [ERROR, ATTEMPTS] {
            if let Some(value) = letter.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(NATS_ROLLUP, "sub");
        let expected = letter.sequence.to_string();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected);
        let (body, timeout) = (letter.payload, RESPONSE_TIMEOUT);
        let taken = self.store(subject.clone(), Some(headers), body.clone(), timeout);
        let taken = match taken.await {
            Err(failed) if failed.is_overtaken() => return Ok(false),
            taken => taken?.sequence,
        };
        let is_first = self.put_back(group, channel, &subject, body).await?;
        self.delete(&self.names.records(), taken).await?;
        Ok(is_first)
    }

    /// Puts a message on its channel for one group; whether it was not put there a moment ago.
    async fn put_back(
        &self,
        group: &Group,
        channel: &Channel,
        id: &str,
        body: Bytes,
    ) -> Result<bool, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(GROUP, group.as_str());
        headers.insert(NATS_MESSAGE_ID, id);
        let put = || {
            let subject = self.names.subject(channel);
            self.store(
                subject,
                Some(headers.clone()),
                body.clone(),
                RESPONSE_TIMEOUT,
            )
        };
        let put = match put().await {
            Err(Failed::NoStream) => {
                self.is_lost(channel);
                self.make_stream(channel).await?;
                put().await?
            }
            put => put?,
        };
        Ok(!put.duplicate)
    }

    pub(super) async fn discard_dead(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<bool, Failed> {
        match self.letter(group, channel, entry).await? {
            None => Ok(false),
            Some(letter) => self.delete(&self.names.records(), letter.sequence).await,
        }
    }

    /// A dead letter of the group about the channel.
    async fn letter(
        &self,
        group: &Group,
        channel: &Channel,
        entry: &EntryId,
    ) -> Result<Option<StreamMessage>, Failed> {
        let Some(sequence) = sequence(entry) else {
            return Ok(None);
        };
        let message = self.message(&self.names.records(), sequence).await?;
        Ok(message.filter(|message| {
            let all = self.names.dead(group, "*", channel);
            let parts = all.split_once('*');
            let middle = parts.and_then(|(before, after)| {
                let rest = message.subject.strip_prefix(before)?;
                rest.strip_suffix(after)
            });
            let is_of_number = |byte: u8| byte.is_ascii_digit() || byte == b'-';
            middle.is_some_and(|middle| middle.bytes().all(is_of_number))
        }))
    }
}

fn dead(place: u64, body: Bytes, headers: &HeaderMap) -> DeadEntry {
    let value = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    let error = value(ERROR).unwrap_or_default();
    let read: Result<Cow<'_, str>, _> = serde_json::from_str(error);
    DeadEntry {
        entry: entry_id(place),
        body: body.as_ref().into(),
        error: read.map_or_else(|_| error.to_owned(), Cow::into_owned),
        attempts: value(ATTEMPTS)
            .and_then(|attempts| attempts.parse().ok())
            .unwrap_or_default(),
        since_ms: headers
            .get(NATS_TIME_STAMP)
            .and_then(|time| milliseconds(time.as_str()))
            .unwrap_or_default(),
    }
}
