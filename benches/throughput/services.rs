//! The stock program, its three services as processes of their own, on servers of the run's own.

use std::time::Duration;

use tidelog_test_support::{
    Engine, Process, Server, free_port, fresh_mongodb_database, fresh_mysql_database,
};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::http::Connection;
use crate::posts::CONTENT;
use crate::subscribing::resident;

/// The servers and the processes; they end with it.
pub(crate) struct Services {
    /// Where commands go.
    pub(crate) command: String,
    /// Where queries go.
    pub(crate) query: String,
    /// Where the command service tells how it is.
    pub(crate) command_admin: String,
    /// The read models.
    pub(crate) mongodb_url: String,
    processes: Vec<Process>,
    _servers: [Server; 3],
}

impl Services {
    /// Starts them, and waits until they answer.
    pub(crate) async fn start() -> Self {
        let mysql = Server::start(Engine::MySql).await;
        let redis = Server::start(Engine::Redis).await;
        let mongodb = Server::start(Engine::MongoDb).await;
        let database_url = fresh_mysql_database(&mysql).await;
        let mongodb_url = fresh_mongodb_database(&mongodb);
        let [command, query] = std::array::from_fn(|_| free_address());
        let mut processes = Vec::new();
        let command_admin = free_address();
        let admins = [command_admin.clone(), free_address(), free_address()];
        for (role, admin) in ["command", "eventbus", "query"].into_iter().zip(&admins) {
            let mut program = Process::command(env!("CARGO_BIN_EXE_tidelog"));
            program.args(["serve", "--role", role]).envs([
                ("DATABASE_URL", database_url.as_str()),
                ("TIDELOG_BUS_URL", redis.url()),
                ("MONGODB_URL", &mongodb_url),
                ("TIDELOG_COMMAND_ADDR", &command),
                ("TIDELOG_QUERY_ADDR", &query),
                ("TIDELOG_ADMIN_ADDR", admin),
                ("TIDELOG_LOG", "warn"),
            ]);
            processes.push(Process::start(program));
        }
        answers(&command).await;
        answers(&query).await;
        Self {
            command,
            query,
            command_admin,
            mongodb_url,
            processes,
            _servers: [mysql, redis, mongodb],
        }
    }
}

impl Services {
    /// The process of the command service.
    pub(crate) fn command_process(&self) -> String {
        self.processes[0].id().to_string()
    }

    /// The memory that it has in use, in MiB.
    pub(crate) fn resident_of_command(&self) -> f64 {
        resident(&self.command_process())
    }

    /// The memory that the query service has in use, in MiB.
    pub(crate) fn resident_of_query(&self) -> f64 {
        resident(&self.processes.last().unwrap().id().to_string())
    }
}

pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Waits until somebody listens at `address`.
pub(crate) async fn answers(address: &str) {
    while TcpStream::connect(address).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// A client of both services.
pub(crate) struct Client {
    command: Connection,
    query: Connection,
}

impl Client {
    pub(crate) async fn of(services: &Services) -> Self {
        Self {
            command: Connection::open(&services.command).await,
            query: Connection::open(&services.query).await,
        }
    }

    /// Makes a post, and gives its id and token.
    pub(crate) async fn write(&mut self) -> (String, String) {
        let body = format!(r#"{{"title":"A title","content":"{CONTENT}","author_name":"Ann"}}"#);
        let answer = self.command.post("/post", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let id = body["data"]["id"].as_str().unwrap().to_owned();
        (id, answer.token.unwrap())
    }

    /// Makes a post, and reads it; gives its id.
    pub(crate) async fn write_and_read(&mut self) -> String {
        let (id, token) = self.write().await;
        let answer = self.query.get(&format!("/post/{id}"), Some(&token)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        id
    }
}
