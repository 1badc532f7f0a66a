//! State records as rows have them: pure, and the same for both databases.

use tidelog_domain::Partition;
use tidelog_eventbus::StateRecord;

use super::failure::Failure;

/// A record, where it is, and its revision.
pub(crate) type StoredState = (Partition, u64, StateRecord);

/// The record that a row has.
///
/// # Errors
///
/// [`Failure::Corrupt`] when it cannot be one.
pub(crate) fn stored(partition: u16, revision: u64, record: &[u8]) -> Result<StoredState, Failure> {
    let record = serde_json::from_slice(record)
        .map_err(|error| Failure::Corrupt(format!("that of partition {partition}: {error}")))?;
    Ok((Partition::new(partition), revision, record))
}

/// The bytes that a row keeps of `record`.
///
/// # Errors
///
/// [`Failure::Corrupt`] when it cannot be JSON.
pub(crate) fn bytes(record: &StateRecord) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(record).map_err(|error| Failure::Corrupt(error.to_string()))
}
