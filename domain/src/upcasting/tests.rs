//! Chains of upcasters: what they make of stored events, and what is wrong with some.

use serde_json::{Value, json};

use super::*;

fn add_a(mut payload: Value) -> Value {
    payload["a"] = json!(1);
    payload
}

fn double_a(mut payload: Value) -> Value {
    payload["a"] = json!(payload["a"].as_u64().map(|a| a * 2));
    payload
}

fn upcast(upcasters: &Upcasters, name: &str, version: u32, payload: &str) -> Value {
    let stored = Payload::from_stored(payload.as_bytes());
    let today = upcasters.upcast(name, version, &stored).unwrap();
    let text = std::str::from_utf8(today.payload.as_bytes())
        .unwrap()
        .to_owned();
    json!([today.event_type, today.schema_version, text])
}

#[test]
fn a_chain_runs_until_the_current_version() {
    let upcasters = Upcasters::new(
        [("x.new", 3)],
        [
            Upcaster::new("x.old", 1, add_a).renamed("x.new", 2),
            Upcaster::new("x.new", 2, double_a),
        ],
    );
    upcasters.check().unwrap();
    assert_eq!(
        upcast(&upcasters, "x.old", 1, "{}"),
        json!(["x.new", 3, r#"{"a":2}"#])
    );
    assert_eq!(
        upcast(&upcasters, "x.new", 2, r#"{"a":5}"#),
        json!(["x.new", 3, r#"{"a":10}"#])
    );
}

#[test]
fn what_is_current_or_unchanged_keeps_its_bytes() {
    let upcasters = Upcasters::new([("x", 2)], [Upcaster::unchanged("x", 1)]);
    upcasters.check().unwrap();
    let odd = r#" {"n": 1.50, "b" : 2} "#;
    assert_eq!(upcast(&upcasters, "x", 1, odd), json!(["x", 2, odd]));
    assert_eq!(upcast(&upcasters, "x", 2, odd), json!(["x", 2, odd]));
    // Nobody here knows it: what it is is for `decode` to say.
    assert_eq!(upcast(&upcasters, "y", 7, odd), json!(["y", 7, odd]));
}

#[test]
fn an_event_of_a_newer_program_is_refused() {
    let upcasters = Upcasters::new([("x", 2)], [Upcaster::new("x", 1, add_a)]);
    let payload = Payload::from_stored(b"{}");
    let error = upcasters.upcast("x", 3, &payload).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x is stored in version 3, and this program reads version 2"
    );
}

#[test]
fn a_payload_that_is_no_json_is_an_error_not_a_panic() {
    let upcasters = Upcasters::new([("x", 2)], [Upcaster::new("x", 1, add_a)]);
    let payload = Payload::from_stored(b"{");
    let error = upcasters.upcast("x", 1, &payload).unwrap_err();
    assert!(matches!(
        error,
        DecodeError::Payload {
            schema_version: 1,
            ..
        }
    ));
}

#[test]
fn what_does_not_lead_to_today_is_refused() {
    let refused = |current: &[(&str, u32)], steps: &[Upcaster]| {
        let upcasters = Upcasters::new(current.iter().copied(), steps.iter().cloned());
        upcasters.check().unwrap_err()
    };
    let step = |name: &str, from| Upcaster::new(name, from, add_a);
    assert_eq!(
        refused(&[("x", 2)], &[step("x", 1), step("x", 1)]),
        InvalidUpcasters::Twice {
            event_type: "x".to_owned(),
            version: 1
        }
    );
    assert!(matches!(
        refused(&[("x", 2)], &[step("x", 1), step("x", 2)]),
        InvalidUpcasters::Current { current: 2, .. }
    ));
    assert!(matches!(
        refused(&[("x", 2)], &[step("x", 0), step("x", 1)]),
        InvalidUpcasters::Zero { .. }
    ));
    let circle = [step("a", 1).renamed("b", 1), step("b", 1).renamed("a", 1)];
    assert!(matches!(
        refused(&[("x", 1)], &circle),
        InvalidUpcasters::Cycle { .. }
    ));
    assert_eq!(
        refused(&[("x", 4)], &[step("x", 1), step("x", 3)]),
        InvalidUpcasters::DeadEnd {
            event_type: "x".to_owned(),
            version: 1,
            end: "x".to_owned(),
            end_version: 2
        }
    );
    assert_eq!(
        refused(&[("x", 3)], &[step("x", 2)]),
        InvalidUpcasters::Gap {
            event_type: "x".to_owned(),
            version: 1,
            current: 3
        }
    );
    assert!(matches!(
        refused(&[("x", 2)], &[]),
        InvalidUpcasters::Gap { version: 1, .. }
    ));
}

#[test]
fn a_circle_that_nobody_checked_has_an_end() {
    let steps = [
        Upcaster::new("a", 1, add_a).renamed("b", 1),
        Upcaster::new("b", 1, add_a).renamed("a", 1),
    ];
    let upcasters = Upcasters::new([("a", 2)], steps);
    let payload = Payload::from_stored(b"{}");
    assert!(upcasters.upcast("a", 1, &payload).is_err());
}

#[test]
fn events_that_were_renamed_are_still_listened_to() {
    let old = Upcaster::new("x.old", 1, add_a).renamed("x.mid", 1);
    let mid = Upcaster::new("x.mid", 1, add_a).renamed("x.new", 1);
    let upcasters = Upcasters::new([("x.new", 1), ("y", 1)], [old, mid]);
    upcasters.check().unwrap();
    assert_eq!(
        upcasters.stored_names(&["x.new"]),
        ["x.mid", "x.new", "x.old"]
    );
    assert_eq!(upcasters.stored_names(&["y"]), ["y"]);
    assert!(upcasters.reads("x.old", 1) && upcasters.reads("y", 1));
    assert!(!upcasters.reads("x.old", 2) && !upcasters.reads("z", 1));
}

#[test]
fn the_fingerprint_changes_with_names_versions_and_steps() {
    let of = |name, version, steps: &[Upcaster]| {
        Upcasters::new([(name, version)], steps.iter().cloned()).fingerprint()
    };
    let step = || Upcaster::new("x", 1, add_a);
    let all = [
        of("x", 1, &[]),
        of("y", 1, &[]),
        of("x", 2, &[]),
        of("x", 2, &[step()]),
        of("x", 2, &[step().revision(2)]),
        of("x", 2, &[Upcaster::unchanged("x", 1)]),
    ];
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(of("x", 2, &[step()]), of("x", 2, &[step()]));
}
