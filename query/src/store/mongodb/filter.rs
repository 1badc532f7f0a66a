//! A query as a filter of MongoDB.
//!
//! MongoDB compares a scalar with a list's items too, and looks into lists on the way; guards keep it from both. It compares
//! numbers with numbers and texts with texts alone, by value and bytewise. What a client wrote is only ever a value of an
//! operator that takes any value as it is: no expression and no regular expression is made of it.

use mongodb::bson::{Bson, Document, doc};

use crate::store::condition::{Ask, Asked, Condition, Key, Number64, Relation, Scalar, Subject};
use crate::store::{Direction, Query};

/// A query, taken apart: what MongoDB is asked, and what is left to do with its answer.
pub(super) struct Search<'q> {
    asked: Asked<'q>,
    deleted: bool,
    limit: usize,
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

    /// Whether the documents come in the query's order, from its place on.
    pub(super) const fn is_sorted(&self) -> bool {
        self.asked.order.is_some()
    }

    /// What is asked.
    pub(super) fn filter(&self) -> Document {
        // Documents say whether they are deleted; state records, in the same collection, do not. (Their ids tell them apart too, but a
        // condition on the id has the server look for ids where it could go by an index on what is sorted by.)
        let deleted = if self.deleted {
            doc! { "$exists": true }
        } else {
            doc! { "$eq": false }
        };
        let mut conditions = vec![doc! { "deleted": deleted }];
        if self.asked.condition != Condition::Always {
            conditions.push(condition(&self.asked.condition));
        }
        doc! { "$and": conditions }
    }

    /// In which order.
    pub(super) fn sort(&self) -> Document {
        let mut sort = Document::new();
        for (subject, direction) in self.asked.order.iter().flatten() {
            let direction = match direction {
                Direction::Ascending => 1,
                Direction::Descending => -1,
            };
            // A field counts where it stands first.
            sort.entry(path(*subject)).or_insert(Bson::Int32(direction));
        }
        if self.is_sorted() {
            sort.entry("_id".to_owned()).or_insert(Bson::Int32(1));
        }
        sort
    }

    /// How many it is asked for: where more is to be done with them, it cannot know how many are needed.
    pub(super) fn limit(&self) -> Option<i64> {
        let all = !self.is_wider() && self.is_sorted();
        i64::try_from(self.limit).ok().filter(|_| all)
    }
}

fn condition(asked: &Condition<'_>) -> Document {
    let each = |conditions: &[Condition<'_>]| -> Vec<Document> {
        conditions.iter().map(condition).collect()
    };
    match asked {
        Condition::Always => doc! {},
        Condition::Never => doc! { "_id": { "$in": [] } },
        Condition::All(all) => doc! { "$and": each(all) },
        Condition::Any(any) => doc! { "$or": each(any) },
        Condition::Test(subject, ask) => test(*subject, ask),
    }
}

fn test(subject: Subject<'_>, ask: &Ask<'_>) -> Document {
    match ask {
        Ask::Is(value) => is(subject, *value),
        Ask::Not(value) => doc! { "$nor": [is(subject, *value)] },
        Ask::OneOf(values) => one_of(subject, values),
        Ask::Than(relation, bound) => {
            let operator = match relation {
                Relation::Above => "$gt",
                Relation::AtLeast => "$gte",
                Relation::Below => "$lt",
                Relation::AtMost => "$lte",
            };
            scalar(subject, doc! { operator: bson(*bound) })
        }
        Ask::Between(from, Some(to)) => scalar(subject, doc! { "$gte": from, "$lt": to }),
        Ask::Between(from, None) => scalar(subject, doc! { "$gte": from }),
        Ask::Contains(part) => contains(subject, part),
        Ask::HasItem(value) => {
            let has = doc! { "$elemMatch": { "$eq": bson(*value) } };
            guarded(subject, doc! { path(subject): has })
        }
        Ask::Behind(direction, key) => behind(subject, *direction, *key),
        Ask::Composite => of_type(subject, &["object", "array"]),
    }
}

/// That a field has this value.
fn is(subject: Subject<'_>, value: Scalar<'_>) -> Document {
    let equal = doc! { "$eq": bson(value) };
    if value != Scalar::Null {
        return scalar(subject, equal);
    }
    // What is in a list on the way is missing, and so it is null.
    let mut any: Vec<Document> = on_the_way(subject)
        .map(|path| doc! { path: { "$type": "array" } })
        .collect();
    any.push(doc! { path(subject): no_list(equal) });
    doc! { "$or": any }
}

fn one_of(subject: Subject<'_>, values: &[Scalar<'_>]) -> Document {
    let others = values.iter().filter(|value| **value != Scalar::Null);
    let others: Vec<Bson> = others.map(|value| bson(*value)).collect();
    let has_null = others.len() < values.len();
    let one = scalar(subject, doc! { "$in": others });
    if has_null {
        doc! { "$or": [is(subject, Scalar::Null), one] }
    } else {
        one
    }
}

/// That a field is a text with `part` in it: `part` is a literal, and no pattern.
fn contains(subject: Subject<'_>, part: &str) -> Document {
    let field = format!("${}", path(subject));
    let index = doc! { "$indexOfBytes": [&field, { "$literal": part }] };
    let is_text = doc! { "$eq": [{ "$type": &field }, "string"] };
    doc! { "$expr": { "$cond": [is_text, { "$gte": [index, 0] }, false] } }
}

/// That a field is behind a place of the order of all values: nothing, numbers, texts, objects and lists, truth values.
fn behind(subject: Subject<'_>, direction: Direction, key: Key<'_>) -> Document {
    let up = direction == Direction::Ascending;
    let (value, kinds): (Option<Document>, &[&str]) = match (key, up) {
        (Key::Composite, true) => return doc! { "_id": { "$in": [] } },
        (Key::Composite, false) => (None, &["number", "string", "bool"]),
        (Key::Scalar(Scalar::Null), true) => return test(subject, &Ask::Not(Scalar::Null)),
        (Key::Scalar(Scalar::Null), false) => return doc! { "_id": { "$in": [] } },
        (Key::Scalar(value), up) => {
            let operator = if up { "$gt" } else { "$lt" };
            let beyond = scalar(subject, doc! { operator: bson(value) });
            let kinds: &[&str] = match (value, up) {
                (Scalar::Text(_), true) => &["bool", "object", "array"],
                (Scalar::Bool(_), true) => &["object", "array"],
                (_, true) => &["string", "bool", "object", "array"],
                (Scalar::Text(_), false) => &["number"],
                (Scalar::Bool(_), false) => &["number", "string"],
                (_, false) => &[],
            };
            (Some(beyond), kinds)
        }
    };
    let Subject::Data(_) = subject else {
        // Of one kind, and always there.
        return value.unwrap_or_default();
    };
    let mut any: Vec<Document> = value.into_iter().collect();
    if !kinds.is_empty() {
        any.push(of_type(subject, kinds));
    }
    if !up {
        any.push(is(subject, Scalar::Null));
    }
    doc! { "$or": any }
}

/// That a field is of one of these types.
fn of_type(subject: Subject<'_>, types: &[&str]) -> Document {
    let types: Vec<&str> = types.to_vec();
    // MongoDB asks this of a list's items too.
    let of_type = if types.contains(&"array") {
        doc! { "$type": types }
    } else {
        no_list(doc! { "$type": types })
    };
    guarded(subject, doc! { path(subject): of_type })
}

/// That a field is no list, and so.
fn scalar(subject: Subject<'_>, so: Document) -> Document {
    match subject {
        Subject::Id | Subject::Envelope(_) => doc! { path(subject): so },
        Subject::Data(_) => guarded(subject, doc! { path(subject): no_list(so) }),
    }
}

fn no_list(mut so: Document) -> Document {
    so.insert("$not", doc! { "$type": "array" });
    so
}

/// `so`, and that there is no list on the way to the field.
fn guarded(subject: Subject<'_>, so: Document) -> Document {
    let mut all: Vec<Document> = on_the_way(subject)
        .map(|path| doc! { path: { "$not": { "$type": "array" } } })
        .collect();
    if all.is_empty() {
        return so;
    }
    all.push(so);
    doc! { "$and": all }
}

/// Where a field is.
pub(super) fn path(subject: Subject<'_>) -> String {
    match subject {
        Subject::Id => "_id".to_owned(),
        Subject::Envelope(Number64::Version) => "version".to_owned(),
        Subject::Envelope(Number64::CreatedAt) => "created_at".to_owned(),
        Subject::Envelope(Number64::UpdatedAt) => "updated_at".to_owned(),
        Subject::Data(path) => format!("data.{}", path.join(".")),
    }
}

/// The objects on the way to a field.
fn on_the_way(subject: Subject<'_>) -> impl Iterator<Item = String> {
    let names: &[String] = match subject {
        Subject::Data(path) => path,
        Subject::Id | Subject::Envelope(_) => &[],
    };
    (1..names.len()).filter_map(|length| Some(format!("data.{}", names.get(..length)?.join("."))))
}

fn bson(value: Scalar<'_>) -> Bson {
    match value {
        Scalar::Null => Bson::Null,
        Scalar::Bool(value) => value.into(),
        Scalar::Whole(number) => number.into(),
        Scalar::Float(number) => number.into(),
        Scalar::Text(text) => text.into(),
    }
}
