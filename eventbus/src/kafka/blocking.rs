//! What waits for librdkafka, beside the asynchronous work.

use crate::bus::BusError;

/// Runs `work`, which may wait, on a thread that nothing else needs.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(BusError::unavailable)?
}

/// A client, whose end waits for its threads and its last answers: on a thread of its own.
pub(super) struct Client<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Client<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }

    /// The client: there is one until the end.
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: Send + 'static> Drop for Client<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        elsewhere(move || drop(client));
    }
}

/// Does `work` on a thread of its own, which nobody waits for.
fn elsewhere(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name("kafka-end".to_owned());
    // Without a thread it is done here, and whoever asks for it waits.
    drop(thread.spawn(work));
}
