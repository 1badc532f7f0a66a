//! An aggregate written by hand, without macros: how it is decided, run, tested and projected.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidelog_domain::testing::{given, given_events, on};
use tidelog_domain::{
    Aggregate, Command, CommandInput, CommandSpec, Context, Decider, Decision, DecodeError,
    Endpoint, Event, FieldError, Keys, Lifecycle, Metadata, Named, Payload, Projection, Recorded,
    Refusal, Rejection, State, TypedDecider, View,
};
use uuid::Uuid;

use AccountCommand::{Close, Deposit, Open, Withdraw};
use AccountEvent::{Closed, Deposited, Opened, Withdrawn};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    owner: String,
    balance_cents: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum AccountCommand {
    Open { owner: String },
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
    Close {},
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum AccountEvent {
    #[serde(rename = "account.opened")]
    Opened { owner: String },
    #[serde(rename = "account.deposited")]
    Deposited { cents: u64 },
    #[serde(rename = "account.withdrawn")]
    Withdrawn { cents: u64 },
    #[serde(rename = "account.closed")]
    Closed {},
}

#[derive(Debug, PartialEq)]
enum AccountRejection {
    InsufficientFunds { balance_cents: u64 },
    NotEmpty,
}

impl Named for Account {
    const NAME: &'static str = "account";
}

impl Command for AccountCommand {
    fn specs() -> Vec<CommandSpec> {
        let spec = |name: &str, lifecycle| CommandSpec {
            name: name.to_owned(),
            endpoint: Endpoint::Named,
            lifecycle,
            schema: json!({"type": "object"}),
        };
        vec![
            spec("open", Lifecycle::Missing),
            spec("deposit", Lifecycle::Live),
            spec("withdraw", Lifecycle::Live),
            spec("close", Lifecycle::Live),
        ]
    }

    fn decode(input: &CommandInput) -> Result<Self, Vec<FieldError>> {
        serde_json::from_value(json!({ &input.name: input.body })).map_err(|error| {
            vec![FieldError {
                field: String::new(),
                message: error.to_string(),
            }]
        })
    }
}

impl Event for AccountEvent {
    const TYPES: &'static [&'static str] = &[
        "account.opened",
        "account.deposited",
        "account.withdrawn",
        "account.closed",
    ];

    fn event_type(&self) -> &'static str {
        match self {
            Opened { .. } => "account.opened",
            Deposited { .. } => "account.deposited",
            Withdrawn { .. } => "account.withdrawn",
            Closed {} => "account.closed",
        }
    }

    fn is_terminal(event_type: &str) -> bool {
        event_type == "account.closed"
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        let tagged = serde_json::to_value(self)?;
        Payload::of(&tagged[self.event_type()])
    }

    fn decode(event_type: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        if !Self::TYPES.contains(&event_type) {
            return Err(DecodeError::unknown(event_type));
        }
        payload
            .decode()
            .and_then(|body: Value| serde_json::from_value(json!({ event_type: body })))
            .map_err(|source| DecodeError::payload(event_type, version, source))
    }
}

impl Rejection for AccountRejection {
    fn code(&self) -> String {
        match self {
            Self::InsufficientFunds { .. } => "insufficient-funds".to_owned(),
            Self::NotEmpty => "not-empty".to_owned(),
        }
    }

    fn detail(&self) -> String {
        format!("{self:?}")
    }
}

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: AccountCommand, _: &Context) -> Decision<Self> {
        let balance_cents = self.balance_cents;
        Ok(match command {
            Open { owner } => vec![Opened { owner }],
            Deposit { cents: 0 } => vec![],
            Deposit { cents } => vec![Deposited { cents }],
            Withdraw { cents } if cents > balance_cents => {
                return Err(AccountRejection::InsufficientFunds { balance_cents });
            }
            Withdraw { cents } => vec![Withdrawn { cents }],
            Close {} if balance_cents > 0 => return Err(AccountRejection::NotEmpty),
            Close {} => vec![Closed {}],
        })
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            Opened { owner } => self.owner.clone_from(owner),
            Deposited { cents } => self.balance_cents += cents,
            Withdrawn { cents } => self.balance_cents -= cents,
            Closed {} => {}
        }
    }
}

/// The movements of an account that is open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Statement {
    lines: Vec<String>,
}

impl Named for Statement {
    const NAME: &'static str = "statement";
}

impl View for Statement {}

impl Projection for Statement {
    type Event = AccountEvent;

    fn keys(e: &Recorded<AccountEvent>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<AccountEvent>) -> Option<Self> {
        let mut view = view.unwrap_or_default();
        view.lines.push(match &e.event {
            Opened { owner } => format!("{} opened by {owner}", e.version),
            Deposited { cents } => format!("{} +{cents}", e.version),
            Withdrawn { cents } => format!("{} -{cents}", e.version),
            Closed {} => return None,
        });
        Some(view)
    }
}

fn opened() -> AccountEvent {
    Opened {
        owner: "ann".to_owned(),
    }
}

#[test]
fn an_account_cannot_be_overdrawn() {
    given::<Account>([opened(), Deposited { cents: 5 }])
        .when(Withdraw { cents: 5 })
        .then([Withdrawn { cents: 5 }]);
    given::<Account>([opened(), Deposited { cents: 5 }])
        .when(Withdraw { cents: 6 })
        .then_rejected(AccountRejection::InsufficientFunds { balance_cents: 5 });
}

#[test]
fn an_account_with_money_in_it_cannot_be_closed() {
    given::<Account>([opened(), Deposited { cents: 5 }])
        .when(Close {})
        .then_rejected(AccountRejection::NotEmpty);
    given::<Account>([opened()])
        .when(Close {})
        .then([Closed {}]);
}

#[test]
fn a_deposit_of_nothing_changes_nothing() {
    given::<Account>([opened()])
        .when(Deposit { cents: 0 })
        .then_nothing();
}

#[test]
#[should_panic(expected = "expected Ok")]
fn a_wrong_expectation_panics() {
    given::<Account>([opened()])
        .when(Deposit { cents: 1 })
        .then([Deposited { cents: 2 }]);
}

#[test]
#[should_panic(expected = "InsufficientFunds")]
fn a_rejection_where_nothing_was_expected_panics() {
    given::<Account>([opened()])
        .when(Withdraw { cents: 1 })
        .then_nothing();
}

#[test]
#[should_panic(expected = "no command reaches it")]
fn nothing_can_be_tested_of_an_account_that_is_closed() {
    let _ = given::<Account>([opened(), Closed {}]).when(Deposit { cents: 1 });
}

#[test]
fn a_statement_has_a_line_a_movement_until_the_account_is_closed() {
    let lines = |lines: &[&str]| Statement {
        lines: lines.iter().map(|&line| line.to_owned()).collect(),
    };
    given_events([
        on("1", opened()),
        on("2", opened()),
        on("1", Deposited { cents: 5 }),
        on("2", Closed {}),
        on("1", Withdrawn { cents: 2 }),
    ])
    .then_view::<Statement>("1", lines(&["1 opened by ann", "2 +5", "3 -2"]))
    .then_no_view::<Statement>("2")
    .then_no_view::<Statement>("3");
}

#[test]
#[should_panic(expected = "1 +5")]
fn a_wrong_expectation_of_a_view_panics() {
    given_events([on("1", Deposited { cents: 5 })])
        .then_view::<Statement>("1", Statement::default());
}

/// Runs an account as the command service does.
struct Run {
    decider: TypedDecider<Account>,
    state: State,
}

impl Run {
    fn new() -> Self {
        let decider = TypedDecider::new().unwrap();
        let state = decider.initial();
        Self { decider, state }
    }

    fn command(&mut self, name: &str, body: Value) -> Result<Vec<String>, Refusal> {
        let input = CommandInput {
            name: name.to_owned(),
            body,
        };
        let epoch = DateTime::UNIX_EPOCH;
        let context = Context::new(Uuid::nil(), epoch, Metadata::default());
        self.decider.check(&input)?;
        let drafts = self.decider.decide(&self.state, &input, &context)?;
        for draft in &drafts {
            let state = self.state.clone();
            let evolve = |state| {
                self.decider.evolve(
                    state,
                    &draft.event_type,
                    draft.schema_version,
                    &draft.payload,
                )
            };
            self.state = evolve(state).unwrap();
        }
        Ok(drafts.iter().map(|d| d.event_type.to_string()).collect())
    }
}

#[test]
fn an_account_lives_from_its_opening_to_its_closing() {
    let mut run = Run::new();
    let refused = run.command("deposit", json!({"cents": 5})).unwrap_err();
    assert!(matches!(refused, Refusal::NotFound), "{refused:?}");

    let open = json!({"owner": "ann"});
    let happened = run.command("open", open.clone()).unwrap();
    assert_eq!(happened, ["account.opened"]);
    let refused = run.command("open", open.clone()).unwrap_err();
    assert!(matches!(refused, Refusal::AlreadyExists), "{refused:?}");

    let happened = run.command("deposit", json!({"cents": 5})).unwrap();
    assert_eq!(happened, ["account.deposited"]);
    let shown = run.decider.show(&run.state);
    assert_eq!(shown, json!({"owner": "ann", "balance_cents": 5}));

    let refused = run.command("withdraw", json!({"cents": 6})).unwrap_err();
    assert!(
        matches!(&refused, Refusal::Rejected { code, .. } if code == "insufficient-funds"),
        "{refused:?}"
    );

    run.command("withdraw", json!({"cents": 5})).unwrap();
    let happened = run.command("close", json!({})).unwrap();
    assert_eq!(happened, ["account.closed"]);
    assert_eq!(run.state.lifecycle(), Lifecycle::Ended);
    for (name, body) in [("deposit", json!({"cents": 5})), ("close", json!({}))] {
        let refused = run.command(name, body).unwrap_err();
        assert!(matches!(refused, Refusal::Deleted), "{name}: {refused:?}");
    }
    let refused = run.command("open", open).unwrap_err();
    assert!(matches!(refused, Refusal::AlreadyExists), "{refused:?}");
}

#[test]
fn a_command_that_does_not_exist_or_does_not_fit_is_refused_before_anything_is_decided() {
    let mut run = Run::new();
    let refused = run.command("steal", json!({})).unwrap_err();
    assert!(matches!(refused, Refusal::UnknownCommand), "{refused:?}");
    let refused = run.command("open", json!({"owner": 1})).unwrap_err();
    assert!(matches!(refused, Refusal::Invalid(_)), "{refused:?}");
    assert_eq!(run.state.lifecycle(), Lifecycle::Missing);
}

#[test]
fn a_stored_event_that_nobody_knows_stops_the_fold() {
    let decider = TypedDecider::<Account>::new().unwrap();
    let payload = Payload::of(&json!({})).unwrap();
    let unknown = decider.evolve(decider.initial(), "account.moved", 1, &payload);
    assert!(matches!(unknown, Err(DecodeError::UnknownType { .. })));
    let unreadable = decider.evolve(decider.initial(), "account.opened", 1, &payload);
    assert!(matches!(unreadable, Err(DecodeError::Payload { .. })));
}
