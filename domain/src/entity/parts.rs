//! The schemas that a value has to fit: those that others lead to by reference or combination.

use std::sync::Arc;

use jsonschema::{ReferencingError, Registry, Uri};
use serde_json::{Map, Value};

use super::invalid::InvalidSchema;

/// Keywords that lead to other schemas, or say nothing about the value itself.
const STRUCTURE: [&str; 36] = [
    "$ref",
    "$dynamicRef",
    "$id",
    "$anchor",
    "$dynamicAnchor",
    "$schema",
    "$vocabulary",
    "$comment",
    "$defs",
    "definitions",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependentRequired",
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "required",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "unevaluatedItems",
    "contains",
    "minContains",
    "maxContains",
    "x-tidelog-plural",
    "x-tidelog-indexes",
    "x-tidelog-roles",
];

/// One schema that applies at a place.
#[derive(Clone)]
pub(super) struct Part<'r> {
    pub(super) schema: &'r Map<String, Value>,
    /// What its references are relative to.
    base: Arc<Uri<String>>,
    /// Whether it always applies, or only under some condition (`anyOf`, `then`, …).
    pub(super) certain: bool,
}

impl<'r> Part<'r> {
    /// The whole schema, whose own address is `base`.
    pub(super) fn root(schema: &'r Value, base: Uri<String>) -> Result<Self, InvalidSchema> {
        Ok(Self {
            schema: schema.as_object().ok_or(InvalidSchema::NotAnObject)?,
            base: Arc::new(base),
            certain: true,
        })
    }
}

/// The address of a whole schema: its `$id`, or one that stands for none.
pub(super) fn base_of(schema: &Value) -> Result<Uri<String>, InvalidSchema> {
    let id = schema.get("$id").and_then(Value::as_str).unwrap_or("");
    jsonschema::uri::from_str(id.trim_end_matches('#')).map_err(broken)
}

/// Follows the references of one schema document.
pub(super) struct References<'r> {
    registry: Registry<'r>,
}

impl<'r> References<'r> {
    /// The references of `schema`, whose address is `base`.
    pub(super) fn of(schema: &'r Value, base: &Uri<String>) -> Result<Self, InvalidSchema> {
        let registry = Registry::new()
            .retriever(NothingIsFetched)
            .add(base.as_str(), schema)
            .and_then(jsonschema::RegistryBuilder::prepare)
            .map_err(broken)?;
        Ok(Self { registry })
    }

    /// All schemas that apply, or may apply, to a value to which `seeds` apply: each of the document at most once.
    ///
    /// Those that are certain come first, because what is reached both ways is certain.
    pub(super) fn closure(&'r self, seeds: Vec<Part<'r>>) -> Result<Vec<Part<'r>>, InvalidSchema> {
        let (certain, uncertain): (Vec<_>, Vec<_>) =
            seeds.into_iter().partition(|part| part.certain);
        let mut parts = Vec::new();
        extend(&mut parts, certain);
        spread(&mut parts, |part| self.always(part))?;
        extend(&mut parts, uncertain);
        spread(&mut parts, |part| {
            let mut inner = self.always(part)?;
            inner.extend(self.sometimes(part));
            Ok(inner)
        })?;
        Ok(parts)
    }

    /// The schemas that apply where `part` does.
    fn always(&'r self, part: &Part<'r>) -> Result<Vec<Part<'r>>, InvalidSchema> {
        let mut parts = Vec::new();
        for keyword in ["$ref", "$dynamicRef"] {
            if let Some(reference) = part.schema.get(keyword).and_then(Value::as_str) {
                parts.extend(self.follow(part, reference)?);
            }
        }
        parts.extend(list(part.schema, "allOf").filter_map(|inner| self.within(part, inner)));
        Ok(parts)
    }

    /// The schemas that may apply where `part` does.
    fn sometimes(&self, part: &Part<'r>) -> Vec<Part<'r>> {
        let alternatives = ["anyOf", "oneOf"]
            .into_iter()
            .flat_map(|keyword| list(part.schema, keyword));
        let conditions = ["if", "then", "else"]
            .into_iter()
            .filter_map(|keyword| part.schema.get(keyword));
        let dependent = fields(part.schema, "dependentSchemas").map(|(_, schema)| schema);
        alternatives
            .chain(conditions)
            .chain(dependent)
            .filter_map(|inner| self.within(part, inner))
            .map(|inner| Part {
                certain: false,
                ..inner
            })
            .collect()
    }

    /// The schema that `reference` of `part` leads to; `None` when it is `true` or `false`, which know no fields.
    fn follow(
        &'r self,
        part: &Part<'r>,
        reference: &str,
    ) -> Result<Option<Part<'r>>, InvalidSchema> {
        let resolver = self.registry.resolver((*part.base).clone());
        let resolved = resolver.lookup(reference).map_err(broken)?;
        // The base is already that of the schema's own `$id`.
        let base = resolved.resolver().base_uri();
        Ok(resolved.contents().as_object().map(|schema| Part {
            schema,
            base,
            certain: part.certain,
        }))
    }

    /// The schema `inner`, which is written within `part`; `None` when it is `true` or `false`.
    pub(super) fn within(&self, part: &Part<'r>, inner: &'r Value) -> Option<Part<'r>> {
        let schema = inner.as_object()?;
        let id = schema.get("$id").and_then(Value::as_str);
        let base = id.and_then(|id| self.registry.resolve_uri(&part.base.borrow(), id).ok());
        Some(Part {
            schema,
            base: base.unwrap_or_else(|| Arc::clone(&part.base)),
            certain: part.certain,
        })
    }
}

/// An error of following references.
fn broken(error: ReferencingError) -> InvalidSchema {
    InvalidSchema::BrokenReference {
        reason: error.to_string(),
    }
}

/// Refuses to fetch.
struct NothingIsFetched;

impl jsonschema::Retrieve for NothingIsFetched {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("nothing is fetched".into())
    }
}

/// Adds the schemas that are not among `parts` yet.
fn extend<'r>(parts: &mut Vec<Part<'r>>, more: Vec<Part<'r>>) {
    for part in more {
        if !parts
            .iter()
            .any(|known| std::ptr::eq(known.schema, part.schema))
        {
            parts.push(part);
        }
    }
}

/// Adds all that `inner` leads to from `parts`, over any number of steps.
fn spread<'r>(
    parts: &mut Vec<Part<'r>>,
    inner: impl Fn(&Part<'r>) -> Result<Vec<Part<'r>>, InvalidSchema>,
) -> Result<(), InvalidSchema> {
    let mut next = 0;
    while let Some(part) = parts.get(next) {
        let more = inner(part)?;
        extend(parts, more);
        next += 1;
    }
    Ok(())
}

/// What the schemas of a place say of the value itself: what is certain, the types that are possible, and the format
/// when all agree on it.
pub(super) fn keywords(parts: &[Part<'_>]) -> Map<String, Value> {
    let mut keywords = Map::new();
    for (keyword, value) in parts
        .iter()
        .filter(|part| part.certain)
        .flat_map(|part| part.schema)
    {
        if !STRUCTURE.contains(&keyword.as_str()) {
            keywords.entry(keyword).or_insert_with(|| value.clone());
        }
    }
    if !keywords.contains_key("type") {
        keywords.extend(possible_types(parts).map(|types| ("type".to_owned(), types)));
    }
    if !keywords.contains_key("format") {
        let mut formats = parts.iter().filter_map(|part| part.schema.get("format"));
        let first = formats.next();
        let agreed = first.filter(|first| formats.all(|other| other == *first));
        keywords.extend(agreed.map(|format| ("format".to_owned(), format.clone())));
    }
    keywords
}

/// The types that any of the schemas names, `null` last.
fn possible_types(parts: &[Part<'_>]) -> Option<Value> {
    let mut types: Vec<&Value> = Vec::new();
    for one in parts
        .iter()
        .filter_map(|part| part.schema.get("type"))
        .flat_map(as_list)
    {
        if !types.contains(&one) {
            types.push(one);
        }
    }
    types.sort_by_key(|one| **one == "null");
    match types.as_slice() {
        [] => None,
        [one] => Some((*one).clone()),
        many => Some(many.iter().map(|one| (*one).clone()).collect()),
    }
}

/// The items of a list, or the one value that stands for a list of one.
pub(super) fn as_list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// The items of the list `keyword`.
pub(super) fn list<'r>(
    schema: &'r Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = &'r Value> + use<'r> {
    schema
        .get(keyword)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The names and values of the object `keyword`.
pub(super) fn fields<'r>(
    schema: &'r Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = (&'r str, &'r Value)> + use<'r> {
    schema
        .get(keyword)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}
