//! Whose documents a request is about: what keeps tenants apart on the way to the read store.

use tidelog_domain::{
    ConsistencyToken, InvalidStreamId, StreamId, Tenant, document_id, document_key,
};
use tidelog_http::{Caller, Problem, ProblemKind};

use crate::store::{Field, Filter, Query, Test};

/// Whose documents a request is about.
///
/// It makes the ids that a request reads by, and narrows what it searches for. Where there are no tenants, it changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope(Option<Tenant>);

impl Scope {
    pub(super) fn of(caller: &Caller) -> Self {
        Self(caller.tenant().cloned())
    }

    /// Whose they are, where there are tenants.
    pub(super) fn tenant(&self) -> Option<&Tenant> {
        self.0.as_ref()
    }

    /// The id of the document that the client calls `key`.
    pub(super) fn document(&self, key: &str) -> String {
        document_id(self.0.as_ref(), key)
    }

    /// Whether the document `id` is among those that it is about.
    pub(super) fn has(&self, id: &str) -> bool {
        self.document(document_key(id)) == id
    }

    /// The stream that the client calls `id` in `category`.
    pub(super) fn stream(&self, category: &str, id: &str) -> Result<StreamId, InvalidStreamId> {
        StreamId::of(self.0.as_ref(), category, id)
    }

    /// Whether the write of `token` is one of those that it is about.
    pub(super) fn has_written(&self, token: &ConsistencyToken) -> bool {
        token.is_of(self.0.as_ref())
    }

    /// Narrows `query` to its documents, and makes the ids that the client named those that the store has.
    ///
    /// # Errors
    ///
    /// [`ProblemKind::UnknownParameter`] for a test of the id that would see more of it than the client does.
    pub(super) fn narrow(&self, query: &mut Query) -> Result<(), Problem> {
        let Some(tenant) = &self.0 else {
            return Ok(());
        };
        let asked = self.named(std::mem::take(&mut query.filter))?;
        let own = Filter::Field(Field::Id, Test::Prefix(tenant.documents()));
        query.filter = Filter::All(vec![own, asked]);
        Ok(())
    }

    /// `filter`, with the ids that the store has.
    fn named(&self, filter: Filter) -> Result<Filter, Problem> {
        let all = |filters: Vec<Filter>| -> Result<Vec<Filter>, Problem> {
            filters.into_iter().map(|one| self.named(one)).collect()
        };
        Ok(match filter {
            Filter::All(filters) => Filter::All(all(filters)?),
            Filter::Any(filters) => Filter::Any(all(filters)?),
            Filter::Field(Field::Id, test) => Filter::Field(Field::Id, self.of_id(test)?),
            other @ Filter::Field(..) => other,
        })
    }

    fn of_id(&self, test: Test) -> Result<Test, Problem> {
        let id = |value: serde_json::Value| match value.as_str() {
            Some(key) => self.document(key).into(),
            None => value,
        };
        Ok(match test {
            Test::Is(value) => Test::Is(id(value)),
            Test::Not(value) => Test::Not(id(value)),
            Test::OneOf(values) => Test::OneOf(values.into_iter().map(id).collect()),
            Test::Above(value) => Test::Above(id(value)),
            Test::AtLeast(value) => Test::AtLeast(id(value)),
            Test::Below(value) => Test::Below(id(value)),
            Test::AtMost(value) => Test::AtMost(id(value)),
            Test::Prefix(text) => Test::Prefix(self.document(&text)),
            test @ (Test::HasItem(_) | Test::Exists(_)) => test,
            Test::ContainsText(_) => {
                let detail = "The parameter `id[contains]` is not possible where there are tenants: ask for `id[prefix]`.";
                return Err(Problem::new(ProblemKind::UnknownParameter, detail));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn scope(tenant: &str) -> Scope {
        Scope(Some(Tenant::new(tenant).unwrap()))
    }

    fn narrowed(scope: &Scope, filter: Filter) -> Filter {
        let mut query = Query {
            filter,
            ..Query::default()
        };
        scope.narrow(&mut query).unwrap();
        query.filter
    }

    #[test]
    fn without_tenants_nothing_changes() {
        let filter = Filter::is(Field::Id, json!("a"));
        let scope = Scope::default();
        assert_eq!(narrowed(&scope, filter.clone()), filter);
        assert_eq!(scope.document("a"), "a");
        assert!(scope.has("a") && !scope.has("acme␟a"));
    }

    #[test]
    fn whatever_is_asked_is_asked_of_the_tenants_documents_alone() {
        let acme = scope("acme");
        let own = Filter::Field(Field::Id, Test::Prefix("acme␟".to_owned()));
        let title = Filter::is(Field::Data(vec!["title".to_owned()]), json!("a"));
        let any = Filter::Any(vec![Filter::is(Field::Id, json!("p1")), title.clone()]);
        let asked = Filter::Any(vec![Filter::is(Field::Id, json!("acme␟p1")), title]);
        assert_eq!(narrowed(&acme, any), Filter::All(vec![own, asked]));
        assert!(acme.has("acme␟a") && !acme.has("a") && !acme.has("beta␟a"));
        assert!(!acme.has("acme2␟a"));
    }

    #[test]
    fn every_test_of_an_id_is_one_of_the_stored_id() {
        let acme = scope("acme");
        let id = |value: &Value| value.as_str() == Some("acme␟beta␟p");
        let key = || json!("beta␟p");
        for test in [
            Test::Is(key()),
            Test::Not(key()),
            Test::Above(key()),
            Test::AtLeast(key()),
            Test::Below(key()),
            Test::AtMost(key()),
        ] {
            let (Test::Is(value)
            | Test::Not(value)
            | Test::Above(value)
            | Test::AtLeast(value)
            | Test::Below(value)
            | Test::AtMost(value)) = acme.of_id(test).unwrap()
            else {
                panic!("another test");
            };
            assert!(id(&value), "{value}");
        }
        assert_eq!(
            acme.of_id(Test::OneOf(vec![key(), json!("x")])).unwrap(),
            Test::OneOf(vec![json!("acme␟beta␟p"), json!("acme␟x")])
        );
        let prefix = acme.of_id(Test::Prefix("be".to_owned())).unwrap();
        assert_eq!(prefix, Test::Prefix("acme␟be".to_owned()));
        let contains = acme.of_id(Test::ContainsText("acm".to_owned()));
        assert_eq!(contains.unwrap_err().kind(), ProblemKind::UnknownParameter);
    }
}
