//! Whose turn it is to put something on a channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::lock::lock;
use crate::messaging::names::Channel;

/// The turns of the channels that somebody sends to.
///
/// Who has it is on the way to the server: it connects, and hands over what it sends. It does not wait for what becomes of that with it: so
/// several batches are under way at once, and are stored in the order in which they were begun.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Channel, Weak<AsyncMutex<()>>>>);

impl Turns {
    /// Waits for those who came before; `None` where that takes longer than `patience`.
    pub(super) async fn take(
        &self,
        channel: &Channel,
        patience: Duration,
    ) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut all = lock(&self.0);
            let known = all.get(channel).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                all.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                all.insert(channel.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        timeout(patience, turn.lock_owned()).await.ok()
    }
}
