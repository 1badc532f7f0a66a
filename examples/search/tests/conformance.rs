//! The index does what every read store does.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use tidelog::read_store::ReadStore;
use tidelog::read_store::conformance::ReadStoreFactory;
use tidelog_search::TantivyReadStore;

/// A directory for each case, which is there for as long as this is.
struct Tantivy(TempDir);

#[async_trait]
impl ReadStoreFactory for Tantivy {
    async fn store(&self) -> Arc<dyn ReadStore> {
        Arc::new(TantivyReadStore::at(self.0.path()))
    }
}

tidelog::read_store_conformance!(read_store, Tantivy(tempfile::tempdir().unwrap()));
tidelog::replay_conformance!(replay, Tantivy(tempfile::tempdir().unwrap()));
