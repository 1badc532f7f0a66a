//! tidelog: its command service in this process. Nothing follows its log: no relay and no views, as the peers have none.

mod aggregate;
mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use serde_json::Value;
use tidelog_command::handling::CommandKey;
use tidelog_command::store::{
    EventStore, MySqlEventStore, MySqlOptions, SqliteEventStore, SqliteOptions,
};
use tidelog_command::{AppenderSettings, CommandError, CommandRequest, CommandService};
use tidelog_domain::{Decider, EntityDecider, EntitySchema, TypedDecider};
use tidelog_eventbus::CommitSignal;

use crate::database::Database;
use crate::post::{Contender, Miss, Post, PostCommand};

pub(crate) use http::OverHttp;

/// The aggregate's name.
const CATEGORY: &str = "post";

/// How long the service may take to finish what is in flight.
const CLOSING: Duration = Duration::from_secs(30);

/// Which aggregate takes the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A type in Rust.
    InRust,
    /// The same; no snapshots are taken.
    InRustWithoutSnapshots,
    /// A JSON Schema: each body and each new state is checked against it.
    AsSchema,
}

/// An open store.
pub(crate) struct Tidelog {
    service: Arc<CommandService>,
    /// Where each command brings an idempotency key: the last one's number.
    keys: Option<AtomicU64>,
}

impl Tidelog {
    /// Opens it with its default settings.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or migrated.
    pub(crate) async fn open(
        database: &Database,
        written: Written,
        keyed: bool,
    ) -> anyhow::Result<Self> {
        let store: Arc<dyn EventStore> = match database {
            Database::MySql(url) => {
                Arc::new(MySqlEventStore::connect(MySqlOptions::from_url(url)?).await?)
            }
            Database::Sqlite(directory) => {
                let options = SqliteOptions::new(Database::file(directory));
                Arc::new(SqliteEventStore::open(options).await?)
            }
        };
        let decider: Arc<dyn Decider> = match written {
            Written::InRust | Written::InRustWithoutSnapshots => {
                Arc::new(TypedDecider::<Post>::new()?)
            }
            Written::AsSchema => {
                let text = include_str!("../../../../examples/entities/post.schema.json");
                Arc::new(EntityDecider::new(EntitySchema::parse(CATEGORY, text)?))
            }
        };
        let identity = store.identity().await?;
        let signal = CommitSignal::new(identity.partitions);
        let mut settings = AppenderSettings::default();
        if written == Written::InRustWithoutSnapshots {
            settings.snapshot_every_events = 0;
        }
        let service = CommandService::new([decider], store, identity, signal, settings)?;
        Ok(Self {
            service: Arc::new(service),
            keys: keyed.then(AtomicU64::default),
        })
    }
}

#[async_trait]
impl Contender for Tidelog {
    async fn send(&self, id: &str, command: &PostCommand) -> Result<(), Miss> {
        let (name, body) = named(command).map_err(Miss::failed)?;
        let mut request = CommandRequest::new(CATEGORY, name, body).to(id);
        if let Some(last) = &self.keys {
            let number = last.fetch_add(1, Ordering::Relaxed);
            let key = CommandKey::new(format!("8e03978e-40d5-43dd-bc93-{number:012}"));
            request = request.with_key(key.map_err(Miss::failed)?);
        }
        match self.service.execute(request).await {
            Ok(_) => Ok(()),
            Err(CommandError::Conflict { .. }) => Err(Miss::Conflict),
            Err(error) => Err(Miss::failed(error)),
        }
    }

    async fn close(&self) {
        self.service.close(CLOSING).await;
    }
}

/// The name and the body of a command.
fn named(command: &PostCommand) -> anyhow::Result<(&'static str, Value)> {
    let (name, body) = match command {
        PostCommand::Create(post) => ("create", serde_json::to_value(post)),
        PostCommand::Change(change) => ("patch", serde_json::to_value(change)),
        PostCommand::Import(import) => ("import", serde_json::to_value(import)),
    };
    Ok((name, body.context("a command is JSON")?))
}
