//! Every read store does the same.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use tidelog_query::store::conformance::ReadStoreFactory;
use tidelog_query::store::{
    InMemoryReadStore, MongoOptions, MongoReadStore, ReadStore, SqliteReadStore,
};
use tidelog_query::{read_store_conformance, replay_conformance};
use tidelog_test_support::{fresh_mongodb_database, shared};

struct Memory;

#[async_trait]
impl ReadStoreFactory for Memory {
    async fn store(&self) -> Arc<dyn ReadStore> {
        Arc::new(InMemoryReadStore::new())
    }
}

/// A file for each case, which is there for as long as this is.
struct Sqlite(TempDir);

#[async_trait]
impl ReadStoreFactory for Sqlite {
    async fn store(&self) -> Arc<dyn ReadStore> {
        let store = SqliteReadStore::open(&self.0.path().join("tidelog.db")).await;
        Arc::new(store.unwrap())
    }
}

/// A database for each case.
struct Mongo;

#[async_trait]
impl ReadStoreFactory for Mongo {
    async fn store(&self) -> Arc<dyn ReadStore> {
        let url = fresh_mongodb_database(shared::mongodb().await);
        let store = MongoReadStore::connect(&url, &MongoOptions::default()).await;
        Arc::new(store.unwrap())
    }
}

read_store_conformance!(memory, Memory);
read_store_conformance!(sqlite, Sqlite(tempfile::tempdir().unwrap()));
read_store_conformance!(on_mongodb, Mongo);
replay_conformance!(replay_in_memory, Memory);
replay_conformance!(replay_on_sqlite, Sqlite(tempfile::tempdir().unwrap()));
replay_conformance!(replay_on_mongodb, Mongo);
