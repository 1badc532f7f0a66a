//! Given states, when a command, then an event: of entities, be they a struct or a JSON Schema.

use std::fmt::Debug;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::given::differ;
use crate::aggregate::Rejection;
use crate::decider::{CommandInput, Decider, EventDraft, FieldError, Refusal, State};
use crate::entity::{Entity, EntityDecider, EntityEventKind, EntitySchema, changed};

/// The command that creates an entity with this body.
#[must_use]
pub fn create(body: Value) -> CommandInput {
    command("create", body)
}

/// The command that patches an entity.
#[must_use]
pub fn patch(body: Value) -> CommandInput {
    command("patch", body)
}

/// The command that deletes an entity.
#[must_use]
pub fn delete() -> CommandInput {
    command("delete", Value::Null)
}

fn command(name: &str, body: Value) -> CommandInput {
    CommandInput {
        name: name.to_owned(),
        body,
    }
}

/// Something that happened to an entity: [`created`], [`updated`] or [`deleted`].
///
/// A state is the entity's struct, or its JSON where the entity has no struct.
#[derive(Clone, Debug)]
pub struct PastState<E = Value> {
    kind: EntityEventKind,
    state: Option<E>,
}

/// The entity was created, and was then in this state.
#[must_use]
pub const fn created<E>(state: E) -> PastState<E> {
    PastState {
        kind: EntityEventKind::Created,
        state: Some(state),
    }
}

/// The entity was changed, and was then in this state.
#[must_use]
pub const fn updated<E>(state: E) -> PastState<E> {
    PastState {
        kind: EntityEventKind::Updated,
        state: Some(state),
    }
}

/// The entity was deleted in the state that it was in.
#[must_use]
pub const fn deleted<E>() -> PastState<E> {
    PastState {
        kind: EntityEventKind::Deleted,
        state: None,
    }
}

impl<E: Serialize> PastState<E> {
    /// The same with its state as JSON.
    #[track_caller]
    pub(super) fn json(self) -> PastState {
        let json = |state| {
            serde_json::to_value(state)
                .unwrap_or_else(|error| panic!("a state cannot be JSON: {error}"))
        };
        PastState {
            kind: self.kind,
            state: self.state.map(json),
        }
    }
}

impl PastState {
    /// The event that says so, and the state after it. The state before it is `last`.
    #[track_caller]
    pub(super) fn event(
        self,
        schema: &EntitySchema,
        last: &Map<String, Value>,
    ) -> (EventDraft, Map<String, Value>) {
        let state = match self.state {
            Some(Value::Object(state)) => state,
            Some(other) => panic!("the state of an entity is a JSON object, not {other}"),
            None => last.clone(),
        };
        let changed = match self.kind {
            EntityEventKind::Updated => changed(last, &state, last.keys().chain(state.keys())),
            EntityEventKind::Created | EntityEventKind::Deleted => Map::new(),
        };
        let draft = schema
            .events()
            .draft(self.kind, &state, &changed)
            .unwrap_or_else(|error| panic!("{state:?} cannot be stored: {error}"));
        (draft, state)
    }
}

/// An entity to which `past` has happened.
///
/// # Panics
///
/// When the struct makes no entity's schema, or a state is no JSON object.
#[must_use]
#[track_caller]
pub fn given_entity<E: Entity>(past: impl IntoIterator<Item = PastState<E>>) -> GivenEntity<E> {
    let decider = EntityDecider::typed::<E>()
        .unwrap_or_else(|error| panic!("{} cannot be an entity: {error}", E::NAME));
    given(decider, past.into_iter().map(PastState::json))
}

/// An entity of this schema to which `past` has happened.
///
/// # Panics
///
/// When a state is no JSON object.
#[must_use]
#[track_caller]
pub fn given_entity_of(
    schema: &EntitySchema,
    past: impl IntoIterator<Item = PastState>,
) -> GivenEntity {
    given(EntityDecider::new(schema.clone()), past)
}

#[track_caller]
fn given<E>(decider: EntityDecider, past: impl IntoIterator<Item = PastState>) -> GivenEntity<E> {
    let mut state = decider.initial();
    let mut last = Map::new();
    for past in past {
        let (draft, after) = past.event(decider.schema(), &last);
        state = evolve(&decider, state, &draft);
        last = after;
    }
    GivenEntity {
        decider,
        state,
        entity: PhantomData,
    }
}

/// An entity at some point in its life; see [`given_entity`].
pub struct GivenEntity<E = Value> {
    decider: EntityDecider,
    state: State,
    entity: PhantomData<E>,
}

impl<E> GivenEntity<E> {
    /// Checks the command and decides it, as a server does.
    #[must_use]
    pub fn when(self, command: CommandInput) -> EntityOutcome<E> {
        let decided = self.decider.check(&command).and_then(|()| {
            self.decider
                .decide(&self.state, &command, &super::context())
        });
        EntityOutcome {
            decider: self.decider,
            state: self.state,
            decided,
            entity: PhantomData,
        }
    }
}

/// What a command came to; see [`GivenEntity::when`].
pub struct EntityOutcome<E = Value> {
    decider: EntityDecider,
    state: State,
    decided: Result<Vec<EventDraft>, Refusal>,
    entity: PhantomData<E>,
}

impl<E: Entity> EntityOutcome<E> {
    /// Expects that the entity's rule rejects the command with this.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: E::Rejection) {
        let refusal = Refusal::Rejected {
            code: expected.code(),
            detail: expected.detail(),
        };
        self.then_refused(refusal);
    }
}

impl<E: DeserializeOwned + PartialEq + Debug> EntityOutcome<E> {
    /// Expects one event of this name with this payload, `{"state": …, "before": …}`, and that it makes that state.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_event(self, event_type: &str, payload: Value) {
        let draft = self.one_event();
        let stored: Value = draft
            .payload
            .decode()
            .unwrap_or_else(|error| panic!("the payload is not JSON: {error}"));
        let (expected, actual) = ((event_type, &payload), (&*draft.event_type, &stored));
        if expected != actual {
            differ(&expected, &actual);
        }
        let state = self
            .decider
            .show(&evolve(&self.decider, self.state, &draft));
        assert_eq!(Some(&state), payload.get("state"), "the state after it");
    }

    /// Expects one event, and this state after it.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_state(self, expected: E) {
        let draft = self.one_event();
        let state = self
            .decider
            .show(&evolve(&self.decider, self.state, &draft));
        let state: E = serde_json::from_value(state)
            .unwrap_or_else(|error| panic!("the state cannot be read back: {error}"));
        if state != expected {
            differ(&expected, &state);
        }
    }
}

impl<E> EntityOutcome<E> {
    /// Expects that nothing happens, and that it is no refusal.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_nothing(self) {
        match self.decided {
            Ok(events) if events.is_empty() => {}
            other => differ(&"nothing", &other),
        }
    }

    /// Expects that the body is refused because of just these fields, as JSON Pointers, in any order.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_invalid(self, fields: &[&str]) -> Vec<FieldError> {
        match self.decided {
            Err(Refusal::Invalid(errors)) => {
                let mut actual: Vec<_> = errors.iter().map(|error| &*error.field).collect();
                let mut expected = fields.to_vec();
                actual.sort_unstable();
                actual.dedup();
                expected.sort_unstable();
                if actual != expected {
                    differ(&expected, &errors);
                }
                errors
            }
            other => differ(&fields, &other),
        }
    }

    /// Expects this refusal.
    ///
    /// # Panics
    ///
    /// When it is otherwise.
    #[track_caller]
    pub fn then_refused(self, expected: Refusal) {
        // Refusals hold causes that cannot be compared, but all show what they hold.
        match self.decided {
            Err(refusal) if format!("{refusal:?}") == format!("{expected:?}") => {}
            other => differ(&expected, &other),
        }
    }

    /// The one event that was decided.
    #[track_caller]
    fn one_event(&self) -> EventDraft {
        match self.decided.as_deref() {
            Ok([draft]) => draft.clone(),
            other => differ(&"one event", &other),
        }
    }
}

/// The state after an event.
#[track_caller]
fn evolve(decider: &EntityDecider, state: State, draft: &EventDraft) -> State {
    decider
        .evolve(
            state,
            &draft.event_type,
            draft.schema_version,
            &draft.payload,
        )
        .unwrap_or_else(|error| panic!("the event cannot be read back: {error}"))
}
