//! How many events a second a view takes in: a post as it is, by everybody's own way of keeping views.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cqrs_es::persist::GenericQuery;
use cqrs_es::{EventEnvelope, Query, View};
use mysql_es::MysqlViewRepository;
use sqlx_of_mysql_es::mysql::MySqlPoolOptions;
use sqlx_of_mysql_es::{Executor, MySqlPool};
use tidelog_command::store::{MySqlEventStore, MySqlOptions};
use tidelog_domain::{EntitySchema, EntityView, Partitions, ViewDefinition};
use tidelog_eventbus::{EventBus, InProcessEventBus, LogReader, Tail, TailOptions};
use tidelog_query::store::{MongoOptions, MongoReadStore, Query as ReadQuery, ReadStore};
use tidelog_query::{Catalog, Views, ViewsOptions};
use tidelog_test_support::{Server, fresh_mongodb_database};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::contenders::Kind;
use crate::database::Database;
use crate::post::{Post, PostCommand, PostEvent, changed, created};

/// How many events a post has: it is created, and changed three times.
const A_POST: usize = 4;

/// The peer's table of views, of its `db/init.sql`.
const TABLE: &str = "CREATE TABLE post_view (view_id varchar(255) NOT NULL, version bigint CHECK (version >= 0) NOT NULL, \
     payload json NOT NULL, CONSTRAINT post_view_pk PRIMARY KEY (view_id))";

/// How often it is looked whether the view has all.
const LOOK: Duration = Duration::from_millis(5);

impl View<Self> for Post {
    fn update(&mut self, event: &EventEnvelope<Self>) {
        self.apply(&event.payload);
    }
}

/// How long `events` events take: in the peer, `clients` of whom each gives one event after the other to its generic query, as its
/// commands do once they are written; in tidelog, a subscription that is so far behind. Nobody writes events meanwhile.
///
/// # Errors
///
/// When a server cannot be reached, or the view has not all posts in the end.
pub(crate) async fn measure(
    kind: Kind,
    database: &Database,
    mongodb: &Server,
    (events, clients, pool): (usize, usize, u32),
) -> anyhow::Result<Duration> {
    match kind {
        Kind::MysqlEs => of_mysql_es(database, events, clients, pool).await,
        _ => of_tidelog(kind, database, mongodb, events, clients).await,
    }
}

/// The events of the posts of one client, in order.
fn posts(client: usize, count: usize) -> impl Iterator<Item = (String, PostCommand)> {
    (0..count).map(move |number| {
        let id = format!("{:010}-{client:04}", number / A_POST);
        let command = match number.is_multiple_of(A_POST) {
            true => PostCommand::Create(created(number)),
            false => PostCommand::Change(changed(number)),
        };
        (id, command)
    })
}

async fn of_mysql_es(
    database: &Database,
    events: usize,
    clients: usize,
    connections: u32,
) -> anyhow::Result<Duration> {
    let pool = MySqlPoolOptions::new().max_connections(connections);
    let pool: MySqlPool = pool.connect(database.mysql()?).await?;
    pool.execute(TABLE).await?;
    let repository = Arc::new(MysqlViewRepository::<Post, Post>::new(
        "post_view",
        pool.clone(),
    ));
    let mut query = GenericQuery::new(repository);
    query.use_error_handler(Box::new(|error| panic!("a view was not written: {error}")));
    let query = Arc::new(query);
    let began = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..clients {
        let query = Arc::clone(&query);
        running.spawn(async move {
            for (number, (id, command)) in posts(client, events / clients).enumerate() {
                let payload = match command {
                    PostCommand::Create(post) => PostEvent::Created(post),
                    PostCommand::Change(change) => PostEvent::Changed(change),
                    PostCommand::Import(_) => continue,
                };
                let envelope = EventEnvelope {
                    aggregate_id: id.clone(),
                    sequence: number % A_POST + 1,
                    payload,
                    metadata: HashMap::new(),
                };
                query.dispatch(&id, &[envelope]).await;
            }
        });
    }
    running.join_all().await;
    let took = began.elapsed();
    let rows = database.rows("post_view").await?;
    ensure!(rows == of_all(events, clients), "{rows} views");
    pool.close().await;
    Ok(took)
}

/// How many posts there are.
fn of_all(events: usize, clients: usize) -> u64 {
    ((events / clients).div_ceil(A_POST) * clients) as u64
}

async fn of_tidelog(
    kind: Kind,
    database: &Database,
    mongodb: &Server,
    events: usize,
    clients: usize,
) -> anyhow::Result<Duration> {
    let contender = kind.open(database, 0).await?;
    let log = MySqlEventStore::connect(MySqlOptions::from_url(database.mysql()?)?).await?;
    let log: Arc<dyn LogReader> = Arc::new(log);
    let url = fresh_mongodb_database(mongodb);
    let store = MongoReadStore::connect(&url, &MongoOptions::default()).await?;
    let store: Arc<dyn ReadStore> = Arc::new(store);
    // The view has a version before there is anything to build it from, so that its subscription has all before it.
    follow(&store, &log).await?;
    let mut running = JoinSet::new();
    for client in 0..clients {
        let contender = Arc::clone(&contender);
        running.spawn(async move {
            for (id, command) in posts(client, events / clients) {
                let sent = contender.send(&id, &command).await;
                sent.map_err(|miss| anyhow::anyhow!("{miss:?}"))?;
            }
            anyhow::Ok(())
        });
    }
    for sent in running.join_all().await {
        sent?;
    }
    contender.close().await;
    let began = Instant::now();
    follow(&store, &log).await?;
    let took = began.elapsed();
    let alias = store.load_alias("post").await?;
    let collection = alias.context("the view has a version")?.collection;
    let everything = ReadQuery::default();
    let shown = store.count(&collection, &everything).await?;
    ensure!(shown == of_all(events, clients), "{shown} documents");
    Ok(took)
}

/// Lets the view follow the log until it has all of it.
async fn follow(store: &Arc<dyn ReadStore>, log: &Arc<dyn LogReader>) -> anyhow::Result<()> {
    let text = include_str!("../../../examples/entities/post.schema.json");
    let schema = EntitySchema::parse("post", text)?;
    let view: Arc<dyn ViewDefinition> = Arc::new(EntityView::new(schema));
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let tail = Tail::new(
        Partitions::DEFAULT,
        bus,
        Arc::clone(log),
        None,
        TailOptions::default(),
    );
    let owner = uuid::Uuid::now_v7().to_string();
    let views = Views::new(
        Catalog::new(vec![view])?,
        Arc::clone(store),
        Arc::clone(log),
        tail.clone(),
        owner,
        ViewsOptions::default(),
    );
    let heads = log.heads().await?;
    let (live, stop) = (views.live(), CancellationToken::new());
    let [first, second] = std::array::from_fn(|_| stop.clone());
    let mut running = JoinSet::new();
    running.spawn(async move { tail.run(first).await });
    running.spawn(async move { views.run(second).await });
    loop {
        let mut views = live.all().into_iter();
        let reached = views.next().map(|view| view.partitions());
        let has_all = reached.is_some_and(|reached| {
            let mut all = reached.iter().zip(&heads);
            reached.len() == heads.len()
                && all.all(|(status, head)| status.cursor.position >= *head)
        });
        if has_all {
            break;
        }
        sleep(LOOK).await;
    }
    stop.cancel();
    running.join_all().await;
    Ok(())
}
