//! Events a second into a read model in MongoDB, beside bare inserts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::options::WriteConcern;
use tidelog_domain::{EntityView, Position, ViewDefinition};
use tidelog_eventbus::{
    EventBus, InProcessEventBus, LogReader, RedisEventBus, Relay, RelayOptions, Tail, TailOptions,
};
use tidelog_query::store::{MongoOptions, MongoReadStore, ReadStore};
use tidelog_query::{Catalog, LiveViews, Replay, ViewState, Views, ViewsOptions};
use tidelog_test_support::{Engine, Server, fresh_mongodb_database, fresh_mysql_database};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::commands::a_second;
use crate::posts::{Client, Posts, schema};
use crate::replaying::{fill, posts_events};

/// How many clients write meanwhile.
const CLIENTS: usize = 64;

/// How many documents one bare insert has.
const BATCH: usize = 500;

/// How often the subscription is measured beside the bare commands.
const ROUNDS: usize = 3;

/// How often it is looked.
const PAUSE: Duration = Duration::from_millis(2);

/// Projects at least `events` events, in three ways, and prints what it found.
pub(crate) async fn measure(events: usize) {
    let mysql = Server::start(Engine::MySql).await;
    let redis = Server::start(Engine::Redis).await;
    let mongodb = Server::start(Engine::MongoDb).await;
    let posts = Arc::new(Posts::on(&fresh_mysql_database(&mysql).await).await);
    let url = fresh_mongodb_database(&mongodb);
    let store: Arc<dyn ReadStore> = Arc::new(
        MongoReadStore::connect(&url, &MongoOptions::default())
            .await
            .unwrap(),
    );
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(redis.url(), "bench").unwrap());
    let view: Arc<dyn ViewDefinition> = Arc::new(EntityView::new(schema()));
    println!(
        "Events into MongoDB (4 a document; majority, journaled; checkpoint after the data)\n"
    );
    println!("| | events/s |\n|---|---|");

    // All the while: clients write, the relay publishes, the view follows.
    let running = Following::start(&posts, &store, &bus, view.clone());
    running.built().await;
    let (written, following) = running.while_clients_write(&posts, events).await;
    println!(
        "| while {CLIENTS} clients write as fast as they can ({written:.0} commands/s), over Redis Streams | {following:.0} |"
    );
    running.stop().await;

    // The same subscription, far behind.
    write(&posts, events).await;
    let behind = Following::start(&posts, &store, &bus, view.clone());
    let began = Instant::now();
    behind.caught_up(&posts).await;
    println!(
        "| a view that is {events} events behind, from the log | {:.0} |",
        rate(events, began)
    );
    behind.stop().await;

    let began = Instant::now();
    let replay = Replay::new(store.clone(), posts.log.clone());
    let replayed = replay
        .run(&view, &|_| {}, &CancellationToken::new())
        .await
        .unwrap();
    let replayed = usize::try_from(replayed.events).unwrap();
    println!(
        "| `replay` of {replayed} events | {:.0} |",
        rate(replayed, began)
    );

    let (inserted, updated) = bare(&url, events / 4).await;
    println!(
        "| the limit: bare inserts by {BATCH}, majority, journaled (documents/s) | {inserted:.0} |"
    );
    println!(
        "| the limit: bare updates by id, {BATCH} a bulk, majority, journaled (documents/s) | {updated:.0} |\n"
    );
    one_event_each(&mysql, &mongodb, events).await;
}

/// A subscription that is behind by one event of each document, which are new first, and there already then; beside the bare commands.
async fn one_event_each(mysql: &Server, mongodb: &Server, documents: usize) {
    println!(
        "One event each of {documents} documents, by the live subscription that is so far behind, beside the bare commands\n"
    );
    println!("| | documents/s | bare | of it |\n|---|---|---|---|");
    for _ in 0..ROUNDS {
        let database = fresh_mysql_database(mysql).await;
        let posts = Posts::on(&format!("{database}?ssl-mode=disabled")).await;
        let url = fresh_mongodb_database(mongodb);
        let store = MongoReadStore::connect(&url, &MongoOptions::default())
            .await
            .unwrap();
        let store: Arc<dyn ReadStore> = Arc::new(store);
        let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
        let view: Arc<dyn ViewDefinition> = Arc::new(EntityView::new(schema()));
        let following = Following::start(&posts, &store, &bus, view.clone());
        following.built().await;
        following.stop().await;
        let samples = Posts::on(&fresh_mysql_database(mysql).await).await;
        let templates = posts_events(&samples).await;
        let mut found = Vec::new();
        for event in [&templates[..1], &templates[1..2]] {
            fill(&posts, documents, event).await;
            let behind = Following::start(&posts, &store, &bus, view.clone());
            let began = Instant::now();
            behind.caught_up(&posts).await;
            found.push(rate(documents, began));
            behind.stop().await;
        }
        let (inserted, updated) = bare(&url, documents).await;
        let rows = [
            ("new documents", inserted),
            ("documents that are there", updated),
        ];
        for ((what, limit), found) in rows.into_iter().zip(found) {
            println!(
                "| {what} | {found:.0} | {limit:.0} | {:.0} % |",
                100.0 * found / limit
            );
        }
    }
    println!();
}

/// Makes `count` commands.
pub(crate) async fn write(posts: &Arc<Posts>, count: usize) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let posts = posts.clone();
        clients.spawn(async move {
            let mut client = Client::default();
            for _ in 0..count / CLIENTS {
                client.command(&posts.service).await;
            }
        });
    }
    clients.join_all().await;
}

/// What keeps the view: relay, tail, subscription.
pub(crate) struct Following {
    live: LiveViews,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Following {
    pub(crate) fn start(
        posts: &Posts,
        store: &Arc<dyn ReadStore>,
        bus: &Arc<dyn EventBus>,
        view: Arc<dyn ViewDefinition>,
    ) -> Self {
        let log: Arc<dyn LogReader> = posts.log.clone();
        let partitions = tidelog_domain::Partitions::DEFAULT;
        let signal = Some(posts.signal.clone());
        let relay = Relay::new(
            partitions,
            log.clone(),
            bus.clone(),
            signal.clone(),
            RelayOptions::default(),
        );
        let tail = Tail::new(
            partitions,
            bus.clone(),
            log.clone(),
            signal,
            TailOptions::default(),
        );
        let catalog = Catalog::new(vec![view]).unwrap();
        let owner = uuid::Uuid::now_v7().to_string();
        let views = Views::new(
            catalog,
            store.clone(),
            log,
            tail.clone(),
            owner,
            ViewsOptions::default(),
        );
        let (live, stop) = (views.live(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let [first, second, third] = std::array::from_fn(|_| stop.clone());
        tasks.spawn(async move { relay.run(first).await });
        tasks.spawn(async move { tail.run(second).await });
        tasks.spawn(async move { views.run(third).await });
        Self { live, stop, tasks }
    }

    /// Waits until the view has a version that is read.
    pub(crate) async fn built(&self) {
        let follows = |state: &ViewState| matches!(state, ViewState::Following { .. });
        while !self.live.states().values().any(follows) {
            sleep(PAUSE).await;
        }
    }

    /// Waits until the view has all that is in the log now.
    async fn caught_up(&self, posts: &Posts) {
        let heads = posts.log.heads().await.unwrap();
        self.built().await;
        loop {
            let reached: Vec<Position> = self
                .live
                .all()
                .iter()
                .flat_map(|view| view.partitions())
                .map(|status| status.cursor.position)
                .collect();
            if reached.len() == heads.len()
                && reached.iter().zip(&heads).all(|(at, head)| at >= head)
            {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Commands a second, and events a second until the view has the last of them.
    pub(crate) async fn while_clients_write(
        &self,
        posts: &Arc<Posts>,
        events: usize,
    ) -> (f64, f64) {
        let began = Instant::now();
        write(posts, events).await;
        let written = rate(events, began);
        self.caught_up(posts).await;
        (written, rate(events, began))
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

/// `count` a second since `began`.
pub(crate) fn rate(count: usize, began: Instant) -> f64 {
    a_second(count, began.elapsed())
}

/// Documents a second by the bare driver: inserted, then updated one by one within bulks.
async fn bare(url: &str, documents: usize) -> (f64, f64) {
    let client = mongodb::Client::with_uri_str(url).await.unwrap();
    let durable = WriteConcern::builder()
        .w(mongodb::options::Acknowledgment::Majority)
        .journal(true)
        .build();
    let database = client.default_database().unwrap();
    let collection = database.collection::<Document>("bare");
    let document = |number: usize| {
        doc! {"_id": format!("post-{number:08}"), "version": 1, "data": {"title": "A title", "content": "x".repeat(50), "author_name": "Ann"}}
    };
    let numbers: Vec<usize> = (0..documents).collect();
    let began = Instant::now();
    for batch in numbers.chunks(BATCH) {
        let insert = collection
            .insert_many(batch.iter().copied().map(document))
            .ordered(false);
        insert.write_concern(durable.clone()).await.unwrap();
    }
    let inserted = rate(documents, began);
    let began = Instant::now();
    for batch in numbers.chunks(BATCH) {
        let updates: Vec<Document> = batch
            .iter()
            .map(|number| {
                doc! {"q": {"_id": format!("post-{number:08}"), "version": 1}, "u": {"$set": {"version": 2, "data.title": "B"}}}
            })
            .collect();
        let update = doc! {"update": "bare", "updates": updates, "ordered": false, "writeConcern": {"w": "majority", "j": true}};
        database.run_command(update).await.unwrap();
    }
    (inserted, rate(documents, began))
}
