//! Makes the [`Outline`] of a schema: follows its references and combinations to every place where fields may be.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jsonschema::{PatternOptions, Registry, Uri};
use serde_json::{Map, Value, json};

use super::invalid::InvalidSchema;
use super::outline::{Outline, Place, PlaceId, SERVER_SET, is_storable, pointer_to};

/// The most places that a schema may describe: combinations of recursive schemas could be without end.
pub(super) const MAX_PLACES: usize = 4_096;

/// The most steps back that a regular expression of a schema may take on one text.
const MAX_BACKTRACKS: usize = 100_000;

/// Keywords that lead to other schemas, or say nothing about the value itself.
const STRUCTURE: [&str; 34] = [
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
];

/// How regular expressions are run: with a bound on the work that a text can cause.
pub(super) fn patterns() -> PatternOptions<jsonschema::FancyRegex> {
    PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS)
}

/// Makes the outline of `schema`, which is a valid schema whose references all lead to somewhere in it.
pub(super) fn trace(schema: &Value) -> Result<Outline, InvalidSchema> {
    let id = schema.get("$id").and_then(Value::as_str).unwrap_or("");
    let base = jsonschema::uri::from_str(id).map_err(broken)?;
    let registry = Registry::new()
        .retriever(NothingIsFetched)
        .add(base.as_str(), schema)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .map_err(broken)?;
    let root = Part {
        schema: schema.as_object().ok_or(InvalidSchema::NotAnObject)?,
        base: Arc::new(base),
        certain: true,
    };
    let mut tracer = Tracer {
        registry: &registry,
        places: Vec::new(),
        known: HashMap::new(),
        queue: VecDeque::new(),
    };
    tracer.place_of(vec![root], String::new())?;
    while let Some(todo) = tracer.queue.pop_front() {
        let place = tracer.survey(&todo)?;
        if let Some(slot) = tracer.places.get_mut(todo.id) {
            *slot = place;
        }
    }
    Ok(Outline {
        places: tracer.places,
    })
}

/// An error of following references.
fn broken(error: jsonschema::ReferencingError) -> InvalidSchema {
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

/// One schema that applies at a place.
#[derive(Clone)]
struct Part<'r> {
    schema: &'r Map<String, Value>,
    /// What its references are relative to.
    base: Arc<Uri<String>>,
    /// Whether it always applies, or only under some condition (`anyOf`, `then`, …).
    certain: bool,
}

/// A place whose schemas are known, and still to be looked at.
struct Todo<'r> {
    id: PlaceId,
    /// All schemas that may apply there.
    parts: Vec<Part<'r>>,
    /// The first way that was found to it, as a JSON Pointer into the entity.
    pointer: String,
}

struct Tracer<'r> {
    registry: &'r Registry<'r>,
    places: Vec<Place>,
    /// The places found so far, by the schemas (their addresses) that apply there.
    known: HashMap<Vec<(*const Map<String, Value>, bool)>, PlaceId>,
    queue: VecDeque<Todo<'r>>,
}

impl<'r> Tracer<'r> {
    /// The place to which all of `seeds` apply.
    fn place_of(
        &mut self,
        seeds: Vec<Part<'r>>,
        pointer: String,
    ) -> Result<PlaceId, InvalidSchema> {
        let parts = self.closure(seeds);
        let mut key: Vec<_> = parts
            .iter()
            .map(|part| (std::ptr::from_ref(part.schema), part.certain))
            .collect();
        key.sort_unstable();
        if let Some(id) = self.known.get(&key) {
            return Ok(*id);
        }
        let id = self.places.len();
        if id >= MAX_PLACES {
            return Err(InvalidSchema::TooLarge);
        }
        self.places.push(Place::default());
        self.known.insert(key, id);
        self.queue.push_back(Todo { id, parts, pointer });
        Ok(id)
    }

    /// All schemas that apply, or may apply, to a value to which `seeds` apply.
    ///
    /// Those that are certain come first, because what is reached both ways is certain.
    fn closure(&self, seeds: Vec<Part<'r>>) -> Vec<Part<'r>> {
        let (certain, uncertain): (Vec<_>, Vec<_>) =
            seeds.into_iter().partition(|part| part.certain);
        let mut parts = Vec::new();
        extend(&mut parts, certain);
        spread(&mut parts, |part| self.always(part));
        extend(&mut parts, uncertain);
        spread(&mut parts, |part| {
            let mut inner = self.always(part);
            inner.extend(self.sometimes(part));
            inner
        });
        parts
    }

    /// The schemas that apply where `part` does.
    fn always(&self, part: &Part<'r>) -> Vec<Part<'r>> {
        let references = ["$ref", "$dynamicRef"]
            .into_iter()
            .filter_map(|keyword| part.schema.get(keyword)?.as_str())
            .filter_map(|reference| self.follow(part, reference));
        let all_of = list(part.schema, "allOf").filter_map(|inner| self.child(part, inner));
        references.chain(all_of).collect()
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
            .filter_map(|inner| self.child(part, inner))
            .map(|inner| Part {
                certain: false,
                ..inner
            })
            .collect()
    }

    /// The schema that `reference` of `part` leads to; `None` for one that says nothing (`true`).
    fn follow(&self, part: &Part<'r>, reference: &str) -> Option<Part<'r>> {
        let resolver = self.registry.resolver((*part.base).clone());
        let resolved = resolver.lookup(reference).ok()?;
        let base = resolved.resolver().base_uri();
        let (schema, _, _) = resolved.into_inner();
        self.part(schema, base, part.certain)
    }

    /// The schema `inner`, written within `part`.
    fn child(&self, part: &Part<'r>, inner: &'r Value) -> Option<Part<'r>> {
        self.part(inner, Arc::clone(&part.base), part.certain)
    }

    fn part(&self, schema: &'r Value, base: Arc<Uri<String>>, certain: bool) -> Option<Part<'r>> {
        let schema = schema.as_object()?;
        let base = schema
            .get("$id")
            .and_then(Value::as_str)
            .and_then(|id| self.registry.resolve_uri(&base.borrow(), id).ok())
            .unwrap_or(base);
        Some(Part {
            schema,
            base,
            certain,
        })
    }

    /// Looks at a place: what its schemas say of it, and which places are within it.
    fn survey(&mut self, todo: &Todo<'r>) -> Result<Place, InvalidSchema> {
        if todo.id == 0 {
            require_own_object(&todo.parts)?;
        }
        let mut place = Place {
            keywords: keywords(&todo.parts),
            ..Place::default()
        };
        self.survey_fields(todo, &mut place)?;
        self.survey_others(todo, &mut place)?;
        let items: Vec<_> = todo
            .parts
            .iter()
            .flat_map(|part| {
                let each = ["items", "unevaluatedItems"]
                    .into_iter()
                    .filter_map(|keyword| part.schema.get(keyword));
                each.chain(list(part.schema, "prefixItems"))
                    .filter_map(|inner| self.child(part, inner))
            })
            .collect();
        if !items.is_empty() {
            place.items = Some(self.place_of(items, format!("{}/0", todo.pointer))?);
        }
        Ok(place)
    }

    /// The fields that are named.
    fn survey_fields(&mut self, todo: &Todo<'r>, place: &mut Place) -> Result<(), InvalidSchema> {
        let mut seeds: HashMap<&'r str, Vec<Part<'r>>> = HashMap::new();
        for part in &todo.parts {
            for (name, schema) in fields(part.schema, "properties") {
                let schemas = seeds.entry(name).or_insert_with(|| {
                    place.names.push(name.to_owned());
                    Vec::new()
                });
                schemas.extend(self.child(part, schema));
            }
        }
        for name in &place.names {
            if !is_storable(name) {
                return Err(InvalidSchema::FieldName {
                    field: name.clone(),
                    place: todo.pointer.clone(),
                });
            }
            let schemas = seeds.remove(name.as_str()).unwrap_or_default();
            let id = self.place_of(schemas, pointer_to(&todo.pointer, name))?;
            place.fields.insert(name.clone(), id);
        }
        Ok(())
    }

    /// What is said of the fields that are not named.
    fn survey_others(&mut self, todo: &Todo<'r>, place: &mut Place) -> Result<(), InvalidSchema> {
        let mut open = false;
        let mut patterns = Vec::new();
        let mut others = Vec::new();
        for part in &todo.parts {
            for (pattern, schema) in fields(part.schema, "patternProperties") {
                patterns.push(json!({"pattern": pattern}));
                others.extend(self.child(part, schema));
            }
            for keyword in ["additionalProperties", "unevaluatedProperties"] {
                if let Some(schema) = part.schema.get(keyword) {
                    open |= *schema != Value::Bool(false);
                    others.extend(self.child(part, schema));
                }
            }
        }
        let declares = |part: &Part<'_>| part.schema.contains_key("properties");
        place.closed = !open && todo.parts.iter().any(declares);
        if place.closed && !patterns.is_empty() {
            let validator = jsonschema::options()
                .with_pattern_options(self::patterns())
                .build(&json!({"anyOf": patterns}));
            place.patterns = Some(validator.map_err(InvalidSchema::from)?);
        }
        if !others.is_empty() {
            place.others = Some(self.place_of(others, pointer_to(&todo.pointer, "*"))?);
        }
        Ok(())
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

/// Adds all that `inner` leads to from `parts`, over any number of steps: each schema of the document once.
fn spread<'r>(parts: &mut Vec<Part<'r>>, inner: impl Fn(&Part<'r>) -> Vec<Part<'r>>) {
    let mut next = 0;
    while let Some(part) = parts.get(next) {
        let more = inner(part);
        extend(parts, more);
        next += 1;
    }
}

/// Requires of the schemas of the entity itself that they want an object and leave the server's fields alone.
fn require_own_object(parts: &[Part<'_>]) -> Result<(), InvalidSchema> {
    let mut says_object = false;
    for part in parts {
        if part.certain
            && let Some(types) = part.schema.get("type")
        {
            let object = *types == "object" || as_list(types).any(|one| *one == "object");
            if !object {
                return Err(InvalidSchema::NotAnObject);
            }
            says_object = true;
        }
        says_object |= part.schema.contains_key("properties");
        let required = list(part.schema, "required").filter_map(Value::as_str);
        let declared = fields(part.schema, "properties").map(|(name, _)| name);
        if let Some(field) = required
            .chain(declared)
            .find(|name| SERVER_SET.contains(name))
        {
            return Err(InvalidSchema::ServerSet {
                field: field.to_owned(),
            });
        }
    }
    if says_object {
        Ok(())
    } else {
        Err(InvalidSchema::NotAnObject)
    }
}

/// What the schemas of a place say of the value itself: what is certain, and the types that are possible.
fn keywords(parts: &[Part<'_>]) -> Map<String, Value> {
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
        let mut types: Vec<Value> = Vec::new();
        for part in parts {
            for one in part.schema.get("type").into_iter().flat_map(as_list) {
                if !types.contains(one) {
                    types.push(one.clone());
                }
            }
        }
        if !types.is_empty() {
            keywords.insert("type".to_owned(), Value::Array(types));
        }
    }
    keywords
}

/// The items of a list, or the one value that stands for a list of one.
fn as_list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// The items of the list `keyword`.
fn list<'r>(
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
fn fields<'r>(
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
