//! What is recorded under an idempotency key: pure, and the same for all adapters.

use std::collections::HashMap;

use tidelog_domain::{Append, IdempotencyKey, StreamId, Version};

use super::AppendError;
use super::failure::Failure;

/// The scoped part of an [`IdempotencyKey`].
pub(crate) type ScopedKey = [u8; 32];

/// What came of the command that a key was used for first.
///
/// Positions are not among it: they are those of the events at these versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its streams in the order of the append's writes, and the version of each after the command.
    pub streams: Vec<(StreamId, Version)>,
    /// Whether it appended events; else it changed nothing.
    pub appended: bool,
}

/// A row of the table of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) recorded: Recorded,
}

/// What is known of keys.
pub(crate) type Keys = HashMap<ScopedKey, KeyRow>;

impl KeyRow {
    /// What becomes of an append whose key has this row already.
    pub(crate) fn verdict(&self, key: &IdempotencyKey) -> AppendError {
        if self.fingerprint == key.fingerprint {
            AppendError::Replayed(self.recorded.clone())
        } else {
            AppendError::KeyReused
        }
    }

    /// The column `outcome`.
    pub(crate) fn outcome(&self) -> u8 {
        self.recorded.appended.into()
    }

    /// The column `streams`.
    pub(crate) fn streams(&self) -> Vec<u8> {
        let streams = self.recorded.streams.iter();
        let streams: serde_json::Value = streams
            .map(|(stream, version)| serde_json::json!([stream.as_str(), version.number()]))
            .collect();
        streams.to_string().into_bytes()
    }

    /// The row that has these columns.
    pub(crate) fn from_columns(
        fingerprint: &[u8],
        outcome: u8,
        streams: &[u8],
    ) -> Result<Self, Failure> {
        let corrupt =
            || Failure::Corrupt("what is recorded under an idempotency key is damaged".to_owned());
        let streams: Vec<(String, u64)> = serde_json::from_slice(streams).map_err(|_| corrupt())?;
        let streams = streams.into_iter().map(|(stream, version)| {
            let stream = StreamId::parse(&stream).map_err(|_| corrupt())?;
            Ok((stream, Version::new(version)))
        });
        Ok(Self {
            fingerprint: fingerprint.try_into().map_err(|_| corrupt())?,
            recorded: Recorded {
                streams: streams.collect::<Result<_, Failure>>()?,
                appended: outcome != 0,
            },
        })
    }
}

/// The keys that `batch` brings.
pub(crate) fn keys(batch: &[Append]) -> impl Iterator<Item = &IdempotencyKey> {
    batch
        .iter()
        .filter_map(|append| append.key.as_ref().map(|key| &key.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_from_its_columns() {
        let stream = |name: &str| StreamId::parse(name).unwrap();
        let row = KeyRow {
            fingerprint: [7; 32],
            recorded: Recorded {
                streams: vec![
                    (stream("account/b"), Version::new(u64::MAX)),
                    (stream("account/~a.b_c"), Version::NONE),
                ],
                appended: true,
            },
        };
        let back = KeyRow::from_columns(&row.fingerprint, row.outcome(), &row.streams());
        assert_eq!(back.unwrap(), row);
    }

    #[test]
    fn damaged_columns_are_said_to_be() {
        for (fingerprint, streams) in [
            (&[0; 31][..], "[]"),
            (&[0; 32], "["),
            (&[0; 32], r#"[["no-category",1]]"#),
            (&[0; 32], r#"[["a/b",-1]]"#),
        ] {
            let row = KeyRow::from_columns(fingerprint, 1, streams.as_bytes());
            assert!(matches!(row, Err(Failure::Corrupt(_))), "{streams}");
        }
    }
}
