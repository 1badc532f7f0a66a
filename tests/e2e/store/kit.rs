//! What the tests of the store share: a log in a database of its own.

use std::sync::Arc;

use async_trait::async_trait;
use tidelog_command::store::conformance::{PARTITIONS, StoreFactory};
use tidelog_command::store::{EventStore, MySqlEventStore, MySqlOptions};
use tidelog_domain::Partitions;
use tidelog_test_support::{Server, fresh_mysql_database};

/// A log in a database of its own.
pub(super) struct DatabaseLog {
    url: String,
}

impl DatabaseLog {
    /// A database without a log yet.
    pub(super) async fn fresh(server: &Server) -> Self {
        Self {
            url: fresh_mysql_database(server).await,
        }
    }
}

#[async_trait]
impl StoreFactory for DatabaseLog {
    async fn open(
        &self,
        partitions: Partitions,
    ) -> Result<Arc<dyn EventStore>, Box<dyn std::error::Error + Send + Sync>> {
        let mut options = MySqlOptions::from_url(&self.url)?;
        options.partitions = partitions;
        Ok(Arc::new(MySqlEventStore::connect(options).await?))
    }
}
