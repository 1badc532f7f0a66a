//! The command line, as a person on call and a program use it: on real servers, and beside a running `dev`.

mod beside_dev;
mod chain;
mod completions;
mod doctor;
mod events;
mod follow;
mod migrating;
mod output;
mod recorded;
pub(crate) mod schema;
mod search;
mod streams;
mod token;

use serde_json::{Value, json};

use crate::client::{Answer, Client, must};
use crate::services::{Backends, CommandLine, Ended, Role, Service, Site};

/// A program that runs, and its command line beside it.
struct Ground {
    site: Site,
    /// What the command line is told of it.
    settings: Vec<(String, String)>,
}

impl Ground {
    /// `dev`, which has the file.
    async fn dev() -> Self {
        Self::beside(Site::dev().await)
    }

    /// Beside this `dev`.
    fn beside(site: Site) -> Self {
        let service = &site.services[0];
        let settings = vec![
            ("TIDELOG_DATA_DIR".to_owned(), data_of(service)),
            (
                "TIDELOG_ADMIN_ADDR".to_owned(),
                service.admin().address().to_owned(),
            ),
        ];
        Self { site, settings }
    }

    /// Three processes on servers.
    async fn servers() -> Self {
        let backends = Backends::fresh().await;
        let site = Site::three(&backends).await;
        let settings = backends.settings().into_iter();
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            site,
            settings: settings.collect(),
        }
    }

    /// Both.
    async fn both() -> [Self; 2] {
        [Self::dev().await, Self::servers().await]
    }

    fn command(&self, arguments: &[&str]) -> CommandLine {
        let settings = self.settings.iter();
        let settings = settings.map(|(name, value)| (name.as_str(), value.as_str()));
        CommandLine::new(arguments).with(settings)
    }

    async fn cli(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).run().await
    }

    /// What a command that goes well prints.
    async fn says(&self, arguments: &[&str]) -> String {
        self.cli(arguments).await.succeeded().stdout
    }

    /// The same as JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.says(arguments).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// The events that are shown, a line of JSON each.
    async fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let all: Vec<_> = ["events", "--json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let said = self.says(&all).await;
        let lines = said.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A client of its administration.
    fn admin(&self) -> Client {
        let mut services = self.site.services.iter();
        let service = services.find(|own| matches!(own.role, Role::Dev | Role::EventBus));
        service.unwrap().admin()
    }
}

/// Where a `dev` keeps its file.
fn data_of(service: &Service) -> String {
    let data = service.home().join("tidelog-data");
    data.to_str().unwrap().to_owned()
}

/// Creates a post under a correlation id.
async fn write(commands: &Client, id: &str, title: &str, correlation: &str) -> Answer {
    let post = json!({"id": id, "title": title, "content": "", "author_name": "Ann"});
    let request = commands.request(reqwest::Method::POST, "/post");
    let request = request.header("x-correlation-id", correlation).json(&post);
    let created = must(request).await;
    created.data(201);
    created
}

/// Changes the title of a post.
async fn retitle(commands: &Client, id: &str, title: &str, correlation: &str) {
    let request = commands.request(reqwest::Method::PATCH, &format!("/post/{id}"));
    let request = request.header("x-correlation-id", correlation);
    let patched = must(request.json(&json!({"title": title}))).await;
    patched.data(200);
}

/// What each of `events` is: `post/1@2`.
fn names(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    let name = |event: &Value| {
        format!(
            "{}@{}",
            text(event, "subject"),
            text(event, "streamversion")
        )
    };
    events.iter().map(name).collect()
}
