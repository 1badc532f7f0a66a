//! What is particular to each engine: its command line, its URL, and how to ask whether it is ready.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;

use mongodb::bson::doc;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Durability;
use crate::installation::{Installation, copy_directory};

/// A kind of server that tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MySQL; MariaDB where MySQL could not be fetched.
    MySql,
    /// MariaDB.
    MariaDb,
    /// Redis.
    Redis,
    /// MongoDB, as a replica set of one member.
    MongoDb,
    /// NATS with JetStream.
    Nats,
    /// A broker that speaks Kafka's protocol, and keeps all in memory: Tansu.
    Kafka,
}

/// The database that a URL names and that each server has from the start.
const DATABASE: &str = "tidelog";

const REPLICA_SET: &str = "rs0";

type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl Engine {
    /// The URL of this engine on a port of this machine.
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::MySql | Self::MariaDb => format!("mysql://root@127.0.0.1:{port}/{DATABASE}"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            // A direct connection stays on this address; else the driver goes to the one that the replica set names,
            // past a proxy.
            Self::MongoDb => format!("mongodb://127.0.0.1:{port}/{DATABASE}?directConnection=true"),
            Self::Nats => format!("nats://127.0.0.1:{port}"),
            Self::Kafka => format!("kafka://127.0.0.1:{port}"),
        }
    }

    /// The engine that runs: MySQL's may be MariaDB.
    pub(crate) fn available(self, installation: &Installation) -> Self {
        if self == Self::MySql && installation.mysql_is_missing() {
            eprintln!("WARNING: MySQL could not be fetched, MariaDB stands in for it");
            return Self::MariaDb;
        }
        self
    }

    /// Makes the data directory of a new server.
    pub(crate) async fn prepare(self, installation: &Installation, data: &Path) {
        match self {
            Self::MySql => copy_directory(&installation.template("mysql"), data).await,
            Self::MariaDb => copy_directory(&installation.template("mariadb"), data).await,
            Self::Redis | Self::MongoDb | Self::Nats | Self::Kafka => std::fs::create_dir(data)
                .unwrap_or_else(|error| {
                    panic!("cannot make the directory {}: {error}", data.display())
                }),
        }
    }

    /// What starts this engine on `port` with its data in `data`.
    pub(crate) fn command(
        self,
        installation: &Installation,
        data: &Path,
        port: u16,
        durability: Durability,
    ) -> Command {
        let program = match self {
            Self::MySql => "mysqld",
            Self::MariaDb => "mariadbd",
            Self::Redis => "redis-server",
            Self::MongoDb => "mongod",
            Self::Nats => "nats-server",
            Self::Kafka => "tansu",
        };
        let mut command = Command::new(installation.program(program));
        match self {
            Self::MySql => sql_arguments(&mut command, data, port, durability).arg("--mysqlx=OFF"),
            Self::MariaDb => sql_arguments(&mut command, data, port, durability),
            Self::Redis => redis_arguments(&mut command, data, port, durability),
            Self::MongoDb => mongodb_arguments(&mut command, data, port),
            Self::Nats => nats_arguments(&mut command, data, port),
            Self::Kafka => kafka_arguments(&mut command, data, port),
        };
        command
    }

    /// Asks the server on `port` whether it is ready, which is true only of the one with its data in `data`; another may
    /// have got the port first. One that `is_guarded` is asked by [`make_root`]'s user.
    pub(crate) async fn is_ready(self, data: &Path, port: u16, is_guarded: bool) -> Answer<bool> {
        // Refused at once while nothing listens; the drivers would try again for a while.
        TcpStream::connect(("127.0.0.1", port)).await?;
        let (directory, ready) = match self {
            Self::MySql | Self::MariaDb => (sql_directory(port).await?, true),
            Self::Redis => (redis_directory(port).await?, true),
            Self::MongoDb => {
                let url = match is_guarded {
                    true => url_of_root(port),
                    false => self.url(port),
                };
                mongodb_directory_and_role(&url, port).await?
            }
            Self::Nats => (nats_directory(port).await?, true),
            Self::Kafka => (kafka_cluster(port).await?, true),
        };
        if Path::new(&directory) == data {
            Ok(ready)
        } else {
            Err(format!("a server with its data in {directory} answers on port {port}").into())
        }
    }
}

fn sql_arguments<'a>(
    command: &'a mut Command,
    data: &Path,
    port: u16,
    durability: Durability,
) -> &'a mut Command {
    command
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--port={port}"))
        // Relative to the data directory: the path of a socket may have no more than 107 bytes.
        .args([
            "--bind-address=127.0.0.1",
            "--socket=mysql.sock",
            "--max-connections=1000",
        ])
        .args(["--performance-schema=OFF", "--innodb-buffer-pool-size=128M"]);
    match durability {
        Durability::Full => command.args(["--server-id=1", "--log-bin=binlog", "--sync-binlog=1"]),
        Durability::Relaxed => {
            command.args(["--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"])
        }
    }
}

fn redis_arguments<'a>(
    command: &'a mut Command,
    data: &Path,
    port: u16,
    durability: Durability,
) -> &'a mut Command {
    let append_only = match durability {
        Durability::Full => "yes",
        Durability::Relaxed => "no",
    };
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command
        .args(["--appendonly", append_only, "--save", "", "--dir"])
        .arg(data)
}

fn mongodb_arguments<'a>(command: &'a mut Command, data: &Path, port: u16) -> &'a mut Command {
    command.args([
        "--bind_ip",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--replSet",
        REPLICA_SET,
    ]);
    command.args([
        "--oplogSize",
        "64",
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--nounixsocket",
        "--quiet",
    ]);
    // Fail points for tests; no idle writing of statistics; no waiting for other members when it stops.
    for parameter in [
        "enableTestCommands=1",
        "diagnosticDataCollectionEnabled=false",
        "shutdownTimeoutMillisForSignaledShutdown=100",
    ] {
        command.args(["--setParameter", parameter]);
    }
    command.arg("--dbpath").arg(data)
}

fn nats_arguments<'a>(command: &'a mut Command, data: &Path, port: u16) -> &'a mut Command {
    // By its name it is known again.
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-n"]);
    command.arg(data).arg("-sd").arg(data)
}

fn kafka_arguments<'a>(command: &'a mut Command, data: &Path, port: u16) -> &'a mut Command {
    let url = format!("tcp://127.0.0.1:{port}");
    command.args(["broker", "--storage-engine", "memory://tansu/"]);
    command.args(["--listener-url", &url]);
    // As an argument it could not be told otherwise.
    command.env("ADVERTISED_LISTENER_URL", &url);
    // By the cluster's name it is known again.
    command.arg("--cluster-id").arg(data)
}

/// The name that the server on `port` greets with.
async fn nats_directory(port: u16) -> Answer<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut greeting = Vec::new();
    while !greeting.contains(&b'\n') {
        if stream.read_buf(&mut greeting).await? == 0 {
            return Err("it closed the connection".into());
        }
    }
    let info = greeting.strip_prefix(b"INFO ").ok_or("it is no NATS")?;
    let info: serde_json::Value = serde_json::Deserializer::from_slice(info)
        .into_iter()
        .next()
        .ok_or("it says nothing of itself")??;
    let name = info.get("server_name").and_then(|name| name.as_str());
    Ok(name.unwrap_or_default().to_owned())
}

/// The name of the cluster that the broker on `port` is one of.
async fn kafka_cluster(port: u16) -> Answer<String> {
    // `Metadata` of no topic, in its version 2, of a client without a name.
    const QUESTION: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 2, 0, 0, 0, 7, 255, 255, 0, 0, 0, 0];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&QUESTION).await?;
    let length = stream.read_u32().await?;
    let mut answer = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut answer).await?;
    Ok(cluster_of(&answer).ok_or("it is no Kafka")?.to_owned())
}

/// The name of the cluster in an answer to `Metadata`: after the question's number come the brokers, each with a number, a host, a port
/// and a rack.
fn cluster_of(answer: &[u8]) -> Option<&str> {
    let (_, mut rest) = answer.split_at_checked(4)?;
    let brokers = u32::from_be_bytes(*rest.first_chunk()?);
    rest = rest.get(4..)?;
    for _ in 0..brokers {
        (_, rest) = text(rest.get(4..)?)?;
        (_, rest) = text(rest.get(4..)?)?;
    }
    text(rest)?.0
}

/// A text of Kafka's protocol, which may be null, and what follows it.
fn text(bytes: &[u8]) -> Option<(Option<&str>, &[u8])> {
    let length = i16::from_be_bytes(*bytes.first_chunk()?);
    let rest = bytes.get(2..)?;
    let Ok(length) = usize::try_from(length) else {
        return Some((None, rest));
    };
    let (text, rest) = rest.split_at_checked(length)?;
    Some((Some(std::str::from_utf8(text).ok()?), rest))
}

async fn sql_directory(port: u16) -> Answer<String> {
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("root");
    let mut connection = options
        .database(DATABASE)
        .ssl_mode(MySqlSslMode::Disabled)
        .connect()
        .await?;
    let directory = sqlx::query_scalar("SELECT @@datadir")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(directory)
}

async fn redis_directory(port: u16) -> Answer<String> {
    let mut connection = redis::Client::open(Engine::Redis.url(port))?
        .get_multiplexed_async_connection()
        .await?;
    // Unlike the question for a setting, this fails while the server still loads its data.
    redis::cmd("PING")
        .query_async::<()>(&mut connection)
        .await?;
    let mut settings: HashMap<String, String> = redis::cmd("CONFIG")
        .arg(&["GET", "dir"])
        .query_async(&mut connection)
        .await?;
    Ok(settings.remove("dir").unwrap_or_default())
}

/// Makes the user of [`url_of_root`].
pub(crate) async fn make_root(port: u16) -> Answer<()> {
    let client = mongodb::Client::with_uri_str(Engine::MongoDb.url(port)).await?;
    let create = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
    client.database("admin").run_command(create).await?;
    Ok(())
}

/// The URL of the user of a guarded MongoDB who may do everything.
pub(crate) fn url_of_root(port: u16) -> String {
    let url = Engine::MongoDb.url(port).replace("://", "://root:root@");
    format!("{url}&authSource=admin")
}

/// The data directory, and whether the server is its replica set's primary; configures the set of a new server.
async fn mongodb_directory_and_role(url: &str, port: u16) -> Answer<(String, bool)> {
    let client = mongodb::Client::with_uri_str(url).await?;
    let admin = client.database("admin");
    let options = admin.run_command(doc! { "getCmdLineOpts": 1 }).await?;
    let directory = options
        .get_document("parsed")?
        .get_document("storage")?
        .get_str("dbPath")?
        .to_owned();
    let hello = admin.run_command(doc! { "hello": 1 }).await?;
    if hello.get_str("setName").is_err() {
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
        admin
            .run_command(doc! { "replSetInitiate": { "_id": REPLICA_SET, "members": [member] } })
            .await?;
    }
    Ok((
        directory,
        hello.get_bool("isWritablePrimary").unwrap_or(false),
    ))
}
