//! Snapshots of an aggregate's state: what they look like, and which of them still fit.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::aggregate::Aggregate;
use crate::decider::{Lifecycle, State};
use crate::event::Payload;
use crate::json::meaning;
use crate::upcasting::Upcasters;

/// How states become snapshots, and snapshots states.
///
/// A snapshot is a cache, never truth: one with another fingerprint, or that cannot be read, is left alone, and the events
/// are read.
pub trait Snapshots: Send + Sync {
    /// Changes whenever the same events would give another state, or a state would be written differently. From 1 to 64
    /// bytes of ASCII.
    fn fingerprint(&self) -> &str;

    /// The state as a snapshot.
    ///
    /// # Errors
    ///
    /// [`NoSnapshot`].
    fn freeze(&self, state: &State) -> Result<Payload, NoSnapshot>;

    /// The state that [`Snapshots::freeze`] was given.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn thaw(&self, frozen: &Payload) -> Result<State, serde_json::Error>;
}

/// Why there can be no snapshot of a state. Its events are read instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoSnapshot {
    /// It cannot be written as JSON, or not be read from it.
    #[error("the state cannot be written as JSON and read again")]
    Json(#[from] serde_json::Error),
    /// It is another when it comes back: `serde` leaves a field out, say.
    #[error("the state does not come back from its JSON as it was")]
    Changed,
}

/// What an aggregate's snapshots depend on: its version, the shape of its state, its events and their upcasters.
pub(crate) fn fingerprint<A: Aggregate>(upcasters: &Upcasters) -> String {
    let shape = A::stored_schema().map_or_else(
        || outline(&serde_json::to_value(A::default()).unwrap_or_default()),
        |schema| meaning(&schema).to_string(),
    );
    let text = format!("{}\n{}\n{shape}", A::NAME, A::STATE_VERSION);
    let hash = twox_hash::XxHash64::oneshot(0, text.as_bytes());
    format!("{hash:016x}{}", upcasters.fingerprint())
}

/// The names of a value's fields, and what kind each is.
fn outline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "list".to_owned(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name:?}:{}", outline(value));
            let mut fields: Vec<_> = fields.iter().map(field).collect();
            fields.sort_unstable();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// What a snapshot is made of.
#[derive(Serialize, Deserialize)]
struct Frozen<A> {
    ended: bool,
    state: A,
}

pub(crate) fn freeze<A: Aggregate>(state: &State) -> Result<Payload, NoSnapshot> {
    let initial = A::default();
    let aggregate = state.get::<A>().unwrap_or(&initial);
    let frozen = Payload::of(&Frozen {
        ended: state.lifecycle() == Lifecycle::Ended,
        state: aggregate,
    })?;
    let thawed: Frozen<A> = frozen.decode()?;
    if thawed.state == *aggregate {
        Ok(frozen)
    } else {
        Err(NoSnapshot::Changed)
    }
}

pub(crate) fn thaw<A: Aggregate>(frozen: &Payload) -> Result<State, serde_json::Error> {
    let Frozen { ended, state } = frozen.decode::<Frozen<A>>()?;
    let lifecycle = if ended {
        Lifecycle::Ended
    } else {
        Lifecycle::Live
    };
    Ok(State::new(lifecycle, state))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outline_changes_with_names_and_kinds_and_not_with_values() {
        let base = outline(&json!({"a": 1, "b": {"c": "x", "d": []}}));
        assert_eq!(base, outline(&json!({"b": {"d": [1], "c": "y"}, "a": 2})));
        for other in [
            json!({"a": "1", "b": {"c": "x", "d": []}}),
            json!({"a": 1, "b": {"c": "x"}}),
            json!({"a": 1, "b": {"e": "x", "d": []}}),
        ] {
            assert_ne!(base, outline(&other));
        }
    }
}
