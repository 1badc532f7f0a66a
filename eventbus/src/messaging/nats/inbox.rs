//! An inbox for replies: a subscription of NATS itself, which nothing is stored for.
//!
//! A reply in a stream would outlive its requester, and would be written to disk to be read once. A subscription ends with its connection, and
//! what is sent to a subject that nobody listens to is nowhere. What that gives up: a reply that comes while its requester's connection is
//! broken is lost, and its caller has a time-out, as if it had come too late.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use super::link::{Failed, Link};
use crate::messaging::bus::Inbox;
use crate::messaging::error::MessageBusError;
use crate::nats::connection::Session;
use crate::nats::place::RESPONSE_TIMEOUT;

/// How long is waited for replies in one go, and how many are given at most.
const WAIT: Duration = Duration::from_secs(1);
const MAX_AT_ONCE: usize = 500;

pub(super) struct NatsInbox {
    link: Arc<Link>,
    address: String,
    listening: Mutex<Option<(Arc<Session>, Subscriber)>>,
}

impl NatsInbox {
    pub(super) async fn open(link: Arc<Link>) -> Result<Self, Failed> {
        let inbox = Self {
            address: link.names.inbox(Uuid::now_v7()),
            listening: Mutex::default(),
            link,
        };
        inbox.listen(&mut *inbox.listening.lock().await).await?;
        Ok(inbox)
    }

    /// Listens on the connection that there is.
    async fn listen(&self, to: &mut Option<(Arc<Session>, Subscriber)>) -> Result<(), Failed> {
        let session = self.link.session().await?;
        if to
            .as_ref()
            .is_some_and(|(own, _)| Arc::ptr_eq(own, &session))
        {
            return Ok(());
        }
        let subscriber = session.client.subscribe(self.address.clone()).await;
        *to = Some((session, subscriber.map_err(Failed::other)?));
        Ok(())
    }
}

#[async_trait]
impl Inbox for NatsInbox {
    fn address(&self) -> &str {
        &self.address
    }

    async fn next(&self) -> Result<Vec<Vec<u8>>, MessageBusError> {
        let mut listening = self.listening.lock().await;
        // What has come goes before what will: a connection that is lost may have brought some.
        let mut replies = come(&mut listening);
        if !replies.is_empty() {
            return Ok(replies);
        }
        self.listen(&mut listening).await?;
        let Some((_, subscriber)) = &mut *listening else {
            return Ok(replies);
        };
        match timeout(WAIT, subscriber.next()).await {
            Err(_) => {}
            Ok(Some(message)) => {
                replies.push(message.payload.to_vec());
                replies.extend(come(&mut listening));
            }
            // The connection is lost: the next call makes another.
            Ok(None) => *listening = None,
        }
        Ok(replies)
    }

    async fn close(&self) -> Result<(), MessageBusError> {
        if let Some((_, mut subscriber)) = self.listening.lock().await.take() {
            let gone = subscriber.unsubscribe().await;
            gone.map_err(MessageBusError::unavailable)?;
        }
        Ok(())
    }
}

/// The replies that are here already, or some of them.
fn come(listening: &mut Option<(Arc<Session>, Subscriber)>) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    while let Some((_, subscriber)) = listening
        && replies.len() < MAX_AT_ONCE
    {
        match subscriber.next().now_or_never() {
            Some(Some(message)) => replies.push(message.payload.to_vec()),
            Some(None) => *listening = None,
            None => break,
        }
    }
    replies
}

/// Sends replies to an inbox, in order; whether somebody listens there.
///
/// NATS says at once when nobody does, to whom a message says that its answer goes to. What is sent to that same place after the replies
/// comes after all that NATS says about them.
pub(super) async fn answer(
    link: &Link,
    address: &str,
    replies: &[Vec<u8>],
) -> Result<bool, Failed> {
    let session = link.session().await?;
    let (client, connects) = (&session.client, session.connects());
    let here = client.new_inbox();
    let subscribed = client.subscribe(here.clone()).await;
    let mut said = subscribed.map_err(Failed::other)?;
    for reply in replies {
        let reply = Bytes::copy_from_slice(reply);
        let to = address.to_owned();
        let sent = client.publish_with_reply(to, here.clone(), reply).await;
        sent.map_err(Failed::other)?;
    }
    let sent = client.publish(here, Bytes::new()).await;
    sent.map_err(Failed::other)?;
    let heard = async {
        let mut is_there = true;
        while let Some(message) = said.next().await {
            match message.status {
                None => return Ok(is_there),
                Some(StatusCode::NO_RESPONDERS) => is_there = false,
                Some(_) => {}
            }
        }
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    };
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let heard = timeout(RESPONSE_TIMEOUT, heard).await.map_err(late);
    // Dropping it would do, too, but not for sure.
    let _gone = said.unsubscribe().await;
    let is_there = heard.flatten().map_err(Failed::other)?;
    match session.connects() == connects {
        true => Ok(is_there),
        false => Err(Failed::Interrupted),
    }
}
