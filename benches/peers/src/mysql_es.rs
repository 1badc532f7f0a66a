//! The peer `mysql-es`, as its documentation says: `mysql_cqrs` on a pool, without views.

use async_trait::async_trait;
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, AggregateError, DomainEvent};
use mysql_es::{MysqlCqrs, mysql_cqrs};
use sqlx_of_mysql_es::mysql::MySqlPoolOptions;
use sqlx_of_mysql_es::{Executor, MySqlPool};

use crate::post::{Contender, Miss, NoTitle, Post, PostCommand, PostEvent};

/// Its table, of its `db/init.sql`.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (aggregate_type varchar(255) NOT NULL, aggregate_id varchar(255) NOT NULL, \
     sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, event_version text NOT NULL, \
     payload json NOT NULL, metadata json NOT NULL, \
     CONSTRAINT events_pk PRIMARY KEY (aggregate_type, aggregate_id, sequence))";

impl DomainEvent for PostEvent {
    fn event_type(&self) -> String {
        match self {
            Self::Created(_) => "post.created".to_owned(),
            Self::Changed(_) => "post.changed".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Post {
    const TYPE: &'static str = "post";
    type Command = PostCommand;
    type Event = PostEvent;
    type Error = NoTitle;
    type Services = ();

    async fn handle(
        &mut self,
        command: PostCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), NoTitle> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: PostEvent) {
        Self::apply(self, &event);
    }
}

/// An open store.
pub(crate) struct MysqlEs {
    pool: MySqlPool,
    cqrs: MysqlCqrs<Post>,
}

impl MysqlEs {
    /// Opens it on the empty database that `url` names, with a pool of `connections`, which is otherwise its own
    /// `default_mysql_pool`.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached.
    pub(crate) async fn open(url: &str, connections: u32) -> anyhow::Result<Self> {
        let pool = MySqlPoolOptions::new().max_connections(connections);
        let pool = pool.connect(url).await?;
        pool.execute(TABLE).await?;
        let cqrs = mysql_cqrs(pool.clone(), Vec::new(), ());
        Ok(Self { pool, cqrs })
    }
}

#[async_trait]
impl Contender for MysqlEs {
    async fn send(&self, id: &str, command: &PostCommand) -> Result<(), Miss> {
        match self.cqrs.execute(id, command.clone()).await {
            Ok(()) => Ok(()),
            Err(AggregateError::AggregateConflict) => Err(Miss::Conflict),
            Err(error) => Err(Miss::failed(error)),
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
