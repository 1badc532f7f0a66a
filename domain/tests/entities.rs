//! What entities made from a JSON Schema do: create, patch, delete, and their view.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use serde_json::{Value, json};
use tidelog_domain::entity::MAX_FIELD_ERRORS;
use tidelog_domain::testing::{
    create, created, delete, deleted, given_entity_of, given_events, on_entity_of, patch, updated,
};
use tidelog_domain::{
    CommandInput, Decider, DecodeError, EntityDecider, EntitySchema, EntityView, Folding,
    Lifecycle, Loading, Payload, Refusal, ViewDefinition,
};

fn post() -> EntitySchema {
    let json = include_str!("../../examples/entities/post.schema.json");
    EntitySchema::parse("post", json).unwrap()
}

fn customer() -> EntitySchema {
    let json = include_str!("../../examples/entities/customer.schema.json");
    EntitySchema::parse("customer", json).unwrap()
}

fn hello() -> Value {
    json!({"title": "Hello", "content": "First post.", "author_name": "ann"})
}

fn bob() -> Value {
    json!({
        "name": "Bob",
        "email": "bob@example.com",
        "status": "active",
        "address": {"street": "Main Street 1", "city": "Springfield", "country": "US"},
        "tags": ["new"],
    })
}

#[test]
fn a_post_is_created() {
    given_entity_of(&post(), [])
        .when(create(hello()))
        .then_event("post.created", json!({"state": hello(), "before": {}}));
}

#[test]
fn fields_keep_the_order_in_which_they_came() {
    let decider = EntityDecider::new(post());
    let body = json!({"content": "b", "title": "a", "author_name": "c"});
    let epoch = chrono::DateTime::UNIX_EPOCH;
    let context = tidelog_domain::Context::new(uuid::Uuid::nil(), epoch, Default::default());
    let drafts = decider.decide(&decider.initial(), &create(body), &context);
    let stored = drafts.unwrap()[0].payload.clone();
    assert_eq!(
        std::str::from_utf8(stored.as_bytes()).unwrap(),
        r#"{"state":{"content":"b","title":"a","author_name":"c"},"before":{}}"#
    );
}

#[test]
fn every_wrong_field_of_a_body_is_named_and_told_what_would_be_right() {
    let errors = given_entity_of(&post(), [])
        .when(create(json!({"title": "", "content": 5})))
        .then_invalid(&["/title", "/content", "/author_name"]);
    let message = |field: &str| {
        let error = errors.iter().find(|error| error.field == field).unwrap();
        error.message.as_str()
    };
    assert_eq!(message("/title"), "must have at least 1 character");
    assert_eq!(message("/content"), "must be a string");
    assert_eq!(message("/author_name"), "is required");
}

#[test]
fn a_title_of_200_characters_passes_and_one_of_201_does_not() {
    let titled = |n: usize| {
        let mut body = hello();
        body["title"] = Value::from("é".repeat(n));
        body
    };
    given_entity_of(&post(), [])
        .when(create(titled(200)))
        .then_state(titled(200));
    given_entity_of(&post(), [])
        .when(create(titled(201)))
        .then_invalid(&["/title"]);
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in [Value::Null, json!([]), json!("x"), json!(1)] {
        given_entity_of(&post(), [])
            .when(create(body.clone()))
            .then_invalid(&[""]);
        given_entity_of(&post(), [created(hello())])
            .when(patch(body))
            .then_invalid(&[""]);
    }
}

#[test]
fn a_patch_changes_what_it_names_and_tells_what_was_there_before() {
    given_entity_of(&post(), [created(hello())])
        .when(patch(json!({"title": "Hello again"})))
        .then_event(
            "post.updated",
            json!({
                "state": {"title": "Hello again", "content": "First post.", "author_name": "ann"},
                "before": {"title": "Hello"},
            }),
        );
}

#[test]
fn a_patch_adds_and_removes_optional_fields() {
    let mut after = bob();
    after["born_on"] = json!("1990-01-31");
    after.as_object_mut().unwrap().shift_remove("tags");
    given_entity_of(&customer(), [created(bob())])
        .when(patch(json!({"born_on": "1990-01-31", "tags": null})))
        .then_event(
            "customer.updated",
            json!({"state": after, "before": {"born_on": null, "tags": ["new"]}}),
        );
}

#[test]
fn a_patch_of_an_inner_field_keeps_its_neighbours() {
    let mut after = bob();
    after["address"]["city"] = json!("Shelbyville");
    given_entity_of(&customer(), [created(bob())])
        .when(patch(json!({"address": {"city": "Shelbyville"}})))
        .then_event(
            "customer.updated",
            json!({"state": after, "before": {"address": bob()["address"]}}),
        );
}

#[test]
fn a_patch_that_changes_nothing_gives_no_event() {
    for nothing in [
        json!({}),
        json!({"title": "Hello"}),
        json!({"title": "Hello", "author_name": "ann"}),
    ] {
        given_entity_of(&post(), [created(hello())])
            .when(patch(nothing))
            .then_nothing();
    }
    given_entity_of(&customer(), [created(bob())])
        .when(patch(
            json!({"born_on": null, "address": {"city": "Springfield"}}),
        ))
        .then_nothing();
}

#[test]
fn a_patch_cannot_break_the_schema() {
    given_entity_of(&post(), [created(hello())])
        .when(patch(json!({"title": null})))
        .then_invalid(&["/title"]);
    given_entity_of(&post(), [created(hello())])
        .when(patch(json!({"title": 1, "content": []})))
        .then_invalid(&["/title", "/content"]);
    given_entity_of(&customer(), [created(bob())])
        .when(patch(json!({"status": "blocked"})))
        .then_invalid(&["/blocked_reason"]);
    given_entity_of(&customer(), [created(bob())])
        .when(patch(json!({"address": {"city": null}})))
        .then_invalid(&["/address/city"]);
}

#[test]
fn a_patch_that_is_wrong_by_itself_is_refused_before_the_state_is_known() {
    let decider = EntityDecider::new(post());
    let refused = decider.check(&patch(json!({"titel": "x", "version": 3})));
    let Err(Refusal::Invalid(errors)) = refused else {
        panic!("{refused:?}");
    };
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["/titel", "/version"]);
    assert_eq!(
        errors[0].message,
        "is not a known field; known here: title, content, author_name"
    );
    assert_eq!(errors[1].message, "is set by the server and cannot be sent");
}

#[test]
fn a_deletion_keeps_the_last_state() {
    given_entity_of(&post(), [created(hello())])
        .when(delete())
        .then_event("post.deleted", json!({"state": hello(), "before": {}}));
}

#[test]
fn a_deletion_has_no_body() {
    let with_body = |body| CommandInput { body, ..delete() };
    given_entity_of(&post(), [created(hello())])
        .when(with_body(json!({})))
        .then_state(hello());
    given_entity_of(&post(), [created(hello())])
        .when(with_body(json!({"title": "Hello"})))
        .then_invalid(&[""]);
}

#[test]
fn an_entity_is_created_once_and_ends_for_good() {
    for command in [patch(json!({"title": "x"})), delete()] {
        given_entity_of(&post(), [])
            .when(command.clone())
            .then_refused(Refusal::NotFound);
        given_entity_of(&post(), [created(hello()), deleted()])
            .when(command)
            .then_refused(Refusal::Deleted);
    }
    given_entity_of(&post(), [created(hello())])
        .when(create(hello()))
        .then_refused(Refusal::AlreadyExists);
    given_entity_of(&post(), [created(hello()), deleted()])
        .when(create(hello()))
        .then_refused(Refusal::AlreadyExists);
}

#[test]
fn there_are_three_commands_and_no_other() {
    let decider = EntityDecider::new(post());
    let names: Vec<_> = decider.commands().iter().map(|spec| &*spec.name).collect();
    assert_eq!(names, ["create", "patch", "delete"]);
    let other = CommandInput {
        name: "publish".to_owned(),
        body: json!({}),
    };
    let refused = decider.check(&other);
    assert!(
        matches!(refused, Err(Refusal::UnknownCommand)),
        "{refused:?}"
    );
}

#[test]
fn formats_sets_of_values_and_lists_are_checked() {
    let wrong = json!({
        "name": "Bob",
        "email": "not an address",
        "status": "gone",
        "born_on": "1990-02-31",
        "credit_limit_cents": -1,
        "contacts": [{"name": "Eve"}, {"phone": "call me"}],
        "tags": ["a", "a"],
    });
    let errors = given_entity_of(&customer(), [])
        .when(create(wrong))
        .then_invalid(&[
            "/email",
            "/status",
            "/born_on",
            "/credit_limit_cents",
            "/contacts/1/name",
            "/contacts/1/phone",
            "/tags",
        ]);
    let said: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    for expected in [
        "must be an e-mail address",
        r#"must be one of "lead", "active", "blocked""#,
        "must be a date, such as 2030-01-31",
        "must be at least 0",
        "must not have the same item twice",
    ] {
        assert!(said.contains(&expected), "{expected} is not among {said:?}");
    }
}

#[test]
fn a_field_that_is_left_out_gets_its_default_on_creation_only() {
    let eve = json!({"name": "Eve", "email": "eve@example.com"});
    let mut lead = eve.clone();
    lead["status"] = json!("lead");
    given_entity_of(&customer(), [])
        .when(create(eve))
        .then_state(lead.clone());
    given_entity_of(&customer(), [created(lead)])
        .when(patch(json!({"status": null})))
        .then_invalid(&["/status"]);
}

#[test]
fn errors_are_bounded() {
    let contacts = vec![json!({"nickname": "x"}); 1_000];
    let mut body = bob();
    body["contacts"] = json!(contacts);
    let decider = EntityDecider::new(customer());
    let Err(Refusal::Invalid(unknown)) = decider.check(&create(body.clone())) else {
        panic!("{body}");
    };
    assert_eq!(unknown.len(), MAX_FIELD_ERRORS);
    body["contacts"] = json!(vec![json!({}); 1_000]);
    let Err(Refusal::Invalid(missing)) = decider.check(&create(body.clone())) else {
        panic!("{body}");
    };
    assert_eq!(missing.len(), MAX_FIELD_ERRORS);
}

#[test]
fn what_a_store_would_not_keep_exactly_is_refused_also_within_open_objects() {
    let schema = json!({"type": "object", "properties": {"extra": true}});
    let schema = EntitySchema::from_value("thing", schema).unwrap();
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    for (extra, field) in [
        (json!({"": 1}), "/extra/"),
        (json!({"$set": 1}), "/extra/$set"),
        (json!({"a.b": 1}), "/extra/a.b"),
        (json!([{"a\0b": 1}]), "/extra/0/a\0b"),
        (
            json!({"n/m": 18_446_744_073_709_551_615_u64}),
            "/extra/n~1m",
        ),
    ] {
        given_entity_of(&schema, [])
            .when(create(json!({"extra": extra})))
            .then_invalid(&[field]);
        given_entity_of(&schema, [created(json!({}))])
            .when(patch(json!({"extra": extra})))
            .then_invalid(&[field]);
    }
    given_entity_of(&schema, [])
        .when(create(json!({"extra": deep(31)})))
        .then_state(json!({"extra": deep(31)}));
    let too_deep = format!("/extra{}", "/0".repeat(31));
    given_entity_of(&schema, [])
        .when(create(json!({"extra": deep(32)})))
        .then_invalid(&[&too_deep]);
}

#[test]
fn a_state_of_an_older_schema_can_still_be_patched() {
    let old = json!({"title": "Hello", "content": "x", "author_name": "ann", "mood": "good"});
    let mut after = old.clone();
    after["title"] = json!("Hi");
    given_entity_of(&post(), [created(old.clone())])
        .when(patch(json!({"title": "Hi"})))
        .then_state(after);
    given_entity_of(&post(), [created(old)])
        .when(patch(json!({"mood": "bad"})))
        .then_invalid(&["/mood"]);
}

#[test]
fn any_event_alone_makes_the_state() {
    let decider = EntityDecider::new(post());
    assert_eq!(decider.loading(), Loading::LastEvent);
    let payload = |state: &Value| Payload::of(&json!({"state": state, "before": {}})).unwrap();
    for (event_type, lifecycle) in [
        ("post.created", Lifecycle::Live),
        ("post.updated", Lifecycle::Live),
        ("post.deleted", Lifecycle::Ended),
    ] {
        let state = decider
            .evolve(decider.initial(), event_type, 1, &payload(&hello()))
            .unwrap();
        assert_eq!(state.lifecycle(), lifecycle, "{event_type}");
        assert_eq!(decider.show(&state), hello(), "{event_type}");
    }
}

#[test]
fn an_event_that_cannot_be_read_is_an_error_and_not_a_guess() {
    let decider = EntityDecider::new(post());
    let good = Payload::of(&json!({"state": {}, "before": {}})).unwrap();
    let bad = Payload::of(&json!({"state": 1})).unwrap();
    let evolve = |name: &str, version, payload| {
        decider
            .evolve(decider.initial(), name, version, payload)
            .unwrap_err()
    };
    let unknown = evolve("post.moved", 1, &good);
    assert!(
        matches!(unknown, DecodeError::UnknownType { .. }),
        "{unknown:?}"
    );
    let newer = evolve("post.updated", 2, &good);
    assert!(
        matches!(newer, DecodeError::UnknownVersion { known: 1, .. }),
        "{newer:?}"
    );
    let broken = evolve("post.updated", 1, &bad);
    assert!(matches!(broken, DecodeError::Payload { .. }), "{broken:?}");
}

#[test]
fn the_view_of_an_entity_is_its_last_state() {
    let schema = post();
    let view = EntityView::new(schema.clone());
    let mut second = hello();
    second["title"] = json!("Hi");
    let on = |id, past| on_entity_of(&schema, id, past);
    given_events([
        on("1", created(hello())),
        on("2", created(hello())),
        on("1", updated(second.clone())),
        on("2", deleted()),
    ])
    .then_document(&view, "1", Some(second))
    .then_document(&view, "2", None)
    .then_document(&view, "3", None);
}

#[test]
fn a_tombstone_keeps_the_last_state() {
    let schema = post();
    let view = EntityView::new(schema.clone());
    assert_eq!(view.folding(), Folding::FullState);
    let on = |past| on_entity_of(&schema, "1", past);
    let log = given_events([on(created(hello())), on(deleted())]);
    let deletion = &log.events()[1];
    assert_eq!(view.project(None, "1", deletion).unwrap(), None);
    let last = view.last_state(deletion).unwrap();
    assert_eq!(Value::Object(last), hello());
}
