//! The gate: the one rule by which a consumer takes events from a bus that may lose and repeat.

use tidelog_domain::Position;

/// What to do with an event that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It is the next one: apply it.
    Apply,
    /// It was applied before: skip it.
    Skip,
    /// Something is missing before it: read the log.
    ReadLog,
}

/// Whether a consumer that has applied everything up to `cursor` takes the event at `position`.
///
/// Only the very next position is applied. (A gate of `position > cursor` loses events when the bus has a
/// hole.) Filters come after the gate: an event that nobody wants still moves the cursor.
#[must_use]
pub fn gate(cursor: Position, position: Position) -> Gate {
    if position <= cursor {
        Gate::Skip
    } else if position == cursor.next() {
        Gate::Apply
    } else {
        Gate::ReadLog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_position_is_applied() {
        let at = |position| gate(Position::new(5), Position::new(position));
        assert_eq!(
            [at(4), at(5), at(6), at(7)],
            [Gate::Skip, Gate::Skip, Gate::Apply, Gate::ReadLog]
        );
    }
}
