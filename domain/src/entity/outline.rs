//! Which fields a schema knows, place by place, and the check of a body against that.

use std::collections::HashMap;

use jsonschema::Validator;
use serde_json::{Map, Number, Value};

use crate::decider::FieldError;
use crate::json::MAX_DEPTH;

/// The fields of an entity that the server sets, and nobody else.
pub const SERVER_SET: [&str; 5] = ["id", "version", "created_at", "updated_at", "deleted"];

/// The most errors that are reported of one body.
pub const MAX_FIELD_ERRORS: usize = 32;

/// The most field names that a message lists.
const MAX_NAMES_LISTED: usize = 12;

/// The number of a [`Place`] in its [`Outline`].
pub(super) type PlaceId = usize;

/// The places of an entity where fields may be: the entity itself, the objects within it, the objects in its lists.
///
/// It is a graph, because schemas may be recursive. The entity itself is place 0.
#[derive(Default)]
pub(super) struct Outline {
    pub(super) places: Vec<Place>,
    /// The fields of the entity itself that a body may not bring.
    pub(super) reserved: &'static [&'static str],
}

/// What a schema says of one place.
#[derive(Default)]
pub(super) struct Place {
    /// The fields known here, in the schema's order.
    pub(super) names: Vec<String>,
    /// Where the values of the known fields are.
    pub(super) fields: HashMap<String, PlaceId>,
    /// Whether other fields are refused.
    pub(super) closed: bool,
    /// Which other names are known although the place is closed.
    pub(super) patterns: Option<Validator>,
    /// Where the values of other fields are.
    pub(super) others: Option<PlaceId>,
    /// Where the items are, if the value is a list.
    pub(super) items: Option<PlaceId>,
    /// What the schema says of the value itself: `type`, `format`, `title`, `default` and so on.
    pub(super) keywords: Map<String, Value>,
}

impl Outline {
    /// The place numbered `id`.
    pub(super) fn place(&self, id: PlaceId) -> Option<&Place> {
        self.places.get(id)
    }

    /// Checks a body, or a patch, for all that its values need not be looked at for: fields that are not known, set by
    /// the server, or not to be stored; integers that would be rounded; nesting without end.
    ///
    /// # Errors
    ///
    /// What is wrong, at most [`MAX_FIELD_ERRORS`] of it.
    pub(super) fn inspect(&self, body: &Value) -> Result<(), Vec<FieldError>> {
        let mut inspection = Inspection {
            outline: self,
            errors: Vec::new(),
        };
        if body.is_object() {
            inspection.visit(self.place(0), body, &Path::Root, 1);
        } else {
            inspection.report(&Path::Root, "must be a JSON object".to_owned());
        }
        if inspection.errors.is_empty() {
            Ok(())
        } else {
            Err(inspection.errors)
        }
    }
}

impl Place {
    /// Whether the field `name` may be here.
    fn knows(&self, name: &str) -> bool {
        !self.closed
            || self.fields.contains_key(name)
            || self
                .patterns
                .as_ref()
                .is_some_and(|patterns| patterns.is_valid(&Value::from(name)))
    }

    /// What to say of a field that is not known here.
    fn unknown(&self) -> String {
        let names = self.names.get(..MAX_NAMES_LISTED);
        let listed = names.unwrap_or(&self.names).join(", ");
        match (self.names.is_empty(), names) {
            (true, _) => "is not a known field; none is known here".to_owned(),
            (_, None) => format!("is not a known field; known here: {listed}"),
            (_, Some(_)) => format!("is not a known field; known here: {listed}, …"),
        }
    }
}

/// A check of a body that is under way.
struct Inspection<'a> {
    outline: &'a Outline,
    errors: Vec<FieldError>,
}

impl<'a> Inspection<'a> {
    /// Looks at `value`, which is nested `depth` deep.
    fn visit(&mut self, place: Option<&'a Place>, value: &Value, path: &Path<'_>, depth: usize) {
        match value {
            Value::Object(_) | Value::Array(_) if depth > MAX_DEPTH => {
                self.report(path, format!("is nested more than {MAX_DEPTH} deep"));
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.visit_field(place, name, value, path, depth);
                }
            }
            Value::Array(items) => {
                let place = place.and_then(|place| self.outline.place(place.items?));
                for (index, item) in items.iter().enumerate() {
                    self.visit(place, item, &Path::Item(path, index), depth + 1);
                }
            }
            Value::Number(number) if !is_exact(number) => self.report(
                path,
                "is an integer outside the range of 64 bits, which would be rounded: send it as a text"
                    .to_owned(),
            ),
            _ => {}
        }
    }

    /// Looks at one field of an object.
    fn visit_field(
        &mut self,
        place: Option<&'a Place>,
        name: &str,
        value: &Value,
        parent: &Path<'_>,
        depth: usize,
    ) {
        let path = Path::Field(parent, name);
        if matches!(parent, Path::Root) && self.outline.reserved.contains(&name) {
            return self.report(&path, "is set by the server and cannot be sent".to_owned());
        }
        let inner = match place {
            Some(place) if !place.knows(name) => return self.report(&path, place.unknown()),
            Some(place) => place.fields.get(name).copied().or(place.others),
            None => None,
        };
        // A name that the schema declares was looked at when the schema was read.
        if !place.is_some_and(|place| place.fields.contains_key(name)) && !is_storable(name) {
            let message = "has a name that cannot be stored: it is empty, begins with '$', or has '.' or NUL in it";
            return self.report(&path, message.to_owned());
        }
        let inner = inner.and_then(|id| self.outline.place(id));
        self.visit(inner, value, &path, depth + 1);
    }

    fn report(&mut self, path: &Path<'_>, message: String) {
        if self.errors.len() < MAX_FIELD_ERRORS {
            self.errors.push(FieldError {
                field: path.pointer(),
                message,
            });
        }
    }
}

/// Whether every store keeps the number as it is.
fn is_exact(number: &Number) -> bool {
    number.is_i64() || number.is_f64()
}

/// Whether every read store can have a field of this name, and a query can name it.
pub(super) fn is_storable(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0'])
}

/// The way to a value, kept on the stack: it becomes a text only when there is something to say.
enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl Path<'_> {
    /// The way as a JSON Pointer (RFC 6901).
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Field(parent, name) => pointer_to(&parent.pointer(), name),
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

/// The JSON Pointer (RFC 6901) to the field `name` of what `parent` points to.
pub(super) fn pointer_to(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}
