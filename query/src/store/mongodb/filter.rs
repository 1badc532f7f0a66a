//! A query as a filter of MongoDB.
//!
//! MongoDB compares a scalar with a list's items too, and looks into lists on the way; guards keep it from both. A condition that
//! needs no guard of another kind can use an index on its field.

use mongodb::bson::{Bson, Document, doc};

use crate::store::condition::{Condition, Scalar};
use crate::store::{Filter, Query};

/// A query, taken apart: what MongoDB is asked, and what is left to do with its answer.
pub(super) struct Search<'q> {
    /// What it is asked.
    pub(super) filter: Document,
    /// What the documents that come must still be held against.
    pub(super) remaining: Vec<&'q Filter>,
    /// How many it is asked for: where conditions are left, it cannot know how many are needed.
    pub(super) limit: Option<i64>,
}

impl<'q> Search<'q> {
    /// The search for `query`; `None` when it can find nothing.
    pub(super) fn of(query: &'q Query) -> Option<Self> {
        // Documents have texts as their ids; state records, in the same collection, have not.
        let mut conditions = vec![match &query.after {
            Some(id) => doc! { "_id": { "$gt": id } },
            None => doc! { "_id": { "$gte": "" } },
        }];
        if !query.deleted {
            conditions.push(doc! { "deleted": false });
        }
        let mut remaining = Vec::new();
        for filter in &query.filters {
            match Condition::of(filter) {
                Condition::Never => return None,
                Condition::Id(id) => conditions.push(doc! { "_id": { "$eq": id } }),
                Condition::Version(version) => conditions.push(doc! { "version": version }),
                Condition::CreatedAt(time) => conditions.push(doc! { "created_at": time }),
                Condition::UpdatedAt(time) => conditions.push(doc! { "updated_at": time }),
                Condition::Data(path, value) => conditions.extend(on_data(path, &value)),
                Condition::AfterReading => remaining.push(filter),
            }
        }
        let limit = i64::try_from(query.limit)
            .ok()
            .filter(|_| remaining.is_empty());
        (query.limit > 0).then(|| Self {
            filter: doc! { "$and": conditions },
            remaining,
            limit,
        })
    }
}

/// That the value at `path`, through objects only, is `value`.
fn on_data(path: &[String], value: &Scalar<'_>) -> Vec<Document> {
    let mut paths: Vec<String> = (1..=path.len())
        .filter_map(|length| Some(format!("data.{}", path.get(..length)?.join("."))))
        .collect();
    let Some(whole) = paths.pop() else {
        return Vec::new();
    };
    let wanted: Bson = match value {
        Scalar::Null => Bson::Null,
        Scalar::Bool(value) => (*value).into(),
        Scalar::Text(text) => (*text).into(),
        // MongoDB compares numbers by value, whatever form they are stored in.
        Scalar::Number {
            whole: Some(number),
            ..
        } => (*number).into(),
        Scalar::Number { whole: None, float } => float.map_or(Bson::Null, Bson::Double),
    };
    let equal = doc! { whole: { "$eq": wanted, "$not": { "$type": "array" } } };
    let is_list = |path| doc! { path: { "$type": "array" } };
    let is_none = |path| doc! { path: { "$not": { "$type": "array" } } };
    if matches!(value, Scalar::Null) {
        // What is in a list on the way is missing, and so it is null.
        let lists = paths.into_iter().map(is_list);
        let any: Vec<Document> = lists.chain([equal]).collect();
        return vec![doc! { "$or": any }];
    }
    paths.into_iter().map(is_none).chain([equal]).collect()
}
