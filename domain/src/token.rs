//! The consistency token: what a write hands to the reads that must see it.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::position::{HistoryId, Partition, Partitions, Position};
use crate::tenant::Tenant;

/// The most partition–position pairs that a token may hold: one for each partition of the largest log.
const MAX_POSITIONS: usize = Partitions::MAX as usize;

/// Which positions a read must have seen: opaque to clients, `1.<history>.<partition>-<position>[.…]` to us; where the write was a
/// tenant's, with the [`mark`](Tenant::mark) of that behind the history: `1.<history>.t<mark>.<partition>-<position>[.…]`.
///
/// A token of another history cannot be satisfied: the write that it stands for may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyToken {
    /// The history of the log that the positions belong to.
    pub history: HistoryId,
    /// The last position written, for each partition written to.
    pub positions: Vec<(Partition, Position)>,
    /// The [`mark`](Tenant::mark) of the tenant whose write it was.
    pub tenant: Option<u64>,
}

impl ConsistencyToken {
    /// Whether it is of a write of `tenant`, or of one of no tenant where that is `None`.
    #[must_use]
    pub fn is_of(&self, tenant: Option<&Tenant>) -> bool {
        self.tenant == tenant.map(Tenant::mark)
    }
}

/// A text that is no consistency token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a consistency token: send back, unchanged, what a write answered")]
pub struct InvalidToken;

impl fmt::Display for ConsistencyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.history)?;
        if let Some(mark) = self.tenant {
            write!(f, ".t{mark:016x}")?;
        }
        self.positions
            .iter()
            .try_for_each(|(partition, position)| write!(f, ".{partition}-{position}"))
    }
}

impl FromStr for ConsistencyToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.split('.');
        if parts.next() != Some("1") {
            return Err(InvalidToken);
        }
        let history = parts
            .next()
            .and_then(|id| Uuid::try_parse(id).ok())
            .ok_or(InvalidToken)?;
        let mut parts = parts.peekable();
        let mark = parts.next_if(|part| part.starts_with('t'));
        let tenant = mark
            .map(|mark| read_mark(mark).ok_or(InvalidToken))
            .transpose()?;
        let positions = parts
            .map(pair)
            .collect::<Option<Vec<_>>>()
            .ok_or(InvalidToken)?;
        if positions.is_empty() || positions.len() > MAX_POSITIONS {
            return Err(InvalidToken);
        }
        Ok(Self {
            history: HistoryId::new(history),
            positions,
            tenant,
        })
    }
}

/// Reads `t<mark>`, as it is written.
fn read_mark(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('t').filter(|digits| digits.len() == 16)?;
    let are_hex = digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    are_hex.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Reads `<partition>-<position>`.
fn pair(text: &str) -> Option<(Partition, Position)> {
    let (partition, position) = text.split_once('-')?;
    Some((
        Partition::new(partition.parse().ok()?),
        Position::new(position.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let token = ConsistencyToken {
            history: HistoryId::new(Uuid::from_u128(5)),
            positions: vec![
                (Partition::new(3), Position::new(17)),
                (Partition::new(4), Position::new(1)),
            ],
            tenant: None,
        };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        let acme = Tenant::new("acme").unwrap();
        let of_acme = ConsistencyToken {
            tenant: Some(acme.mark()),
            ..token.clone()
        };
        assert_eq!(of_acme.to_string().parse(), Ok(of_acme.clone()));
        assert!(of_acme.is_of(Some(&acme)) && !of_acme.is_of(None));
        assert!(token.is_of(None) && !token.is_of(Some(&acme)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "1",
            "1.x",
            "2.00000000000000000000000000000005.1-1",
            "1.00000000000000000000000000000005",
            "1.00000000000000000000000000000005.1",
            "1.00000000000000000000000000000005.70000-1",
            "1.00000000000000000000000000000005.t.1-1",
            "1.00000000000000000000000000000005.t00000000000000a.1-1",
            "1.00000000000000000000000000000005.t+0000000000000a0.1-1",
            "1.00000000000000000000000000000005.t00000000000000A0.1-1",
            "1.00000000000000000000000000000005.t00000000000000a0",
            "1.00000000000000000000000000000005.1-1.t00000000000000a0",
        ] {
            assert_eq!(
                text.parse::<ConsistencyToken>(),
                Err(InvalidToken),
                "{text}"
            );
        }
        let many = format!(
            "1.00000000000000000000000000000005{}",
            ".1-1".repeat(MAX_POSITIONS + 1)
        );
        assert_eq!(many.parse::<ConsistencyToken>(), Err(InvalidToken));
    }
}
