//! The connection to NATS: made when it is needed, asked who it leads to, thrown away when it is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::timeout;

use super::news::News;
use super::place::{CONNECT_TIMEOUT, Place, RESPONSE_TIMEOUT};
use super::server::NatsConnectError;
use crate::lock::lock;

/// How many acknowledgements may be awaited at a time, those included that nobody waits for any more.
const MAX_UNACKNOWLEDGED: usize = 8_192;

/// How many connections this program made.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// One time that a program was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    session: u64,
    connects: u64,
}

/// A connection, and what lives as long as it does.
pub(crate) struct Session {
    /// Which one of the program's it is.
    number: u64,
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    pub(crate) news: News,
}

impl Session {
    /// How often it was connected. What was sent, and followed by something that was answered, has arrived if this has not changed meanwhile:
    /// the client connects again by itself, and what its old connection had not carried yet is lost.
    pub(crate) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Which time this is that it is connected.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch {
            session: self.number,
            connects: self.connects(),
        }
    }
}

type Connecting = Shared<BoxFuture<'static, Result<Arc<Session>, NatsConnectError>>>;

/// The connection of one bus.
pub(crate) struct Connection {
    place: Arc<Place>,
    /// Whoever comes while it is being made waits for the same one.
    current: Mutex<Option<Connecting>>,
}

impl Connection {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place: Arc::new(place),
            current: Mutex::default(),
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The connection; a new one where there is none, or where it was lost.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, NatsConnectError> {
        let connecting = self.connecting();
        match connecting.clone().await {
            Ok(session) if session.client.connection_state() == State::Connected => Ok(session),
            Ok(_) => {
                self.forget(&connecting);
                let connecting = self.connecting();
                let again = connecting.clone().await;
                again.inspect_err(|_| self.forget(&connecting))
            }
            Err(error) => {
                self.forget(&connecting);
                Err(error)
            }
        }
    }

    fn connecting(&self) -> Connecting {
        let mut current = lock(&self.current);
        let connecting =
            current.get_or_insert_with(|| connect(Arc::clone(&self.place)).boxed().shared());
        connecting.clone()
    }

    /// Throws the connection away, if it still is this one.
    fn forget(&self, failed: &Connecting) {
        lock(&self.current).take_if(|current| current.ptr_eq(failed));
    }
}

async fn connect(place: Arc<Place>) -> Result<Arc<Session>, NatsConnectError> {
    // Each server has its time, and one more is for finding them.
    let count = u32::try_from(place.servers.len()).unwrap_or(u32::MAX);
    let bound = CONNECT_TIMEOUT.saturating_mul(count.saturating_add(1));
    let connecting = place.options.clone().connect(place.servers.clone());
    let client = timeout(bound.min(Duration::from_secs(60)), connecting).await;
    let client = client.map_err(|_| NatsConnectError::timed_out())?;
    let client = client.map_err(NatsConnectError::of)?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(RESPONSE_TIMEOUT)
        .ack_timeout(RESPONSE_TIMEOUT)
        .max_ack_inflight(MAX_UNACKNOWLEDGED)
        .build(client.clone());
    Ok(Arc::new(Session {
        number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        news: News::new(client.clone()),
        client,
        jetstream,
    }))
}
