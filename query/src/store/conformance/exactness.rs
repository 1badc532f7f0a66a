//! What is stored comes back as it was.

use serde_json::{Value, json};
use tidelog_domain::{Partition, Position, Version};

use super::ReadStoreFactory;
use super::sample::{document, fields, fresh, get_one, insert, with_data};
use crate::store::{Document, DocumentWrite, MAX_DATA_DEPTH, ReadError, ReadStore};

/// Writes `data` in each of the three ways, and expects it back, to the byte of its JSON.
async fn expect_back(store: &dyn ReadStore, collection: &str, id: &str, data: Value) {
    let json = serde_json::to_string(&data).unwrap();
    let same = |stored: &Document| {
        assert_eq!(serde_json::to_string(&stored.data).unwrap(), json, "{id}");
    };
    insert(store, collection, vec![with_data(id, data.clone())]).await;
    same(&get_one(store, collection, id).await);

    let other = format!("{id} (written over)");
    insert(store, collection, vec![document(&other)]).await;
    let replacement = DocumentWrite::Replace(with_data(&other, data.clone()));
    store.write(collection, &[replacement]).await.unwrap();
    same(&get_one(store, collection, &other).await);

    let partition = Partition::new(1);
    let advanced = Document {
        applied: [(partition, Position::new(1))].into(),
        ..with_data(&other, json!({"emptied": {}}))
    };
    let before = DocumentWrite::Advance {
        document: advanced.clone(),
        partition,
    };
    let after = DocumentWrite::Advance {
        document: Document {
            data: fields(data),
            applied: [(partition, Position::new(2))].into(),
            ..advanced
        },
        partition,
    };
    for write in [before, after] {
        store.write(collection, &[write]).await.unwrap();
    }
    same(&get_one(store, collection, &other).await);
}

/// Whole numbers of 64 bits and floating-point ones keep their kind and each bit.
pub async fn numbers_come_back_as_they_were(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let data = json!({
        "whole": [0, 1, -1, i64::MAX, i64::MIN, i32::MAX, 1_i64 << 53, (1_i64 << 53) + 1],
        "float": [0.0, -0.0, 1.0, 0.1, -2.5, 1e300, -1e-300, 5e-324, f64::MAX, f64::EPSILON, 9_007_199_254_740_993.0,
            1.797_693_134_862_315_5e308, 0.300_000_000_000_000_04, 2.225_073_858_507_201e-308, 123_456_789.123_456_79],
    });
    expect_back(&*store, &collection, "numbers", data).await;
    let largest = i64::MAX.unsigned_abs();
    let counted = Document {
        version: Version::new(largest),
        applied: [
            (Partition::new(0), Position::new(largest)),
            (Partition::new(1023), Position::new(0)),
        ]
        .into(),
        ..document("counted")
    };
    insert(&*store, &collection, vec![counted.clone()]).await;
    assert_eq!(get_one(&*store, &collection, "counted").await, counted);
}

/// All of Unicode, NUL included.
pub async fn texts_come_back_as_they_were(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let controls: String = (0..0x20_u8).map(char::from).collect();
    let data = json!({
        "texts": ["", " ", "\0", "a\0b", controls, "\u{7f}", "é", "e\u{301}", "日本語", "😀", "\u{ffff}", "\u{10ffff}",
            "'; DROP TABLE post; --", "\"quoted\\\"", "$where", "{\"a\": 1}", "2026-01-01T00:00:00Z", "null", "1"],
    });
    expect_back(&*store, &collection, "texts", data).await;
    for id in ["é😀", "a\0b", "'\"\\", "$x", "{\"partition\": 3}"] {
        insert(&*store, &collection, vec![document(id)]).await;
        assert_eq!(get_one(&*store, &collection, id).await, document(id));
    }
}

/// Objects keep the order of their fields, empty things stay, and null is not missing.
pub async fn fields_come_back_in_their_order(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let data = json!({
        "z": 1, "a": {"10": 1, "9": 2, "b": null, "a": []}, "m": [{"y": 1, "x": 2}, {}, [], [[]], null, true, false],
        "_id": "mine", "id": "x", "deleted": "no", "revision": {"not": "yours"},
    });
    expect_back(&*store, &collection, "ordered", data).await;
    expect_back(&*store, &collection, "empty", json!({})).await;
}

/// Any name that a JSON text can have, except for a NUL in it: kept, or refused as this document's own fault.
pub async fn unusual_names_of_fields_come_back_or_are_refused(factory: &dyn ReadStoreFactory) {
    let names = [
        "$set",
        "$ref",
        "$id",
        "$db",
        "$date",
        "$oid",
        "$numberLong",
        "$where",
        "$",
        "a.b",
        ".",
        "..",
        "",
        " ",
        "é",
        "\"",
        "\\",
        "'",
        "\n",
        "__proto__",
        "[0]",
        "#",
    ];
    let (store, collection) = fresh(factory).await;
    for (n, name) in names.iter().enumerate() {
        for (m, data) in [
            json!({ *name: "x", "after": 1 }),
            json!({"in": { *name: {"deeper": [{ *name: 1 }]} }}),
        ]
        .into_iter()
        .enumerate()
        {
            let id = format!("{n} {m}");
            let write = DocumentWrite::Insert(with_data(&id, data.clone()));
            match store.write(&collection, &[write]).await {
                Ok(_) => expect_back(&*store, &collection, &format!("{id} again"), data).await,
                Err(ReadError::Unwritable { id: named, .. }) => assert_eq!(named, id),
                Err(error) => panic!("{name:?}: {error:?}"),
            }
        }
    }
}

/// As deep as the port allows.
pub async fn deeply_nested_data_comes_back_as_it_was(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    for depth in [32, MAX_DATA_DEPTH] {
        let objects = (1..depth).fold(json!({}), |inner, _| json!({"x": inner}));
        expect_back(&*store, &collection, &format!("objects {depth}"), objects).await;
        let lists = (2..depth).fold(json!([]), |inner, _| json!([inner]));
        let lists = json!({"x": lists});
        expect_back(&*store, &collection, &format!("lists {depth}"), lists).await;
    }
}

/// Large, in one text and in many fields.
pub async fn a_document_of_a_megabyte_comes_back_as_it_was(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let text = "0123456789abcdé".repeat(1 << 16);
    expect_back(&*store, &collection, "text", json!({"text": text})).await;
    let many: Vec<_> = (0..20_000)
        .map(|n| json!({"n": n, "text": "some more of it"}))
        .collect();
    expect_back(&*store, &collection, "many", json!({"many": many})).await;
}

/// Times are cut, not rounded, to whole microseconds, before 1970 too.
pub async fn times_are_kept_to_the_microsecond(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    for (n, (given, kept)) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.123456Z"),
        (
            "2026-01-01T00:00:00.123456999Z",
            "2026-01-01T00:00:00.123456Z",
        ),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ]
    .into_iter()
    .enumerate()
    {
        let at = |time: &str| Document {
            created_at: time.parse().unwrap(),
            updated_at: time.parse().unwrap(),
            ..document(&n.to_string())
        };
        insert(&*store, &collection, vec![at(given)]).await;
        assert_eq!(
            get_one(&*store, &collection, &n.to_string()).await,
            at(kept)
        );
    }
}
