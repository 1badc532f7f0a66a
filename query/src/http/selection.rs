//! Which fields of a document a client wants to see.

use serde_json::{Map, Value};
use tidelog_domain::ViewDefinition;
use tidelog_http::Problem;

use super::operators::{ENVELOPE, no_field};
use super::parameters::Parameter;
use super::representation::DELETED;
use super::shape::{NoScalar, Shape};

/// The most fields that can be chosen.
pub(super) const MAX_FIELDS: usize = 64;

/// The fields that were chosen, as the names on the way to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection(Vec<Vec<String>>);

impl Selection {
    /// The fields that `parameter` chooses. The id is always among them.
    ///
    /// # Errors
    ///
    /// A problem when there are too many, or the view has no such field.
    pub(super) fn of(view: &dyn ViewDefinition, parameter: &Parameter) -> Result<Self, Problem> {
        let names: Vec<&str> = parameter.value.split(',').collect();
        if names.len() > MAX_FIELDS || names.contains(&"") {
            let wanted =
                format!("the names of at most {MAX_FIELDS} fields, with commas between them");
            return Err(parameter.malformed(&wanted));
        }
        let mut paths = vec![vec!["id".to_owned()]];
        for name in names {
            let path: Vec<&str> = name.split('.').collect();
            let is_envelope = name == DELETED || ENVELOPE.iter().any(|(known, _)| *known == name);
            if !is_envelope && Shape::of(view.schema(), &path) == Err(NoScalar::Unknown) {
                return Err(parameter.names_unknown(name, &no_field(view, NoScalar::Unknown)));
            }
            paths.push(path.into_iter().map(str::to_owned).collect());
        }
        Ok(Self(paths))
    }

    /// What is chosen of a document.
    pub(super) fn apply(&self, document: Value) -> Value {
        let paths: Vec<&[String]> = self.0.iter().map(Vec::as_slice).collect();
        match document {
            Value::Object(fields) => Value::Object(chosen(fields, &paths)),
            other => other,
        }
    }
}

/// The fields at the ends of `paths`, in the order of `fields`.
fn chosen(fields: Map<String, Value>, paths: &[&[String]]) -> Map<String, Value> {
    let mut kept = Map::new();
    for (name, value) in fields {
        let behind: Vec<&[String]> = paths
            .iter()
            .filter_map(|path| path.split_first())
            .filter(|(first, _)| **first == name)
            .map(|(_, rest)| rest)
            .collect();
        if behind.iter().any(|rest| rest.is_empty()) {
            kept.insert(name, value);
        } else if let (false, Value::Object(inner)) = (behind.is_empty(), value) {
            kept.insert(name, Value::Object(chosen(inner, &behind)));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_chosen_is_shown_in_the_order_of_the_document_and_the_id_always() {
        let document = json!({"id": "p1", "a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [{"g": 1}], "version": 1});
        let of = |paths: &[&str]| {
            let paths = paths.iter().chain(&["id"]);
            let paths = paths.map(|path| path.split('.').map(str::to_owned).collect());
            Selection(paths.collect())
                .apply(document.clone())
                .to_string()
        };
        assert_eq!(of(&["version", "a"]), r#"{"id":"p1","a":1,"version":1}"#);
        assert_eq!(of(&["b.d.e"]), r#"{"id":"p1","b":{"d":{"e":3}}}"#);
        assert_eq!(of(&["b.c", "b"]), r#"{"id":"p1","b":{"c":2,"d":{"e":3}}}"#);
        assert_eq!(of(&["f.g", "a.x", "nothing"]), r#"{"id":"p1"}"#);
        assert_eq!(of(&["b.x"]), r#"{"id":"p1","b":{}}"#);
    }
}
