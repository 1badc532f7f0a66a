//! Decides the commands of an entity.

use serde_json::{Map, Value};

use super::event::{EntityEventKind, changed, read_state};
use super::invalid::InvalidSchema;
use super::publish;
use super::schema::EntitySchema;
use super::typed::{Entity, judge};
use crate::aggregate::DecodeError;
use crate::context::Context;
use crate::decider::{
    CommandInput, CommandSpec, Decider, EventDraft, FieldError, Lifecycle, Loading, Refusal, State,
};
use crate::event::Payload;
use crate::json::merge_object;
use crate::upcasting::{EventShape, Upcasters};

/// Runs an entity: `create`, `patch` and `delete`, by the rules of the [module](mod@crate::entity).
///
/// Its events are `<name>.created`, `<name>.updated` and `<name>.deleted`, in the version that the schema gives
/// itself (`"x-tidelog-version"`, 1 unless said otherwise). The payload is
///
/// ```json
/// {"state": {"title": "b"}, "before": {"title": "a"}}
/// ```
///
/// `state` is all of the entity's own fields after the event, in a deletion as they were last; `before` has each
/// top-level field that a patch changed as it was, `null` where it was missing, and is empty in the other two. So any event
/// alone makes the state, and any view can take back what it had added.
pub struct EntityDecider {
    schema: EntitySchema,
    commands: Vec<CommandSpec>,
    rule: Option<Rule>,
}

/// What may say no to a change from one state to another; `None` is the state of what does not exist.
type Rule = fn(
    before: Option<&Map<String, Value>>,
    after: Option<&Map<String, Value>>,
    ctx: &Context,
) -> Result<(), Refusal>;

impl EntityDecider {
    /// Runs the entity that `schema` describes.
    #[must_use]
    pub fn new(schema: EntitySchema) -> Self {
        Self {
            commands: publish::commands(&schema),
            schema,
            rule: None,
        }
    }

    /// Runs the entity that the fields of `E` describe, by its rule.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`], when the fields make no entity's schema.
    pub fn typed<E: Entity>() -> Result<Self, InvalidSchema> {
        let schema = EntitySchema::of::<E>()?;
        Ok(Self {
            rule: Some(judge::<E>),
            ..Self::new(schema)
        })
    }

    /// The entity that it runs.
    #[must_use]
    pub const fn schema(&self) -> &EntitySchema {
        &self.schema
    }

    fn create(&self, body: &Value, ctx: &Context) -> Result<Vec<EventDraft>, Refusal> {
        let body = self.schema.with_defaults(body);
        let state = body.as_object().ok_or_else(not_an_object)?;
        self.judge(None, Some(state), ctx)?;
        self.event(EntityEventKind::Created, state, &Map::new())
    }

    fn patch(
        &self,
        before: &Map<String, Value>,
        patch: &Value,
        ctx: &Context,
    ) -> Result<Vec<EventDraft>, Refusal> {
        let patch = patch.as_object().ok_or_else(not_an_object)?;
        let mut after = before.clone();
        merge_object(&mut after, patch);
        // Only what the patch names can differ.
        let changed = changed(before, &after, patch.keys());
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let after = Value::Object(after);
        self.schema.validate(&after).map_err(Refusal::Invalid)?;
        let state = after.as_object().ok_or_else(not_an_object)?;
        self.judge(Some(before), Some(state), ctx)?;
        self.event(EntityEventKind::Updated, state, &changed)
    }

    fn delete(
        &self,
        state: &Map<String, Value>,
        ctx: &Context,
    ) -> Result<Vec<EventDraft>, Refusal> {
        self.judge(Some(state), None, ctx)?;
        self.event(EntityEventKind::Deleted, state, &Map::new())
    }

    /// Asks the rule, if there is one.
    fn judge(
        &self,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
        ctx: &Context,
    ) -> Result<(), Refusal> {
        self.rule.map_or(Ok(()), |rule| rule(before, after, ctx))
    }

    fn event(
        &self,
        kind: EntityEventKind,
        state: &Map<String, Value>,
        before: &Map<String, Value>,
    ) -> Result<Vec<EventDraft>, Refusal> {
        let draft = self.schema.events().draft(kind, state, before);
        draft.map(|draft| vec![draft]).map_err(Refusal::Unwritable)
    }
}

impl Decider for EntityDecider {
    fn category(&self) -> &str {
        self.schema.name()
    }

    fn commands(&self) -> &[CommandSpec] {
        &self.commands
    }

    fn roles(&self, command: &str) -> Vec<&str> {
        self.schema.roles(command)
    }

    fn events(&self) -> Vec<EventShape> {
        self.schema.shapes()
    }

    fn upcasters(&self) -> &Upcasters {
        self.schema.upcasters()
    }

    fn loading(&self) -> Loading {
        Loading::LastEvent
    }

    fn initial(&self) -> State {
        State::new(Lifecycle::Missing, Map::<String, Value>::new())
    }

    fn check(&self, input: &CommandInput) -> Result<(), Refusal> {
        let checked = match input.name.as_str() {
            publish::CREATE => self.schema.outline().inspect(&input.body).and_then(|()| {
                self.schema
                    .validate(&self.schema.with_defaults(&input.body))
            }),
            publish::PATCH => self.schema.outline().inspect(&input.body),
            publish::DELETE => require_no_body(&input.body),
            _ => return Err(Refusal::UnknownCommand),
        };
        checked.map_err(Refusal::Invalid)
    }

    fn decide(
        &self,
        state: &State,
        input: &CommandInput,
        ctx: &Context,
    ) -> Result<Vec<EventDraft>, Refusal> {
        let nothing = Map::new();
        let fields = state.get::<Map<String, Value>>().unwrap_or(&nothing);
        match input.name.as_str() {
            publish::CREATE => {
                state.admit(Lifecycle::Missing)?;
                self.create(&input.body, ctx)
            }
            publish::PATCH => {
                state.admit(Lifecycle::Live)?;
                self.patch(fields, &input.body, ctx)
            }
            publish::DELETE => {
                state.admit(Lifecycle::Live)?;
                self.delete(fields, ctx)
            }
            _ => Err(Refusal::UnknownCommand),
        }
    }

    fn evolve(
        &self,
        _: State,
        event_type: &str,
        schema_version: u32,
        payload: &Payload,
    ) -> Result<State, DecodeError> {
        let upcasters = self.schema.upcasters();
        let today = upcasters.upcast(event_type, schema_version, payload)?;
        let kind = self.schema.events().kind(today.event_type)?;
        let fields = read_state(&today)?;
        let lifecycle = match kind {
            EntityEventKind::Created | EntityEventKind::Updated => Lifecycle::Live,
            EntityEventKind::Deleted => Lifecycle::Ended,
        };
        Ok(State::new(lifecycle, fields))
    }

    fn show(&self, state: &State) -> Value {
        let fields = state.get::<Map<String, Value>>();
        Value::Object(fields.cloned().unwrap_or_default())
    }

    fn state_schema(&self) -> Value {
        publish::state_schema(&self.schema)
    }
}

/// A deletion says nothing but that it is one.
fn require_no_body(body: &Value) -> Result<(), Vec<FieldError>> {
    let nothing = body.is_null() || body.as_object().is_some_and(Map::is_empty);
    if nothing {
        return Ok(());
    }
    Err(vec![FieldError {
        field: String::new(),
        message: "a deletion has no body".to_owned(),
    }])
}

/// [`Decider::check`] says the same: this is for a caller that did not ask it.
fn not_an_object() -> Refusal {
    Refusal::Invalid(vec![FieldError {
        field: String::new(),
        message: "must be a JSON object".to_owned(),
    }])
}
