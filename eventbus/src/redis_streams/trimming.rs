//! What a stream is trimmed to.

use std::collections::HashMap;
use std::sync::Mutex;

use redis::Value;
use tidelog_domain::{Partition, Partitions};

use crate::lock::lock;

/// How often a stream's size is asked for: whenever so large a part of what it may have was published to it.
const ASK_AFTER: u64 = 8;

/// How far below its bound a stream is trimmed, as a part of it, so that the next event does not put it above.
const ROOM: u64 = 8;

/// The bounds of the streams.
pub(super) struct Trimming {
    /// How many entries a stream keeps. Redis trims by whole blocks of up to 100, so there may be so many more.
    pub(super) max_events: usize,
    /// How many bytes a stream may take.
    max_bytes: Option<u64>,
    /// How many bytes were published to each partition since its size was asked for. Missing: it was never asked for, or
    /// it was too large to the last.
    published: Mutex<HashMap<Partition, u64>>,
}

/// How large a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    entries: u64,
    bytes: u64,
}

impl Trimming {
    pub(super) fn new(max_events: usize) -> Self {
        Self {
            max_events,
            max_bytes: None,
            published: Mutex::default(),
        }
    }

    /// Bounds the streams of all `partitions`, together, to `bytes`: each to an equal share.
    pub(super) fn bound_bytes(&mut self, bytes: u64, partitions: Partitions) {
        self.max_bytes = Some((bytes / u64::from(partitions.count())).max(1));
    }

    /// Whether the size of `partition` is to be asked for, now that so many bytes more were published to it.
    pub(super) fn is_due(&self, partition: Partition, bytes: u64) -> bool {
        let Some(max_bytes) = self.max_bytes else {
            return false;
        };
        match lock(&self.published).get_mut(&partition) {
            None => true,
            Some(published) => {
                *published += bytes;
                *published >= max_bytes / ASK_AFTER
            }
        }
    }

    /// How many entries a stream of this size is to keep; `None` when it is within its bound.
    pub(super) fn keep(&self, size: Size) -> Option<u64> {
        let max_bytes = self.max_bytes?;
        if size.bytes <= max_bytes || size.entries <= 1 {
            return None;
        }
        let wanted = u128::from(max_bytes - max_bytes / ROOM);
        let keep = u128::from(size.entries) * wanted / u128::from(size.bytes);
        Some(u64::try_from(keep).unwrap_or(u64::MAX).max(1))
    }

    /// `partition` is within its bound.
    pub(super) fn is_within(&self, partition: Partition) {
        lock(&self.published).insert(partition, 0);
    }

    /// `partition` is above its bound still: the next publish goes on trimming.
    pub(super) fn is_above(&self, partition: Partition) {
        lock(&self.published).remove(&partition);
    }
}

/// Asks how large the stream `key` is: every block of it is counted, none is read.
pub(super) fn ask_size(key: &str) -> redis::Pipeline {
    let mut commands = redis::Pipeline::new();
    commands.cmd("XLEN").arg(key);
    commands.cmd("MEMORY").arg("USAGE").arg(key);
    commands.arg("SAMPLES").arg(0);
    commands
}

/// The answers to [`ask_size`]; `None` for a stream that is not there.
pub(super) fn size(answers: &[Value]) -> Option<Size> {
    match answers {
        [Value::Int(entries), Value::Int(bytes)] => Some(Size {
            entries: u64::try_from(*entries).ok()?,
            bytes: u64::try_from(*bytes).ok()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P0: Partition = Partition::new(0);

    fn bounded(bytes: u64, partitions: u16) -> Trimming {
        let mut trimming = Trimming::new(100_000);
        trimming.bound_bytes(bytes, Partitions::new(partitions).unwrap());
        trimming
    }

    #[test]
    fn a_size_is_asked_for_at_first_and_then_after_each_eighth() {
        let trimming = bounded(3_200, 4);
        assert!(trimming.is_due(P0, 1), "at first");
        trimming.is_within(P0);
        assert!(!trimming.is_due(P0, 99));
        assert!(trimming.is_due(P0, 1), "an eighth of 800");
        trimming.is_within(P0);
        assert!(!trimming.is_due(P0, 50));
        trimming.is_above(P0);
        assert!(trimming.is_due(P0, 1), "it was too large");
        assert!(!Trimming::new(7).is_due(P0, u64::MAX), "no bound");
    }

    #[test]
    fn what_is_too_large_is_cut_to_below_its_bound() {
        let trimming = bounded(3_200, 4);
        let size = |entries, bytes| Size { entries, bytes };
        assert_eq!(trimming.keep(size(100, 800)), None);
        assert_eq!(trimming.keep(size(100, 1_600)), Some(43));
        assert_eq!(trimming.keep(size(3, 1_000_000)), Some(1));
        assert_eq!(
            trimming.keep(size(1, 1_000_000)),
            None,
            "the last one stays"
        );
    }
}
