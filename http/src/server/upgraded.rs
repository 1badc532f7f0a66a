//! What a connection goes on as, once it speaks HTTP no more.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

/// Where a handler leaves what its connection is to go on with after a 101. It is among the extensions of each request that asks for an upgrade.
///
/// What it leaves is run in the task of the connection: so it keeps the connection's place, and ends when the connection is cut.
#[derive(Clone, Default)]
pub(crate) struct Upgraded(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Upgraded {
    /// The connection goes on with `rest`.
    pub(crate) fn go_on(&self, rest: impl Future<Output = ()> + Send + 'static) {
        // Nothing panics while it is held.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(rest));
    }

    /// What it goes on with, if with anything.
    pub(super) fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
