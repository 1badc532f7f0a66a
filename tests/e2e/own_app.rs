//! A program of one's own, with aggregates that are written in Rust, on real servers and over real HTTP: what only its own code
//! can be the cause of.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use tidelog::prelude::*;
use tidelog::settings::{Role, Settings};
use tidelog::{App, CommandId, CommandRequest, MultiStreamRequest, Running};
use tidelog_domain::Partitions;
use tidelog_test_support::shared;
use tokio::task::JoinSet;

use crate::client::{Answer, Client, must};
use crate::log::{assert_dense, connect, fresh_log, read};
use crate::store::kit::{Holder, until, waiting};

/// An account that can be as large as it is told to be, and that can be kept busy.
#[aggregate]
struct Account {
    cents: u64,
    notes: u64,
}

#[commands]
enum AccountCommand {
    #[create]
    Open {},
    Deposit {
        cents: u64,
    },
    Withdraw {
        cents: u64,
    },
    /// Records a note of so many bytes.
    Note {
        bytes: usize,
    },
    /// Changes the account in between, by way of the service at `address`, and then wants to change it itself.
    Contend {
        address: String,
        id: String,
    },
}

#[events("account")]
enum AccountEvent {
    Opened {},
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
    Noted { text: String },
}

#[rejections]
enum AccountRejection {
    /// There are only {cents} cents in the account.
    TooLittle { cents: u64 },
}

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: AccountCommand, _: &Context) -> Decision<Self> {
        let Self { cents: had, .. } = *self;
        Ok(vec![match command {
            AccountCommand::Open {} => AccountEvent::Opened {},
            AccountCommand::Deposit { cents } => AccountEvent::Deposited { cents },
            AccountCommand::Withdraw { cents } if had < cents => {
                return Err(AccountRejection::TooLittle { cents: had });
            }
            AccountCommand::Withdraw { cents } => AccountEvent::Withdrawn { cents },
            AccountCommand::Note { bytes } => AccountEvent::Noted {
                text: "x".repeat(bytes),
            },
            AccountCommand::Contend { address, id } => {
                deposit_meanwhile(address, id);
                AccountEvent::Deposited { cents: 1 }
            }
        }])
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened {} => {}
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
            AccountEvent::Noted { .. } => self.notes += 1,
        }
    }
}

/// Deposits a cent by way of another service, and waits until that is done.
fn deposit_meanwhile(address: String, id: String) {
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let path = format!("/account/{id}/deposit");
            Client::new(&address)
                .post(&path, &json!({"cents": 1}))
                .await
                .data(200);
        });
    });
    done.join().unwrap();
}

/// Moves money between two accounts.
#[multi_stream_command]
struct Transfer {
    from: String,
    to: String,
    #[schemars(range(min = 1))]
    cents: u64,
}

impl MultiStreamCommand for Transfer {
    type Aggregates = (Account, Account);
    type Rejection = AccountRejection;

    fn ids(&self) -> [String; 2] {
        [self.from.clone(), self.to.clone()]
    }

    fn decide(&self, (from, to): (&Account, &Account), ctx: &Context) -> MultiStreamDecision<Self> {
        let cents = self.cents;
        Ok((
            from.decide(AccountCommand::Withdraw { cents }, ctx)?,
            to.decide(AccountCommand::Deposit { cents }, ctx)?,
        ))
    }
}

fn bank() -> App {
    App::new("bank")
        .aggregate::<Account>()
        .multi_stream_command::<Transfer>()
}

/// A log of its own, by a user with a service's rights.
async fn fresh() -> String {
    let log = fresh_log(shared::mysql().await, Partitions::DEFAULT);
    log.await.service
}

/// The command service of the program, on a log of its own.
struct Bank {
    running: Running,
    commands: Client,
    url: String,
}

impl Bank {
    async fn new() -> Self {
        Self::on(fresh().await).await
    }

    async fn on(url: String) -> Self {
        let settings = Settings {
            role: Role::Command,
            database_url: Some(url.clone()),
            bus_url: Some(shared::redis().await.url().to_owned()),
            command_addr: "127.0.0.1:0".to_owned(),
            admin_addr: "127.0.0.1:0".to_owned(),
            ..Settings::default()
        };
        let running = bank().start(settings).await.unwrap();
        let commands = Client::new(running.command_addr().unwrap());
        Self {
            running,
            commands,
            url,
        }
    }

    async fn open(&self, id: &str) {
        self.commands
            .post("/account/open", &json!({"id": id}))
            .await
            .data(201);
    }

    async fn call(&self, id: &str, command: &str, body: &Value) -> Answer {
        self.commands
            .post(&format!("/account/{id}/{command}"), body)
            .await
    }

    /// The versions of the accounts `ids`.
    async fn versions(&self, ids: &[&str]) -> Vec<usize> {
        let rows = read(&self.url).await;
        assert_dense(&rows);
        let count = |id: &&str| rows.iter().filter(|row| row.id() == *id).count();
        ids.iter().map(count).collect()
    }
}

#[tokio::test]
async fn the_domains_own_no_comes_with_its_code() {
    let bank = Bank::new().await;
    bank.open("a").await;
    bank.call("a", "deposit", &json!({"cents": 3}))
        .await
        .data(200);
    let refused = bank.call("a", "withdraw", &json!({"cents": 4})).await;
    let problem = refused.problem(422, "rejected");
    assert_eq!(problem["code"], "too-little");
    assert_eq!(problem["detail"], "There are only 3 cents in the account.");
    let invalid = bank.call("a", "withdraw", &json!({"cents": -1})).await;
    assert_eq!(
        invalid.problem(422, "invalid")["errors"][0]["field"],
        "/cents"
    );
    assert_eq!(bank.versions(&["a"]).await, [2]);
    assert!(bank.running.stop().await);
}

/// The decision blocks its thread, so that the other service needs another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_that_keeps_changing_is_a_conflict() {
    let bank = Bank::new().await;
    let other = Bank::on(bank.url.clone()).await;
    bank.open("a").await;
    let contend = json!({"address": other.commands.address(), "id": "a"});
    let conflict = bank.call("a", "contend", &contend).await;
    conflict.problem(409, "conflict");
    conflict.header("retry-after");
    let rows = read(&bank.url).await;
    assert_dense(&rows);
    // What came in between, and nothing else.
    let attempts = rows.len() - 1;
    assert!(attempts > 1, "it was decided once only");
    eprintln!("it was decided {attempts} times");
    assert!(bank.running.stop().await);
    assert!(other.running.stop().await);
}

#[tokio::test]
async fn a_parameter_or_a_precondition_that_is_not_understood_is_refused() {
    let bank = Bank::new().await;
    bank.open("a").await;
    let deposit = json!({"cents": 1});
    let unknown = bank
        .commands
        .post("/account/a/deposit?dry=1", &deposit)
        .await;
    unknown.problem(400, "unknown-parameter");
    let send = async |path: &str, body: &Value, header: &str, value: &str| {
        let request = bank.commands.request(Method::POST, path).json(body);
        must(request.header(header, value)).await
    };
    let exists = send("/account/open", &json!({"id": "a"}), "if-none-match", "*").await;
    exists.problem(412, "precondition-failed");
    let exists = bank
        .commands
        .post("/account/open", &json!({"id": "a"}))
        .await;
    exists.problem(409, "already-exists");
    let stale = send("/account/a/deposit", &deposit, "if-match", "\"7\"").await;
    stale.problem(412, "precondition-failed");
    assert_eq!(stale.header("etag"), "\"1\"");
    let transfer = json!({"from": "a", "to": "b", "cents": 1});
    let several = send("/transfer", &transfer, "if-match", "\"1\"").await;
    several.problem(400, "malformed-request");
    assert_eq!(bank.versions(&["a"]).await, [1]);
    assert!(bank.running.stop().await);
}

#[tokio::test]
async fn a_transfer_is_one_append_to_both_accounts_or_to_none() {
    let bank = Bank::new().await;
    for id in ["a", "b"] {
        bank.open(id).await;
        bank.call(id, "deposit", &json!({"cents": 50}))
            .await
            .data(200);
    }
    let send = async |from: &str, to: &str, cents: u64, key: Option<&str>| {
        let body = json!({"from": from, "to": to, "cents": cents});
        let mut request = bank.commands.request(Method::POST, "/transfer").json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        must(request).await
    };
    let done = send("a", "b", 20, Some("k")).await;
    let states = done.data(200);
    assert_eq!(
        states[0],
        json!({"id": "a", "version": 3, "cents": 30, "notes": 0})
    );
    assert_eq!(
        states[1],
        json!({"id": "b", "version": 3, "cents": 70, "notes": 0})
    );
    let again = send("a", "b", 20, Some("k")).await;
    assert_eq!(again.data(200), states);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.token(), done.token());
    send("a", "b", 21, Some("k"))
        .await
        .problem(422, "idempotency-key-reused");
    send("a", "b", 31, None).await.problem(422, "rejected");
    send("a", "nobody", 1, None).await.problem(404, "not-found");
    send("a", "a", 1, None).await.problem(422, "invalid");
    send("a", "b", 0, None).await.problem(422, "invalid");
    let get = must(bank.commands.request(Method::GET, "/transfer")).await;
    get.problem(405, "method-not-allowed");
    assert_eq!(get.header("allow"), "POST");
    assert_eq!(bank.versions(&["a", "b"]).await, [3, 3]);

    // In the same process the command's own id is its key.
    let id = CommandId::new();
    let move_back = || {
        let body = json!({"from": "b", "to": "a", "cents": 20});
        MultiStreamRequest::new("transfer", body).once(id)
    };
    let client = bank.running.client();
    let back = client.execute_multi_stream(move_back()).await.unwrap();
    let again = client.execute_multi_stream(move_back()).await.unwrap();
    assert!(!back.replayed && again.replayed);
    assert_eq!(again.aggregates[0].version, back.aggregates[0].version);
    let deposit = || {
        CommandRequest::new("account", "deposit", json!({"cents": 5}))
            .to("a")
            .once(id)
    };
    let deposited = client.execute(deposit()).await.unwrap();
    let again = client.execute(deposit()).await.unwrap();
    assert!(again.replayed);
    assert_eq!(
        (again.version, again.data),
        (deposited.version, deposited.data)
    );
    bank.call("a", "withdraw", &json!({"cents": 5}))
        .await
        .data(200);

    // To and fro at once: no deadlock, and no cent is lost.
    let mut clients = JoinSet::new();
    for number in 0..40 {
        let commands = bank.commands.clone();
        let (from, to) = if number % 2 == 0 {
            ("a", "b")
        } else {
            ("b", "a")
        };
        clients.spawn(async move {
            commands
                .post("/transfer", &json!({"from": from, "to": to, "cents": 1}))
                .await
                .data(200);
        });
    }
    clients.join_all().await;
    let last = send("a", "b", 1, None).await.data(200);
    assert_eq!([&last[0]["cents"], &last[1]["cents"]], [49, 51]);
    assert_eq!(bank.versions(&["a", "b"]).await, [47, 45]);
    assert!(bank.running.stop().await);
}

/// Two lanes: so many commands in flight are batches of 256.
const IN_FLIGHT: usize = 512;

#[tokio::test]
async fn a_command_that_is_too_large_or_unreadable_harms_no_other_of_its_batch() {
    let url = fresh().await;
    let bank = Bank::on(url.clone()).await;
    let mut opening = JoinSet::new();
    for number in 0..IN_FLIGHT {
        let commands = bank.commands.clone();
        let body = json!({"id": number.to_string()});
        opening.spawn(async move { commands.post("/account/open", &body).await.data(201) });
    }
    opening.join_all().await;
    assert!(bank.running.stop().await);
    // Nobody remembers the states, so they are read from the log, where some are not readable.
    let broken = |number: usize| number % 100 == 7;
    let large = |number: usize| number % 100 == 8;
    let mut connection = connect(&url).await;
    for number in (0..IN_FLIGHT).filter(|number| broken(*number)) {
        let sql = format!(
            "UPDATE events SET event_type='account.from-the-future' WHERE stream='account/{number}'"
        );
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let bank = Bank::on(url.clone()).await;
    let all: Vec<_> = Partitions::DEFAULT.iter().collect();
    let holder = Holder::of(&url, &all).await;
    // These keep both lanes busy while the others come.
    let mut first = JoinSet::new();
    for number in 0..8 {
        let commands = bank.commands.clone();
        let body = json!({"id": format!("first-{number}")});
        first.spawn(async move { commands.post("/account/open", &body).await });
    }
    until("both lanes wait for their heads", async || {
        waiting(&url).await.len() == 2
    })
    .await;
    let mut clients = JoinSet::new();
    for number in 0..IN_FLIGHT {
        let commands = bank.commands.clone();
        let bytes = if large(number) { 600 * 1024 } else { 10 };
        clients.spawn(async move {
            let path = format!("/account/{number}/note");
            (number, commands.post(&path, &json!({"bytes": bytes})).await)
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    holder.release().await;
    for (number, answer) in clients.join_all().await {
        match number {
            _ if broken(number) => drop(answer.problem(500, "internal")),
            _ if large(number) => drop(answer.problem(413, "too-large")),
            _ => assert_eq!(answer.data(200)["notes"], 1),
        }
    }
    let rows = read(&url).await;
    assert_dense(&rows);
    for number in 0..IN_FLIGHT {
        let expected = if broken(number) || large(number) {
            1
        } else {
            2
        };
        let id = number.to_string();
        assert_eq!(
            rows.iter().filter(|row| row.id() == id).count(),
            expected,
            "{id}"
        );
    }
    assert!(bank.running.stop().await);
}
