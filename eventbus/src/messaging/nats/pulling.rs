//! How messages come to a consumer: pulls, and what they bring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::consumer::{Lane, NatsConsumer};
use super::dead::GROUP;
use super::link::{Failed, entry_id, nanoseconds};
use super::names::consumer;
use crate::lock::lock;
use crate::messaging::bus::EntryId;
use crate::messaging::holding::{Held, Key};
use crate::nats::connection::{Epoch, Session};

/// How long a pull waits at NATS, at most: what it brings may have been here since it began. When a consumer leaves, it waits for the end of those that are under way.
const PULL_WAIT: Duration = Duration::from_millis(250);

/// After how much longer a pull that was not ended is given up.
const PULL_GRACE: Duration = Duration::from_secs(2);

/// How soon it is pulled again where a pull was refused.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// What NATS' statuses mean of a pull.
const IDLE_HEARTBEAT: u16 = 100;
const CONFLICT: u16 = 409;

/// What is known of a message besides its bytes: what it is settled by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// The subject of what is said about it.
    pub(super) about: Arc<str>,
    /// How often it was delivered, and how many of these do not count.
    pub(super) delivered: u32,
    pub(super) uncounted: u32,
    /// When it was stored: milliseconds since 1970, by NATS' clock.
    pub(super) stored_ms: u64,
    /// The connection that it came by.
    pub(super) epoch: Epoch,
    /// Whether the group had more to come.
    has_more: bool,
}

impl Tag {
    /// Which try this is.
    fn attempt(&self) -> u32 {
        self.delivered.saturating_sub(self.uncounted).max(1)
    }

    /// What its dead letter is told by, and what is remembered of its tries: its number alone may be another message's before it, or after.
    pub(super) fn identity(&self, entry: &EntryId) -> String {
        format!("{entry}-{}", self.stored_ms)
    }

    pub(super) fn stored(&self) -> Duration {
        Duration::from_millis(self.stored_ms)
    }
}

/// The pulls that are under way. They go on when nobody waits for them: what they bring was taken from the group.
pub(super) struct Pulls {
    pub(super) session: Option<Arc<Session>>,
    incoming: SelectAll<BoxStream<'static, (usize, Message)>>,
    lanes: Vec<Pull>,
    /// What was delivered before, and is to be looked up.
    redelivered: VecDeque<Redelivered>,
    /// A group turned out not to be there.
    pub(super) is_lost: bool,
}

struct Pull {
    inbox: String,
    /// How many messages it may bring, and until when it is to be ended.
    under_way: Option<(usize, Instant)>,
    /// When the last one began, and by which connection: what it brought was not here before.
    began: Instant,
    epoch: Epoch,
    /// Whether more was there when its last message was sent.
    has_more: bool,
    /// Not before then.
    next: Instant,
}

struct Redelivered {
    key: Key,
    body: Bytes,
    tag: Tag,
    since: Instant,
}

impl Pulls {
    pub(super) fn new() -> Self {
        Self {
            session: None,
            incoming: SelectAll::new(),
            lanes: Vec::new(),
            redelivered: VecDeque::new(),
            is_lost: false,
        }
    }

    /// Waits for what comes next. `None`: the connection is lost, or there is none.
    pub(super) async fn next(&mut self) -> Option<(usize, Message)> {
        self.incoming.next().await
    }

    fn next_now(&mut self) -> Option<(usize, Message)> {
        // Else it would seem empty to a task that has done much already.
        let next = tokio::task::unconstrained(self.incoming.next());
        next.now_or_never().flatten()
    }

    /// How many messages those under way may bring.
    fn to_come(&self) -> usize {
        let left = self.lanes.iter().filter_map(|lane| lane.under_way);
        left.map(|(left, _)| left).sum()
    }

    /// Whether messages are on their way.
    pub(super) fn bring_more(&self) -> bool {
        let brings = |lane: &Pull| lane.has_more && lane.under_way.is_some();
        self.lanes.iter().any(brings)
    }

    /// When a pull is to be looked at, should nothing come of it.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let at = |lane: &Pull| match lane.under_way {
            Some((_, until)) => Some(until),
            None => (lane.next > now).then_some(lane.next),
        };
        self.lanes.iter().filter_map(at).min()
    }

    /// The connection is lost, and what it was to bring.
    pub(super) fn forget(&mut self) {
        self.session = None;
    }
}

impl NatsConsumer {
    /// Listens on the connection that there is, if it does not yet.
    pub(super) async fn listen(&self, pulls: &mut Pulls) -> Result<(), Failed> {
        let now = Instant::now();
        let is_overdue = |lane: &Pull| lane.under_way.is_some_and(|(_, until)| until < now);
        let is_silent = pulls.lanes.iter().any(is_overdue);
        let session = self.link.session().await?;
        let own = pulls.session.as_ref();
        if own.is_some_and(|own| Arc::ptr_eq(own, &session)) && !is_silent {
            return Ok(());
        }
        let (mut incoming, mut lanes) = (SelectAll::new(), Vec::new());
        for at in 0..self.lanes.len() {
            let inbox = session.client.new_inbox();
            let subscriber = session.client.subscribe(inbox.clone()).await;
            let subscriber = subscriber.map_err(Failed::other)?;
            incoming.push(subscriber.map(move |message| (at, message)).boxed());
            lanes.push(Pull {
                inbox,
                under_way: None,
                began: now,
                epoch: session.epoch(),
                has_more: false,
                next: now,
            });
        }
        self.drain(pulls);
        pulls.session = Some(session);
        pulls.incoming = incoming;
        pulls.lanes = lanes;
        Ok(())
    }

    /// Pulls from every channel that is not pulled from, `limit` messages in all.
    pub(super) async fn pull(&self, pulls: &mut Pulls, limit: usize) -> Result<(), Failed> {
        let Some(session) = pulls.session.clone() else {
            return Ok(());
        };
        let now = Instant::now();
        let free = limit.saturating_sub(pulls.to_come());
        let is_due = |lane: &&mut Pull| lane.under_way.is_none() && lane.next <= now;
        let due = pulls.lanes.iter_mut().zip(&self.lanes);
        let mut due: Vec<_> = due.filter(|(lane, _)| is_due(lane)).collect();
        let each = (free / due.len().max(1)).max(1);
        let wait = PULL_WAIT.min(self.idle / 4);
        for (pull, lane) in &mut due {
            let (stream, group) = (&lane.stream, consumer(&self.group));
            let to = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{group}");
            let request = json!({ "batch": each, "expires": nanoseconds(wait) });
            let request = request.to_string().into();
            let inbox = pull.inbox.clone();
            // Before it is sent: whoever drops this has it under way, or given up in time.
            pull.began = Instant::now();
            pull.epoch = session.epoch();
            pull.under_way = Some((each, pull.began + wait + PULL_GRACE));
            pull.has_more = false;
            let asked = session.client.publish_with_reply(to, inbox, request);
            asked.await.map_err(Failed::other)?;
        }
        Ok(())
    }

    /// Takes in what is here already.
    pub(super) fn drain(&self, pulls: &mut Pulls) {
        while let Some((at, message)) = pulls.next_now() {
            self.arrived(pulls, at, message);
        }
    }

    /// Holds what came, or keeps it to be looked up; or learns that a pull is over.
    pub(super) fn arrived(&self, pulls: &mut Pulls, at: usize, message: Message) {
        let Some(pull) = pulls.lanes.get_mut(at) else {
            return;
        };
        if let Some(status) = message.status {
            if status.as_u16() == IDLE_HEARTBEAT {
                return;
            }
            pull.under_way = None;
            let is_refused = status.as_u16() == CONFLICT || status == StatusCode::NO_RESPONDERS;
            if is_refused {
                pull.next = Instant::now() + REFUSED_WAIT;
                let why = message.description.unwrap_or_default();
                pulls.is_lost |= status == StatusCode::NO_RESPONDERS || why.contains("Deleted");
            }
            return;
        }
        if let Some((left, _)) = &mut pull.under_way {
            *left = left.saturating_sub(1);
            if *left == 0 {
                pull.under_way = None;
            }
        }
        let epoch = pull.epoch;
        let about = message.reply.as_deref();
        let Some((sequence, tag)) = about.and_then(|about| tag(about, epoch)) else {
            return;
        };
        pull.has_more = tag.has_more;
        let since = pull.began;
        let group = message.headers.as_ref().and_then(|own| own.get(GROUP));
        if group.is_some_and(|group| group.as_str() != self.group.as_str()) {
            self.pass_over(pulls, &tag.about);
            return;
        }
        let key = (at, entry_id(sequence));
        if tag.delivered > 1 {
            pulls.redelivered.push_back(Redelivered {
                key,
                body: message.payload,
                tag,
                since,
            });
        } else {
            self.hold(key, &message.payload, tag, since);
        }
    }

    /// Acknowledges what is for another group. Should that be lost, it comes again.
    fn pass_over(&self, pulls: &Pulls, about: &str) {
        if let Some(session) = &pulls.session {
            let (client, about) = (session.client.clone(), about.to_owned());
            tokio::spawn(async move {
                let _again = client.publish(about, Bytes::from_static(b"+ACK")).await;
            });
        }
    }

    /// Holds a message, unless it has gone to others meanwhile. One that its worker is at still is ours once more.
    fn hold(&self, key: Key, body: &[u8], tag: Tag, since: Instant) {
        let mut holding = lock(&self.holding);
        if since.elapsed() >= self.idle {
            return;
        }
        if holding.is_running(&key) {
            let is_same = |held: &Held<Tag>| held.tag.stored_ms == tag.stored_ms;
            // Another message by the same number comes again when its time is up.
            if holding.get(&key).is_some_and(is_same) {
                holding.renew(&key, tag, since);
            }
        } else {
            holding.let_go(&key);
            let attempt = tag.attempt();
            holding.add(key, body.into(), attempt, tag, since);
        }
    }

    /// Looks up what was delivered before: whether it is a dead letter already, and how many of its deliveries do not count.
    pub(super) async fn look_up(&self, pulls: &mut Pulls) -> Result<(), Failed> {
        while let Some(Redelivered {
            key, tag, since, ..
        }) = pulls.redelivered.front()
        {
            let Some(lane) = self.lanes.get(key.0) else {
                pulls.redelivered.pop_front();
                continue;
            };
            if since.elapsed() >= self.idle {
                // It goes to others.
                pulls.redelivered.pop_front();
                continue;
            }
            let (dead, uncounted) = self.known(lane, &tag.identity(&key.1)).await?;
            if dead {
                let session = self.link.session().await?;
                let acknowledged = self.acknowledge(&session, lane, &key.1, &tag.about);
                acknowledged.await?;
            }
            if let Some(mut one) = pulls.redelivered.pop_front()
                && !dead
            {
                one.tag.uncounted = uncounted;
                self.hold(one.key, &one.body, one.tag, one.since);
            }
        }
        Ok(())
    }

    /// Whether there is a dead letter of a message, by its identity, and how many of its deliveries do not count.
    async fn known(&self, lane: &Lane, message: &str) -> Result<(bool, u32), Failed> {
        let (link, group, channel) = (&self.link, &self.group, &lane.channel);
        let records = link.names.records();
        let dead = link.names.dead(group, message, channel);
        let tries = link.names.tries(group, message, channel);
        let (dead, tries) =
            futures_util::try_join!(link.last(&records, &dead), link.last(&records, &tries))?;
        let uncounted = tries.and_then(|tries| {
            let text = std::str::from_utf8(&tries.payload).ok()?;
            text.parse().ok()
        });
        Ok((dead.is_some(), uncounted.unwrap_or(0)))
    }

    /// Waits for the pulls that are under way, and holds what they bring.
    pub(super) async fn finish_pulls(&self, pulls: &mut Pulls) -> Result<(), Failed> {
        let finished = async {
            while pulls.lanes.iter().any(|lane| lane.under_way.is_some()) {
                let Some((at, message)) = pulls.next().await else {
                    break;
                };
                self.arrived(pulls, at, message);
            }
        };
        // What does not come is delivered to others after the idle bound.
        let _late = timeout(PULL_WAIT + PULL_GRACE, finished).await;
        self.look_up(pulls).await
    }
}

/// What the subject says that a message is answered to: `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<…>.<stored>.<pending>`,
/// with a domain and an account before the stream where NATS is set to.
fn tag(about: &str, epoch: Epoch) -> Option<(u64, Tag)> {
    let tokens: Vec<_> = about.split('.').collect();
    let of_message = match tokens.len() {
        9 => tokens.get(4..)?,
        11.. => tokens.get(6..)?,
        _ => return None,
    };
    let number = |at: usize| of_message.get(at)?.parse::<u64>().ok();
    let tag = Tag {
        about: about.into(),
        delivered: u32::try_from(number(0)?).unwrap_or(u32::MAX),
        uncounted: 0,
        stored_ms: number(3)? / 1_000_000,
        epoch,
        has_more: number(4)? > 0,
    };
    Some((number(1)?, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_often_it_was_delivered_and_when_it_was_stored() {
        for about in [
            "$JS.ACK.shop=messages=a.g.3.41.7.1700000000000000000.9",
            "$JS.ACK._.hash.shop=messages=a.g.3.41.7.1700000000000000000.9",
            "$JS.ACK.hub.hash.shop=messages=a.g.3.41.7.1700000000000000000.9.random",
        ] {
            let (sequence, tag) = tag(about, Epoch::default()).unwrap();
            assert_eq!(
                (sequence, tag.delivered, tag.stored_ms),
                (41, 3, 1_700_000_000_000)
            );
        }
        assert_eq!(tag("_INBOX.a", Epoch::default()), None);
    }

    #[test]
    fn a_delivery_that_does_not_count_is_no_attempt() {
        let (_, mut tag) = tag("$JS.ACK.s.g.3.41.7.1.9", Epoch::default()).unwrap();
        assert_eq!(tag.attempt(), 3);
        tag.uncounted = 2;
        assert_eq!(tag.attempt(), 1);
    }
}
