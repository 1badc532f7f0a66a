//! An inbox for replies: a stream that expires when its requester is gone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::answers::{array, fields, streams, text};
use super::pace::Pace;
use super::{Failed, Link, MESSAGE};
use crate::lock::lock;
use crate::messaging::bus::{EntryId, Inbox};
use crate::messaging::error::MessageBusError;

/// How long an inbox stays whose requester is gone.
const TTL: Duration = Duration::from_secs(60);

/// How often it is kept alive, and what was read is thrown away.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// After how many replies what was read is thrown away.
const KEEP_AFTER: u32 = 1_000;

/// How long a read waits.
const BLOCK_MS: u64 = 1_000;

pub(super) struct RedisInbox {
    link: Arc<Link>,
    key: Arc<str>,
    read: Mutex<Progress>,
}

/// How far it was read.
struct Progress {
    /// The last reply that was given.
    last: EntryId,
    kept: Instant,
    /// How many replies were given since.
    given: u32,
    pace: Pace,
    /// The last read failed: who knows whether the stream is there still.
    is_broken: bool,
}

impl RedisInbox {
    pub(super) async fn open(link: Arc<Link>, app: &str) -> Result<Self, Failed> {
        let name = Uuid::now_v7().simple();
        let inbox = Self {
            key: format!("{{{app}:replies:{name}}}").into(),
            read: Mutex::new(Progress {
                last: "0-0".into(),
                kept: Instant::now(),
                given: 0,
                pace: Pace::default(),
                is_broken: false,
            }),
            link,
        };
        inbox.make().await?;
        Ok(inbox)
    }

    /// Makes the stream, with an entry that is no reply.
    async fn make(&self) -> Result<(), Failed> {
        let mut commands = redis::pipe();
        commands.atomic();
        commands.cmd("XADD").arg(&*self.key).arg("*");
        commands.arg("inbox").arg("");
        commands.cmd("EXPIRE").arg(&*self.key).arg(TTL.as_secs());
        self.link.run_as_one(&commands).await?;
        Ok(())
    }

    /// Keeps the stream alive, throws away what was given, and makes it anew where it is not there.
    async fn keep(&self) -> Result<(), Failed> {
        let last = {
            let mut read = lock(&self.read);
            read.kept = Instant::now();
            read.given = 0;
            Arc::clone(&read.last)
        };
        let mut commands = Pipeline::with_capacity(2);
        commands.cmd("EXPIRE").arg(&*self.key).arg(TTL.as_secs());
        commands
            .cmd("XTRIM")
            .arg(&*self.key)
            .arg("MINID")
            .arg(&*last);
        let answers = self.link.run_all(&commands).await?;
        if answers.first() == Some(&Value::Int(0)) {
            // What it had is lost, and its ids may begin anew.
            lock(&self.read).last = "0-0".into();
            self.make().await?;
        }
        lock(&self.read).is_broken = false;
        Ok(())
    }

    async fn read(&self) -> Result<Vec<Vec<u8>>, MessageBusError> {
        let (last, count) = {
            let read = lock(&self.read);
            (Arc::clone(&read.last), read.pace.at_once())
        };
        let mut xread = redis::cmd("XREAD");
        xread.arg("COUNT").arg(count);
        xread.arg("BLOCK").arg(BLOCK_MS);
        xread.arg("STREAMS").arg(&*self.key).arg(&*last);
        let block = Duration::from_millis(BLOCK_MS);
        let answer = self.link.readers.run(&self.key, &xread, block).await;
        let answer = answer.map_err(|error| {
            let mut read = lock(&self.read);
            read.is_broken = true;
            read.pace.failed();
            MessageBusError::unavailable(error)
        })?;
        let (mut replies, mut last, mut entries) = (Vec::new(), None, 0);
        for (id, fields) in streams(answer)
            .flat_map(|(_, entries)| entries)
            .filter_map(fields)
        {
            last = Some(id);
            entries += 1;
            replies.extend(messages(fields));
        }
        let mut read = lock(&self.read);
        let bytes = replies.iter().map(Vec::len).sum();
        read.pace.came(entries, bytes);
        if let Some(last) = last {
            read.last = last;
        }
        read.given += u32::try_from(replies.len()).unwrap_or(u32::MAX);
        Ok(replies)
    }
}

/// The replies in an entry, of which it may have several.
fn messages(fields: Vec<Value>) -> impl Iterator<Item = Vec<u8>> {
    let mut fields = fields.into_iter();
    let pairs = std::iter::from_fn(move || Some((fields.next()?, fields.next()?)));
    pairs.filter_map(|pair| match pair {
        (name, Value::BulkString(reply)) if is_message(&text(&name)) => Some(reply),
        _ => None,
    })
}

fn is_message(field: &str) -> bool {
    let number = field.strip_prefix(MESSAGE);
    number.is_some_and(|number| number.is_empty() || number.starts_with(':'))
}

#[async_trait]
impl Inbox for RedisInbox {
    fn address(&self) -> &str {
        &self.key
    }

    async fn next(&self) -> Result<Vec<Vec<u8>>, MessageBusError> {
        let is_due = {
            let read = lock(&self.read);
            read.is_broken || read.given >= KEEP_AFTER || read.kept.elapsed() >= KEEP_INTERVAL
        };
        if is_due {
            self.keep().await?;
        }
        self.read().await
    }

    async fn close(&self) -> Result<(), MessageBusError> {
        let mut del = redis::cmd("DEL");
        del.arg(&*self.key);
        array(self.link.run(&del).await?);
        Ok(())
    }
}
