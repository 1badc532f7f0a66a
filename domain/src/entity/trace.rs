//! Makes the [`Outline`] of a schema: follows its references and combinations to every place where fields may be.

use std::collections::{HashMap, VecDeque};

use jsonschema::PatternOptions;
use serde_json::{Map, Value, json};

use super::invalid::InvalidSchema;
use super::outline::{Outline, Place, PlaceId, is_storable, pointer_to};
use super::parts::{Part, References, as_list, base_of, fields, keywords, list};

/// The most places that a schema may describe: combinations of recursive schemas could be without end.
pub(super) const MAX_PLACES: usize = 4_096;

/// The most steps back that a regular expression of a schema may take on one text.
const MAX_BACKTRACKS: usize = 100_000;

/// How regular expressions are run: with a bound on the work that a text can cause.
pub(super) fn patterns() -> PatternOptions<jsonschema::FancyRegex> {
    PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS)
}

/// Makes the outline of `schema`, which is a valid schema whose references all lead to somewhere in it. It may not
/// declare the fields that are `reserved`.
pub(super) fn trace(
    schema: &Value,
    reserved: &'static [&'static str],
) -> Result<Outline, InvalidSchema> {
    let base = base_of(schema)?;
    let references = References::of(schema, &base)?;
    let mut tracer = Tracer {
        references: &references,
        reserved,
        places: Vec::new(),
        known: HashMap::new(),
        queue: VecDeque::new(),
    };
    tracer.place_of(vec![Part::root(schema, base)?], String::new())?;
    while let Some(todo) = tracer.queue.pop_front() {
        let place = tracer.survey(&todo)?;
        if let Some(slot) = tracer.places.get_mut(todo.id) {
            *slot = place;
        }
    }
    Ok(Outline {
        places: tracer.places,
        reserved,
    })
}

/// A place whose schemas are known, and still to be looked at.
struct Todo<'r> {
    id: PlaceId,
    /// All schemas that may apply there.
    parts: Vec<Part<'r>>,
    /// The first way that was found to it, as a JSON Pointer into the entity.
    pointer: String,
}

/// What tells places apart: the schemas that apply there, by address, and whether they always do.
type PartsKey = Vec<(*const Map<String, Value>, bool)>;

/// Walks through a schema, place by place.
struct Tracer<'r> {
    references: &'r References<'r>,
    reserved: &'static [&'static str],
    places: Vec<Place>,
    /// The places found so far.
    known: HashMap<PartsKey, PlaceId>,
    queue: VecDeque<Todo<'r>>,
}

impl<'r> Tracer<'r> {
    /// The place to which all of `seeds` apply.
    fn place_of(
        &mut self,
        seeds: Vec<Part<'r>>,
        pointer: String,
    ) -> Result<PlaceId, InvalidSchema> {
        let parts = self.references.closure(seeds)?;
        let mut key: PartsKey = parts
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

    /// Looks at a place: what its schemas say of it, and which places are within it.
    fn survey(&mut self, todo: &Todo<'r>) -> Result<Place, InvalidSchema> {
        if todo.id == 0 {
            require_own_object(&todo.parts, self.reserved)?;
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
                    .filter_map(|inner| self.references.within(part, inner))
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
                schemas.extend(self.references.within(part, schema));
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
                others.extend(self.references.within(part, schema));
            }
            for keyword in ["additionalProperties", "unevaluatedProperties"] {
                if let Some(schema) = part.schema.get(keyword) {
                    open |= *schema != Value::Bool(false);
                    others.extend(self.references.within(part, schema));
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

/// Requires of the schemas of the entity itself that they want an object and leave the `reserved` fields alone.
fn require_own_object(parts: &[Part<'_>], reserved: &[&str]) -> Result<(), InvalidSchema> {
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
            .find(|name| reserved.contains(name))
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
