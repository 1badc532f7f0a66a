//! What a field of a view may hold, as the view's JSON Schema says: which fields a client may filter by, and as what.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// How many references, alternatives and levels are followed in one look-up.
const MAX_STEPS: usize = 256;

/// The kinds of JSON value, `integer` being a kind of `number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

const ALL: [Kind; 7] = [
    Kind::Null,
    Kind::Boolean,
    Kind::Integer,
    Kind::Number,
    Kind::String,
    Kind::Array,
    Kind::Object,
];

/// How deep the fields that are listed may be nested.
const MAX_LISTED_DEPTH: usize = 8;

/// How many objects are looked into for fields to list.
const MAX_LISTED_PLACES: usize = 256;

type Kinds = BTreeSet<Kind>;

/// A field by which can be filtered: what it may hold, never empty, and texts never together with numbers or truth values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    kinds: Kinds,
}

/// Why a field cannot be filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoScalar {
    /// The schema knows no such field.
    Unknown,
    /// The schema says nothing of what the field holds.
    FreeForm,
    /// The field holds objects or lists.
    Composite,
    /// The field holds texts or something else: what a client writes could mean either.
    Ambiguous,
}

/// What a field may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    kinds: Kinds,
    /// What a list in it may hold.
    items: Kinds,
}

impl Shape {
    /// What the field at `path` holds by `schema`.
    ///
    /// # Errors
    ///
    /// [`NoScalar::Unknown`] and [`NoScalar::FreeForm`].
    pub(super) fn of(schema: &Value, path: &[&str]) -> Result<Self, NoScalar> {
        let look = Look { root: schema };
        let mut steps = MAX_STEPS;
        let mut places = vec![schema];
        for name in path {
            let mut found = Vec::new();
            let mut open = false;
            for place in places {
                open |= look.fields(place, name, &mut found, &mut steps);
            }
            if found.is_empty() {
                return Err(if open {
                    NoScalar::FreeForm
                } else {
                    NoScalar::Unknown
                });
            }
            places = found;
        }
        let (mut kinds, mut items) = (Kinds::new(), Vec::new());
        for place in places {
            kinds.extend(look.kinds(place, &mut steps));
            look.items(place, &mut items, &mut steps);
        }
        if ALL.iter().all(|kind| kinds.contains(kind)) {
            return Err(NoScalar::FreeForm);
        }
        let items = items
            .into_iter()
            .flat_map(|place| look.kinds(place, &mut steps));
        Ok(Self {
            items: items.collect(),
            kinds,
        })
    }

    /// A field of a kind that needs no schema.
    pub(super) fn one(kind: Kind) -> Self {
        Self {
            kinds: Kinds::from([kind]),
            items: Kinds::new(),
        }
    }

    /// It as a scalar; lists and objects aside.
    ///
    /// # Errors
    ///
    /// [`NoScalar::Composite`] and [`NoScalar::Ambiguous`].
    pub(super) fn scalar(&self) -> Result<Scalar, NoScalar> {
        Scalar::from_kinds(&self.kinds)
    }

    /// What the items of a list in it are, if they are scalars of which a client can name one.
    pub(super) fn item(&self) -> Option<Scalar> {
        let is_list = self.kinds.contains(&Kind::Array);
        let scalar = Scalar::from_kinds(&self.items).ok()?;
        is_list.then_some(scalar)
    }

    /// Whether its values have an order: there are no lists and no objects among them.
    pub(super) fn has_order(&self) -> bool {
        let composite = [Kind::Array, Kind::Object];
        !composite.iter().any(|kind| self.kinds.contains(kind))
    }
}

impl Scalar {
    /// Whether it may be a value of this kind.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// What `text` stands for as a bound of a range: a text or a number; else what would be right.
    pub(super) fn bound(&self, text: &str) -> Result<Value, String> {
        let numbers = [Kind::Integer, Kind::Number].into_iter();
        let numbers: Kinds = numbers.filter(|kind| self.has(*kind)).collect();
        if self.has(Kind::String) || numbers.is_empty() {
            return self.value(text);
        }
        Self { kinds: numbers }.value(text)
    }

    fn from_kinds(kinds: &Kinds) -> Result<Self, NoScalar> {
        if ALL.iter().all(|kind| kinds.contains(kind)) {
            return Err(NoScalar::FreeForm);
        }
        let is_scalar = |kind: &&Kind| !matches!(kind, Kind::Array | Kind::Object);
        let kinds: Kinds = kinds.iter().filter(is_scalar).copied().collect();
        let has = |kind| kinds.contains(&kind);
        if kinds.is_empty() {
            Err(NoScalar::Composite)
        } else if has(Kind::String)
            && (has(Kind::Boolean) || has(Kind::Integer) || has(Kind::Number))
        {
            Err(NoScalar::Ambiguous)
        } else {
            Ok(Self { kinds })
        }
    }

    /// The value that `text` stands for in this field; else what would be right.
    ///
    /// A text is taken as it is: `null` in a field that may be a text or null is the text.
    pub(super) fn value(&self, text: &str) -> Result<Value, String> {
        let has = |kind| self.kinds.contains(&kind);
        if has(Kind::String) {
            return Ok(Value::from(text));
        }
        match text {
            "null" if has(Kind::Null) => return Ok(Value::Null),
            "true" if has(Kind::Boolean) => return Ok(Value::Bool(true)),
            "false" if has(Kind::Boolean) => return Ok(Value::Bool(false)),
            _ => {}
        }
        let exact = Some(text).filter(|text| !text.contains(char::is_whitespace));
        let number = exact.and_then(|text| serde_json::from_str(text).ok());
        let number = number.map(Value::Number);
        match number.filter(|number| fits(number, has(Kind::Number), has(Kind::Integer))) {
            Some(number) => Ok(number),
            None => Err(self.wanted()),
        }
    }

    /// What it may hold, as a schema.
    pub(super) fn schema(&self) -> Value {
        let name = |kind: &Kind| match kind {
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::Object => "object",
        };
        let is_number = self.kinds.contains(&Kind::Number);
        let kinds = self
            .kinds
            .iter()
            .filter(|kind| !(is_number && **kind == Kind::Integer));
        let names: Vec<_> = kinds.map(name).collect();
        match names.as_slice() {
            [one] => json!({"type": one}),
            several => json!({"type": several}),
        }
    }

    /// What a value must be, for people.
    fn wanted(&self) -> String {
        let words = |kind: &Kind| match kind {
            Kind::Null => Some("null"),
            Kind::Boolean => Some("true or false"),
            Kind::Integer if self.kinds.contains(&Kind::Number) => None,
            Kind::Integer => Some("a whole number"),
            Kind::Number => Some("a number"),
            Kind::String | Kind::Array | Kind::Object => None,
        };
        let words: Vec<_> = self.kinds.iter().rev().filter_map(words).collect();
        words.join(", or ")
    }
}

/// The fields by which can be filtered, by their dotted names: those that `schema` names, `max` at most.
pub(super) fn filterable(schema: &Value, max: usize) -> Vec<(String, Shape)> {
    let look = Look { root: schema };
    let mut found = Vec::new();
    let mut waiting = vec![(Vec::<String>::new(), vec![schema])];
    for _ in 0..MAX_LISTED_PLACES {
        let Some((path, places)) = waiting.pop() else {
            break;
        };
        let mut steps = MAX_STEPS;
        let mut names = Vec::new();
        for place in &places {
            look.names(place, &mut names, &mut steps);
        }
        let mut deeper = Vec::new();
        for name in names {
            let mut path = path.clone();
            path.push(name.to_owned());
            let by_name: Vec<&str> = path.iter().map(String::as_str).collect();
            let shape = Shape::of(schema, &by_name);
            let is_open = shape.as_ref().is_err_and(|why| *why == NoScalar::FreeForm);
            let is_object = shape
                .as_ref()
                .is_ok_and(|shape| shape.kinds.contains(&Kind::Object));
            if (is_open || is_object) && path.len() < MAX_LISTED_DEPTH {
                let mut inner = Vec::new();
                for place in &places {
                    look.fields(place, name, &mut inner, &mut steps);
                }
                deeper.push((path.clone(), inner));
            }
            if let Ok(shape) = shape
                && found.len() < max
            {
                found.push((path.join("."), shape));
            }
        }
        // The next to be looked at is the last of the list.
        waiting.extend(deeper.into_iter().rev());
    }
    found
}

/// Whether `number` may be looked for: a whole one fits a field of numbers of either kind.
fn fits(number: &Value, any: bool, whole: bool) -> bool {
    let is_whole = number.is_i64() || number.as_f64().is_some_and(|n| n.fract() == 0.0);
    any || (whole && is_whole)
}

/// A look into one schema.
struct Look<'s> {
    root: &'s Value,
}

impl<'s> Look<'s> {
    /// Finds what `schema` says of its field `name`, and whether fields are possible that it says nothing of.
    fn fields(
        &self,
        schema: &'s Value,
        name: &str,
        found: &mut Vec<&'s Value>,
        steps: &mut usize,
    ) -> bool {
        let Some(left) = steps.checked_sub(1) else {
            return true;
        };
        *steps = left;
        let Value::Object(schema) = schema else {
            return schema == &Value::Bool(true);
        };
        if schema.is_empty() {
            return true;
        }
        let before = found.len();
        let mut open = false;
        let known = schema.get("properties").and_then(|fields| fields.get(name));
        found.extend(known);
        for part in self.parts(schema) {
            open |= self.fields(part, name, found, steps);
        }
        if found.len() > before {
            return open;
        }
        open | match schema.get("additionalProperties") {
            // What a client writes becomes the name of a field here, so it must be one that cannot be anything else.
            Some(others @ Value::Object(_)) if is_plain(name) => {
                found.push(others);
                false
            }
            Some(others) => others != &Value::Bool(false),
            None => schema.contains_key("patternProperties"),
        }
    }

    /// The names of the fields that `schema` knows, each once.
    fn names(&self, schema: &'s Value, found: &mut Vec<&'s str>, steps: &mut usize) {
        let (Some(left), Value::Object(schema)) = (steps.checked_sub(1), schema) else {
            return;
        };
        *steps = left;
        let known = schema.get("properties").and_then(Value::as_object);
        for name in known.into_iter().flat_map(Map::keys) {
            if !found.contains(&name.as_str()) {
                found.push(name);
            }
        }
        for part in self.parts(schema) {
            self.names(part, found, steps);
        }
    }

    /// Finds what `schema` says of the items of a list.
    fn items(&self, schema: &'s Value, found: &mut Vec<&'s Value>, steps: &mut usize) {
        let (Some(left), Value::Object(schema)) = (steps.checked_sub(1), schema) else {
            return;
        };
        *steps = left;
        found.extend(schema.get("items"));
        for part in self.parts(schema) {
            self.items(part, found, steps);
        }
    }

    /// Which kinds of value `schema` allows.
    fn kinds(&self, schema: &'s Value, steps: &mut usize) -> Kinds {
        let mut kinds = Kinds::from(ALL);
        let Some(left) = steps.checked_sub(1) else {
            return kinds;
        };
        *steps = left;
        let Value::Object(schema) = schema else {
            return if schema == &Value::Bool(false) {
                Kinds::new()
            } else {
                kinds
            };
        };
        let mut only = |allowed: Kinds| kinds.retain(|kind| allowed.contains(kind));
        match schema.get("type") {
            Some(Value::String(name)) => only(named(name).collect()),
            Some(Value::Array(names)) => {
                only(
                    names
                        .iter()
                        .filter_map(Value::as_str)
                        .flat_map(named)
                        .collect(),
                );
            }
            _ => {}
        }
        if let Some(value) = schema.get("const") {
            only(kind_of(value).into());
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            only(values.iter().flat_map(kind_of).collect());
        }
        for part in self
            .reference(schema)
            .into_iter()
            .chain(members(schema, "allOf"))
        {
            only(self.kinds(part, steps));
        }
        for choice in ["anyOf", "oneOf"] {
            if schema.contains_key(choice) {
                let union = members(schema, choice).flat_map(|part| self.kinds(part, steps));
                only(union.collect());
            }
        }
        kinds
    }

    /// The schemas that `schema` is made of.
    fn parts(&self, schema: &'s Map<String, Value>) -> impl Iterator<Item = &'s Value> {
        let members = ["allOf", "anyOf", "oneOf"].map(|word| members(schema, word));
        self.reference(schema)
            .into_iter()
            .chain(members.into_iter().flatten())
    }

    /// Where `$ref` leads, within this document. One that leads elsewhere says nothing: anything may be there.
    fn reference(&self, schema: &'s Map<String, Value>) -> Option<&'s Value> {
        let pointer = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer)
    }
}

/// The schemas in the list `word` of `schema`.
fn members<'s>(schema: &'s Map<String, Value>, word: &str) -> impl Iterator<Item = &'s Value> {
    let list = schema.get(word).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// The kinds that a type's name stands for.
fn named(name: &str) -> impl Iterator<Item = Kind> {
    let kinds: &[Kind] = match name {
        "null" => &[Kind::Null],
        "boolean" => &[Kind::Boolean],
        "integer" => &[Kind::Integer],
        "number" => &[Kind::Integer, Kind::Number],
        "string" => &[Kind::String],
        "array" => &[Kind::Array],
        "object" => &[Kind::Object],
        _ => &[],
    };
    kinds.iter().copied()
}

/// The kinds that a value is of.
fn kind_of(value: &Value) -> [Kind; 1] {
    [match value {
        Value::Null => Kind::Null,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(number) if number.is_f64() => Kind::Number,
        Value::Number(_) => Kind::Integer,
        Value::String(_) => Kind::String,
        Value::Array(_) => Kind::Array,
        Value::Object(_) => Kind::Object,
    }]
}

/// Whether `name` is an ordinary name of a field in every store.
fn is_plain(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

#[cfg(test)]
mod tests;
