//! Logs of older programs, committed as files, read by today's: states and views through upcasters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidelog_domain::testing::{given_events, given_log, on};
use tidelog_domain::{
    Aggregate, Command, CommandInput, CommandSpec, Context, Decider, Decision, DecodeError,
    EntityDecider, EntitySchema, EntityView, Event, EventFilter, EventSet, EventShape, FieldError,
    InvalidUpcasters, Keys, Lock, Named, Payload, Projection, Recorded, Rejection, TypedDecider,
    TypedProjector, Upcaster, Upcasters, View, ViewDefinition,
};

/// Opened: once `account.created`, with a `name`. Deposits: once in euros (1), then in cents (2), now with a channel (3).
const OLD_ACCOUNTS: &str = include_str!("fixtures/accounts-1.ndjson");

/// Notes: once with a `title` (1), then with a `text` (2), now maybe `done` (3).
const OLD_NOTES: &str = include_str!("fixtures/notes-1.ndjson");

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    owner: String,
    cents: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: u64, channel: String },
}

#[derive(Debug, PartialEq)]
struct Never;

impl Rejection for Never {
    fn code(&self) -> String {
        "never".to_owned()
    }

    fn detail(&self) -> String {
        "It never is.".to_owned()
    }
}

struct NoCommand;

impl Command for NoCommand {
    fn specs() -> Vec<CommandSpec> {
        Vec::new()
    }

    fn decode(_: &CommandInput) -> Result<Self, Vec<FieldError>> {
        Ok(Self)
    }
}

impl Named for Account {
    const NAME: &'static str = "account";
}

impl Aggregate for Account {
    type Command = NoCommand;
    type Event = AccountEvent;
    type Rejection = Never;

    fn decide(&self, _: NoCommand, _: &Context) -> Decision<Self> {
        Ok(Vec::new())
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner } => self.owner.clone_from(owner),
            AccountEvent::Deposited { cents, .. } => self.cents += cents,
        }
    }
}

fn owner(old: Value) -> Value {
    json!({"owner": old["name"]})
}

fn cents(old: Value) -> Value {
    json!({"cents": old["euros"].as_u64().map(|euros| euros * 100)})
}

fn by_post(old: Value) -> Value {
    json!({"cents": old["cents"], "channel": "counter"})
}

impl Event for AccountEvent {
    const TYPES: &'static [&'static str] = &["account.opened", "account.deposited"];

    fn event_type(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "account.opened",
            Self::Deposited { .. } => "account.deposited",
        }
    }

    fn current_version(event_type: &str) -> u32 {
        if event_type == "account.deposited" {
            3
        } else {
            1
        }
    }

    fn upcasters() -> Vec<Upcaster> {
        vec![
            Upcaster::new("account.created", 1, owner).renamed("account.opened", 1),
            Upcaster::new("account.deposited", 1, cents),
            Upcaster::new("account.deposited", 2, by_post),
        ]
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        Payload::of(self)
    }

    fn decode(event_type: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        if !Self::TYPES.contains(&event_type) {
            return Err(DecodeError::unknown(event_type));
        }
        assert_eq!(version, Self::current_version(event_type));
        payload
            .decode()
            .map_err(|source| DecodeError::payload(event_type, version, source))
    }
}

/// What came in, by channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Channel {
    cents: u64,
    actors: Vec<String>,
}

impl Named for Channel {
    const NAME: &'static str = "channel";
}

impl View for Channel {}

impl Projection for Channel {
    type Event = AccountEvent;

    fn keys(e: &Recorded<AccountEvent>) -> Keys {
        match &e.event {
            AccountEvent::Deposited { channel, .. } => vec![channel.clone()],
            AccountEvent::Opened { .. } => Vec::new(),
        }
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<AccountEvent>) -> Option<Self> {
        let mut view = view.unwrap_or_default();
        if let AccountEvent::Deposited { cents, .. } = e.event {
            view.cents += cents;
        }
        view.actors.extend(e.metadata.actor.clone());
        Some(view)
    }
}

/// The owners of accounts; it listens to one of the events only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Owner {
    accounts: Vec<String>,
}

impl Named for Owner {
    const NAME: &'static str = "owner";
}

impl View for Owner {}

struct Opened(String);

impl EventSet for Opened {
    const NAMES: &'static [&'static str] = &["account.opened"];

    fn evolution() -> Upcasters {
        Upcasters::of::<AccountEvent>()
    }

    fn read(event: &tidelog_domain::RecordedEvent) -> Result<Self, DecodeError> {
        match AccountEvent::decode(&event.event_type, event.schema_version, &event.payload)? {
            AccountEvent::Opened { owner } => Ok(Self(owner)),
            AccountEvent::Deposited { .. } => Err(DecodeError::unknown(&event.event_type)),
        }
    }
}

impl Projection for Owner {
    type Event = Opened;

    fn keys(e: &Recorded<Opened>) -> Keys {
        vec![e.event.0.clone()]
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<Opened>) -> Option<Self> {
        let mut view = view.unwrap_or_default();
        view.accounts.push(e.stream_id.clone());
        Some(view)
    }
}

#[test]
fn an_old_log_gives_todays_state() {
    let account = TypedDecider::<Account>::new().unwrap();
    account.upcasters().check().unwrap();
    given_log(OLD_ACCOUNTS)
        .then_state(
            &account,
            "1",
            json!({"owner": "Ann Ames-Best", "cents": 751}),
        )
        .then_state(&account, "2", json!({"owner": "Bob", "cents": 0}));
}

#[test]
fn an_old_log_gives_todays_views() {
    let view = |cents, actors: &[&str]| Channel {
        cents,
        actors: actors.iter().map(|&actor| actor.to_owned()).collect(),
    };
    let owner = |id: &str| Owner {
        accounts: vec![id.to_owned()],
    };
    given_log(OLD_ACCOUNTS)
        .then_view("counter", view(750, &["ann"]))
        .then_view("web", view(1, &[]))
        .then_view("Ann Ames", owner("1"))
        .then_view("Bob", owner("2"));
}

#[test]
fn a_view_listens_to_the_old_names_of_its_events() {
    let filter = |view: &dyn ViewDefinition| view.filter().clone();
    assert_eq!(
        filter(&TypedProjector::<Owner>::new()),
        EventFilter::Types(vec![
            "account.created".to_owned(),
            "account.opened".to_owned()
        ])
    );
}

#[test]
fn a_new_event_is_stored_in_the_current_version() {
    let deposited = AccountEvent::Deposited {
        cents: 1,
        channel: "web".to_owned(),
    };
    let log = given_events([on("1", deposited)]);
    assert_eq!(log.events()[0].schema_version, 3);
}

/// The schema of a note as it is today.
fn note() -> EntitySchema {
    let schema = json!({
        "type": "object",
        "properties": {"text": {"type": "string"}, "done": {"type": "boolean"}},
        "required": ["text"],
        "x-tidelog-version": 3,
    });
    let schema = EntitySchema::from_value("note", schema).unwrap();
    let steps = ["note.created", "note.updated", "note.deleted"];
    schema.with_upcasters(steps.map(|name| Upcaster::new(name, 1, title_is_text)))
}

fn title_is_text(mut payload: Value) -> Value {
    for part in ["state", "before"] {
        if let Some(fields) = payload[part].as_object_mut()
            && let Some(title) = fields.shift_remove("title")
        {
            fields.insert("text".to_owned(), title);
        }
    }
    payload
}

#[test]
fn an_old_log_of_an_entity_gives_todays_state_and_view() {
    let decider = EntityDecider::new(note());
    decider.upcasters().check().unwrap();
    let view = EntityView::new(note());
    given_log(OLD_NOTES)
        .then_state(&decider, "1", json!({"text": "oat milk"}))
        .then_state(&decider, "2", json!({"text": "bread"}))
        .then_state(&decider, "3", json!({"text": "salt", "done": true}))
        .then_document(&view, "1", Some(json!({"text": "oat milk"})))
        .then_document(&view, "2", None)
        .then_document(&view, "3", Some(json!({"text": "salt", "done": true})));
}

#[test]
fn an_entity_is_written_in_the_version_of_its_schema() {
    let decider = EntityDecider::new(note());
    let versions: Vec<_> = decider
        .events()
        .into_iter()
        .map(|shape| (shape.event_type.to_string(), shape.schema_version))
        .collect();
    let all = ["note.created", "note.updated", "note.deleted"];
    assert_eq!(versions, all.map(|name| (name.to_owned(), 3)));
    for wrong in [json!(0), json!(1_001), json!("1"), json!(1.5)] {
        let schema = json!({"type": "object", "x-tidelog-version": wrong});
        let error = EntitySchema::from_value("note", schema).unwrap_err();
        assert!(error.to_string().contains("x-tidelog-version"), "{error}");
    }
}

#[test]
fn an_entity_of_a_newer_program_is_not_read() {
    let old = EntitySchema::from_value("note", json!({"type": "object"})).unwrap();
    let decider = EntityDecider::new(old);
    let payload = Payload::of(&json!({"state": {}, "before": {}})).unwrap();
    let refused = decider.evolve(decider.initial(), "note.created", 2, &payload);
    assert!(matches!(
        refused,
        Err(DecodeError::UnknownVersion { known: 1, .. })
    ));
}

#[test]
fn the_fingerprint_of_a_view_changes_with_the_upcasters_of_its_events() {
    let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}, "x-tidelog-version": 2});
    let schema = EntitySchema::from_value("note", schema).unwrap();
    let plain = EntityView::new(schema.clone()).fingerprint();
    let step = || Upcaster::new("note.created", 1, title_is_text);
    let with = |step| EntityView::new(schema.clone().with_upcasters([step])).fingerprint();
    assert_ne!(plain, with(step()));
    assert_ne!(with(step()), with(step().revision(2)));
    assert_eq!(with(step()), with(step()));
    // A typed view says its events' versions too.
    let typed = TypedProjector::<Channel>::new().fingerprint();
    assert!(
        typed.ends_with(&Upcasters::of::<AccountEvent>().fingerprint()),
        "{typed}"
    );
}

#[test]
fn a_step_that_is_missing_is_found_at_the_start() {
    let steps = [Upcaster::new("note.created", 3, title_is_text)];
    let wrong = note().with_upcasters(steps);
    assert!(matches!(
        wrong.upcasters().check(),
        Err(InvalidUpcasters::Current { current: 3, .. })
    ));
    let shapes = EventShape::of::<AccountEvent>();
    let current = shapes.iter().map(|s| (&*s.event_type, s.schema_version));
    let gap = Upcasters::new(current, AccountEvent::upcasters().into_iter().skip(2));
    assert!(matches!(
        gap.check(),
        Err(InvalidUpcasters::Gap { version: 1, .. })
    ));
}

#[test]
fn a_typed_aggregate_is_locked_by_names_and_versions() {
    let account = TypedDecider::<Account>::new().unwrap();
    let deciders = [&account as &dyn Decider];
    let locked = Lock::default().update(deciders).unwrap();
    assert_eq!(
        serde_json::to_value(&locked).unwrap(),
        json!({"aggregates": {"account": {
            "account.deposited": {"3": null},
            "account.opened": {"1": null},
        }}})
    );
    assert_eq!(locked.compare(deciders), []);
    // What was stored once, under another name, is read by way of an upcaster; what nothing reads is not let go.
    let older = |name: &str| -> Lock {
        let shapes = json!({name: {"1": null}, "account.deposited": {"3": null}, "account.opened": {"1": null}});
        serde_json::from_value(json!({"aggregates": {"account": shapes}})).unwrap()
    };
    assert_eq!(older("account.created").compare(deciders), []);
    let lost = older("account.frozen").compare(deciders);
    assert!(
        lost[0].to_string().contains("is no longer read"),
        "{lost:?}"
    );
}
