//! Commands to posts: a create, then three patches of it, and so on.

use std::sync::Arc;

use serde_json::json;
use tidelog_command::store::{EventStore, MySqlEventStore, MySqlOptions};
use tidelog_command::{AppenderSettings, CommandRequest, CommandService};
use tidelog_domain::{Decider, EntityDecider, EntitySchema, Partition, Position};
use tidelog_eventbus::{CommitSignal, LogReader};

/// About as much text as a short post has.
pub(crate) const CONTENT: &str = "Fifty characters of text, as much as fits one line.";

/// The entity.
pub(crate) fn schema() -> EntitySchema {
    let text = include_str!("../../examples/entities/post.schema.json");
    EntitySchema::parse("post", text).unwrap()
}

/// A command service in this process, with its log.
pub(crate) struct Posts {
    pub(crate) service: CommandService,
    pub(crate) log: Arc<MySqlEventStore>,
    pub(crate) signal: CommitSignal,
}

impl Posts {
    /// A command service on the database that `url` names.
    pub(crate) async fn on(url: &str) -> Self {
        let log = MySqlEventStore::connect(MySqlOptions::from_url(url).unwrap())
            .await
            .unwrap();
        let log = Arc::new(log);
        let identity = log.identity().await.unwrap();
        let signal = CommitSignal::new(identity.partitions);
        let decider: Arc<dyn Decider> = Arc::new(EntityDecider::new(schema()));
        let store: Arc<dyn EventStore> = log.clone();
        let settings = AppenderSettings::default();
        let service = CommandService::new([decider], store, identity, signal.clone(), settings);
        let service = service.unwrap();
        Self {
            service,
            log,
            signal,
        }
    }
}

impl Posts {
    /// Creates a post, and says where its event is.
    pub(crate) async fn create(&self) -> (Partition, Position) {
        let body = json!({"title": "A title", "content": CONTENT, "author_name": "Ann"});
        let request = CommandRequest::new("post", "create", body);
        let created = self.service.execute(request).await.unwrap();
        created.token.positions[0]
    }
}

/// One client of a command service: never more than one command in flight.
#[derive(Default)]
pub(crate) struct Client {
    commands: usize,
    id: String,
}

impl Client {
    /// Makes one command and waits until it is acknowledged.
    pub(crate) async fn command(&mut self, service: &CommandService) {
        let number = self.commands;
        self.commands += 1;
        let request = if number.is_multiple_of(4) {
            let body = json!({"title": "A title", "content": CONTENT, "author_name": "Ann"});
            CommandRequest::new("post", "create", body)
        } else {
            let body = json!({"title": format!("Title {number}")});
            CommandRequest::new("post", "patch", body).to(self.id.clone())
        };
        self.id = service.execute(request).await.unwrap().id;
    }
}
