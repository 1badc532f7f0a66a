//! What an operator does and sees: pauses, what is set aside, metrics, stalls. By the command line and the admin listener, on
//! real servers and on the embedded file.

mod backup;
mod dev;
mod faults;
mod metrics;
mod parked;
mod pausing;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::client::{Answer, Client};
use crate::log::connect;
use crate::services::{Backends, CommandLine, Ended, Role, Service};
use crate::waiting::eventually;

/// A payload that no view can read.
pub(crate) const POISON: &str = "\"poison\"";

/// The services of one application, of which the eventbus is started later than the log is written to.
pub(crate) struct Site {
    pub(crate) backends: Backends,
    pub(crate) command: Service,
}

impl Site {
    /// With the command service alone.
    pub(crate) async fn new() -> Self {
        Self::on(Backends::fresh().await).await
    }

    async fn on(backends: Backends) -> Self {
        let command = Service::start(Role::Command, &backends).await;
        Self { backends, command }
    }

    pub(crate) async fn start(&self, role: Role) -> Service {
        Service::start(role, &self.backends).await
    }

    pub(crate) async fn write(&self, id: &str) -> Answer {
        write(&self.command.commands(), id).await
    }

    pub(crate) async fn patch(&self, id: &str, title: &str) -> Answer {
        let (path, change) = (format!("/post/{id}"), json!({"title": title}));
        let patched = self.command.commands().patch(&path, &change).await;
        patched.data(200);
        patched
    }

    /// Puts another payload in the place of what the log has, and gives what was there.
    pub(crate) async fn tamper(&self, stream: &str, version: u64, payload: &str) -> String {
        let mut connection = connect(&self.backends.database_url).await;
        let of_it = "WHERE stream = ? AND version = ?";
        let before = format!("SELECT CAST(payload AS CHAR) FROM events {of_it}");
        let before: String = sqlx::query_scalar(sqlx::AssertSqlSafe(before))
            .bind(stream.as_bytes())
            .bind(version)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let update = format!("UPDATE events SET payload = ? {of_it}");
        let updated = sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(payload.as_bytes())
            .bind(stream.as_bytes())
            .bind(version)
            .execute(&mut connection)
            .await
            .unwrap();
        assert_eq!(updated.rows_affected(), 1);
        before
    }

    /// Runs the program with these arguments on the servers.
    async fn cli(&self, arguments: &[&str]) -> Ended {
        let command = CommandLine::new(arguments).with(self.backends.settings());
        command.run().await
    }
}

/// Creates a post.
async fn write(commands: &Client, id: &str) -> Answer {
    let post = json!({"id": id, "title": "A", "content": "", "author_name": "Ann"});
    let created = commands.post("/post", &post).await;
    created.data(201);
    created
}

/// Waits until the sequence of the view `post` is in this state.
pub(crate) async fn is_set_aside(admin: &Client, sequence: &str, state: &str) -> Value {
    eventually("it to be set aside", async || {
        let parked = admin
            .get("/admin/api/parked?subscription=post")
            .await
            .json();
        let all = parked["data"].as_array().cloned().unwrap_or_default();
        let mut all = all.into_iter();
        let is_it = |own: &Value| own["sequence"] == sequence && own["state"] == state;
        all.find(is_it).ok_or_else(|| parked.to_string())
    })
    .await
}

/// A file's payload, changed past the program.
async fn tamper_with_file(url: &str, stream: &str, payload: &str) {
    let path = url.strip_prefix("sqlite://").unwrap();
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    let updated = sqlx::query("UPDATE events SET payload = ? WHERE stream = ?")
        .bind(payload.as_bytes())
        .bind(stream)
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(updated.rows_affected(), 1);
    connection.close().await.unwrap();
}
