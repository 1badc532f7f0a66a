//! What a client of the command service is told when the database turns its transaction down, loses it, or its answer is lost;
//! and that the log has each command once, or not at all.

use reqwest::Method;
use serde_json::json;
use sqlx::Executor;
use tidelog_domain::Partitions;
use tidelog_test_support::{Engine, Server, TcpProxy, shared};

use crate::client::{Answer, Client, must};
use crate::log::{assert_dense, connect, fresh_log, read};
use crate::services::{Backends, Role, Service};
use crate::store::kit::{Holder, run, until, until_no_transaction_is_open, until_waiting, waiting};
use crate::waiting::eventually;

/// A command service, and its way to the database through a network that can be hurt.
struct Faulty {
    proxy: TcpProxy,
    direct: String,
    service: Service,
    commands: Client,
}

impl Faulty {
    async fn on(server: &Server) -> Self {
        let proxy = TcpProxy::start(server.port()).await;
        let direct = fresh_log(server, Partitions::DEFAULT).await.service;
        let backends = Backends {
            database_url: format!("{}?ssl-mode=DISABLED", proxy.url(&direct)),
            ..Backends::fresh().await
        };
        let service = Service::start(Role::Command, &backends).await;
        let faulty = Self {
            proxy,
            direct,
            commands: service.commands(),
            service,
        };
        // Its session to the database is there from here on.
        faulty.create("first").await.data(201);
        faulty
    }

    async fn create(&self, id: &str) -> Answer {
        create(&self.commands, id, None).await
    }

    /// Creates a post by a task of its own.
    fn creating(&self, id: &str, key: Option<&str>) -> tokio::task::JoinHandle<Answer> {
        let commands = self.commands.clone();
        let (id, key) = (id.to_owned(), key.map(str::to_owned));
        tokio::spawn(async move { create(&commands, &id, key.as_deref()).await })
    }

    /// One who holds all heads.
    async fn holder(&self) -> Holder {
        let all: Vec<_> = Partitions::DEFAULT.iter().collect();
        Holder::of(&self.direct, &all).await
    }

    /// The log has the first post and those with these ids, each once.
    async fn has(&self, ids: &[&str]) {
        let rows = read(&self.direct).await;
        assert_dense(&rows);
        let mut written: Vec<&str> = rows.iter().map(|row| row.id()).collect();
        written.sort_unstable();
        let mut expected = [&["first"], ids].concat();
        expected.sort_unstable();
        assert_eq!(written, expected);
        until_no_transaction_is_open(&self.direct).await;
    }
}

async fn create(commands: &Client, id: &str, key: Option<&str>) -> Answer {
    let post = json!({"id": id, "title": "A", "content": "", "author_name": "Ann"});
    let mut request = commands.request(Method::POST, "/post").json(&post);
    if let Some(key) = key {
        request = request.header("idempotency-key", format!("\"{key}\""));
    }
    must(request).await
}

/// Nothing was written, and it may be sent again.
fn unavailable(answer: &Answer) {
    let problem = answer.problem(503, "unavailable");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("Nothing was written")
    );
    answer.header("retry-after");
}

/// Makes the first INSERT of each session into the stream of `id` fail with this error.
async fn fails_once(faulty: &Faulty, id: &str, state: &str, number: u16) {
    let trigger = format!(
        "CREATE TRIGGER fault_{number} BEFORE INSERT ON events FOR EACH ROW IF NEW.stream='post/{id}' AND @failed_{number} IS NULL \
         THEN SET @failed_{number}=1; SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO={number}, MESSAGE_TEXT='forced'; END IF"
    );
    run(&faulty.direct, &trigger).await;
}

/// A deadlock's victim (1213) and a wait that timed out (1205) are tried again; the client notices nothing.
async fn what_may_go_well_the_next_time_is_tried_again(server: &Server) {
    let faulty = Faulty::on(server).await;
    for (id, state, number) in [("victim", "40001", 1213), ("waited", "HY000", 1205)] {
        fails_once(&faulty, id, state, number).await;
        let created = faulty.create(id).await;
        created.data(201);
        assert_eq!(created.header("etag"), "\"1\"");
    }
    faulty.has(&["victim", "waited"]).await;
}

#[tokio::test]
async fn deadlocks_and_timeouts_are_tried_again() {
    what_may_go_well_the_next_time_is_tried_again(shared::mysql().await).await;
}

#[tokio::test]
async fn deadlocks_and_timeouts_are_tried_again_on_mariadb() {
    what_may_go_well_the_next_time_is_tried_again(shared::mariadb().await).await;
}

#[tokio::test]
async fn heads_that_are_never_free_make_commands_unavailable_until_they_are() {
    let faulty = Faulty::on(shared::mysql().await).await;
    let holder = faulty.holder().await;
    let held_up = faulty.creating("held-up", None);
    until_waiting(&faulty.direct).await;
    // What waits behind it does so for a bounded time.
    let queued = faulty.create("held-up").await;
    queued.problem(503, "overloaded");
    queued.header("retry-after");
    unavailable(&held_up.await.unwrap());
    holder.release().await;
    faulty.has(&[]).await;
    faulty.create("held-up").await.data(201);
    faulty.has(&["held-up"]).await;
}

#[tokio::test]
async fn a_read_only_server_makes_commands_unavailable_until_it_is_writable() {
    let server = Server::start(Engine::MySql).await;
    let faulty = Faulty::on(&server).await;
    run(&faulty.direct, "SET GLOBAL super_read_only=1").await;
    unavailable(&faulty.create("too-early").await);
    run(&faulty.direct, "SET GLOBAL super_read_only=0,read_only=0").await;
    faulty.create("in-time").await.data(201);
    faulty.has(&["in-time"]).await;
}

/// Ends the connection that a command waits on for its head.
async fn a_killed_connection_costs_nothing(server: &Server) {
    let faulty = Faulty::on(server).await;
    let holder = faulty.holder().await;
    let creating = faulty.creating("killed", None);
    until_waiting(&faulty.direct).await;
    let (id, _) = waiting(&faulty.direct).await[0];
    run(&faulty.direct, &format!("KILL CONNECTION {id}")).await;
    until("another connection waits", async || {
        waiting(&faulty.direct)
            .await
            .iter()
            .any(|(other, _)| *other != id)
    })
    .await;
    holder.release().await;
    creating.await.unwrap().data(201);
    faulty.has(&["killed"]).await;
}

#[tokio::test]
async fn a_command_survives_the_end_of_its_connection() {
    a_killed_connection_costs_nothing(shared::mysql().await).await;
}

#[tokio::test]
async fn a_command_survives_the_end_of_its_connection_on_mariadb() {
    a_killed_connection_costs_nothing(shared::mariadb().await).await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_and_answered() {
    let faulty = Faulty::on(shared::mysql().await).await;
    for key in [None, Some("k")] {
        let id = key.unwrap_or("no-key");
        // A session is set up by a text that names READ COMMITTED: the answer to that is not the one to lose.
        let lost = faulty.proxy.lose_answer_to(b";COMMIT");
        let created = create(&faulty.commands, id, key).await;
        lost.await;
        created.data(201);
        assert_eq!(created.header("etag"), "\"1\"");
    }
    faulty.has(&["no-key", "k"]).await;
}

#[tokio::test]
async fn a_commit_that_cannot_be_found_is_in_doubt_and_its_key_tells_later() {
    let faulty = Faulty::on(shared::mysql().await).await;
    let holder = faulty.holder().await;
    let creating = [
        faulty.creating("with-key", Some("k")),
        faulty.creating("without", None),
    ];
    // The two may be in one batch, or in two.
    until_waiting(&faulty.direct).await;
    faulty.proxy.cut();
    let [with_key, without] = creating;
    let with_key = with_key.await.unwrap();
    let without = without.await.unwrap();
    for answer in [&with_key, &without] {
        match answer.status {
            504 => drop(answer.problem(504, "in-doubt")),
            // It had not been sent yet.
            _ => unavailable(answer),
        }
    }
    if with_key.status == 504 {
        with_key.header("retry-after");
    }
    if without.status == 504 {
        assert!(!without.headers.contains_key("retry-after"), "{without:?}");
    }
    let in_doubt = [&with_key, &without].map(|answer| answer.status == 504);
    assert!(in_doubt.contains(&true), "none was in doubt");
    holder.release().await;
    faulty.proxy.pass();
    let again = create(&faulty.commands, "with-key", Some("k")).await;
    again.data(201);
    let once_more = create(&faulty.commands, "with-key", Some("k")).await;
    assert_eq!(once_more.data(201), again.data(201));
    assert_eq!(once_more.header("idempotency-replayed"), "true");
    let rows = read(&faulty.direct).await;
    assert_dense(&rows);
    let count = |id: &str| rows.iter().filter(|row| row.id() == id).count();
    assert_eq!(count("with-key"), 1);
    assert!(count("without") <= 1);
    drop(faulty.service);
}

#[tokio::test]
async fn without_its_database_a_command_is_turned_down_at_once_and_taken_again_when_it_is_back() {
    let mut server = Server::start(Engine::MySql).await;
    let faulty = Faulty::on(&server).await;
    server.kill();
    // The first may have been sent into a connection that is gone.
    faulty.create("lost").await;
    for _ in 0..5 {
        let sent = std::time::Instant::now();
        unavailable(&faulty.create("refused").await);
        eprintln!("turned down after {:?}", sent.elapsed());
    }
    server.restart().await;
    let back = std::time::Instant::now();
    eventually("a command to be taken", async || {
        let answer = faulty.create("back").await;
        match answer.status {
            201 => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    })
    .await;
    eprintln!(
        "taken again {:?} after the database was back",
        back.elapsed()
    );
    let mut connection = connect(&faulty.direct).await;
    connection.execute("SELECT 1").await.unwrap();
    let rows = read(&faulty.direct).await;
    assert_dense(&rows);
    assert!(rows.iter().any(|row| row.id() == "back"));
    assert!(rows.iter().all(|row| row.id() != "refused"));
}
