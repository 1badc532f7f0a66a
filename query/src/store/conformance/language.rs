//! What the query language means, with the answers written by hand: each query goes through the parser of the query service, then
//! to the store, at once and page by page, with the cursors that a client would get.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value, json};
use tidelog_domain::{
    DecodeError, EventFilter, Folding, Keys, RecordedEvent, Version, ViewDefinition,
};

use super::ReadStoreFactory;
use super::sample::{find_ids, fresh, insert, with_data};
use crate::http::{QuerySettings, asked, next};
use crate::store::{Document, ReadStore};

/// The view that is asked, by its schema alone.
pub(super) struct Posts {
    schema: Value,
    filter: EventFilter,
}

impl Posts {
    pub(super) fn new() -> Self {
        let text = json!({"type": "string"});
        Self {
            schema: json!({"type": "object", "properties": {
                "title": text,
                "subtitle": {"type": ["string", "null"]},
                "rating": {"type": ["number", "null"]},
                "likes": {"type": "integer"},
                "published": {"type": "boolean"},
                "tags": {"type": "array", "items": text},
                "scores": {"type": "array", "items": {"type": ["number", "null"]}},
                "author": {"type": ["object", "null"], "properties": {
                    "name": text,
                    "address": {"type": "object", "properties": {"city": {"type": ["string", "null"]}}},
                }},
            }}),
            filter: EventFilter::Category("post".into()),
        }
    }
}

impl ViewDefinition for Posts {
    fn name(&self) -> &str {
        "post"
    }

    fn plural(&self) -> &str {
        "posts"
    }

    fn schema(&self) -> &Value {
        &self.schema
    }

    fn fingerprint(&self) -> String {
        String::new()
    }

    fn filter(&self) -> &EventFilter {
        &self.filter
    }

    fn folding(&self) -> Folding {
        Folding::FullState
    }

    fn keys(&self, _: &RecordedEvent) -> Result<Keys, DecodeError> {
        Ok(Keys::new())
    }

    fn project(
        &self,
        _: Option<Map<String, Value>>,
        _: &str,
        _: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        Ok(None)
    }
}

/// Fourteen documents, `p01` to `p14`, created a second apart. `p13` is deleted, `p14` has a list where its schema has an object.
pub(super) fn posts() -> Vec<Document> {
    let big = 1_i64 << 53;
    let data = [
        json!({"title": "Tides", "subtitle": null, "rating": 4.5, "likes": 10, "published": true, "tags": ["sea", "moon"],
               "scores": [1, 2.0], "author": {"name": "Ann", "address": {"city": "Köln"}}}),
        json!({"title": "tides", "rating": 4, "likes": 0, "published": false, "tags": [], "author": {"name": "Bob"}}),
        json!({"title": "Ebb, and flow", "subtitle": "low", "rating": 5, "likes": big + 1, "published": true,
               "tags": ["sea"], "author": {"name": "Ann", "address": {"city": "Bonn"}}}),
        json!({"title": "", "rating": null, "likes": big, "published": false, "tags": ["Sea", "a,b"], "scores": [null],
               "author": {"name": "Zoë"}}),
        json!({"title": "Ebb\0flow", "subtitle": "", "rating": -0.0, "likes": -3}),
        json!({"title": "éclair", "rating": 0, "likes": big - 1, "scores": [2], "author": null}),
        json!({"title": "e\u{301}clair", "rating": 4.0, "likes": 10, "tags": ["moon", "sea"]}),
        json!({"title": "100% \"sure\"", "rating": 1e300, "likes": 1,
               "author": {"name": "O'Neill", "address": {"city": null}}}),
        json!({"title": ".*", "subtitle": "$where", "rating": 0.1, "tags": [".*", "$ne"]}),
        json!({"title": "😀", "rating": -1.5, "likes": -big - 1}),
        json!({"title": "\u{ffff}"}),
        json!({"title": "Tides and moons", "subtitle": "low tide", "rating": 4.25, "published": true,
               "author": {"name": "Ann Lee"}}),
        json!({"title": "Tides gone", "rating": 5, "likes": 1}),
        json!({"title": "Z", "rating": 2.5, "likes": 2, "tags": ["tag"], "author": [{"name": "Ann"}]}),
    ];
    let numbered = (1..).zip(data);
    numbered
        .map(|(n, data)| {
            let document = with_data(&format!("p{n:02}"), data);
            let start: DateTime<Utc> = "2026-03-01T10:00:00Z".parse().unwrap();
            let created_at = start + Duration::seconds(n);
            Document {
                version: Version::new(match n {
                    3 => 3,
                    14 => 7,
                    _ => 1,
                }),
                created_at,
                updated_at: created_at + Duration::days(1),
                deleted: n == 13,
                ..document
            }
        })
        .collect()
}

/// A query, and the numbers of the documents that it finds, in their order.
const CASES: [(&str, &str); 93] = [
    // Everything that is not deleted, by id.
    ("", "1 2 3 4 5 6 7 8 9 10 11 12 14"),
    // Equality: exact in case, accents and normal form; no pattern; a NUL is a character.
    ("title=Tides", "1"),
    ("title[eq]=tides", "2"),
    ("title=", "4"),
    ("title=Ebb%00flow", "5"),
    ("title=Ebb", ""),
    ("title=%C3%A9clair", "6"),
    ("title=e%CC%81clair", "7"),
    ("title=.*", "9"),
    ("title=100%25+%22sure%22", "8"),
    ("subtitle=$where", "9"),
    ("subtitle=null", ""),
    // What is missing is not equal, so it is `ne`.
    ("title[ne]=Tides", "2 3 4 5 6 7 8 9 10 11 12 14"),
    ("subtitle[ne]=low", "1 2 4 5 6 7 8 9 10 11 12 14"),
    ("rating[ne]=4", "1 3 4 5 6 8 9 10 11 12 14"),
    ("rating[ne]=null", "1 2 3 5 6 7 8 9 10 12 14"),
    ("published[ne]=true", "2 4 5 6 7 8 9 10 11 14"),
    // One of several.
    ("title[in]=Tides,tides", "1 2"),
    ("title[in]=%22Ebb, and flow%22,Z", "3 14"),
    ("title[in]=%22100%25 %22%22sure%22%22%22", "8"),
    ("title[in]=", "4"),
    ("rating[in]=0.1,null", "4 9 11"),
    ("rating[in]=4,4.0,5", "2 3 7"),
    ("published[in]=false", "2 4"),
    ("id[in]=p01,p13,p14,x", "1 14"),
    ("version[in]=7,3", "3 14"),
    // The beginning of a text.
    ("title[prefix]=Tides", "1 12"),
    ("title[prefix]=Ebb", "3 5"),
    ("title[prefix]=Ebb%00", "5"),
    ("title[prefix]=.", "9"),
    ("title[prefix]=%F0%9F%98%80", "10"),
    ("title[prefix]=%EF%BF%BF", "11"),
    ("title[prefix]=", "1 2 3 4 5 6 7 8 9 10 11 12 14"),
    ("subtitle[prefix]=", "3 5 9 12"),
    ("id[prefix]=p0", "1 2 3 4 5 6 7 8 9"),
    // The inside of a text; an item of a list.
    ("title[contains]=ide", "1 2 12"),
    ("title[contains]=.*", "9"),
    ("title[contains]=%00", "5"),
    ("title[contains]=,", "3"),
    ("title[contains]=%22", "8"),
    ("title[contains]=%CC%81", "7"),
    ("subtitle[contains]=", "3 5 9 12"),
    ("id[contains]=4", "4 14"),
    ("tags[contains]=sea", "1 3 7"),
    ("tags[contains]=a,b", "4"),
    ("tags[contains]=.*", "9"),
    ("tags[contains]=", ""),
    ("scores[contains]=2", "1 6"),
    ("scores[contains]=null", "4"),
    // Ranges of texts, bytewise.
    ("title[gt]=Z", "2 6 7 10 11"),
    ("title[gte]=Z", "2 6 7 10 11 14"),
    ("title[lt]=1", "4 9"),
    ("title[lte]=Ebb", "4 8 9"),
    ("title[gt]=Ebb&title[lt]=Ebc", "3 5"),
    ("subtitle[gt]=", "3 9 12"),
    // Ranges of numbers, exact and without what is missing.
    ("rating[gt]=4", "1 3 8 12"),
    ("rating[gte]=4", "1 2 3 7 8 12"),
    ("rating[lt]=0", "10"),
    ("rating[lte]=0", "5 6 10"),
    ("rating=0", "5 6"),
    ("rating=4", "2 7"),
    ("rating=null", "4 11"),
    ("likes=9007199254740993", "3"),
    ("likes=9007199254740992.0", "4"),
    ("likes[gt]=9007199254740992", "3"),
    ("likes[lte]=9007199254740991", "1 2 5 6 7 8 10 14"),
    ("likes[lt]=-9007199254740992", "10"),
    ("likes[lt]=18446744073709551615&likes[gt]=5", "1 3 4 6 7"),
    // There, and not null.
    ("rating[exists]=false", "4 11"),
    ("rating[exists]=true", "1 2 3 5 6 7 8 9 10 12 14"),
    ("published[exists]=false", "5 6 7 8 9 10 11 14"),
    ("author[exists]=false", "5 6 7 9 10 11"),
    ("tags[exists]=false", "5 6 8 10 11 12"),
    // Nested fields, and lists that are in their way.
    ("author.name=Ann", "1 3"),
    ("author.name=O%27Neill", "8"),
    ("author.name[prefix]=Ann", "1 3 12"),
    ("author.name[exists]=true", "1 2 3 4 8 12"),
    ("author.address.city[exists]=true", "1 3"),
    ("author.address.city=K%C3%B6ln", "1"),
    // The envelope; times are instants.
    ("id[gt]=p10", "11 12 14"),
    ("version[gt]=1", "3 14"),
    ("created_at[gte]=2026-03-01T10:00:12Z", "12 14"),
    ("created_at[lt]=2026-03-01T11:00:02.5%2B01:00", "1 2"),
    ("created_at[gt]=2026-03-01T10:00:11.9999999Z", "12 14"),
    ("updated_at=2026-03-02T10:00:05Z", "5"),
    // All, any, deleted ones.
    ("rating[gte]=4&published=true", "1 3 12"),
    (
        "match=any&title=Z&rating[gt]=5&tags[contains]=Sea",
        "4 8 14",
    ),
    ("match=any", "1 2 3 4 5 6 7 8 9 10 11 12 14"),
    ("deleted=include&title[prefix]=Tides", "1 12 13"),
    // Orders: nothing first, what is equal by id.
    ("sort=title", "4 9 8 5 3 1 12 14 7 2 6 11 10"),
    ("sort=-rating", "8 3 1 12 2 7 14 9 5 6 10 4 11"),
    ("sort=-likes,-id", "3 4 6 7 1 14 8 2 5 10 12 11 9"),
    ("sort=published,-rating", "8 7 14 9 5 6 10 11 2 4 3 1 12"),
];

/// The same with an order and a limit, and how many there are on all pages.
const COUNTED: [(&str, &str, u64); 8] = [
    ("sort=rating&limit=3", "4 11 10", 13),
    ("sort=-title&limit=4", "10 11 6 2", 13),
    ("sort=likes&likes[gt]=9&limit=2", "1 7", 5),
    ("sort=-created_at&limit=2", "14 12", 13),
    ("sort=-version,id&limit=3", "14 3 1", 13),
    (
        "sort=author.name&author.name[exists]=true",
        "1 3 12 2 8 4",
        6,
    ),
    ("title[prefix]=Tides&limit=1", "1", 2),
    (
        "title[prefix]=Tides&limit=1&deleted=include&sort=-id",
        "13",
        3,
    ),
];

fn ids(numbers: &str) -> Vec<String> {
    let numbers = numbers.split_whitespace();
    numbers.map(|n| format!("p{n:0>2}")).collect()
}

/// The ids that a request gives, on its own page; the cursor of the next; how many there are.
async fn ask(
    store: &dyn ReadStore,
    collection: &str,
    text: &str,
) -> (Vec<String>, Option<String>, u64) {
    let view = Posts::new();
    let asked = asked(&view, text, &QuerySettings::default())
        .unwrap_or_else(|problem| panic!("{text}: {problem:?}"));
    let mut query = asked.query;
    let limit = query.limit;
    query.limit += 1;
    let mut found = store.find(collection, &query).await.unwrap();
    let more = found.len() > limit;
    found.truncate(limit);
    let cursor = found.last().filter(|_| more);
    let cursor = cursor.map(|last| next(&view, &query, last).unwrap());
    let count = store.count(collection, &query).await.unwrap();
    let ids = found.into_iter().map(|document| document.id).collect();
    (ids, cursor, count)
}

/// Each query of the table finds its documents, in their order, on one page and on many.
pub async fn the_query_language_means_what_its_table_says(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, posts()).await;
    for (text, numbers) in CASES {
        let expected = ids(numbers);
        let whole = format!("{text}&limit=200");
        let (found, next, count) = ask(&*store, &collection, &whole).await;
        assert_eq!(found, expected, "{text}");
        assert_eq!((next, count), (None, expected.len() as u64), "{text}");
        for limit in [1, 2, 5] {
            let mut seen = Vec::new();
            let mut page = format!("{text}&limit={limit}");
            for _ in 0..=expected.len() {
                let (found, next, count) = ask(&*store, &collection, &page).await;
                assert_eq!(count, expected.len() as u64, "{text}");
                seen.extend(found);
                let Some(next) = next else { break };
                page = format!("{text}&limit={limit}&after={next}");
            }
            assert_eq!(seen, expected, "{text} by {limit}");
        }
    }
    for (text, numbers, count) in COUNTED {
        let (found, _, counted) = ask(&*store, &collection, text).await;
        assert_eq!((found, counted), (ids(numbers), count), "{text}");
    }
}

/// A cursor stays where it is when the document behind which it stands is changed or goes.
pub async fn a_page_goes_on_where_the_last_one_ended_whatever_became_of_its_end(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, posts()).await;
    let (found, next, _) = ask(&*store, &collection, "sort=-likes&limit=5").await;
    assert_eq!(found, ids("3 4 6 1 7"));
    let mut last = store.get(&collection, &["p07"]).await.unwrap().remove(0);
    last.deleted = true;
    let write = [crate::store::DocumentWrite::Replace(last)];
    store.write(&collection, &write).await.unwrap();
    let text = format!("sort=-likes&limit=3&after={}", next.unwrap());
    assert_eq!(ask(&*store, &collection, &text).await.0, ids("14 8 2"));
}

/// What is not there is nothing to count and nothing to find, in whatever order.
pub async fn a_query_to_a_collection_that_is_not_there_finds_nothing(
    factory: &dyn ReadStoreFactory,
) {
    let store = factory.store().await;
    let collection = super::sample::unique("nowhere");
    for text in [
        "sort=-title",
        "title[contains]=a",
        "match=any&rating[gt]=1&title=a",
    ] {
        let query = asked(&Posts::new(), text, &QuerySettings::default());
        let query = query.unwrap().query;
        assert!(find_ids(&*store, &collection, &query).await.is_empty());
        assert_eq!(store.count(&collection, &query).await.unwrap(), 0);
    }
}
