//! Events a second when a view is replayed from MySQL into MongoDB, beside a bare scan of the same log.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::{Connection, MySqlConnection, Row};
use tidelog::prelude::*;
use tidelog_command::store::EventStore;
use tidelog_domain::{
    Append, EntityView, Event, EventId, ExpectedVersion, NewEvent, Partitions, Payload,
    RecordedEvent, StreamId, TypedProjector, ViewDefinition,
};
use tidelog_eventbus::{EventBus, InProcessEventBus, LogReader};
use tidelog_query::Replay;
use tidelog_query::store::{MongoOptions, MongoReadStore, ReadStore};
use tidelog_test_support::{Engine, Server, fresh_mongodb_database, fresh_mysql_database};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::posts::{Client, Posts, schema};
use crate::projecting::{Following, rate};
use crate::subscribing::resident;

/// How many documents are written in turn, so that a document's events are apart from each other.
const IN_TURN: usize = 256;

/// How many events a document has.
const A_DOCUMENT: usize = 4;

/// How many rows a bare scan reads at once, and on how many connections.
const SCAN: (u32, u16) = (5_000, 2);

#[events("article")]
enum ArticleEvent {
    Written {
        title: String,
        content: String,
        author_name: String,
    },
    Retitled {
        title: String,
    },
}

/// A view that is written in Rust: an article as it is, and how often it changed.
#[view]
struct Shown {
    title: String,
    content: String,
    author_name: String,
    changes: u64,
}

impl Projection for Shown {
    const SINGLE_STREAM: bool = true;
    type Event = ArticleEvent;

    fn keys(e: &Recorded<ArticleEvent>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<ArticleEvent>) -> Option<Self> {
        let mut view = view.unwrap_or_default();
        view.changes += 1;
        match &e.event {
            ArticleEvent::Written {
                title,
                content,
                author_name,
            } => {
                (view.title, view.content, view.author_name) =
                    (title.clone(), content.clone(), author_name.clone());
            }
            ArticleEvent::Retitled { title } => view.title.clone_from(title),
        }
        Some(view)
    }
}

/// Replays a log of `events` events of an entity, and one of as many of an aggregate, and prints what it found.
pub(crate) async fn measure(events: usize) {
    let mysql = Server::start(Engine::MySql).await;
    let mongodb = Server::start(Engine::MongoDb).await;
    println!(
        "Replays of {events} events from MySQL into MongoDB ({A_DOCUMENT} a document; majority, journaled; checkpoint after the data)\n"
    );
    println!("| | events/s | of the bare scan | memory |\n|---|---|---|---|");
    let entity: Arc<dyn ViewDefinition> = Arc::new(EntityView::new(schema()));
    let typed: Arc<dyn ViewDefinition> = Arc::new(TypedProjector::<Shown>::new());
    for (what, view) in [("an entity's view", entity), ("a view in Rust", typed)] {
        let database = fresh_mysql_database(&mysql).await;
        // Not encrypted, as between machines of one network: the driver's encryption takes a good part of a core else.
        let database = format!("{database}?ssl-mode=disabled");
        let posts = Posts::on(&database).await;
        let url = fresh_mongodb_database(&mongodb);
        let store = MongoReadStore::connect(&url, &MongoOptions::default())
            .await
            .unwrap();
        let store: Arc<dyn ReadStore> = Arc::new(store);
        let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
        let following = Following::start(&posts, &store, &bus, view.clone());
        following.built().await;
        following.stop().await;
        let templates = match view.name() {
            "post" => posts_events(&posts).await,
            _ => article_events(),
        };
        fill(&posts, events / A_DOCUMENT, &templates).await;
        let scanned = scan(&database).await;
        let rss = Rss::watch();
        let replay = Replay::new(store.clone(), posts.log.clone());
        let stop = CancellationToken::new();
        let mut replayed = [0.0; 2];
        for replayed in &mut replayed {
            let began = Instant::now();
            let done = replay.run(&view, &|_| {}, &stop).await.unwrap();
            *replayed = rate(usize::try_from(done.events).unwrap(), began);
        }
        let best = replayed[1].max(replayed[0]);
        println!(
            "| {what}, twice | {:.0}, {:.0} | {:.0} % | {:.0} MiB at most |",
            replayed[0],
            replayed[1],
            100.0 * best / scanned,
            rss.most_mib()
        );
        println!(
            "| the limit: a bare scan of its log, {} connections | {scanned:.0} | | |",
            SCAN.1
        );
    }
    println!();
}

/// Events like those that commands make: a create, then patches.
pub(crate) async fn posts_events(posts: &Posts) -> Vec<(Arc<str>, Payload)> {
    let mut client = Client::default();
    for _ in 0..A_DOCUMENT {
        client.command(&posts.service).await;
    }
    let mut all: Vec<RecordedEvent> = Vec::new();
    for partition in Partitions::DEFAULT.iter() {
        let start = tidelog_domain::Cursor::START;
        all.extend(posts.log.read(partition, start, A_DOCUMENT).await.unwrap());
    }
    all.into_iter()
        .map(|event| (event.event_type, event.payload))
        .collect()
}

fn article_events() -> Vec<(Arc<str>, Payload)> {
    let text = |text: &str| text.to_owned();
    let written = ArticleEvent::Written {
        title: text("A title"),
        content: text(crate::posts::CONTENT),
        author_name: text("Ann"),
    };
    let retitled = (1..A_DOCUMENT).map(|number| ArticleEvent::Retitled {
        title: format!("Title {number}"),
    });
    let events = std::iter::once(written).chain(retitled);
    events
        .map(|event| (event.event_type().into(), event.encode().unwrap()))
        .collect()
}

/// Has so many documents written, each with such events.
pub(crate) async fn fill(posts: &Posts, documents: usize, templates: &[(Arc<str>, Payload)]) {
    let category = templates[0].0.split_once('.').unwrap().0.to_owned();
    let metadata =
        Payload::of(&serde_json::json!({"correlation_id": "0190b3f0-0000-7000-8000-000000000000"}))
            .unwrap();
    for first in (0..documents).step_by(IN_TURN) {
        for (event_type, payload) in templates {
            let batch: Vec<_> = (first..documents.min(first + IN_TURN))
                .map(|number| {
                    let stream =
                        StreamId::parse(&format!("{category}/replayed-{number:09}")).unwrap();
                    let event = NewEvent {
                        id: EventId::new(uuid::Uuid::now_v7()),
                        event_type: event_type.clone(),
                        schema_version: 1,
                        payload: payload.clone(),
                        metadata: metadata.clone(),
                    };
                    Append::one(stream, ExpectedVersion::Any, vec![event])
                })
                .collect();
            for appended in posts.log.append(0, batch.into()).await {
                appended.unwrap();
            }
        }
    }
}

/// Events a second that plain queries read of the log, by its key, all columns.
async fn scan(url: &str) -> f64 {
    let (rows, connections) = SCAN;
    let began = Instant::now();
    let mut scanning = JoinSet::new();
    for connection in 0..connections {
        let url = url.to_owned();
        scanning.spawn(async move {
            let mut sql = MySqlConnection::connect(&url).await.unwrap();
            let mut read = 0_usize;
            for partition in (connection..Partitions::DEFAULT.count()).step_by(usize::from(connections)) {
                let mut after = 0_u64;
                loop {
                    let before = read;
                    let mut page = sqlx::query("SELECT position, stream, version, event_id, event_type, schema_version, payload, metadata, recorded_at \
                         FROM events WHERE partition_no = ? AND position > ? ORDER BY position LIMIT ?")
                        .bind(partition).bind(after).bind(rows).fetch(&mut sql);
                    while let Some(row) = page.try_next().await.unwrap() {
                        after = row.try_get(0).unwrap();
                        std::hint::black_box(row.try_get::<&[u8], _>(6).unwrap());
                        read += 1;
                    }
                    if read == before {
                        break;
                    }
                }
            }
            read
        });
    }
    let read = scanning.join_all().await.into_iter().sum();
    rate(read, began)
}

/// How much memory this process has in use at most.
struct Rss {
    most_mib: Arc<Mutex<f64>>,
    watching: tokio::task::JoinHandle<()>,
}

impl Rss {
    fn watch() -> Self {
        let most_mib = Arc::new(Mutex::new(0.0));
        let most = most_mib.clone();
        let watching = tokio::spawn(async move {
            loop {
                let now = resident("self");
                let before = *most.lock().unwrap();
                *most.lock().unwrap() = now.max(before);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { most_mib, watching }
    }

    fn most_mib(&self) -> f64 {
        self.watching.abort();
        *self.most_mib.lock().unwrap()
    }
}
