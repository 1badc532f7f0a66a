//! Two sites with the same books: one on the embedded file, one on servers.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::client::{Answer, Client};
use crate::services::{Backends, Role, Site};

/// The entity that `docs/query.md` has its examples of.
const BOOK: &str = r#"{
  "type": "object",
  "properties": {
    "title": {"type": "string"},
    "subtitle": {"type": ["string", "null"]},
    "pages": {"type": "integer"},
    "rating": {"type": ["number", "null"]},
    "in_print": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "author": {
      "type": "object",
      "properties": {"name": {"type": "string"}, "country": {"type": ["string", "null"]}},
      "required": ["name"],
      "additionalProperties": false
    }
  },
  "required": ["title"],
  "additionalProperties": false,
  "x-tidelog-indexes": ["title", "-pages,title", "author.name", "-created_at"]
}"#;

/// What tests write that need to.
const NOTE: &str = r#"{
  "type": "object",
  "properties": {"text": {"type": "string"}, "rank": {"type": "integer"}},
  "required": ["text"],
  "additionalProperties": false
}"#;

/// The origin whose pages may use both sites.
pub(super) const SHOP: &str = "https://shop.example";

/// A site with the books `b1` to `b7`, which no test changes; `b7` is deleted.
pub(super) struct Target {
    pub(super) site: Site,
    pub(super) backends: Option<Backends>,
    pub(super) entities: TempDir,
}

/// Both kinds of site, shared by the tests of this module.
pub(super) async fn targets() -> [&'static Target; 2] {
    static DEV: OnceCell<Target> = OnceCell::const_new();
    static SERVERS: OnceCell<Target> = OnceCell::const_new();
    let servers = async || Target::of(Some(Backends::fresh().await)).await;
    [
        DEV.get_or_init(async || Target::of(None).await).await,
        SERVERS.get_or_init(servers).await,
    ]
}

impl Target {
    async fn of(backends: Option<Backends>) -> Self {
        let entities = tempfile::tempdir().unwrap();
        for (name, schema) in [("book", BOOK), ("note", NOTE)] {
            let file = entities.path().join(format!("{name}.schema.json"));
            std::fs::write(file, schema).unwrap();
        }
        let entities_in = entities.path().to_str().unwrap();
        let mut settings = vec![
            ("TIDELOG_ENTITIES", entities_in),
            ("TIDELOG_CORS_ORIGINS", SHOP),
        ];
        let role = match &backends {
            Some(backends) => {
                settings.extend(backends.settings());
                Role::All
            }
            None => Role::Dev,
        };
        let mut site = Site::with(role, &settings).await;
        site.commands = site.commands.shared();
        site.queries = site.queries.shared();
        for book in books() {
            site.commands.post("/book", &book).await.data(201);
        }
        let gone = site.commands.delete("/book/b7").await;
        gone.data(200);
        site.queries
            .get_after("/book/b7", gone.token())
            .await
            .problem(404, "not-found");
        // Each book is in a partition of its own.
        for id in (1..7).map(|n| format!("/book/b{n}")) {
            let patched = site.commands.patch(&id, &json!({})).await;
            patched.data(200);
            let read = site.queries.get_after(&id, patched.token()).await;
            read.data(200);
        }
        Self {
            site,
            backends,
            entities,
        }
    }

    pub(super) fn queries(&self) -> &Client {
        &self.site.queries
    }
}

fn books() -> [Value; 7] {
    [
        json!({"id": "b1", "title": "Tides", "pages": 200, "rating": 4.5, "in_print": true, "tags": ["sea", "moon"],
               "author": {"name": "Ann", "country": "NO"}}),
        json!({"id": "b2", "title": "tides, again", "subtitle": "low", "pages": 90, "rating": 4, "in_print": false,
               "tags": [], "author": {"name": "Bob", "country": null}}),
        json!({"id": "b3", "title": "Ebb", "subtitle": null, "pages": 310, "rating": null, "tags": ["sea"]}),
        json!({"id": "b4", "title": "Éclair", "pages": 9_007_199_254_740_993_i64, "rating": 5, "in_print": true,
               "author": {"name": "Ann Lee"}}),
        json!({"id": "b5", "title": "100% \".*\"", "pages": 90, "tags": [".*", "$ne"]}),
        json!({"id": "b6", "title": "O'Neill", "pages": -1, "rating": 4.0}),
        json!({"id": "b7", "title": "Tides gone", "pages": 1}),
    ]
}

/// The ids in a list.
#[track_caller]
pub(super) fn ids(answer: &Answer) -> Vec<String> {
    let data = answer.data(200);
    let data = data.as_array().unwrap_or_else(|| panic!("{answer:?}"));
    let ids = data
        .iter()
        .map(|document| document["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Checks that both sites find these books, in this order.
pub(super) async fn finds(query: &str, expected: &[&str]) {
    for target in targets().await {
        let answer = target.queries().get(&format!("/books?{query}")).await;
        assert_eq!(ids(&answer), expected, "{query}");
    }
}

/// Checks that both sites refuse this, and that they name the parameter.
pub(super) async fn refuses(path: &str, name: &str, parameter: &str) {
    for target in targets().await {
        let problem = target.queries().get(path).await.problem(400, name);
        assert_eq!(problem["parameter"], parameter, "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(parameter), "{path}: {problem}");
    }
}
