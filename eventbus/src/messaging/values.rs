//! The several values of a reply, as they come.

use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::SendError;
use super::requester::{Sending, Value};

/// How many values wait at most for who takes them.
pub(super) const MAX_VALUES: usize = 1_024;

/// The values of a reply, in order. To drop it takes the request back where no worker has begun with it.
pub struct Values<Reply> {
    sending: Sending,
    values: mpsc::Receiver<Value>,
    timeout: Duration,
    is_over: bool,
    types: PhantomData<fn() -> Reply>,
}

impl<Reply: DeserializeOwned> Values<Reply> {
    pub(super) fn new(sending: Sending, values: mpsc::Receiver<Value>, timeout: Duration) -> Self {
        Self {
            sending,
            values,
            timeout,
            is_over: false,
            types: PhantomData,
        }
    }

    /// The next value; `None` after the last one, which the handler's end mark tells. After an error there is none.
    ///
    /// Up to 1,024 values wait to be taken; behind them the stream breaks off with [`SendError::TooSlow`].
    pub async fn next(&mut self) -> Option<Result<Reply, SendError>> {
        if self.is_over {
            return None;
        }
        let next = self.take().await;
        if !matches!(next, Some(Ok(_))) {
            self.is_over = true;
        }
        next
    }

    async fn take(&mut self) -> Option<Result<Reply, SendError>> {
        let Ok(value) = timeout(self.timeout, self.values.recv()).await else {
            let after = self.timeout;
            return Some(Err(SendError::TimedOut { after }));
        };
        self.sending.is_answered();
        match value {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(value)) => Some(serde_json::from_str(value.get()).map_err(SendError::Decode)),
        }
    }
}
