//! Why a JSON Schema makes no entity, and what to do about it.

use super::outline::SERVER_SET;
use super::schema::MAX_ENTITY_VERSION;
use crate::entity::trace::MAX_PLACES;

/// Why a JSON Schema makes no entity. Each message says what to do; which file it is, its reader knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSchema {
    /// The entity's name cannot be a stream's category.
    #[error(
        "{name:?} cannot name an entity: use a lower-case letter followed by up to 63 of a-z, 0-9, _ and -"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The text is not JSON.
    #[error("the schema is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// The schema is not one of objects.
    #[error(
        "an entity is a JSON object: write \"type\": \"object\" and its \"properties\" at the top of the schema"
    )]
    NotAnObject,
    /// `$schema` names another dialect.
    #[error(
        "$schema says {found}, but only draft 2020-12 is supported: write \"https://json-schema.org/draft/2020-12/schema\" or leave it out"
    )]
    Dialect {
        /// What `$schema` says, as JSON.
        found: String,
    },
    /// `x-tidelog-version` is no version.
    #[error(
        "\"x-tidelog-version\" is {found}, but a version is a whole number from 1 to {MAX_ENTITY_VERSION}"
    )]
    Version {
        /// What it says, as JSON.
        found: String,
    },
    /// `x-tidelog-roles` does not say who may do what.
    #[error(
        "\"x-tidelog-roles\" is {found}, but it is a list of roles, such as [\"author\"], or such a list for each of \"create\", \"patch\", \"delete\" and \"read\"; no list is empty, and no role has a blank, a comma, | or ="
    )]
    Roles {
        /// What it says, as JSON.
        found: String,
    },
    /// `x-tidelog-indexes` is no list of texts.
    #[error(
        "\"x-tidelog-indexes\" is {found}, but it is a list of what lists are searched and sorted by, such as [\"author_name\", \"-created_at\"]"
    )]
    Indexes {
        /// What it says, as JSON.
        found: String,
    },
    /// A field is declared or required that the server sets.
    #[error(
        "the field {field:?} is set by the server, as are {}: take it out of the schema's \"properties\" and \"required\"",
        SERVER_SET.join(", ")
    )]
    ServerSet {
        /// The field.
        field: String,
    },
    /// A field's name cannot be stored by every read store.
    #[error(
        "the field {field:?} in {place:?} cannot be stored: a name is not empty, does not begin with '$' and has neither '.' nor NUL in it"
    )]
    FieldName {
        /// The field's name.
        field: String,
        /// The object that has it, as a JSON Pointer into the entity; empty for the entity itself.
        place: String,
    },
    /// A reference leads out of the document.
    #[error(
        "$ref leads to {uri}, and nothing is fetched: copy that schema into \"$defs\" and write \"#/$defs/…\""
    )]
    RemoteReference {
        /// Where to.
        uri: String,
    },
    /// A reference leads to nothing.
    #[error(
        "a $ref cannot be followed ({reason}): every reference must lead to a place in this document"
    )]
    BrokenReference {
        /// What is wrong with it.
        reason: String,
    },
    /// The schema breaks the rules of its draft.
    #[error("the schema is not valid at {pointer:?}: {reason}")]
    Malformed {
        /// Where in the schema, as a JSON Pointer; empty for its top.
        pointer: String,
        /// What the rules of draft 2020-12 say.
        reason: String,
    },
    /// A default does not fit its own field.
    #[error("the default of the field {field:?} does not fit the field's own schema: {reason}")]
    Default {
        /// The field.
        field: String,
        /// What is wrong with the default.
        reason: String,
    },
    /// The name of the list cannot be used.
    #[error(
        "{plural:?} cannot name the list of {name:?}: \"x-tidelog-plural\" is a lower-case letter followed by up to 63 of a-z, 0-9, _ and -, and differs from the name"
    )]
    Plural {
        /// The entity's name.
        name: String,
        /// The name of the list.
        plural: String,
    },
    /// The schema's parts combine into too many places.
    #[error("the schema describes more than {MAX_PLACES} places for fields: make it simpler")]
    TooLarge,
}
