//! What is set aside.

use tidelog_domain::{Cursor, Partition, Position, RecordedEvent};

use super::{OperationError, Operations, Stored};
use crate::parking::ParkedSequence;

/// A sequence that is set aside, with the event that it waits at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParkedEvent {
    /// Where.
    pub partition: Partition,
    /// The sequence.
    pub parked: ParkedSequence,
    /// The first event that waits; `None` where the log has none there. (While a sequence is being tried again, it may be one of
    /// another sequence.)
    pub event: Option<RecordedEvent>,
}

impl Operations {
    /// The sequences that are set aside, by partition and name.
    ///
    /// # Errors
    ///
    /// [`OperationError::States`].
    pub async fn parked(&self) -> Result<Vec<(Partition, ParkedSequence)>, OperationError> {
        let stored = self.all().await?;
        let parked = stored.iter().flat_map(
            |Stored {
                 partition, record, ..
             }| {
                let parked = record.parked.iter().cloned();
                parked.map(|parked| (*partition, parked))
            },
        );
        Ok(parked.collect())
    }

    /// One sequence that is set aside, in each partition where it is.
    ///
    /// # Errors
    ///
    /// [`OperationError::NotParked`], [`OperationError::States`], [`OperationError::Log`].
    pub async fn show(&self, sequence: &str) -> Result<Vec<ParkedEvent>, OperationError> {
        let mut shown = Vec::new();
        for Stored {
            partition, record, ..
        } in self.all().await?
        {
            if let Some(parked) = record.parked.get(sequence).cloned() {
                let event = self.event_at(partition, parked.first).await?;
                shown.push(ParkedEvent {
                    partition,
                    parked,
                    event,
                });
            }
        }
        if shown.is_empty() {
            let sequence = sequence.to_owned();
            return Err(OperationError::NotParked { sequence });
        }
        Ok(shown)
    }

    async fn event_at(
        &self,
        partition: Partition,
        position: Position,
    ) -> Result<Option<RecordedEvent>, OperationError> {
        let cursor = Cursor {
            position: Position::new(position.number().saturating_sub(1)),
            event_id: None,
        };
        let read = self.log.read(partition, cursor, 1).await?;
        Ok(read.into_iter().next())
    }
}
