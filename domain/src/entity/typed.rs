//! Entities that are a struct: the same as those of a JSON Schema, with types and a rule.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::invalid::InvalidSchema;
use super::roles::ROLES;
use super::schema::{EntitySchema, INDEXES, PLURAL, VERSION};
use crate::aggregate::{Data, DecodeError, Named, Rejection};
use crate::context::Context;
use crate::decider::{FieldError, Refusal};
use crate::event::{Payload, RecordedEvent};
use crate::projection::{EventSet, Keys};
use crate::upcasting::{Upcaster, Upcasters};

/// A struct that is an entity: created, patched and deleted by the rules of the [module](mod@crate::entity), its schema made of
/// its fields. `#[entity]` implements it.
pub trait Entity: Data + JsonSchema + Named {
    /// Why its rule may say no; `Infallible` where it has none.
    type Rejection: Rejection;

    /// The stored names of its events: `post.created`, `post.updated`, `post.deleted`, in this order.
    const EVENT_NAMES: &'static [&'static str];

    /// The version of its shape, from 1 to [`MAX_ENTITY_VERSION`](super::MAX_ENTITY_VERSION). It goes up by one when what is
    /// stored changes its shape.
    const VERSION: u32 = 1;

    /// How events that were stored in an older shape become those of today: `{"state": …, "before": …}` both. A version that
    /// no step begins at is read as it is.
    #[must_use]
    fn upcasters() -> Vec<Upcaster> {
        Vec::new()
    }

    /// What a list of them is called: the name and an `s`, unless said otherwise.
    #[must_use]
    fn plural() -> String {
        format!("{}s", Self::NAME)
    }

    /// By what its view is searched, see [`ViewDefinition::indexes`](crate::ViewDefinition::indexes): by ids alone, unless said otherwise.
    #[must_use]
    fn indexes() -> Vec<&'static str> {
        Vec::new()
    }

    /// The roles of which a caller needs one to `create`, `patch`, `delete` or `read` it, where that is not the same for all of it
    /// ([`Named::roles`]).
    #[must_use]
    fn roles_of(operation: &str) -> &'static [&'static str] {
        let _ = operation;
        Self::roles()
    }

    /// Whether what fits the schema may happen. Without a rule all of it may.
    ///
    /// # Errors
    ///
    /// The domain's own rejection: nothing is appended.
    fn rule(change: Change<'_, Self>, ctx: &Context) -> Result<(), Self::Rejection> {
        let _ = (change, ctx);
        Ok(())
    }
}

/// What is about to happen to an entity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<'a, E> {
    /// It is created, in this state.
    Create(&'a E),
    /// It changes from the first state to the second.
    Update(&'a E, &'a E),
    /// It is deleted, in this state.
    Delete(&'a E),
}

/// Asks the rule of `E` about a change between two stored states, `None` where there is none.
///
/// # Errors
///
/// [`Refusal::Rejected`] by the rule; [`Refusal::Invalid`] when a state that fits the schema is not an `E` all the same;
/// [`Refusal::Unreadable`] when the state before is none.
pub(super) fn judge<E: Entity>(
    before: Option<&Map<String, Value>>,
    after: Option<&Map<String, Value>>,
    ctx: &Context,
) -> Result<(), Refusal> {
    let before = before.map(E::deserialize).transpose();
    let before =
        before.map_err(|source| Refusal::Unreadable(DecodeError::payload(E::NAME, 1, source)))?;
    let after = after.map(E::deserialize).transpose().map_err(|error| {
        Refusal::Invalid(vec![FieldError {
            field: String::new(),
            message: error.to_string(),
        }])
    })?;
    let change = match (&before, &after) {
        (None, Some(new)) => Change::Create(new),
        (Some(old), Some(new)) => Change::Update(old, new),
        (Some(old), None) => Change::Delete(old),
        (None, None) => return Ok(()),
    };
    E::rule(change, ctx).map_err(|no| Refusal::Rejected {
        code: no.code(),
        detail: no.detail(),
    })
}

impl EntitySchema {
    /// The schema that the fields of `E` make.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`], which says what to do.
    pub fn of<E: Entity>() -> Result<Self, InvalidSchema> {
        let mut schema = crate::variant::sent_schema::<E>();
        if let Value::Object(keywords) = &mut schema {
            keywords.insert(PLURAL.to_owned(), E::plural().into());
            keywords.insert(VERSION.to_owned(), E::VERSION.into());
            let indexes = E::indexes();
            if !indexes.is_empty() {
                keywords.insert(INDEXES.to_owned(), indexes.into());
            }
        }
        let roles = super::roles::written(|operation| E::roles_of(operation));
        if let (Value::Object(keywords), Some(roles)) = (&mut schema, roles) {
            keywords.insert(ROLES.to_owned(), roles);
        }
        let schema = Self::from_value(E::NAME, schema)?;
        Ok(schema.with_upcasters(E::upcasters()))
    }
}

/// What happened to an entity, as a projection sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum EntityEvent<E> {
    /// It was created.
    Created(E),
    /// It changed.
    Updated {
        /// What it was.
        before: E,
        /// What it is.
        after: E,
    },
    /// It was deleted, and was this before.
    Deleted(E),
}

impl<E> EntityEvent<E> {
    /// What it was before; `None` when it was created.
    pub const fn before(&self) -> Option<&E> {
        match self {
            Self::Created(_) => None,
            Self::Updated { before: state, .. } | Self::Deleted(state) => Some(state),
        }
    }

    /// What it is now; `None` when it was deleted.
    pub const fn after(&self) -> Option<&E> {
        match self {
            Self::Created(state) | Self::Updated { after: state, .. } => Some(state),
            Self::Deleted(_) => None,
        }
    }

    /// The documents of a view that is kept by `key`: those of the entity before the event and after it, which are two when
    /// the event moved it from one to the other.
    #[must_use]
    pub fn keys<'e, K: AsRef<str> + 'e>(&'e self, key: impl Fn(&'e E) -> K) -> Keys {
        let mut keys: Keys = [self.before(), self.after()]
            .into_iter()
            .flatten()
            .map(|state| key(state).as_ref().to_owned())
            .collect();
        keys.dedup();
        keys
    }

    /// By how much a sum over all entities changes, `of` each: what it is now less what it was. Of a condition it is 1 when
    /// the entity begins to fulfil it, and −1 when it ceases to.
    ///
    /// A difference beyond 64 bits stays at the bound.
    #[must_use]
    pub fn delta<N: Into<i64>>(&self, of: impl Fn(&E) -> N) -> i64 {
        let amount = |state: Option<&E>| state.map_or(0, |state| of(state).into());
        amount(self.after()).saturating_sub(amount(self.before()))
    }
}

impl<E: Entity> EventSet for EntityEvent<E> {
    const NAMES: &'static [&'static str] = E::EVENT_NAMES;

    fn evolution() -> Upcasters {
        super::schema::upcasters_of(E::EVENT_NAMES, E::VERSION, E::upcasters())
    }

    fn read(event: &RecordedEvent) -> Result<Self, DecodeError> {
        let (event_type, version) = (&*event.event_type, event.schema_version);
        let kind = E::EVENT_NAMES.iter().position(|name| *name == event_type);
        let read = match kind {
            Some(0) => state(&event.payload).map(Self::Created),
            Some(1) => states(&event.payload),
            Some(2) => state(&event.payload).map(Self::Deleted),
            _ => return Err(DecodeError::unknown(event_type)),
        };
        read.map_err(|source| DecodeError::payload(event_type, version, source))
    }
}

/// The one state that a creation or a deletion tells of.
fn state<E: Entity>(payload: &Payload) -> Result<E, serde_json::Error> {
    #[derive(Deserialize)]
    struct One<E> {
        state: E,
    }
    payload.decode().map(|One { state }| state)
}

/// The two states that an update tells of.
fn states<E: Entity>(payload: &Payload) -> Result<EntityEvent<E>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Two {
        state: Map<String, Value>,
        before: Map<String, Value>,
    }
    let Two { state, before } = payload.decode()?;
    let after = E::deserialize(&state)?;
    let mut earlier = state;
    for (field, value) in before {
        // `null` stands for a field that was not there.
        if value.is_null() {
            earlier.shift_remove(&field);
        } else {
            earlier.insert(field, value);
        }
    }
    let before = E::deserialize(&earlier)?;
    Ok(EntityEvent::Updated { before, after })
}
