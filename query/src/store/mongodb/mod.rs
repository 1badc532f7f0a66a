//! The read store in MongoDB.

mod document;
mod error;
mod filter;
mod index;
mod lane;
mod server;
mod state;
mod write;

use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::{self, RawDocument, RawDocumentBuf, doc};
use mongodb::options::{
    ClientOptions, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria,
    ServerAddress, Tls,
};
use mongodb::{Client, Collection, Database};

use self::error::{Fault, code, code_of, failed_search, unavailable};
use self::filter::Search;
use self::lane::Lanes;
use super::filter::matches;
use super::gathered::Gathered;
use super::name::checked;
use super::storable;
use super::{
    Alias, Applied, Document, DocumentWrite, Index, KeptIndex, Query, ReadError, ReadStore, Written,
};

pub use self::server::{MongoServerError, MongoServerInfo};

/// How much of its time a search may take on the server, in percent: the rest is for the answer that says so.
const SEARCH_TIME_PERCENT: u32 = 90;
/// The database of a URL that names none.
const DEFAULT_DATABASE: &str = "tidelog";
/// The most ids in one command.
const GET_MAX_IDS: usize = 1_000;
/// The most documents that come in one answer. Large ones come in more.
const BATCH_MAX_DOCUMENTS: u32 = 1_000;

/// How a [`MongoReadStore`] connects. What the URL says goes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MongoOptions {
    /// How long one command may take, from finding a server to its answer, in milliseconds. A small write may have to wait for
    /// those that are under way before it has its own. Default 5,000.
    pub operation_timeout_ms: u64,
    /// How long connecting to a server may take, in milliseconds. Default 2,000.
    pub connect_timeout_ms: u64,
    /// How long to look for a primary before a command fails, in milliseconds. Default 2,000.
    pub server_selection_timeout_ms: u64,
    /// The most connections to a server. Default 32.
    pub max_connections: u32,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            operation_timeout_ms: 5_000,
            connect_timeout_ms: 2_000,
            server_selection_timeout_ms: 2_000,
            max_connections: 32,
        }
    }
}

/// A URL that MongoDB's driver cannot use. It is not repeated here: there may be a password in it.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a usable URL of MongoDB; it is mongodb://[user:password@]host[:port][,…][/database][?options], and characters \
     such as @ : / in a user name or a password are percent-encoded"
)]
pub struct InvalidMongoUrl(());

/// A read store in a database of MongoDB: 4.4 or later, a single server, a replica set or a sharded cluster.
///
/// It needs neither transactions nor anything else that only a replica set has. A collection of the port is one of MongoDB,
/// with the state records in it; aliases are in the collection `tidelog_views`. Writes are answered when a majority has
/// them in their journals; reads are from the primary and see only such writes. Small writes that come at the same time share
/// commands, between all clones of a store; one that waits for its command is made also when nobody waits for it any more.
#[derive(Clone, Debug)]
pub struct MongoReadStore {
    database: Database,
    timeout: Duration,
    hosts: Vec<ServerAddress>,
    is_encrypted: bool,
    lanes: Lanes,
}

impl MongoReadStore {
    /// A store in the database that `url` names (`tidelog`, if it names none). Connections are made when they are needed: no
    /// server has to be there yet (for `mongodb+srv://` the name server has). [`check`](Self::check) asks who is there.
    ///
    /// # Errors
    ///
    /// [`InvalidMongoUrl`].
    pub async fn connect(url: &str, options: &MongoOptions) -> Result<Self, InvalidMongoUrl> {
        let mut settings = ClientOptions::parse(url)
            .await
            .map_err(|_| InvalidMongoUrl(()))?;
        let milliseconds = Duration::from_millis;
        settings
            .server_selection_timeout
            .get_or_insert(milliseconds(options.server_selection_timeout_ms));
        settings
            .connect_timeout
            .get_or_insert(milliseconds(options.connect_timeout_ms));
        settings
            .max_pool_size
            .get_or_insert(options.max_connections);
        settings
            .app_name
            .get_or_insert_with(|| "tidelog".to_owned());
        let hosts = settings.hosts.clone();
        let is_encrypted = matches!(settings.tls, Some(Tls::Enabled(_)));
        let client = Client::with_options(settings).map_err(|_| InvalidMongoUrl(()))?;
        let database = client.default_database();
        Ok(Self {
            database: database.unwrap_or_else(|| client.database(DEFAULT_DATABASE)),
            timeout: milliseconds(options.operation_timeout_ms),
            hosts,
            is_encrypted,
            lanes: Lanes::default(),
        })
    }

    /// A collection to read from.
    fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        self.database.collection_with_options(name, options)
    }

    /// What `asked` gives, if it gives it in time. A stalled connection is closed when this gives up.
    async fn bounded<T>(
        &self,
        asked: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Fault::Timeout(self.timeout)),
        }
    }

    /// The same, of more than one question.
    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        tokio::time::timeout(self.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(Fault::Timeout(self.timeout).into()))
    }

    /// How long the server may search.
    fn search_time(&self) -> Duration {
        // None at all would mean no bound.
        (self.timeout * SEARCH_TIME_PERCENT / 100).max(Duration::from_millis(1))
    }

    /// What a search gives, if it gives it in time.
    async fn searched<T>(
        &self,
        search: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        tokio::time::timeout(self.timeout, search)
            .await
            .unwrap_or_else(|_| Err(ReadError::TooSlow(Box::new(Fault::Timeout(self.timeout)))))
    }

    /// What `read` makes of the documents of these ids, each of which has the fields of `projection`, or all.
    async fn by_id<T>(
        &self,
        collection: &str,
        ids: &[&str],
        projection: Option<bson::Document>,
        read: impl Fn(&RawDocument) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let collection = self.collection(checked(collection)?);
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::with_capacity(ids.len());
        for part in ids.chunks(GET_MAX_IDS) {
            let filter = match part {
                [id] => doc! { "_id": id },
                ids => doc! { "_id": { "$in": ids } },
            };
            let finding = collection
                .find(filter)
                .batch_size(BATCH_MAX_DOCUMENTS)
                .max_time(self.timeout);
            let finding = match &projection {
                Some(projection) => finding.projection(projection.clone()),
                None => finding,
            };
            self.in_time(async {
                let mut cursor = finding.await.map_err(unavailable)?;
                while cursor.advance().await.map_err(unavailable)? {
                    found.push(read(cursor.current())?);
                }
                Ok(())
            })
            .await?;
        }
        Ok(found)
    }
}

#[async_trait]
impl ReadStore for MongoReadStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        let command = doc! { "create": checked(collection)?, "writeConcern": { "w": "majority" } };
        let created = self.database.run_command(command);
        let created = async {
            match created.await {
                Err(error) if code_of(&error) == Some(code::NAMESPACE_EXISTS) => Ok(()),
                other => other.map(drop),
            }
        };
        Ok(self.bounded(created).await?)
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        let command = doc! { "drop": checked(collection)?, "writeConcern": { "w": "majority" } };
        let dropped = self.database.run_command(command);
        let dropped = async {
            match dropped.await {
                Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(()),
                other => other.map(drop),
            }
        };
        Ok(self.bounded(dropped).await?)
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        self.by_id(collection, ids, None, document::read).await
    }

    async fn applied(
        &self,
        collection: &str,
        ids: &[&str],
    ) -> Result<Vec<(String, Applied)>, ReadError> {
        let projection = Some(doc! { "applied": 1 });
        self.by_id(collection, ids, projection, document::read_applied)
            .await
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let collection = checked(collection)?;
        storable::check(writes)?;
        self.write_batch(collection, writes).await
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        let collection = self.collection(checked(collection)?);
        let Some(search) = Search::of(query) else {
            return Ok(Vec::new());
        };
        let finding = collection
            .find(search.filter())
            .sort(search.sort())
            .batch_size(BATCH_MAX_DOCUMENTS)
            .max_time(self.search_time());
        let finding = match search.limit() {
            Some(limit) => finding.limit(limit),
            None => finding,
        };
        self.searched(async {
            let mut gathered = Gathered::new(query, search.is_wider(), search.is_sorted());
            let mut cursor = finding.await.map_err(failed_search)?;
            while gathered.has_room() && cursor.advance().await.map_err(failed_search)? {
                gathered.add(document::read(cursor.current())?);
            }
            Ok(gathered.into_page())
        })
        .await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64, ReadError> {
        let collection = self.collection(checked(collection)?);
        let query = Query {
            sort: Vec::new(),
            after: None,
            limit: usize::MAX,
            ..query.clone()
        };
        let Some(search) = Search::of(&query) else {
            return Ok(0);
        };
        if !search.is_wider() {
            let counting = collection
                .count_documents(search.filter())
                .max_time(self.search_time());
            return self
                .searched(async { counting.await.map_err(failed_search) })
                .await;
        }
        let finding = collection
            .find(search.filter())
            .batch_size(BATCH_MAX_DOCUMENTS)
            .max_time(self.search_time());
        self.searched(async {
            let mut count = 0;
            let mut cursor = finding.await.map_err(failed_search)?;
            while cursor.advance().await.map_err(failed_search)? {
                let document = document::read(cursor.current())?;
                count += u64::from(matches(&document, &query.filter));
            }
            Ok(count)
        })
        .await
    }

    async fn ensure_indexes(&self, collection: &str, wanted: &[Index]) -> Result<(), ReadError> {
        self.make_indexes(checked(collection)?, wanted).await
    }

    async fn indexes(&self, collection: &str) -> Result<Vec<KeptIndex>, ReadError> {
        self.list_indexes(checked(collection)?).await
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        self.read_alias(checked(view)?).await
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        self.set_alias(checked(view)?, expected, alias).await
    }
}
