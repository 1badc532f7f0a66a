//! A JSON Schema by which the body of a command is checked before it is decoded.

use jsonschema::Validator;
use serde_json::Value;

use super::explain::explain;
use super::invalid::InvalidSchema;
use super::outline::Outline;
use super::schema::compile;
use super::trace::trace;
use crate::decider::FieldError;

/// The schema of an object, compiled.
pub(crate) struct BodySchema {
    validator: Validator,
    outline: Outline,
}

impl BodySchema {
    /// Compiles `schema`; no name of a field is reserved.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`].
    pub(crate) fn compile(schema: &Value) -> Result<Self, InvalidSchema> {
        Ok(Self {
            validator: compile(schema)?,
            outline: trace(schema, &[])?,
        })
    }

    /// Checks `body`: unknown fields are refused, as in entities.
    ///
    /// # Errors
    ///
    /// What is wrong with it, field by field.
    pub(crate) fn check(&self, body: &Value) -> Result<(), Vec<FieldError>> {
        self.outline.inspect(body)?;
        validate(&self.validator, body)
    }
}

/// Checks `value` against a compiled schema.
///
/// # Errors
///
/// What is wrong with it, field by field.
pub(super) fn validate(validator: &Validator, value: &Value) -> Result<(), Vec<FieldError>> {
    if validator.is_valid(value) {
        return Ok(());
    }
    let errors: Vec<_> = validator.iter_errors(value).collect();
    Err(explain(&errors))
}
