//! What holds for every entity, patch and body.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidelog_domain::json::merge_patch;
use tidelog_domain::testing::{create, patch};
use tidelog_domain::{
    CommandInput, Context, Decider, EntityDecider, EntitySchema, EventDraft, Metadata, Refusal,
    State,
};
use uuid::Uuid;

/// Any JSON value, with field names that often meet. It has no `null`, which no patch can set.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            any_fields(inner).prop_map(Value::Object),
        ]
    })
}

/// Any object with some of a few fields.
fn any_fields(
    value: impl Strategy<Value = Value> + Clone,
) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("[a-e]", value), 0..5).prop_map(|fields| fields.into_iter().collect())
}

/// Any state of an entity without rules.
fn any_state() -> impl Strategy<Value = Value> {
    any_fields(any_value().boxed()).prop_map(Value::Object)
}

/// Any patch: also one that removes.
fn any_patch() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        1 => Just(Value::Null),
        2 => any_value(),
        1 => any_fields(prop_oneof![Just(Value::Null), any_value()].boxed()).prop_map(Value::Object),
    ];
    any_fields(value.boxed()).prop_map(Value::Object)
}

/// An entity that takes any fields, run as a server does.
struct Run {
    decider: EntityDecider,
    state: State,
}

impl Run {
    fn created(state: &Value) -> Self {
        let schema = EntitySchema::from_value("thing", json!({"type": "object"})).unwrap();
        let decider = EntityDecider::new(schema);
        let state_before = decider.initial();
        let mut run = Self {
            decider,
            state: state_before,
        };
        run.command(&create(state.clone())).unwrap().unwrap();
        run
    }

    /// The payload of the event that the command gives.
    fn command(&mut self, input: &CommandInput) -> Result<Option<Value>, Refusal> {
        let context = Context::new(Uuid::nil(), DateTime::UNIX_EPOCH, Metadata::default());
        self.decider.check(input)?;
        let drafts = self.decider.decide(&self.state, input, &context)?;
        let again = self.decider.decide(&self.state, input, &context)?;
        assert_eq!(drafts, again, "a decision is repeated exactly");
        assert!(drafts.len() <= 1);
        Ok(drafts.first().map(|draft| self.evolve(draft)))
    }

    fn evolve(&mut self, draft: &EventDraft) -> Value {
        let (name, version, payload) = (&draft.event_type, draft.schema_version, &draft.payload);
        let evolved = self
            .decider
            .evolve(self.state.clone(), name, version, payload);
        self.state = evolved.unwrap();
        payload.decode().unwrap()
    }

    fn shown(&self) -> Value {
        self.decider.show(&self.state)
    }
}

proptest! {
    #[test]
    fn the_state_after_a_patch_is_the_patched_state(state in any_state(), body in any_patch()) {
        let mut run = Run::created(&state);
        let event = run.command(&patch(body.clone())).unwrap();
        let mut patched = state.clone();
        merge_patch(&mut patched, &body);
        prop_assert_eq!(run.shown(), patched.clone());
        if let Some(event) = event {
            prop_assert_eq!(&event["state"], &patched);
        }
    }

    #[test]
    fn there_is_an_event_just_when_something_changed(state in any_state(), body in any_patch()) {
        let mut run = Run::created(&state);
        let event = run.command(&patch(body)).unwrap();
        prop_assert_eq!(event.is_some(), run.shown() != state);
    }

    #[test]
    fn before_names_just_what_changed_and_brings_it_back(
        state in any_state(),
        body in any_patch(),
    ) {
        let mut run = Run::created(&state);
        let Some(event) = run.command(&patch(body)).unwrap() else {
            return Ok(());
        };
        let after = run.shown();
        let before = event["before"].as_object().unwrap();
        for name in before.keys() {
            prop_assert_ne!(state.get(name), after.get(name), "{}", name);
        }
        let mut restored = after.as_object().unwrap().clone();
        for (name, value) in before {
            if value.is_null() {
                restored.shift_remove(name);
            } else {
                restored.insert(name.clone(), value.clone());
            }
        }
        prop_assert_eq!(Value::Object(restored), state);
    }

    #[test]
    fn the_same_patch_twice_changes_nothing_the_second_time(
        state in any_state(),
        body in any_patch(),
    ) {
        let mut run = Run::created(&state);
        run.command(&patch(body.clone())).unwrap();
        prop_assert_eq!(run.command(&patch(body)).unwrap(), None);
    }

    #[test]
    fn no_body_makes_a_check_panic(body in any_patch(), name in "create|patch|delete|[a-z]{0,9}") {
        let json = include_str!("../../examples/entities/customer.schema.json");
        let decider = EntityDecider::new(EntitySchema::parse("customer", json).unwrap());
        let _ = decider.check(&CommandInput { name, body });
    }
}
