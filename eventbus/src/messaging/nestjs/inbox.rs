//! An inbox for replies: the one response stream, read from where its end was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::RESPONSES;
use super::form::NestForm;
use crate::lock::lock;
use crate::messaging::bus::{EntryId, Inbox};
use crate::messaging::error::MessageBusError;
use crate::messaging::redis::answers::{array, fields, order, streams};
use crate::messaging::redis::pace::Pace;
use crate::messaging::redis::{Failed, Link};

/// How long a read waits.
const BLOCK_MS: u64 = 1_000;

/// Where a stream begins.
const START: &str = "0-0";

pub(in crate::messaging) struct NestInbox {
    link: Arc<Link>,
    stream: Arc<str>,
    read: Mutex<Progress>,
}

/// How far it was read.
struct Progress {
    last: EntryId,
    pace: Pace,
    /// The last read failed: who knows whether it is the same stream.
    is_broken: bool,
}

impl NestInbox {
    pub(in crate::messaging) async fn open(link: Arc<Link>) -> Result<Self, Failed> {
        let inbox = Self {
            link,
            stream: RESPONSES.into(),
            read: Mutex::new(Progress {
                last: START.into(),
                pace: Pace::default(),
                is_broken: false,
            }),
        };
        lock(&inbox.read).last = inbox.end().await?;
        Ok(inbox)
    }

    /// The last entry that the stream has.
    async fn end(&self) -> Result<EntryId, Failed> {
        let mut xrevrange = redis::cmd("XREVRANGE");
        xrevrange
            .arg(RESPONSES)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1);
        let last = array(self.link.run(&xrevrange).await?).into_iter().next();
        Ok(last.and_then(fields).map_or(START.into(), |(id, _)| id))
    }

    /// Begins anew where the stream was lost, and its ids may be before the last one that was read.
    async fn mend(&self) -> Result<(), Failed> {
        let end = self.end().await?;
        let mut read = lock(&self.read);
        if order(&end) < order(&read.last) {
            read.last = START.into();
        }
        read.is_broken = false;
        Ok(())
    }
}

fn length(field: &Value) -> usize {
    match field {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

#[async_trait]
impl Inbox for NestInbox {
    fn address(&self) -> &str {
        RESPONSES
    }

    async fn next(&self) -> Result<Vec<Vec<u8>>, MessageBusError> {
        if lock(&self.read).is_broken {
            self.mend().await?;
        }
        let (last, count) = {
            let read = lock(&self.read);
            (Arc::clone(&read.last), read.pace.at_once())
        };
        let mut xread = redis::cmd("XREAD");
        xread.arg("COUNT").arg(count);
        xread.arg("BLOCK").arg(BLOCK_MS);
        xread.arg("STREAMS").arg(RESPONSES).arg(&*last);
        let block = Duration::from_millis(BLOCK_MS);
        let answer = self.link.readers.run(&self.stream, &xread, block).await;
        let answer = answer.map_err(|error| {
            let mut read = lock(&self.read);
            read.is_broken = true;
            read.pace.failed();
            MessageBusError::unavailable(error)
        })?;
        let (mut replies, mut count, mut bytes) = (Vec::new(), 0, 0);
        let mut read = lock(&self.read);
        for entry in streams(answer).flat_map(|(_, entries)| entries) {
            if let Some((id, fields)) = fields(entry) {
                // Those for others too.
                count += 1;
                bytes += fields.iter().map(length).sum::<usize>();
                read.last = id;
                replies.extend(NestForm::read_reply(fields));
            }
        }
        read.pace.came(count, bytes);
        drop(read);
        Ok(replies)
    }

    /// Nothing of it is at Redis.
    async fn close(&self) -> Result<(), MessageBusError> {
        Ok(())
    }
}
