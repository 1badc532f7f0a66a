//! A log that is opened beside the rest, so that queries are answered also while it is away.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tidelog_domain::{Cursor, Partition, Position, RecordedEvent, StreamId, Version};
use tidelog_eventbus::{LogError, LogIdentity, LogReader, StreamReader};

/// A log that may not be open yet: until then it is unavailable. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub struct AwaitedLog(Arc<OnceLock<Arc<dyn StreamReader>>>);

impl AwaitedLog {
    /// Reads from `log` from now on. A second one is not taken.
    pub fn opened(&self, log: Arc<dyn StreamReader>) {
        let _ = self.0.set(log);
    }

    fn log(&self) -> Result<&Arc<dyn StreamReader>, LogError> {
        let log = self.0.get();
        log.ok_or_else(|| LogError::Unavailable("it has not been opened yet".into()))
    }
}

#[async_trait]
impl LogReader for AwaitedLog {
    async fn identity(&self) -> Result<LogIdentity, LogError> {
        self.log()?.identity().await
    }

    async fn heads(&self) -> Result<Vec<Position>, LogError> {
        self.log()?.heads().await
    }

    async fn read(
        &self,
        partition: Partition,
        cursor: Cursor,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.log()?.read(partition, cursor, limit).await
    }
}

#[async_trait]
impl StreamReader for AwaitedLog {
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, LogError> {
        self.log()?.read_stream(stream, after, limit).await
    }
}
