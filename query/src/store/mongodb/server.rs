//! Asking, at the start, who is at the other end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongodb::error::ErrorKind;
use mongodb::options::ServerAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::MongoReadStore;
use super::error::{Fault, code, code_of};

/// How long the question takes that finds out why the driver could not connect.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MongoServerInfo {
    /// The server's version, `8.0.4`.
    pub version: String,
    /// The name of the replica set; `None` when it is a single server or a router.
    pub replica_set: Option<String>,
    /// Whether it is a router of a sharded cluster.
    pub is_router: bool,
    /// Its clock, where it says so.
    pub clock: Option<DateTime<Utc>>,
    /// Whether its storage engine keeps anything on a disk; `None` where our user may not ask.
    pub is_persistent: Option<bool>,
    /// The database that the views are in.
    pub database: String,
}

/// Why a server cannot be used. None of these says a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MongoServerError {
    /// Nobody is there, or it is MongoDB and cannot answer now: it may be better later.
    #[error("MongoDB cannot be reached at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody else is there.
    #[error("at {address} is {found}, not MongoDB")]
    NotMongoDb {
        /// Where it was looked for.
        address: String,
        /// What is there, as far as it can be told.
        found: &'static str,
    },
    /// It is MongoDB, and it does not let this user in, or not into this database.
    #[error("MongoDB at {address} refuses the user name, the password, or the use of the database")]
    Authentication {
        /// Where it is.
        address: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl MongoReadStore {
    /// Asks the server who it is, and whether it lets us in. It answers or fails within the operation timeout and a second.
    ///
    /// # Errors
    ///
    /// [`MongoServerError`], which separates a server that is not there from one that is not MongoDB and from one that refuses us.
    pub async fn check(&self) -> Result<MongoServerInfo, MongoServerError> {
        let questions = async {
            let hello = self.database.run_command(doc! { "hello": 1 }).await?;
            let build = self.database.run_command(doc! { "buildInfo": 1 }).await?;
            // Neither of these two needs a right; reading the views' names does.
            self.database
                .run_command(
                    doc! { "find": "tidelog_views", "limit": 1, "projection": { "_id": 1 } },
                )
                .await?;
            Ok((hello, build))
        };
        match timeout(self.timeout, questions).await {
            Ok(Ok((hello, build))) => Ok(self.info(&hello, &build)),
            Ok(Err(error)) if is_refusal(&error) => Err(MongoServerError::Authentication {
                address: self.address(),
                source: Box::new(Fault::from(error)),
            }),
            Ok(Err(error)) => Err(self.explain(error.into()).await),
            Err(_) => Err(self.explain(Fault::Timeout(self.timeout)).await),
        }
    }

    /// Who the server is, and what there is to see of it for who looks after it.
    ///
    /// # Errors
    ///
    /// As [`MongoReadStore::check`].
    pub async fn inspect(&self) -> Result<MongoServerInfo, MongoServerError> {
        let mut info = self.check().await?;
        // It needs a right that reading and writing do without.
        let status = self.database.run_command(doc! { "serverStatus": 1 });
        if let Ok(Ok(status)) = timeout(self.timeout, status).await {
            let engine = status.get_document("storageEngine");
            info.is_persistent = engine.and_then(|own| own.get_bool("persistent")).ok();
        }
        Ok(info)
    }

    fn info(&self, hello: &Document, build: &Document) -> MongoServerInfo {
        let text = |document: &Document, name| document.get_str(name).ok().map(str::to_owned);
        MongoServerInfo {
            version: text(build, "version").unwrap_or_default(),
            replica_set: text(hello, "setName"),
            is_router: hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
            clock: hello
                .get_datetime("localTime")
                .ok()
                .and_then(|time| DateTime::from_timestamp_millis(time.timestamp_millis())),
            is_persistent: None,
            database: self.database.name().to_owned(),
        }
    }

    /// The hosts, for people.
    fn address(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        hosts.join(", ")
    }

    /// Why there was no answer: looks by itself who is there. Over TLS that cannot be done.
    async fn explain(&self, fault: Fault) -> MongoServerError {
        let address = self.address();
        let probes = if self.is_encrypted { &[] } else { &*self.hosts };
        let found = join_all(probes.iter().map(probe)).await;
        let stranger = found.iter().find_map(|found| match found {
            Found::Stranger(what) => Some(*what),
            Found::Nobody | Found::MongoDb => None,
        });
        match stranger {
            Some(found_there) if !found.contains(&Found::MongoDb) => MongoServerError::NotMongoDb {
                address,
                found: found_there,
            },
            _ => MongoServerError::Unreachable {
                address,
                source: Box::new(fault),
            },
        }
    }
}

/// Whether the server is MongoDB and refuses us.
fn is_refusal(error: &mongodb::error::Error) -> bool {
    matches!(*error.kind, ErrorKind::Authentication { .. })
        || code_of(error) == Some(code::UNAUTHORIZED)
}

/// What is at an address.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nobody,
    MongoDb,
    Stranger(&'static str),
}

/// Greets whoever is at `address` as a client of MongoDB does, and looks at the first bytes of the answer.
async fn probe(address: &ServerAddress) -> Found {
    let ServerAddress::Tcp { host, port } = address else {
        return Found::Nobody;
    };
    let connecting = TcpStream::connect((host.as_str(), port.unwrap_or(27_017)));
    let Ok(Ok(mut stream)) = timeout(PROBE_TIMEOUT, connecting).await else {
        return Found::Nobody;
    };
    let mut answer = [0; 64];
    let conversation = async {
        stream.write_all(&greeting()).await?;
        stream.read(&mut answer).await
    };
    match timeout(PROBE_TIMEOUT, conversation).await {
        Ok(Ok(length)) => recognize(answer.get(..length).unwrap_or_default()),
        Ok(Err(_)) => Found::Stranger("a server that closes the connection"),
        Err(_) => Found::Stranger("a server that does not answer"),
    }
}

/// The bytes of `{hello: 1}`: a header (length, request, response, the code of a message), flags, one section of kind 0.
fn greeting() -> Vec<u8> {
    const OP_MSG: i32 = 2013;
    let body: RawDocumentBuf = rawdoc! { "hello": 1, "$db": "admin" };
    let length = 16 + 4 + 1 + body.as_bytes().len();
    let header = [i32::try_from(length).unwrap_or_default(), 1, 0, OP_MSG, 0];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(i32::to_le_bytes).collect();
    bytes.push(0);
    bytes.extend(body.as_bytes());
    bytes
}

/// Who answers like this.
fn recognize(answer: &[u8]) -> Found {
    // The code of a message or of an old reply, in the fourth number of the header.
    if matches!(answer.get(12..16), Some([0xdd, 7, 0, 0] | [1, 0, 0, 0])) {
        return Found::MongoDb;
    }
    Found::Stranger(match answer {
        [] => "a server that closes the connection",
        // The number of the first packet and the version of the protocol, or an error instead.
        [_, _, _, 0, 10 | 0xff, ..] => "MySQL or MariaDB",
        [b'-' | b'+' | b'$' | b'*' | b':', ..] => "Redis",
        [b'H', b'T', b'T', b'P', ..] => "a web server",
        _ => "a server of another kind",
    })
}
