//! A query as SQL.
//!
//! A field of `data` is compared as the text of its JSON (`data -> path` gives it as it was written) under the collation of
//! [`collation`](super::collation), not as what SQLite would make of it: `true` and `1`, `"1"` and `1` stay different, large
//! numbers and NULs exact. Values are bound, and so are paths but those that nothing but letters, digits, `_` and `-` are in: these stand
//! in the statement, because SQLite goes by an index only where the expression is the index's to the letter.

use serde_json::Value;
use sqlx::Sqlite;
use sqlx::query::Query as Statement;
use sqlx::sqlite::SqliteArguments;

use super::collation;
use super::document::COLUMNS;
use crate::store::condition::{Ask, Asked, Condition, Key, Number64, Relation, Scalar, Subject};
use crate::store::index::is_plain_path;
use crate::store::{Direction, Query};

/// The JSON of the least text, and of the least value above all texts: texts are from the one on and below the other.
const LEAST_TEXT: &str = "\"\"";
const ABOVE_TEXTS: &str = "false";
/// The JSON of what is just below all numbers.
const BELOW_NUMBERS: &str = "null";
/// What has the place of all lists and objects.
const COMPOSITE: &str = "[]";

/// A query, taken apart: what SQLite is asked, and what is left to do with its answer.
pub(super) struct Search<'q> {
    asked: Asked<'q>,
    deleted: bool,
    limit: usize,
}

/// A statement and its values, in the order of their placeholders.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sql {
    pub(super) text: String,
    values: Vec<Bound>,
}

/// A value of a placeholder.
#[derive(Debug, PartialEq)]
enum Bound {
    Text(String),
    Whole(i64),
}

impl<'q> Search<'q> {
    /// The search for `query`; `None` when it can find nothing.
    pub(super) fn of(query: &'q Query) -> Option<Self> {
        let asked = Asked::of(query);
        let hopeless = asked.condition == Condition::Never || query.limit == 0;
        (!hopeless).then_some(Self {
            asked,
            deleted: query.deleted,
            limit: query.limit,
        })
    }

    /// Whether what comes must still be held against the query's filter.
    pub(super) const fn is_wider(&self) -> bool {
        !self.asked.exact
    }

    /// Whether the rows come in the query's order, from its place on.
    pub(super) const fn is_sorted(&self) -> bool {
        self.asked.order.is_some()
    }

    /// The statement that finds the documents. Where more is to be done with them, SQLite cannot know how many are needed.
    pub(super) fn find(&self, table: &str) -> Sql {
        let mut sql = Sql::default();
        sql.push(&format!("SELECT {COLUMNS} FROM {table} WHERE "));
        self.conditions(&mut sql);
        if let Some(order) = &self.asked.order {
            sql.push(" ORDER BY ");
            for (subject, direction) in order {
                sql.subject(*subject);
                sql.push(match direction {
                    Direction::Ascending => ", ",
                    Direction::Descending => " DESC, ",
                });
            }
            sql.push("id");
        }
        if self.asked.exact && self.is_sorted() {
            let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
            sql.push(&format!(" LIMIT {limit}"));
        }
        sql
    }

    /// The statement that counts them; `None` where SQLite cannot.
    pub(super) fn count(&self, table: &str) -> Option<Sql> {
        if self.is_wider() {
            return None;
        }
        let mut sql = Sql::default();
        sql.push(&format!("SELECT count(*) FROM {table} WHERE "));
        self.conditions(&mut sql);
        Some(sql)
    }

    fn conditions(&self, sql: &mut Sql) {
        if !self.deleted {
            sql.push("deleted = 0 AND ");
        }
        if let Some((subject, direction, key)) = self.asked.from {
            let than = match direction {
                Direction::Ascending => ">=",
                Direction::Descending => "<=",
            };
            sql.placed(subject, than, key);
            sql.push(" AND ");
        }
        sql.condition(&self.asked.condition);
    }
}

impl Sql {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A placeholder for a text.
    fn text(&mut self, text: impl Into<String>) {
        self.push("?");
        self.values.push(Bound::Text(text.into()));
    }

    fn condition(&mut self, condition: &Condition<'_>) {
        match condition {
            Condition::Always => self.push("1"),
            Condition::Never => self.push("0"),
            Condition::All(all) => self.joined(" AND ", all, Self::condition),
            Condition::Any(any) => self.joined(" OR ", any, Self::condition),
            Condition::Test(subject, ask) => self.test(*subject, ask),
        }
    }

    /// `items` in brackets, with a word between them.
    fn joined<T>(&mut self, between: &str, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.push("(");
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                self.push(between);
            }
            each(self, item);
        }
        self.push(")");
    }

    fn test(&mut self, subject: Subject<'_>, ask: &Ask<'_>) {
        match ask {
            Ask::Is(value) => self.compared(subject, "=", *value),
            Ask::Not(value) => self.compared(subject, "<>", *value),
            Ask::OneOf(values) => {
                self.subject(subject);
                self.push(" IN ");
                self.joined(", ", values, |sql, value| sql.value(subject, *value));
            }
            Ask::Than(relation, bound) => self.than(subject, *relation, *bound),
            Ask::Between(from, to) => {
                self.compared(subject, ">=", Scalar::Text(from));
                match (to, subject) {
                    (Some(to), _) => {
                        self.push(" AND ");
                        self.compared(subject, "<", Scalar::Text(to));
                    }
                    (None, Subject::Data(_)) => self.beside(subject, "<", ABOVE_TEXTS),
                    (None, _) => {}
                }
            }
            Ask::Contains(part) => self.contains(subject, part),
            Ask::HasItem(value) => self.has_item(subject, *value),
            Ask::Behind(direction, key) => {
                let than = match direction {
                    Direction::Ascending => ">",
                    Direction::Descending => "<",
                };
                self.placed(subject, than, *key);
            }
            Ask::Composite => self.json(subject, "=", COMPOSITE),
        }
    }

    /// That a value stands so to another one of its kind.
    fn than(&mut self, subject: Subject<'_>, relation: Relation, bound: Scalar<'_>) {
        let (than, is_lower) = match relation {
            Relation::Above => (">", true),
            Relation::AtLeast => (">=", true),
            Relation::Below => ("<", false),
            Relation::AtMost => ("<=", false),
        };
        self.compared(subject, than, bound);
        if matches!(subject, Subject::Data(_)) {
            match (bound, is_lower) {
                (Scalar::Text(_), true) => self.beside(subject, "<", ABOVE_TEXTS),
                (Scalar::Text(_), false) => self.beside(subject, ">=", LEAST_TEXT),
                (_, true) => self.beside(subject, "<", LEAST_TEXT),
                (_, false) => self.beside(subject, ">", BELOW_NUMBERS),
            }
        }
    }

    /// That a value of `data` stands so to one that is given by its JSON, too.
    fn beside(&mut self, subject: Subject<'_>, than: &str, json: &str) {
        self.push(" AND ");
        self.json(subject, than, json);
    }

    fn compared(&mut self, subject: Subject<'_>, than: &str, value: Scalar<'_>) {
        self.subject(subject);
        self.push(&format!(" {than} "));
        self.value(subject, value);
    }

    fn json(&mut self, subject: Subject<'_>, than: &str, json: &str) {
        self.subject(subject);
        self.push(&format!(" {than} "));
        self.text(json);
    }

    /// That a value stands so to a place in the order of all values.
    fn placed(&mut self, subject: Subject<'_>, than: &str, key: Key<'_>) {
        match key {
            Key::Scalar(value) => self.compared(subject, than, value),
            Key::Composite => self.json(subject, than, COMPOSITE),
        }
    }

    /// What is compared.
    fn subject(&mut self, subject: Subject<'_>) {
        match (expression(subject), subject) {
            (Some(plain), _) => self.push(&plain),
            (None, Subject::Data(path)) => {
                self.push("coalesce(data -> ");
                self.text(path_text(path));
                self.push(&format!(", 'null') COLLATE {}", collation::NAME));
            }
            (None, _) => self.push("NULL"),
        }
    }

    /// What it is compared with: JSON for what is in `data`.
    fn value(&mut self, subject: Subject<'_>, value: Scalar<'_>) {
        match (subject, value) {
            (Subject::Id, Scalar::Text(text)) => self.text(text),
            (Subject::Envelope(_), Scalar::Whole(number)) => {
                self.push("?");
                self.values.push(Bound::Whole(number));
            }
            (_, value) => self.text(json_of(value)),
        }
    }

    /// That a text has `part` in it.
    fn contains(&mut self, subject: Subject<'_>, part: &str) {
        if let Subject::Data(path) = subject {
            self.push("json_type(data, ");
            self.text(path_text(path));
            self.push(") = 'text' AND instr(data ->> ");
            self.text(path_text(path));
        } else {
            self.push("instr(id");
        }
        self.push(", ");
        self.text(part);
        self.push(") > 0");
    }

    /// That a list has an item.
    fn has_item(&mut self, subject: Subject<'_>, value: Scalar<'_>) {
        let Subject::Data(path) = subject else {
            return self.push("0");
        };
        self.push("json_type(data, ");
        self.text(path_text(path));
        self.push(") = 'array' AND EXISTS (SELECT 1 FROM json_each(data, ");
        self.text(path_text(path));
        self.push(") WHERE (data -> (");
        self.text(path_text(path));
        self.push(&format!(
            " || '[' || key || ']')) COLLATE {} = ",
            collation::NAME
        ));
        self.value(subject, value);
        self.push(")");
    }

    /// Gives `statement` its values.
    pub(super) fn bind<'s>(
        self,
        statement: Statement<'s, Sqlite, SqliteArguments>,
    ) -> Statement<'s, Sqlite, SqliteArguments> {
        self.values
            .into_iter()
            .fold(statement, |statement, value| match value {
                Bound::Text(text) => statement.bind(text),
                Bound::Whole(number) => statement.bind(number),
            })
    }
}

/// What is compared, as a part of a statement or of an index; `None` where its path has to be bound.
pub(super) fn expression(subject: Subject<'_>) -> Option<String> {
    Some(match subject {
        Subject::Id => "id".to_owned(),
        Subject::Envelope(Number64::Version) => "version".to_owned(),
        Subject::Envelope(Number64::CreatedAt) => "created_at".to_owned(),
        Subject::Envelope(Number64::UpdatedAt) => "updated_at".to_owned(),
        Subject::Data(path) if is_plain_path(path) => format!(
            "coalesce(data -> '{}', 'null') COLLATE {}",
            path_text(path),
            collation::NAME
        ),
        Subject::Data(_) => return None,
    })
}

/// A path in SQLite's words. Its names have nothing in them that a quoted name may not have.
fn path_text(path: &[String]) -> String {
    let names = path.iter().map(|name| format!(".\"{name}\""));
    std::iter::once("$".to_owned()).chain(names).collect()
}

fn json_of(value: Scalar<'_>) -> String {
    match value {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => value.into(),
        Scalar::Whole(number) => number.into(),
        Scalar::Float(number) => number.into(),
        Scalar::Text(text) => text.into(),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{Field, Filter, Place, Sort, Test};

    #[test]
    fn values_are_bound_and_never_a_part_of_the_statement() {
        let evil = "x' OR 1=1 --";
        let field = Field::Data(vec![evil.to_owned()]);
        let tests = [
            Test::Is(evil.into()),
            Test::Prefix(evil.to_owned()),
            Test::ContainsText(evil.to_owned()),
            Test::HasItem(evil.into()),
            Test::OneOf(vec![evil.into(), json!(1)]),
            Test::AtLeast(evil.into()),
        ];
        let query = Query {
            filter: Filter::All(tests.map(|test| Filter::Field(field.clone(), test)).into()),
            sort: vec![Sort {
                field,
                direction: Direction::Descending,
            }],
            after: Some(Place {
                keys: vec![evil.into()],
                id: evil.to_owned(),
            }),
            limit: 3,
            ..Query::default()
        };
        let search = Search::of(&query).unwrap();
        for sql in [
            search.find("\"view_post\""),
            search.count("\"view_post\"").unwrap(),
        ] {
            assert!(!sql.text.contains("OR 1=1"), "{}", sql.text);
            assert_eq!(sql.text.matches('?').count(), sql.values.len());
        }
        let by_id = Query {
            after: Some(Place::behind(evil)),
            limit: 3,
            ..Query::default()
        };
        assert_eq!(
            Search::of(&by_id).unwrap().find("\"view_post\"").text,
            format!(
                "SELECT {COLUMNS} FROM \"view_post\" WHERE deleted = 0 AND id > ? ORDER BY id LIMIT 3"
            )
        );
    }
}
