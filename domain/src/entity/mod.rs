//! Entities: aggregates made from a JSON Schema (draft 2020-12), created, patched and deleted without a line of Rust.
//!
//! # The rules
//!
//! - The schema describes the entity's own fields. `id`, `version`, `created_at`, `updated_at` and `deleted` are set by the
//!   server ([`SERVER_SET`]): a schema does not declare them, and a body does not bring them.
//! - **Unknown fields are refused.** At each place (the entity itself, an object within it, an object in a list) a field is known
//!   when any part of the schema that may apply there names it, through `$ref`, `allOf`, `anyOf`, `oneOf`, `if`/`then`/`else` or
//!   `dependentSchemas`. A place whose schema has no `properties` at all, or says `additionalProperties` or
//!   `unevaluatedProperties` itself, is open as far as it says so.
//! - `format` is asserted, not only noted. Formats that are not known here are notes.
//! - When an entity is created, each missing top-level field gets the `default` of its schema.
//! - A patch is a JSON Merge Patch (RFC 7396): what it does not name stays, `null` removes. Its result must fit the schema; a
//!   field that an older schema had and this one does not know may stay, but not be patched. A patch that
//!   changes nothing gives no event.
//! - `"x-tidelog-version"` (1 unless said otherwise) is the schema version of the entity's events, and goes up when the schema
//!   changes. Events of older versions are read as they are, unless the program brings upcasters
//!   ([`EntitySchema::with_upcasters`]).
//! - `"x-tidelog-indexes"` is a list of what lists are searched and sorted by, see
//!   [`ViewDefinition::indexes`](crate::ViewDefinition::indexes); it means nothing else, and changes no version.
//! - `"x-tidelog-roles"` says of which roles a caller needs one, where callers sign in: a list for all that is done with the entity, or one
//!   for each of `create`, `patch`, `delete` and `read`; what it leaves out is for every caller that is signed in. It means nothing else, and
//!   changes no version.
//! - Nothing is ever fetched: a `$ref` leads to somewhere in the same document.
//!
//! # Example
//!
//! ```
//! use serde_json::json;
//! use tidelog_domain::EntitySchema;
//! use tidelog_domain::testing::{create, created, given_entity_of, patch};
//!
//! # fn main() -> Result<(), tidelog_domain::InvalidSchema> {
//! let note = EntitySchema::from_value(
//!     "note",
//!     json!({
//!         "type": "object",
//!         "properties": {"text": {"type": "string", "maxLength": 9}, "done": {"default": false}},
//!         "required": ["text"],
//!     }),
//! )?;
//! given_entity_of(&note, [])
//!     .when(create(json!({"text": "milk"})))
//!     .then_state(json!({"text": "milk", "done": false}));
//! given_entity_of(&note, [created(json!({"text": "milk", "done": false}))])
//!     .when(patch(json!({"done": true})))
//!     .then_event(
//!         "note.updated",
//!         json!({"state": {"text": "milk", "done": true}, "before": {"done": false}}),
//!     );
//! given_entity_of(&note, [])
//!     .when(create(json!({"txt": "milk"})))
//!     .then_invalid(&["/txt"]);
//! # Ok(())
//! # }
//! ```

mod body;
mod decider;
mod event;
mod explain;
mod invalid;
mod outline;
mod parts;
mod publish;
mod roles;
mod schema;
mod trace;
mod typed;
mod view;

pub(crate) use body::BodySchema;
pub use decider::EntityDecider;
pub(crate) use event::{EntityEventKind, changed};
pub use invalid::InvalidSchema;
pub use outline::{MAX_FIELD_ERRORS, SERVER_SET};
pub use schema::{EntitySchema, MAX_ENTITY_VERSION, SCHEMA_FILE_SUFFIX};
pub use typed::{Change, Entity, EntityEvent};
pub use view::EntityView;
