//! Who may do what with an entity.

use serde_json::{Map, Value};

use super::invalid::InvalidSchema;
use super::publish::{CREATE, DELETE, PATCH};

/// Where a schema says it.
pub(super) const ROLES: &str = "x-tidelog-roles";

/// Reading its view.
pub(super) const READ: &str = "read";

/// All that can be done with an entity.
const OPERATIONS: [&str; 4] = [CREATE, PATCH, DELETE, READ];

/// The roles of which a caller needs one, by what is done.
#[derive(Debug, Default)]
pub(super) struct Roles(Vec<(&'static str, Vec<String>)>);

impl Roles {
    /// What a schema says.
    pub(super) fn read(schema: &Value) -> Result<Self, InvalidSchema> {
        let Some(found) = schema.get(ROLES) else {
            return Ok(Self::default());
        };
        let read = match found {
            Value::Object(lists) => lists
                .iter()
                .map(|(name, list)| {
                    let operation = OPERATIONS.iter().find(|one| *one == name)?;
                    Some((*operation, roles(list)?))
                })
                .collect(),
            list => roles(list).map(|roles| OPERATIONS.map(|one| (one, roles.clone())).into()),
        };
        read.map(Self).ok_or_else(|| InvalidSchema::Roles {
            found: found.to_string(),
        })
    }

    /// The roles for `operation`.
    pub(super) fn of(&self, operation: &str) -> Vec<&str> {
        let lists = self.0.iter().filter(|(name, _)| *name == operation);
        lists
            .flat_map(|(_, roles)| roles.iter().map(String::as_str))
            .collect()
    }
}

/// What a schema says where `of` gives the roles for each operation; nothing where there are none.
pub(super) fn written(of: impl Fn(&str) -> &'static [&'static str]) -> Option<Value> {
    let lists = OPERATIONS
        .iter()
        .filter(|operation| !of(operation).is_empty())
        .map(|operation| ((*operation).to_owned(), Value::from(of(operation))));
    let lists: Map<String, Value> = lists.collect();
    (!lists.is_empty()).then_some(Value::Object(lists))
}

/// A list of roles that is not empty.
fn roles(list: &Value) -> Option<Vec<String>> {
    let list = list.as_array().filter(|list| !list.is_empty())?;
    let roles = list.iter().map(|role| {
        let role = role.as_str()?;
        let fits = !role.is_empty()
            && !role.contains(|c: char| c.is_control() || c.is_whitespace() || "|,=".contains(c));
        fits.then(|| role.to_owned())
    });
    roles.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entity::EntitySchema;

    fn schema(roles: Value) -> Result<EntitySchema, InvalidSchema> {
        EntitySchema::from_value("post", json!({"type": "object", ROLES: roles}))
    }

    #[test]
    fn a_schema_says_who_may_do_what() {
        let each = schema(json!({"delete": ["editor", "owner"], "read": ["reader"]})).unwrap();
        assert_eq!(each.roles(DELETE), ["editor", "owner"]);
        assert_eq!(each.roles(READ), ["reader"]);
        assert!(each.roles(CREATE).is_empty() && each.roles("nonsense").is_empty());
        let all = schema(json!(["author"])).unwrap();
        assert!(OPERATIONS.iter().all(|one| all.roles(one) == ["author"]));
    }

    #[test]
    fn what_could_be_meant_to_be_closed_and_is_not_is_refused() {
        for roles in [
            json!([]),
            json!({"delete": []}),
            json!({"remove": ["editor"]}),
            json!({"delete": "editor"}),
            json!([""]),
            json!(["a b"]),
            json!([7]),
            json!("editor"),
            json!(null),
        ] {
            let refused = schema(roles.clone());
            assert!(
                matches!(refused, Err(InvalidSchema::Roles { .. })),
                "{roles}"
            );
        }
    }

    #[test]
    fn who_may_read_it_changes_nothing_of_what_is_stored() {
        use crate::projection::ViewDefinition;
        let plain = EntitySchema::from_value("post", json!({"type": "object"})).unwrap();
        let closed = schema(json!(["author"])).unwrap();
        let view = |schema: &EntitySchema| crate::EntityView::new(schema.clone());
        assert_eq!(view(&plain).fingerprint(), view(&closed).fingerprint());
        assert_eq!(view(&closed).roles(), ["author"]);
        assert_eq!(plain.shapes()[0].schema, closed.shapes()[0].schema);
    }
}
