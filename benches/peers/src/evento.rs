//! The peer `evento`, as its README says: the write model is loaded from a projection with `snapshot(memory)`, and events
//! are written through its gateway.
//!
//! Its `stable_margin` keeps readers that follow the log away from its end. A snapshot is not kept of what is younger either,
//! so that a command reads those events again; with a reduced margin it does so less often.
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "the macros make public items, and are not ours"
)]

use std::time::Duration;

use ::evento::migrator::{Migrate, Plan};
use ::evento::{Executor, Projection, ProjectionAggregate, Rw, WriteError, metadata::Event};
use anyhow::Context;
use async_trait::async_trait;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::database::Database;
use crate::post::{Contender, Miss, PostCommand};

/// Its own aggregate: it stores what its macros made, in a binary form.
#[evento::aggregate(name = "peers/Post")]
pub enum PostLog {
    PostCreated {
        title: String,
        content: String,
        author_name: String,
    },
    PostChanged {
        title: String,
        content: String,
    },
}

#[evento::projection(id = id)]
#[evento::snapshot(memory)]
pub struct WriteModel {
    pub id: String,
    pub title: String,
    pub content: String,
    pub author_name: String,
}

#[evento::handler]
async fn on_created(event: Event<PostCreated>, post: &mut WriteModel) -> anyhow::Result<()> {
    post.id = event.aggregate_id.clone();
    post.title = event.data.title.clone();
    post.content = event.data.content.clone();
    post.author_name = event.data.author_name.clone();
    Ok(())
}

#[evento::handler]
async fn on_changed(event: Event<PostChanged>, post: &mut WriteModel) -> anyhow::Result<()> {
    post.title = event.data.title.clone();
    post.content = event.data.content.clone();
    Ok(())
}

fn write_model<E: Executor>() -> Projection<E, WriteModel> {
    Projection::new::<PostLog>()
        .handler(on_created())
        .handler(on_changed())
        .strict()
}

/// An open store.
pub(crate) struct Evento<E> {
    executor: E,
    pools: Pools,
}

enum Pools {
    MySql(sqlx::MySqlPool),
    /// One that writes, and one that reads.
    Sqlite(sqlx::SqlitePool, sqlx::SqlitePool),
}

impl Evento<evento::MySql> {
    /// Opens it on the empty database that `url` names, with a pool of `connections`.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or migrated.
    pub(crate) async fn on_mysql(
        url: &str,
        connections: u32,
        stable_margin: Option<Duration>,
    ) -> anyhow::Result<Self> {
        forget();
        let pool = MySqlPoolOptions::new().max_connections(connections);
        let pool = pool.connect(url).await?;
        let mut connection = pool.acquire().await?;
        let migrator = evento::sql_migrator::new::<sqlx::MySql>()?;
        migrator.run(&mut *connection, &Plan::apply_all()).await?;
        drop(connection);
        let mut executor = evento::MySql::from(pool.clone());
        if let Some(margin) = stable_margin {
            executor = executor.stable_margin(margin);
        }
        let pools = Pools::MySql(pool);
        Ok(Self { executor, pools })
    }
}

impl Evento<Rw<evento::Sqlite, evento::Sqlite>> {
    /// Opens it on a new file, with one connection that writes and four that read, as its own tests do, and with the
    /// durability that tidelog's log has: WAL, `synchronous=FULL`.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or migrated.
    pub(crate) async fn on_file(database: &Database) -> anyhow::Result<Self> {
        forget();
        let Database::Sqlite(directory) = database else {
            anyhow::bail!("this contender needs a file");
        };
        let options = SqliteConnectOptions::new()
            .filename(Database::file(directory))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let write = SqlitePoolOptions::new().max_connections(1);
        let write = write.connect_with(options.clone()).await?;
        let mut connection = write.acquire().await?;
        let migrator = evento::sql_migrator::new::<sqlx::Sqlite>()?;
        migrator.run(&mut *connection, &Plan::apply_all()).await?;
        drop(connection);
        let read = SqlitePoolOptions::new().max_connections(4);
        let read = read.connect_with(options.read_only(true)).await?;
        let executor = Rw::from((read.clone().into(), write.clone().into()));
        let pools = Pools::Sqlite(write, read);
        Ok(Self { executor, pools })
    }
}

/// Forgets the snapshots of the run before: they are kept by id, for the whole process.
fn forget() {
    let rows = WriteModel::snapshot_rows().write();
    rows.unwrap_or_else(std::sync::PoisonError::into_inner)
        .clear();
}

#[async_trait]
impl<E: Executor> Contender for Evento<E> {
    async fn send(&self, id: &str, command: &PostCommand) -> Result<(), Miss> {
        let sent = match command {
            PostCommand::Create(post) => {
                let event = PostCreated {
                    title: post.title.clone(),
                    content: post.content.clone(),
                    author_name: post.author_name.clone(),
                };
                let mut new = evento::append(id);
                new.event(&event).commit(&self.executor).await
            }
            PostCommand::Change(change) => {
                let loaded = write_model().load(id).execute(&self.executor).await;
                let post = loaded.and_then(|post| post.context("there is no such post"));
                let post = post.map_err(Miss::failed)?;
                let event = PostChanged {
                    title: change.title.clone(),
                    content: change.content.clone(),
                };
                let mut more = post.write().map_err(Miss::failed)?;
                more.event(&event).commit(&self.executor).await
            }
            PostCommand::Import(_) => {
                return Err(Miss::Failed("its streams end at 65,535 events".to_owned()));
            }
        };
        match sent {
            Ok(_) => Ok(()),
            Err(WriteError::InvalidOriginalVersion) => Err(Miss::Conflict),
            Err(error) => Err(Miss::failed(error)),
        }
    }

    async fn close(&self) {
        match &self.pools {
            Pools::MySql(pool) => pool.close().await,
            Pools::Sqlite(write, read) => {
                read.close().await;
                write.close().await;
            }
        }
    }
}
