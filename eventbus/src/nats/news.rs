//! What NATS tells of what it has stored.
//!
//! Each stream repeats the headers of what it has stored to a subject (its configuration's `republish`). That is told at most once, and
//! may be lost on the way: who waits for it also looks by himself now and then.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use async_nats::header::NATS_SEQUENCE;
use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures_util::StreamExt;
use tidelog_domain::{HistoryId, Partition};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::lock::lock;

/// How many histories are listened to at once: the one of the log, and those that late readers may still look at.
const MAX_HISTORIES: usize = 4;

/// The last stored message of each partition, by its place in the stream.
pub(super) type Stored = HashMap<Partition, u64>;

/// The news of one connection.
pub(crate) struct News {
    client: Client,
    histories: Mutex<VecDeque<Listener>>,
}

/// Who listens to the news of one history.
struct Listener {
    history: HistoryId,
    stored: watch::Receiver<Stored>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl News {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            histories: Mutex::default(),
        }
    }

    /// What is told of `history`, on the subjects `subject`; what was stored before the first call is not.
    pub(super) async fn of(
        &self,
        history: HistoryId,
        subject: String,
    ) -> Result<watch::Receiver<Stored>, SubscribeError> {
        if let Some(stored) = self.known(history) {
            return Ok(stored);
        }
        let subscriber = self.client.subscribe(subject).await?;
        let mut histories = lock(&self.histories);
        // Another reader may have been quicker.
        if let Some(listener) = histories.iter().find(|own| own.history == history) {
            return Ok(listener.stored.clone());
        }
        let (sender, stored) = watch::channel(Stored::new());
        let task = tokio::spawn(listen(subscriber, sender)).abort_handle();
        histories.truncate(MAX_HISTORIES - 1);
        histories.push_front(Listener {
            history,
            stored: stored.clone(),
            task,
        });
        Ok(stored)
    }

    fn known(&self, history: HistoryId) -> Option<watch::Receiver<Stored>> {
        let histories = lock(&self.histories);
        let listener = histories.iter().find(|own| own.history == history)?;
        Some(listener.stored.clone())
    }
}

async fn listen(mut subscriber: Subscriber, sender: watch::Sender<Stored>) {
    while let Some(message) = subscriber.next().await {
        if let Some((partition, sequence)) = place(&message) {
            sender.send_modify(|stored| {
                stored.insert(partition, sequence);
            });
        }
    }
}

/// What a message tells: of which partition, and the place in its stream.
fn place(message: &Message) -> Option<(Partition, u64)> {
    let (_, partition) = message.subject.rsplit_once('.')?;
    let sequence = message.headers.as_ref()?.get(NATS_SEQUENCE)?;
    Some((
        Partition::new(partition.parse().ok()?),
        sequence.as_str().parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_the_subject_and_a_header() {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(NATS_SEQUENCE, "41");
        let message = |subject: &str| Message {
            subject: subject.into(),
            reply: None,
            payload: "".into(),
            headers: Some(headers.clone()),
            status: None,
            description: None,
            length: 0,
        };
        assert_eq!(
            place(&message("app.stored.0.7")),
            Some((Partition::new(7), 41))
        );
        assert_eq!(place(&message("app.stored.0.x")), None);
    }
}
