//! Views as their database has them, read past the program.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document, doc};
use serde_json::{Map, Value};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use crate::log::{Folded, fold, read};
use crate::services::{Backends, Site};
use crate::waiting::eventually;

/// Where the views of a site are, and the log that they are made from.
pub(crate) struct View {
    log: String,
    store: Store,
}

enum Store {
    Sqlite(String),
    MongoDb(mongodb::Database),
}

impl View {
    /// The views of a site on these backends; without backends, on its one file.
    pub(crate) async fn of(site: &Site, backends: Option<&Backends>) -> Self {
        match backends {
            Some(backends) => Self::on(backends).await,
            None => Self {
                log: site.database_url(),
                store: Store::Sqlite(site.database_url()),
            },
        }
    }

    /// The views in the MongoDB of these backends.
    pub(crate) async fn on(backends: &Backends) -> Self {
        let client = mongodb::Client::with_uri_str(&backends.mongodb_url)
            .await
            .expect("a MongoDB URL");
        let database = client.default_database().expect("the URL names a database");
        Self {
            log: backends.database_url.clone(),
            store: Store::MongoDb(database),
        }
    }

    /// The collection that reads of `view` are led to, once the view's first version has been built.
    pub(crate) async fn collection(&self, view: &str) -> String {
        eventually("the view to be built", async || {
            match self.alias(view).await {
                Some(alias) if alias["built"] == true => Ok(alias["collection"]
                    .as_str()
                    .expect("an alias names a collection")
                    .to_owned()),
                alias => Err(format!("its alias is {alias:?}")),
            }
        })
        .await
    }

    /// The documents of `view`, tombstones included, by id.
    pub(crate) async fn documents(&self, view: &str) -> BTreeMap<String, Folded> {
        let collection = self.collection(view).await;
        match &self.store {
            Store::Sqlite(url) => sqlite_documents(url, &collection).await,
            Store::MongoDb(database) => mongodb_documents(database, &collection).await,
        }
    }

    /// Waits until the view equals the fold of the log, which must not change any more. Panics with what differs.
    pub(crate) async fn equals_the_fold(&self, view: &str) {
        let expected = fold(&read(&self.log).await, view);
        let equal = eventually("the view to equal the fold of the log", async || {
            let documents = self.documents(view).await;
            let differs = |id: &&String| documents.get(*id) != expected.get(*id);
            let ids: Vec<_> = documents
                .keys()
                .chain(expected.keys())
                .filter(differs)
                .collect();
            match ids.first() {
                None => Ok(()),
                Some(id) => Err(format!(
                    "{} of {} documents differ; {id} is {:?} instead of {:?}",
                    ids.len(),
                    expected.len(),
                    documents.get(*id),
                    expected.get(*id)
                )),
            }
        });
        equal.await;
    }

    /// Gives a document of `view` another title by hand, in the embedded file.
    pub(crate) async fn spoil(&self, view: &str, id: &str) {
        let Store::Sqlite(url) = &self.store else {
            panic!("the views are in no file")
        };
        let table = format!("view_{}", self.collection(view).await);
        let spoil = format!(
            "UPDATE \"{table}\" SET data = json_set(data, '$.title', 'spoilt') WHERE id = ?"
        );
        let path = url.trim_start_matches("sqlite://");
        let file = SqliteConnectOptions::new().filename(path);
        let mut connection = file.connect().await.expect("the SQLite file opens");
        let spoilt = sqlx::query(AssertSqlSafe(spoil)).bind(id);
        let spoilt = spoilt.execute(&mut connection).await;
        assert_eq!(spoilt.expect("the SQLite file answers").rows_affected(), 1);
        connection.close().await.expect("the SQLite file closes");
    }

    async fn alias(&self, view: &str) -> Option<Value> {
        match &self.store {
            Store::Sqlite(url) => {
                let mut connection = sqlite(url).await;
                let record =
                    sqlx::query_scalar("SELECT record FROM read_aliases WHERE view = ?").bind(view);
                let record: Option<String> = record
                    .fetch_optional(&mut connection)
                    .await
                    .expect("the SQLite file answers");
                connection.close().await.expect("the SQLite file closes");
                record.map(|record| serde_json::from_str(&record).expect("an alias is JSON"))
            }
            Store::MongoDb(database) => {
                let aliases = database.collection::<Document>("tidelog_views");
                let alias = aliases
                    .find_one(doc! { "_id": view })
                    .await
                    .expect("MongoDB answers");
                alias.map(|alias| json(alias["record"].clone()))
            }
        }
    }
}

async fn sqlite(url: &str) -> SqliteConnection {
    let path = url.trim_start_matches("sqlite://");
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .connect()
        .await
        .expect("the SQLite file opens")
}

async fn sqlite_documents(url: &str, collection: &str) -> BTreeMap<String, Folded> {
    let mut connection = sqlite(url).await;
    let sql = format!(
        "SELECT id, data, version, created_at, updated_at, deleted FROM \"view_{collection}\""
    );
    let rows = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(&mut connection)
        .await;
    connection.close().await.expect("the SQLite file closes");
    let rows: Vec<(String, String, i64, i64, i64, bool)> = rows.expect("the view can be read");
    let document =
        |(id, data, version, created_at, updated_at, deleted): (_, String, _, _, _, _)| {
            let state = serde_json::from_str(&data).expect("a document's data is JSON");
            (
                id,
                Folded {
                    state,
                    version,
                    created_at,
                    updated_at,
                    deleted,
                },
            )
        };
    rows.into_iter().map(document).collect()
}

/// The documents of a collection. The state records in it have other ids than texts.
async fn mongodb_documents(
    database: &mongodb::Database,
    collection: &str,
) -> BTreeMap<String, Folded> {
    let mut cursor = database
        .collection::<Document>(collection)
        .find(doc! { "_id": { "$gte": "" } })
        .await
        .expect("MongoDB answers");
    let mut documents = BTreeMap::new();
    while cursor.advance().await.expect("MongoDB answers") {
        let document = cursor.deserialize_current().expect("a document");
        let id = document.get_str("_id").expect("an id").to_owned();
        documents.insert(id, folded(&document));
    }
    documents
}

fn folded(document: &Document) -> Folded {
    let number = |name: &str| {
        document
            .get_i64(name)
            .unwrap_or_else(|error| panic!("{name} of {document}: {error}"))
    };
    let state = match json(document["data"].clone()) {
        Value::Object(state) => state,
        other => panic!("the data of {document} is {other}"),
    };
    Folded {
        state,
        version: number("version"),
        created_at: number("created_at"),
        updated_at: number("updated_at"),
        deleted: document.get_bool("deleted").expect("deleted"),
    }
}

/// BSON as the JSON that it was made from.
fn json(value: Bson) -> Value {
    match value {
        Bson::Document(document) => Value::Object(
            document
                .into_iter()
                .map(|(name, value)| (name, json(value)))
                .collect::<Map<_, _>>(),
        ),
        Bson::Array(items) => items.into_iter().map(json).collect(),
        Bson::Null => Value::Null,
        Bson::Boolean(value) => value.into(),
        Bson::Int32(number) => number.into(),
        Bson::Int64(number) => number.into(),
        Bson::Double(number) => number.into(),
        Bson::String(text) => text.into(),
        other => panic!("{other:?} comes from no JSON"),
    }
}
