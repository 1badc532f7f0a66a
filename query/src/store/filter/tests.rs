//! What each test of a field means, and a page.

use std::collections::BTreeMap;

use serde_json::json;
use tidelog_domain::Version;

use super::*;

fn document() -> Document {
    let Value::Object(data) = json!({
        "title": "Tides", "stars": 1, "half": 0.5, "tags": ["a", "b"], "none": null, "big": 9_007_199_254_740_993_i64,
        "at": {"lat": 1, "lon": 2}, "list": [{"x": 1}], "a.b": 1, "yes": true, "empty": ""
    }) else {
        unreachable!()
    };
    Document {
        id: "p1".to_owned(),
        data,
        version: Version::new(3),
        created_at: "2026-01-02T03:04:05.000006Z".parse().unwrap(),
        updated_at: "2026-01-02T03:04:05.000007Z".parse().unwrap(),
        deleted: false,
        applied: BTreeMap::new(),
        revision: 1,
    }
}

fn data(path: &[&str], value: Value) -> bool {
    let path = path.iter().map(|name| (*name).to_owned()).collect();
    matches(
        &document(),
        &Filter::Field(Field::Data(path), Test::Is(value)),
    )
}

#[test]
fn values_are_compared_by_type_and_value() {
    assert!(data(&["title"], json!("Tides")));
    assert!(!data(&["title"], json!("tides")));
    assert!(data(&["stars"], json!(1)) && data(&["stars"], json!(1.0)));
    assert!(!data(&["stars"], json!(true)) && !data(&["stars"], json!("1")));
    assert!(data(&["half"], json!(0.5)) && !data(&["half"], json!(0)));
    assert!(data(&["yes"], json!(true)) && !data(&["yes"], json!(1)));
    assert!(data(&["big"], json!(9_007_199_254_740_993_i64)));
    assert!(!data(&["big"], json!(9_007_199_254_740_992.0)));
}

#[test]
fn what_is_missing_is_null() {
    for path in [
        &["none"][..],
        &["nowhere"],
        &["title", "x"],
        &["list", "x"],
        &["list", "0"],
    ] {
        assert!(data(path, Value::Null), "{path:?}");
    }
    assert!(!data(&["empty"], Value::Null));
    assert!(!data(&["at"], Value::Null));
}

#[test]
fn lists_and_objects_equal_only_the_same() {
    assert!(data(&["tags"], json!(["a", "b"])));
    assert!(!data(&["tags"], json!(["b", "a"])) && !data(&["tags"], json!("a")));
    assert!(data(&["at"], json!({"lon": 2.0, "lat": 1})));
    assert!(!data(&["at"], json!({"lat": 1})));
    assert!(data(&["at", "lat"], json!(1)) && data(&["a.b"], json!(1)));
    assert!(data(&[], Value::Object(document().data)) && !data(&[], json!({})));
}

#[test]
fn the_envelope_is_compared_too() {
    let fits = |field, value| matches(&document(), &Filter::Field(field, Test::Is(value)));
    assert!(fits(Field::Id, json!("p1")) && !fits(Field::Id, Value::Null));
    assert!(fits(Field::Version, json!(3.0)) && !fits(Field::Version, json!("3")));
    assert!(fits(
        Field::CreatedAt,
        json!("2026-01-02T04:04:05.000006+01:00")
    ));
    assert!(!fits(
        Field::CreatedAt,
        json!("2026-01-02T03:04:05.000006001Z")
    ));
    assert!(fits(
        Field::UpdatedAt,
        json!("2026-01-02T03:04:05.000007000Z")
    ));
    assert!(!fits(Field::UpdatedAt, json!(7)) && !fits(Field::UpdatedAt, json!("x")));
}

fn passes(path: &[&str], test: Test) -> bool {
    let path = path.iter().map(|name| (*name).to_owned()).collect();
    matches(&document(), &Filter::Field(Field::Data(path), test))
}

#[test]
fn ranges_are_among_values_of_one_kind() {
    assert!(passes(&["half"], Test::Above(json!(0))));
    assert!(
        passes(&["half"], Test::AtLeast(json!(0.5))) && !passes(&["half"], Test::Above(json!(0.5)))
    );
    assert!(passes(
        &["big"],
        Test::Above(json!(9_007_199_254_740_992.0))
    ));
    assert!(
        passes(&["title"], Test::Below(json!("a"))) && !passes(&["title"], Test::Below(json!("T")))
    );
    for bound in [json!(null), json!(false), json!("a"), json!([]), json!({})] {
        for test in [Test::Above, Test::AtLeast, Test::Below, Test::AtMost] {
            assert!(!passes(&["stars"], test(bound.clone())), "{bound}");
            assert!(!passes(&["none"], test(bound.clone())), "{bound}");
        }
    }
}

#[test]
fn parts_and_items_are_exact() {
    assert!(passes(&["title"], Test::Prefix("Ti".to_owned())));
    assert!(!passes(&["title"], Test::Prefix("ti".to_owned())));
    assert!(passes(&["empty"], Test::Prefix(String::new())));
    assert!(!passes(&["none"], Test::Prefix(String::new())));
    assert!(passes(&["title"], Test::ContainsText("ide".to_owned())));
    assert!(!passes(&["tags"], Test::ContainsText("a".to_owned())));
    assert!(passes(&["tags"], Test::HasItem(json!("b"))));
    assert!(passes(&["list"], Test::HasItem(json!({"x": 1.0}))));
    assert!(!passes(&["title"], Test::HasItem(json!("Tides"))));
    assert!(passes(
        &["stars"],
        Test::OneOf(vec![json!("1"), json!(1.0)])
    ));
    assert!(!passes(&["stars"], Test::OneOf(vec![])));
    assert!(
        passes(&["nowhere"], Test::Not(json!(1))) && !passes(&["none"], Test::Not(Value::Null))
    );
    assert!(passes(&["empty"], Test::Exists(true)) && passes(&["none"], Test::Exists(false)));
}

#[test]
fn all_of_nothing_holds_and_one_of_nothing_does_not() {
    let holds = || Filter::is(Field::Version, json!(3));
    let fails = || Filter::is(Field::Version, json!(4));
    let fits = |filter| matches(&document(), &filter);
    assert!(fits(Filter::All(vec![])) && !fits(Filter::Any(vec![])));
    assert!(!fits(Filter::All(vec![holds(), fails()])));
    assert!(fits(Filter::Any(vec![fails(), Filter::All(vec![holds()])])));
}

#[test]
fn a_page_has_its_order_its_beginning_and_its_length() {
    let of = |id: &str, key: Value, deleted: bool| Document {
        id: id.to_owned(),
        data: Map::from_iter([("k".to_owned(), key)]),
        deleted,
        ..document()
    };
    let documents = [
        of("a", json!("x"), false),
        of("b", json!(2), false),
        of("c", json!(true), false),
        of("d", json!(null), false),
        of("e", json!(2.0), false),
        of("f", json!(1), true),
        of("g", json!([1]), false),
    ];
    let mut query = Query {
        sort: vec![Sort {
            field: Field::Data(vec!["k".to_owned()]),
            direction: Direction::Ascending,
        }],
        limit: 3,
        ..Query::default()
    };
    let ids = |query: &Query| -> String {
        page(&documents, query)
            .iter()
            .map(|d| d.id.as_str())
            .collect()
    };
    assert_eq!(ids(&query), "dbe");
    query.after = Some(place_of(&documents[1], &query.sort));
    assert_eq!(ids(&query), "eac");
    query.after = Some(place_of(&documents[6], &query.sort));
    assert_eq!(ids(&query), "");
    query.sort[0].direction = Direction::Descending;
    query.limit = 10;
    query.deleted = true;
    assert_eq!(ids(&query), "cabefd");
    query.limit = 0;
    assert_eq!(ids(&query), "");
}
