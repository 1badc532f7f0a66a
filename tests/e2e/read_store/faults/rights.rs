//! Users of MongoDB with the rights of `deploy/mongodb/` and no others, on a server that asks who one is.

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tidelog_query::read_store_conformance;
use tidelog_query::store::conformance::ReadStoreFactory;
use tidelog_query::store::{MongoOptions, MongoReadStore, ReadStore};
use tidelog_test_support::{Engine, Server, unique_name};
use tokio::sync::OnceCell;

use crate::services::{Backends, Role, Service};

/// What a service may do.
const SERVICE: &str = include_str!("../../../../deploy/mongodb/role.json");

/// What one may do who only reads.
const READ: &str = include_str!("../../../../deploy/mongodb/role-read.json");

/// A server that asks, and the URL of who may do everything.
async fn guarded() -> &'static (Server, String) {
    static SERVER: OnceCell<(Server, String)> = OnceCell::const_new();
    let start = async || {
        let mut server = Server::start(Engine::MongoDb).await;
        let url = server.guard().await;
        (server, url)
    };
    SERVER.get_or_init(start).await
}

/// A database of its own, with a user of each role.
struct Database {
    name: String,
    port: u16,
}

impl Database {
    async fn fresh() -> Self {
        let (server, url) = guarded().await;
        let name = unique_name();
        let client = Client::with_uri_str(url).await.unwrap();
        let database = client.database(&name);
        for role in [SERVICE, READ] {
            let role = role.replace("\"db\": \"tidelog\"", &format!("\"db\": \"{name}\""));
            let role: Value = serde_json::from_str(&role).unwrap();
            let command: Document = mongodb::bson::serialize_to_document(&role).unwrap();
            database.run_command(command).await.unwrap();
            let role = role["createRole"].as_str().unwrap();
            let user = doc! {"createUser": role, "pwd": "PASSWORD", "roles": [role]};
            database.run_command(user).await.unwrap();
        }
        let port = server.port();
        Self { name, port }
    }

    fn url(&self, user: &str) -> String {
        let Self { name, port } = self;
        format!("mongodb://{user}:PASSWORD@127.0.0.1:{port}/{name}?directConnection=true")
    }

    async fn by(&self, user: &str) -> mongodb::Database {
        let client = Client::with_uri_str(self.url(user)).await.unwrap();
        client.database(&self.name)
    }
}

/// A store by a user with the rights of a service.
struct AsService;

#[async_trait]
impl ReadStoreFactory for AsService {
    async fn store(&self) -> Arc<dyn ReadStore> {
        let url = Database::fresh().await.url("tidelog");
        let store = MongoReadStore::connect(&url, &MongoOptions::default()).await;
        Arc::new(store.unwrap())
    }
}

read_store_conformance!(by_a_service, AsService);

#[tokio::test]
async fn no_user_may_do_more_than_it_has_to() {
    let database = Database::fresh().await;
    let (service, read) = (
        database.by("tidelog").await,
        database.by("tidelog_read").await,
    );
    let write = doc! {"insert": "post_v1", "documents": [{"_id": "a"}]};
    service.run_command(write.clone()).await.unwrap();
    let remove = doc! {"delete": "post_v1", "deletes": [{"q": {}, "limit": 0}]};
    let update = doc! {"update": "post_v1", "updates": [{"q": {}, "u": {"$set": {"x": 1}}}]};
    let refused = [
        (&service, remove.clone()),
        (&service, doc! {"dropDatabase": 1}),
        (&service, doc! {"createUser": "x", "pwd": "x", "roles": []}),
        (&read, write),
        (&read, remove),
        (&read, update),
        (&read, doc! {"drop": "post_v1"}),
    ];
    for (who, command) in refused {
        let error = who.run_command(command.clone()).await.unwrap_err();
        assert!(
            error.to_string().contains("not authorized"),
            "{command}: {error}"
        );
    }
    read.run_command(doc! {"find": "post_v1"}).await.unwrap();
}

/// Services that only answer queries do so with the right to read alone.
#[tokio::test]
async fn queries_do_with_the_right_to_read() {
    let database = Database::fresh().await;
    let mut backends = Backends {
        mongodb_url: database.url("tidelog"),
        ..Backends::fresh().await
    };
    let command = Service::start(Role::Command, &backends).await;
    let _eventbus = Service::start(Role::EventBus, &backends).await;
    let post = json!({"id": "p", "title": "one", "content": "c", "author_name": "ann"});
    let written = command.commands().post("/post", &post).await;
    backends.mongodb_url = database.url("tidelog_read");
    let query = Service::start(Role::Query, &backends).await;
    let queries = query.queries();
    let read = queries.get_after("/post/p", written.token()).await;
    assert_eq!(read.data(200)["title"], "one");
    queries.get("/posts?title=one").await.data(200);
}
