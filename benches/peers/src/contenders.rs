//! Who is compared.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use crate::database::Database;
use crate::evento::Evento;
use crate::mysql_es::MysqlEs;
use crate::post::Contender;
use crate::tidelog::{OverHttp, Tidelog, Written};

/// A reduced `stable_margin` of evento, whose default is 1 s.
const REDUCED_MARGIN: Duration = Duration::from_millis(50);

/// A contender, by the name that tables and `--only` have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// mysql-es with cqrs-es.
    MysqlEs,
    /// evento, on MySQL or in an SQLite file.
    Evento,
    /// evento with a `stable_margin` of 50 ms.
    EventoMargin50ms,
    /// tidelog with an aggregate in Rust.
    Tidelog,
    /// tidelog with the demo's entity, which is a JSON Schema.
    TidelogEntity,
    /// tidelog, each command with an idempotency key.
    TidelogWithKeys,
    /// tidelog with an aggregate in Rust, which no snapshot is taken of.
    TidelogWithoutSnapshots,
    /// tidelog over HTTP with keep-alive.
    TidelogOverHttp,
}

impl Kind {
    /// The name.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The table that has one row for each event.
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Evento | Self::EventoMargin50ms => "event",
            _ => "events",
        }
    }

    /// Opens it on an empty database; a peer on a server with a pool of `connections`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub(crate) async fn open(
        self,
        database: &Database,
        connections: u32,
    ) -> anyhow::Result<Arc<dyn Contender>> {
        let tidelog = async |written, keyed| Tidelog::open(database, written, keyed).await;
        Ok(match (self, database) {
            (Self::MysqlEs, _) => Arc::new(MysqlEs::open(database.mysql()?, connections).await?),
            (Self::Evento, Database::Sqlite(_)) => Arc::new(Evento::on_file(database).await?),
            (Self::Evento, Database::MySql(url)) => {
                Arc::new(Evento::on_mysql(url, connections, None).await?)
            }
            (Self::EventoMargin50ms, _) => {
                let url = database.mysql()?;
                Arc::new(Evento::on_mysql(url, connections, Some(REDUCED_MARGIN)).await?)
            }
            (Self::Tidelog, _) => Arc::new(tidelog(Written::InRust, false).await?),
            (Self::TidelogEntity, _) => Arc::new(tidelog(Written::AsSchema, false).await?),
            (Self::TidelogWithKeys, _) => Arc::new(tidelog(Written::InRust, true).await?),
            (Self::TidelogWithoutSnapshots, _) => {
                Arc::new(tidelog(Written::InRustWithoutSnapshots, false).await?)
            }
            (Self::TidelogOverHttp, _) => {
                Arc::new(OverHttp::serve(tidelog(Written::InRust, false).await?).await?)
            }
        })
    }
}
