//! A query as SQL.
//!
//! A field of `data` is compared as the text of its JSON (`data -> path` gives it as it was written), not as what SQLite would
//! make of it: `true` and `1`, `"1"` and `1` stay different, large numbers and NULs exact. A scalar has one text; a number two,
//! as a whole and as a floating-point one.

use serde_json::{Number, Value};
use sqlx::Sqlite;
use sqlx::query::Query as Statement;
use sqlx::sqlite::SqliteArguments;

use super::document::COLUMNS;
use crate::store::condition::{Condition, Scalar};
use crate::store::{Filter, Query};

/// A query, taken apart: what SQLite is asked, and what is left to do with its answer.
pub(super) struct Search<'q> {
    /// The conditions, with a placeholder for each value.
    conditions: String,
    /// The values, in order.
    values: Vec<Bound>,
    /// What the rows that come must still be held against.
    pub(super) remaining: Vec<&'q Filter>,
    limit: usize,
}

/// A value of a placeholder.
enum Bound {
    Text(String),
    Whole(i64),
}

impl<'q> Search<'q> {
    /// The search for `query`; `None` when it can find nothing.
    pub(super) fn of(query: &'q Query) -> Option<Self> {
        let mut search = Self {
            conditions: "1".to_owned(),
            values: Vec::new(),
            remaining: Vec::new(),
            limit: query.limit,
        };
        if !query.deleted {
            search.conditions.push_str(" AND deleted = 0");
        }
        if let Some(after) = &query.after {
            search.and("id > ?", [Bound::Text(after.clone())]);
        }
        for filter in &query.filters {
            match Condition::of(filter) {
                Condition::Never => return None,
                Condition::Id(id) => search.and("id = ?", [Bound::Text(id.to_owned())]),
                Condition::Version(version) => search.and("version = ?", [Bound::Whole(version)]),
                Condition::CreatedAt(time) => search.and("created_at = ?", [Bound::Whole(time)]),
                Condition::UpdatedAt(time) => search.and("updated_at = ?", [Bound::Whole(time)]),
                Condition::Data(path, value) => search.and_data(path, &value),
                Condition::AfterReading => search.remaining.push(filter),
            }
        }
        (query.limit > 0).then_some(search)
    }

    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Bound>) {
        self.conditions.push_str(" AND ");
        self.conditions.push_str(condition);
        self.values.extend(values);
    }

    /// That the value at `path` has one of the texts of `value`.
    fn and_data(&mut self, path: &[String], value: &Scalar<'_>) {
        let texts = texts(value);
        let condition = match (value, texts.len()) {
            (Scalar::Null, _) => "coalesce(data -> ?, 'null') = ?",
            (_, 1) => "data -> ? = ?",
            (_, 2) => "data -> ? IN (?, ?)",
            (_, _) => "data -> ? IN (?, ?, ?)",
        };
        let bound = std::iter::once(path_text(path)).chain(texts);
        self.and(condition, bound.map(Bound::Text));
    }

    /// The text of the statement. Where conditions are left, SQLite cannot know how many rows are needed.
    pub(super) fn sql(&self, table: &str) -> String {
        let limit = if self.remaining.is_empty() {
            i64::try_from(self.limit).unwrap_or(i64::MAX)
        } else {
            i64::MAX
        };
        let conditions = &self.conditions;
        format!("SELECT {COLUMNS} FROM {table} WHERE {conditions} ORDER BY id LIMIT {limit}")
    }

    /// Gives the statement its values.
    pub(super) fn bind<'s>(
        &self,
        statement: Statement<'s, Sqlite, SqliteArguments>,
    ) -> Statement<'s, Sqlite, SqliteArguments> {
        self.values
            .iter()
            .fold(statement, |statement, value| match value {
                Bound::Text(text) => statement.bind(text.clone()),
                Bound::Whole(number) => statement.bind(*number),
            })
    }
}

/// A path in SQLite's words. Its names have nothing in them that a quoted name may not have.
fn path_text(path: &[String]) -> String {
    let names = path.iter().map(|name| format!(".\"{name}\""));
    std::iter::once("$".to_owned()).chain(names).collect()
}

/// The texts that the JSON of `value` can have where a document was written. There are one to three.
fn texts(value: &Scalar<'_>) -> Vec<String> {
    match value {
        Scalar::Null => vec![Value::Null.to_string()],
        Scalar::Bool(value) => vec![value.to_string()],
        Scalar::Text(text) => vec![Value::from(*text).to_string()],
        Scalar::Number { whole, float } => {
            let zero = (*whole == Some(0)).then_some(-0.0);
            let floats = float.iter().copied().chain(zero);
            let numbers = whole
                .iter()
                .map(|whole| Number::from(*whole))
                .chain(floats.filter_map(Number::from_f64));
            numbers.map(|number| number.to_string()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_looked_for_in_each_text_that_it_can_have() {
        let of = |whole, float| texts(&Scalar::Number { whole, float });
        assert_eq!(of(Some(1), Some(1.0)), ["1", "1.0"]);
        assert_eq!(of(Some(0), Some(-0.0)), ["0", "-0.0", "-0.0"]);
        assert_eq!(of(None, Some(0.5)), ["0.5"]);
        assert_eq!(of(Some(i64::MAX), None), [i64::MAX.to_string()]);
    }

    #[test]
    fn values_are_bound_and_never_a_part_of_the_statement() {
        let evil = "x' OR 1=1 --";
        let query = Query {
            filters: vec![Filter {
                field: crate::store::Field::Data(vec![evil.to_owned()]),
                value: evil.into(),
            }],
            after: Some(evil.to_owned()),
            limit: 3,
            deleted: false,
        };
        assert_eq!(
            Search::of(&query).unwrap().sql("\"view_post\""),
            format!(
                "SELECT {COLUMNS} FROM \"view_post\" WHERE 1 AND deleted = 0 AND id > ? AND data -> ? = ? \
                 ORDER BY id LIMIT 3"
            )
        );
    }
}
