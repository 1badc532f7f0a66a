//! What the macros make: names, schemas, what is stored, what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

extern crate tidelog_domain as tidelog;

use tidelog::prelude::*;
use tidelog::{
    Command, CommandInput, Decider, DecodeError, Endpoint, EntitySchema, Event, FieldError,
    InvalidAggregate, Lifecycle, Named, Payload, Refusal, Rejection, State, TypedDecider, View,
};

#[data]
#[derive(Copy, Default)]
#[serde(rename_all = "kebab-case")]
enum Size {
    #[default]
    Small,
    VeryLarge,
}

/// A box of things.
#[aggregate]
struct ToolBox {
    size: Size,
    things: Vec<String>,
}

#[commands]
enum BoxCommand {
    /// Makes a box.
    #[create]
    Make {
        size: Size,
    },
    #[create]
    #[name("find")]
    FindSomewhere,
    PutIn {
        #[schemars(length(min = 1, max = 5))]
        thing: String,
        #[serde(default)]
        times: u8,
    },
    Shake {},
    #[delete]
    ThrowAway,
}

#[events("tool-box")]
enum BoxEvent {
    Made {
        size: Size,
    },
    #[name("filled")]
    PutIn {
        thing: String,
        at: DateTime<Utc>,
    },
    #[version(3)]
    Shaken {},
    #[terminal]
    ThrownAway,
}

#[rejections]
enum BoxRejection {
    /// {thing} does not fit {into}, {into} {being} small {:?}.
    ///
    /// More for programmers.
    TooLarge {
        thing: String,
        into: u8,
    },
    #[name("upside-down")]
    Turned {
        degrees: u16,
    },
    HTTPError,
}

impl Aggregate for ToolBox {
    type Command = BoxCommand;
    type Event = BoxEvent;
    type Rejection = BoxRejection;

    fn decide(&self, command: BoxCommand, ctx: &Context) -> Decision<Self> {
        Ok(match command {
            BoxCommand::Make { size } => vec![BoxEvent::Made { size }],
            BoxCommand::FindSomewhere => vec![BoxEvent::Made {
                size: Size::VeryLarge,
            }],
            BoxCommand::PutIn { thing, .. } if thing == "house" => {
                return Err(BoxRejection::TooLarge { thing, into: 1 });
            }
            BoxCommand::PutIn { thing, times } => {
                let at = ctx.now();
                let event = || BoxEvent::PutIn {
                    thing: thing.clone(),
                    at,
                };
                (0..times).map(|_| event()).collect()
            }
            BoxCommand::Shake {} => vec![BoxEvent::Shaken {}],
            BoxCommand::ThrowAway => vec![BoxEvent::ThrownAway],
        })
    }

    fn evolve(&mut self, event: &BoxEvent) {
        match event {
            BoxEvent::Made { size } => self.size = *size,
            BoxEvent::PutIn { thing, .. } => self.things.push(thing.clone()),
            BoxEvent::Shaken {} => self.things.reverse(),
            BoxEvent::ThrownAway => self.things.clear(),
        }
    }
}

fn input(name: &str, body: Value) -> CommandInput {
    let name = name.to_owned();
    CommandInput { name, body }
}

fn fields_of(refused: Result<(), Refusal>) -> Vec<String> {
    match refused {
        Err(Refusal::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
        other => panic!("it was not invalid, but {other:?}"),
    }
}

#[test]
fn commands_are_named_and_served_as_their_variants_say() {
    let served: Vec<_> = BoxCommand::specs()
        .into_iter()
        .map(|spec| (spec.name, spec.endpoint, spec.lifecycle))
        .collect();
    let expected = [
        ("make", Endpoint::Named, Lifecycle::Missing),
        ("find", Endpoint::Named, Lifecycle::Missing),
        ("put-in", Endpoint::Named, Lifecycle::Live),
        ("shake", Endpoint::Named, Lifecycle::Live),
        ("throw-away", Endpoint::Delete, Lifecycle::Live),
    ];
    let expected = expected.map(|(name, endpoint, life)| (name.to_owned(), endpoint, life));
    assert_eq!(served, expected);
    assert_eq!(ToolBox::NAME, "tool-box");
}

#[test]
fn the_schema_of_a_command_is_that_of_its_fields() {
    let specs = BoxCommand::specs();
    let schema = |name: &str| &specs.iter().find(|spec| spec.name == name).unwrap().schema;
    let make = schema("make");
    assert_eq!(make["description"], "Makes a box.");
    assert_eq!(make["required"], json!(["size"]));
    assert_eq!(make["properties"]["size"]["$ref"], "#/$defs/Size");
    assert_eq!(
        make["$defs"]["Size"]["enum"],
        json!(["small", "very-large"])
    );
    let put = schema("put-in");
    assert_eq!(put["properties"]["thing"]["maxLength"], 5);
    assert_eq!(put["required"], json!(["thing"]));
    for name in ["find", "throw-away"] {
        assert_eq!(schema(name)["additionalProperties"], false);
    }
}

#[test]
fn a_body_is_checked_before_it_is_decoded_and_every_field_that_is_wrong_is_named() {
    let decider = TypedDecider::<ToolBox>::new().unwrap();
    let check = |name, body| decider.check(&input(name, body));
    check("make", json!({"size": "very-large"})).unwrap();
    check("put-in", json!({"thing": "nail", "times": 2})).unwrap();
    for nothing in [Value::Null, json!({})] {
        for name in ["find", "shake", "throw-away"] {
            check(name, nothing.clone()).unwrap();
        }
        assert_eq!(fields_of(check("make", nothing)), ["/size"]);
    }
    assert_eq!(fields_of(check("make", json!({"size": "huge"}))), ["/size"]);
    let two = json!({"thing": "", "times": 256});
    assert_eq!(fields_of(check("put-in", two)), ["/thing", "/times"]);
    for name in ["find", "shake", "throw-away"] {
        assert_eq!(fields_of(check(name, json!({"why": 1}))), ["/why"]);
    }
    assert_eq!(fields_of(check("make", json!([]))), [""]);
    let unknown = check("Make", json!({"size": "small"}));
    assert!(matches!(unknown, Err(Refusal::UnknownCommand)));
}

#[test]
fn an_event_is_stored_as_its_fields_under_the_name_of_its_variant() {
    let at = DateTime::UNIX_EPOCH;
    let thing = "nail \"3\"".to_owned();
    let stored = [
        (
            BoxEvent::Made { size: Size::Small },
            "tool-box.made",
            1,
            json!({"size": "small"}),
        ),
        (
            BoxEvent::PutIn {
                thing: thing.clone(),
                at,
            },
            "tool-box.filled",
            1,
            json!({"thing": thing, "at": "1970-01-01T00:00:00Z"}),
        ),
        (BoxEvent::Shaken {}, "tool-box.shaken", 3, json!({})),
        (BoxEvent::ThrownAway, "tool-box.thrown-away", 1, json!({})),
    ];
    for (event, name, version, payload) in stored {
        assert_eq!(event.event_type(), name);
        assert_eq!(event.schema_version(), version);
        let encoded = event.encode().unwrap();
        assert_eq!(encoded.decode::<Value>().unwrap(), payload, "{name}");
        assert_eq!(BoxEvent::decode(name, version, &encoded).unwrap(), event);
        assert!(BoxEvent::TYPES.contains(&name));
        assert_eq!(BoxEvent::is_terminal(name), name == "tool-box.thrown-away");
    }
}

#[test]
fn an_event_of_another_name_version_or_shape_is_not_read() {
    let payload = |json: &str| Payload::from_stored(json.as_bytes());
    let decode = |name, version, json: &str| BoxEvent::decode(name, version, &payload(json));
    let unknown = decode("tool-box.put-in", 1, "{}").unwrap_err();
    assert!(matches!(unknown, DecodeError::UnknownType { .. }));
    let newer = decode("tool-box.shaken", 2, "{}").unwrap_err();
    assert!(matches!(newer, DecodeError::UnknownVersion { .. }));
    for wrong in [
        "{}",
        "{\"size\": 1}",
        "",
        "{\"size\":\"small\"},\"tool-box.shaken\":{}",
    ] {
        let error = decode("tool-box.made", 1, wrong).unwrap_err();
        assert!(matches!(error, DecodeError::Payload { .. }), "{wrong}");
    }
    let grown = decode("tool-box.made", 1, "{\"size\":\"small\",\"more\":[1]}").unwrap();
    assert_eq!(grown, BoxEvent::Made { size: Size::Small });
}

#[test]
fn a_rejection_says_what_its_documentation_says() {
    let large = BoxRejection::TooLarge {
        thing: "a house".to_owned(),
        into: 7,
    };
    assert_eq!(large.code(), "too-large");
    let said = "a house does not fit 7, 7 {being} small {:?}.";
    assert_eq!(large.detail(), said);
    let turned = BoxRejection::Turned { degrees: 180 };
    assert_eq!(turned.code(), "upside-down");
    assert_eq!(turned.detail(), "Turned (degrees: 180).");
    assert_eq!(BoxRejection::HTTPError.code(), "http-error");
}

#[test]
fn an_aggregate_lives_from_its_making_to_its_end() {
    let decider = TypedDecider::<ToolBox>::new().unwrap();
    let ctx = Context::new(
        Uuid::nil(),
        DateTime::UNIX_EPOCH,
        tidelog::Metadata::default(),
    );
    let run = |state: State, name, body| {
        let command = input(name, body);
        decider.check(&command)?;
        let events = decider.decide(&state, &command, &ctx)?;
        Ok::<_, Refusal>(events.iter().fold(state, |state, event| {
            let (name, version) = (&event.event_type, event.schema_version);
            decider
                .evolve(state, name, version, &event.payload)
                .unwrap()
        }))
    };
    let made = run(decider.initial(), "find", Value::Null).unwrap();
    let filled = run(made, "put-in", json!({"thing": "nail", "times": 1})).unwrap();
    let shown = decider.show(&filled);
    assert_eq!(shown, json!({"size": "very-large", "things": ["nail"]}));
    let house = run(filled.clone(), "put-in", json!({"thing": "house"}));
    assert!(matches!(house, Err(Refusal::Rejected { code, .. }) if code == "too-large"));
    let thrown = run(filled, "throw-away", Value::Null).unwrap();
    let late = run(thrown, "shake", Value::Null);
    assert!(matches!(late, Err(Refusal::Deleted)));
}

#[test]
fn given_when_then_takes_the_types() {
    given::<ToolBox>([BoxEvent::Made { size: Size::Small }])
        .when(BoxCommand::Shake {})
        .then([BoxEvent::Shaken {}]);
}

/// An aggregate whose events say that they are another's.
#[aggregate]
struct Stray {}

#[commands]
enum StrayCommand {
    #[create]
    Go,
}

impl Aggregate for Stray {
    type Command = StrayCommand;
    type Event = BoxEvent;
    type Rejection = BoxRejection;

    fn decide(&self, StrayCommand::Go: StrayCommand, _: &Context) -> Decision<Self> {
        Ok(Vec::new())
    }

    fn evolve(&mut self, _: &BoxEvent) {}
}

#[test]
fn events_that_are_called_as_another_aggregates_are_found() {
    let error = TypedDecider::<Stray>::new().map(|_| ()).unwrap_err();
    assert!(matches!(error, InvalidAggregate::EventName { .. }));
    assert!(
        error.to_string().contains("#[events(\"stray\")]"),
        "{error}"
    );
}

/// A page of a book.
#[entity(name = "sheet", plural = "sheaf", index = "-words,text", rule = keep, rejection = SheetRejection)]
struct BookPage {
    #[schemars(length(min = 1))]
    text: String,
    #[serde(default)]
    words: u32,
    note: Option<String>,
}

#[rejections]
enum SheetRejection {
    /// A page with words is kept.
    Kept,
    Blank,
}

fn keep(change: Change<'_, BookPage>, _: &Context) -> Result<(), SheetRejection> {
    match change {
        Change::Create(page) if page.text == "blank" => Err(SheetRejection::Blank),
        Change::Delete(page) if page.words > 0 => Err(SheetRejection::Kept),
        _ => Ok(()),
    }
}

fn page(text: &str, words: u32) -> BookPage {
    BookPage {
        text: text.to_owned(),
        words,
        note: None,
    }
}

#[test]
fn an_entity_is_what_its_fields_say() {
    let schema = EntitySchema::of::<BookPage>().unwrap();
    assert_eq!((schema.name(), schema.plural()), ("sheet", "sheaf"));
    assert_eq!(schema.indexes(), ["-words,text"]);
    given_entity::<BookPage>([])
        .when(create(json!({"text": "a"})))
        .then_state(page("a", 0));
    given_entity::<BookPage>([])
        .when(create(json!({"text": "", "pages": 1})))
        .then_invalid(&["/pages"]);
    given_entity::<BookPage>([])
        .when(create(json!({"text": "", "words": -1})))
        .then_invalid(&["/text", "/words"]);
    given_entity([created(page("a", 1))])
        .when(patch(json!({"words": 1})))
        .then_nothing();
    given_entity([created(page("a", 1)), updated(page("b", 1))])
        .when(patch(json!({"note": "n"})))
        .then_state(BookPage {
            note: Some("n".to_owned()),
            ..page("b", 1)
        });
}

#[test]
fn the_rule_is_asked_of_every_change() {
    given_entity::<BookPage>([])
        .when(create(json!({"text": "blank"})))
        .then_rejected(SheetRejection::Blank);
    given_entity([created(page("a", 1))])
        .when(delete())
        .then_rejected(SheetRejection::Kept);
    given_entity([created(page("a", 1)), updated(page("a", 0))])
        .when(delete())
        .then_state(page("a", 0));
    given_entity([created(page("a", 0)), deleted()])
        .when(delete())
        .then_refused(Refusal::Deleted);
}

/// How many words there are by text.
#[view(
    name = "heap",
    plural = "heaps",
    index = "pages",
    index = "-words,pages"
)]
struct Words {
    words: i64,
    pages: i64,
}

impl Projection for Words {
    type Event = EntityEvent<BookPage>;

    fn keys(e: &Recorded<Self::Event>) -> Keys {
        e.event.keys(|page| &page.text)
    }

    fn project(view: Option<Self>, key: &str, e: &Recorded<Self::Event>) -> Option<Self> {
        let Words { words, pages } = view.unwrap_or_default();
        let own = |page: &BookPage| if page.text == key { page.words } else { 0 };
        let pages = pages + e.event.delta(|page| page.text == key);
        let words = words + e.event.delta(own);
        (pages > 0).then_some(Words { words, pages })
    }
}

#[test]
fn a_view_takes_back_what_an_entity_no_longer_adds() {
    let heap = |pages, words| Words { words, pages };
    given_events([
        on_entity("1", created(page("a", 5))),
        on_entity("2", created(page("a", 6))),
        on_entity("3", created(page("c", 1))),
        on_entity("1", updated(page("b", 7))),
        on_entity("2", updated(page("a", 1))),
        on_entity::<BookPage>("3", deleted()),
    ])
    .then_view("a", heap(1, 1))
    .then_view("b", heap(1, 7))
    .then_no_view::<Words>("c");
}

#[test]
fn a_view_has_a_name_a_plural_and_a_schema() {
    assert_eq!((Words::NAME, Words::plural().as_str()), ("heap", "heaps"));
    assert_eq!(Words::schema()["properties"]["pages"]["type"], "integer");
    assert_eq!(Words::indexes(), ["pages", "-words,pages"]);
}

#[test]
fn an_update_without_the_value_before_reads_as_a_field_that_was_not_there() {
    given_events([
        on_entity("1", created(page("a", 1))),
        on_entity(
            "1",
            updated(BookPage {
                note: Some("n".to_owned()),
                ..page("a", 1)
            }),
        ),
    ])
    .then_view("a", Words { words: 1, pages: 1 });
}

#[test]
fn what_serde_wants_beyond_the_schema_is_a_refusal_too() {
    let input = input("put-in", json!({"thing": 1}));
    let errors: Vec<FieldError> = BoxCommand::decode(&input).unwrap_err();
    assert_eq!(errors.len(), 1);
}
