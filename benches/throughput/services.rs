//! The stock program, its three services as processes of their own, on servers of the run's own.

use std::time::Duration;

use tidelog_test_support::{
    Engine, Process, Server, free_port, fresh_mongodb_database, fresh_mysql_database,
};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The servers and the processes; they end with it.
pub(crate) struct Services {
    /// Where commands go.
    pub(crate) command: String,
    /// Where queries go.
    pub(crate) query: String,
    /// The read models.
    pub(crate) mongodb_url: String,
    _processes: Vec<Process>,
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
        let [command, query] = std::array::from_fn(|_| address());
        let mut processes = Vec::new();
        for role in ["command", "eventbus", "query"] {
            let mut program = Process::command(env!("CARGO_BIN_EXE_tidelog"));
            program.args(["serve", "--role", role]).envs([
                ("DATABASE_URL", database_url.as_str()),
                ("TIDELOG_BUS_URL", redis.url()),
                ("MONGODB_URL", &mongodb_url),
                ("TIDELOG_COMMAND_ADDR", &command),
                ("TIDELOG_QUERY_ADDR", &query),
                ("TIDELOG_ADMIN_ADDR", &address()),
                ("TIDELOG_LOG", "warn"),
            ]);
            processes.push(Process::start(program));
        }
        for address in [&command, &query] {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        }
        Self {
            command,
            query,
            mongodb_url,
            _processes: processes,
            _servers: [mysql, redis, mongodb],
        }
    }
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}
