//! What filters mean, with the answers written by hand.

use serde_json::{Value, json};

use super::ReadStoreFactory;
use super::sample::{at_position, document, everything, find_ids, fresh, insert, with_data};
use crate::store::{Direction, Document, Field, Filter, Place, Query, ReadStore, Sort, place_of};

/// The field of `data` at this path.
pub(super) fn data(path: &[&str]) -> Field {
    Field::Data(path.iter().map(|name| (*name).to_owned()).collect())
}

/// The ids of the documents whose field equals a value.
async fn matching(
    store: &dyn ReadStore,
    collection: &str,
    field: Field,
    value: Value,
) -> Vec<String> {
    let query = Query {
        filter: Filter::is(field, value),
        ..everything()
    };
    find_ids(store, collection, &query).await
}

/// Inserts documents whose field `v` is each of `values`, and finds which of them equal a value.
struct Values {
    store: std::sync::Arc<dyn ReadStore>,
    collection: String,
}

impl Values {
    async fn stored(factory: &dyn ReadStoreFactory, values: &[(&str, Value)]) -> Self {
        let (store, collection) = fresh(factory).await;
        let documents = values
            .iter()
            .map(|(id, value)| with_data(id, json!({"v": value})))
            .collect();
        insert(&*store, &collection, documents).await;
        Self { store, collection }
    }

    async fn expect(&self, value: Value, ids: &[&str]) {
        let found = matching(&*self.store, &self.collection, data(&["v"]), value.clone()).await;
        assert_eq!(found, ids, "v = {value}");
    }
}

/// A number is not a text and not a truth value, and equals another of the same value, exactly.
pub async fn a_filter_compares_by_type_and_value(factory: &dyn ReadStoreFactory) {
    let odd = (1_i64 << 53) + 1;
    let values = Values::stored(
        factory,
        &[
            ("empty", json!("")),
            ("false", json!(false)),
            ("half", json!(0.1)),
            ("huge", json!(1e300)),
            ("int", json!(1)),
            ("max", json!(i64::MAX)),
            ("nul", json!("a\0b")),
            ("odd", json!(odd)),
            ("odd-1", json!(odd - 1)),
            ("one.0", json!(1.0)),
            ("text", json!("1")),
            ("true", json!(true)),
            ("upper", json!("ÄB")),
            ("word", json!("äb")),
            ("zero", json!(0)),
            ("zero-", json!(-0.0)),
        ],
    )
    .await;
    values.expect(json!(1), &["int", "one.0"]).await;
    values.expect(json!(1.0), &["int", "one.0"]).await;
    values.expect(json!("1"), &["text"]).await;
    values.expect(json!(true), &["true"]).await;
    values.expect(json!(false), &["false"]).await;
    values.expect(json!(0), &["zero", "zero-"]).await;
    values.expect(json!(-0.0), &["zero", "zero-"]).await;
    values.expect(json!(0.1), &["half"]).await;
    values.expect(json!(0.100_000_000_000_000_02), &[]).await;
    values.expect(json!(1e300), &["huge"]).await;
    values.expect(json!(odd), &["odd"]).await;
    values
        .expect(json!(9_007_199_254_740_992.0), &["odd-1"])
        .await;
    values.expect(json!(i64::MAX), &["max"]).await;
    values.expect(json!(i64::MAX as f64), &[]).await;
    values.expect(json!(u64::MAX), &[]).await;
    values.expect(json!(""), &["empty"]).await;
    values.expect(json!("äb"), &["word"]).await;
    values.expect(json!("a\0b"), &["nul"]).await;
    values.expect(json!("a"), &[]).await;
    values.expect(json!("true"), &[]).await;
}

/// Null and missing are one.
pub async fn a_missing_field_is_null(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let documents = vec![
        with_data("a missing", json!({})),
        with_data("b null", json!({"v": null})),
        with_data("c inner missing", json!({"v": {}})),
        with_data("d inner null", json!({"v": {"w": null}})),
        with_data("e inner", json!({"v": {"w": 0}})),
        with_data("f text", json!({"v": ""})),
        with_data("g list", json!({"v": [null]})),
        with_data("h empty list", json!({"v": []})),
        with_data("i list of objects", json!({"v": [{"w": 1}, {}]})),
        with_data("j false", json!({"v": false})),
    ];
    let all: Vec<_> = documents
        .iter()
        .map(|document| document.id.clone())
        .collect();
    insert(&*store, &collection, documents).await;
    let found = matching(&*store, &collection, data(&["v"]), Value::Null).await;
    assert_eq!(found, ["a missing", "b null"]);
    let found = matching(&*store, &collection, data(&["v", "w"]), Value::Null).await;
    let expected: Vec<_> = all.iter().filter(|id| *id != "e inner").collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    let found = matching(&*store, &collection, data(&["v", "w", "x"]), Value::Null).await;
    assert_eq!(found, all);
}

/// Not one that contains it, not one in another order; but the fields of an object have no order.
pub async fn a_list_or_an_object_equals_only_the_same(factory: &dyn ReadStoreFactory) {
    let values = Values::stored(
        factory,
        &[
            ("empty", json!([])),
            ("list", json!(["a", "b"])),
            ("nested", json!([["a", "b"]])),
            ("numbers", json!([1, 2.0])),
            ("object", json!({"x": 1, "y": {"z": [null]}})),
            ("one", json!(["a"])),
            ("reversed", json!({"y": {"z": [null]}, "x": 1.0})),
            ("text", json!("a")),
            ("void", json!({})),
        ],
    )
    .await;
    values.expect(json!("a"), &["text"]).await;
    values.expect(json!(["a"]), &["one"]).await;
    values.expect(json!(["a", "b"]), &["list"]).await;
    values.expect(json!(["b", "a"]), &[]).await;
    values.expect(json!([["a", "b"]]), &["nested"]).await;
    values.expect(json!([1.0, 2]), &["numbers"]).await;
    values.expect(json!([]), &["empty"]).await;
    values.expect(json!({}), &["void"]).await;
    values
        .expect(json!({"x": 1, "y": {"z": [null]}}), &["object", "reversed"])
        .await;
    values.expect(json!({"x": 1}), &[]).await;
    values.expect(json!({"x": 1, "y": {"z": []}}), &[]).await;
    values
        .expect(json!({"x": 1, "y": {"z": [null]}, "q": null}), &[])
        .await;
    values.expect(Value::Null, &[]).await;
}

/// A list on the way is not looked into, neither by name nor by number.
pub async fn a_path_goes_through_objects_only(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let documents = vec![
        with_data("a", json!({"v": {"w": 5}})),
        with_data("b", json!({"v": [{"w": 5}]})),
        with_data("c", json!({"v": {"0": 5}})),
        with_data("d", json!({"v": [5]})),
        with_data("e", json!({"v": {"w": [5]}})),
        with_data("f", json!({"v": {"w": {"x": 5}}})),
        with_data("g", json!({"v": "w"})),
    ];
    insert(&*store, &collection, documents).await;
    let found = matching(&*store, &collection, data(&["v", "w"]), json!(5)).await;
    assert_eq!(found, ["a"]);
    let found = matching(&*store, &collection, data(&["v", "0"]), json!(5)).await;
    assert_eq!(found, ["c"]);
    let found = matching(&*store, &collection, data(&["v", "w", "x"]), json!(5)).await;
    assert_eq!(found, ["f"]);
    let found = matching(&*store, &collection, data(&["v", "w"]), json!([5])).await;
    assert_eq!(found, ["e"]);
    let whole = json!({"v": {"w": 5}});
    let found = matching(&*store, &collection, data(&[]), whole).await;
    assert_eq!(found, ["a"]);
}

/// What a client calls a field is never a path, an operator or a piece of a command.
pub async fn unusual_names_of_fields_can_be_filtered_by(factory: &dyn ReadStoreFactory) {
    let names = [
        "a.b",
        "",
        "$",
        "$where",
        "'",
        "\"",
        "\\",
        "a\"b",
        "[0]",
        "#-1",
        "é",
        "a b",
        "\n",
        "*",
        "--",
        ";",
        "%",
        "?1",
        "__proto__",
        "a\u{7f}",
    ];
    let (store, collection) = fresh(factory).await;
    let documents = std::iter::once(with_data("decoy", json!({"a": {"b": 1}, "b": 1})))
        .chain(names.iter().enumerate().map(|(n, name)| {
            with_data(&format!("{n:02}"), json!({ *name: 1, "in": { *name: 2 } }))
        }))
        .collect();
    insert(&*store, &collection, documents).await;
    for (n, name) in names.iter().enumerate() {
        let found = matching(&*store, &collection, data(&[name]), json!(1)).await;
        assert_eq!(found, [format!("{n:02}")], "{name:?}");
        let found = matching(&*store, &collection, data(&["in", name]), json!(2)).await;
        assert_eq!(found, [format!("{n:02}")], "{name:?}");
    }
    let found = matching(&*store, &collection, data(&["a\0b"]), json!(1)).await;
    assert!(found.is_empty());
}

/// Id, version and times; times are instants, whatever their offset.
pub async fn the_envelope_can_be_filtered_by(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let later = Document {
        created_at: "2026-03-01T10:20:30.123457Z".parse().unwrap(),
        ..document("b")
    };
    insert(
        &*store,
        &collection,
        vec![document("a"), later, at_position("c", 7)],
    )
    .await;
    let cases = [
        (Field::Id, json!("b"), &["b"][..]),
        (Field::Id, json!("B"), &[]),
        (Field::Id, json!(null), &[]),
        (Field::Id, json!({"$gt": ""}), &[]),
        (Field::Version, json!(7), &["c"]),
        (Field::Version, json!(1.0), &["a", "b"]),
        (Field::Version, json!("7"), &[]),
        (Field::Version, json!(null), &[]),
        (Field::Version, json!(1.5), &[]),
        (
            Field::CreatedAt,
            json!("2026-03-01T10:20:30.123456Z"),
            &["a", "c"],
        ),
        (
            Field::CreatedAt,
            json!("2026-03-01T12:20:30.123457000+02:00"),
            &["b"],
        ),
        (Field::CreatedAt, json!("2026-03-01T10:20:30.1234569Z"), &[]),
        (Field::CreatedAt, json!("yesterday"), &[]),
        (
            Field::UpdatedAt,
            json!("2026-03-02T00:00:00.000001Z"),
            &["c"],
        ),
        (Field::UpdatedAt, json!(null), &[]),
    ];
    for (field, value, ids) in cases {
        let found = matching(&*store, &collection, field.clone(), value.clone()).await;
        assert_eq!(found, ids, "{field:?} = {value}");
    }
}

/// Several filters at once, tombstones, `after` and the limit: a page is full as long as there is more, also where a filter
/// cannot be left to the database.
pub async fn all_filters_must_hold_and_pages_are_full(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let documents = (0..300).map(|n| Document {
        deleted: n % 5 == 0,
        ..with_data(
            &format!("{n:03}"),
            json!({"even": n % 2 == 0, "tags": [n % 3], "a.b": n % 7}),
        )
    });
    insert(&*store, &collection, documents.collect()).await;
    let filter = |path, value| Filter::is(data(path), value);
    let query = Query {
        filter: Filter::All(vec![
            filter(&["even"], json!(true)),
            filter(&["tags"], json!([1])),
            filter(&["a.b"], json!(3)),
        ]),
        sort: Vec::new(),
        after: Some(Place::behind("010")),
        limit: 4,
        ..Query::default()
    };
    let expected: Vec<_> = (11..300)
        .filter(|n| n % 2 == 0 && n % 3 == 1 && n % 7 == 3 && n % 5 != 0)
        .map(|n| format!("{n:03}"))
        .collect();
    assert_eq!(find_ids(&*store, &collection, &query).await, expected[..4]);
    let query = Query {
        limit: 100,
        ..query
    };
    assert_eq!(find_ids(&*store, &collection, &query).await, expected);
    let contradiction = Query {
        filter: Filter::All(vec![
            filter(&["even"], json!(true)),
            filter(&["even"], json!(false)),
        ]),
        ..everything()
    };
    assert!(
        find_ids(&*store, &collection, &contradiction)
            .await
            .is_empty()
    );
}

/// A page of bounded bytes ends with the document by which it comes to more, and the next one goes on there: sorted by the database or
/// not, and where a filter is left to the adapter.
pub async fn a_page_ends_with_the_document_that_fills_it(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let text = "x".repeat(1_000);
    let documents = (0..40).map(|n| {
        with_data(
            &format!("{n:03}"),
            json!({"n": 40 - n, "a.b": 1, "text": text}),
        )
    });
    insert(&*store, &collection, documents.collect()).await;
    let by_number = Sort {
        field: data(&["n"]),
        direction: Direction::Ascending,
    };
    for (sort, filter, ids) in [
        (vec![], Filter::default(), ["000", "001", "002"]),
        (vec![by_number], Filter::default(), ["039", "038", "037"]),
        (
            vec![],
            Filter::is(data(&["a.b"]), json!(1)),
            ["000", "001", "002"],
        ),
    ] {
        let query = Query {
            sort,
            filter,
            max_bytes: Some(2_500),
            ..everything()
        };
        let found = store.find(&collection, &query).await.unwrap();
        let next = Query {
            after: found.last().map(|last| place_of(last, &query.sort)),
            ..query.clone()
        };
        let found: Vec<_> = found.into_iter().map(|document| document.id).collect();
        assert_eq!(found, ids, "{query:?}");
        let rest = find_ids(&*store, &collection, &next).await;
        assert!(
            rest.len() == 3 && !rest.contains(&ids[2].to_owned()),
            "{rest:?}"
        );
        let one = Query {
            max_bytes: Some(0),
            ..query
        };
        assert_eq!(find_ids(&*store, &collection, &one).await, ids[..1]);
    }
}
