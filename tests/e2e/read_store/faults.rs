//! MongoDB that dies, or loses an answer, in the middle of projecting: the views equal the fold of the log all the same.

mod rights;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidelog_command::store::{EventStore, InMemoryEventStore};
use tidelog_domain::{
    Append, DecodeError, EventFilter, EventId, ExpectedVersion, Folding, Keys, NewEvent,
    Partitions, Payload, RecordedEvent, StreamId, ViewDefinition,
};
use tidelog_eventbus::{
    CommitSignal, InProcessEventBus, LogReader, Relay, RelayOptions, Tail, TailOptions,
};
use tidelog_query::store::{MongoOptions, MongoReadStore, Query, ReadStore};
use tidelog_query::{Catalog, LiveViews, Views, ViewsOptions};
use tidelog_test_support::{Engine, Server, TcpProxy};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Long enough for any machine; no test waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(120);
const STREAMS: usize = 40;
const ACCOUNTS: usize = 7;

/// Both views have the same events: what was paid last, stream by stream, and what each account got from all of them.
struct Payments {
    name: &'static str,
    schema: Value,
    filter: EventFilter,
    folding: Folding,
}

impl Payments {
    fn view(name: &'static str, folding: Folding) -> Arc<dyn ViewDefinition> {
        let schema = json!({});
        let filter = EventFilter::Category("payment".to_owned());
        Arc::new(Self {
            name,
            schema,
            filter,
            folding,
        })
    }
}

fn payload(event: &RecordedEvent) -> Result<Map<String, Value>, DecodeError> {
    let payload = event.payload.decode();
    payload.map_err(|error| DecodeError::payload(&event.event_type, event.schema_version, error))
}

impl ViewDefinition for Payments {
    fn name(&self) -> &str {
        self.name
    }

    fn plural(&self) -> &str {
        match self.folding {
            Folding::FullState => "lasts",
            Folding::ReadAndFold => "accounts",
        }
    }

    fn schema(&self) -> &Value {
        &self.schema
    }

    fn fingerprint(&self) -> String {
        "1".to_owned()
    }

    fn filter(&self) -> &EventFilter {
        &self.filter
    }

    fn folding(&self) -> Folding {
        self.folding
    }

    fn keys(&self, event: &RecordedEvent) -> Result<Keys, DecodeError> {
        Ok(vec![match self.folding {
            Folding::FullState => event.stream.id().to_owned(),
            Folding::ReadAndFold => format!("account-{}", payload(event)?["to"]),
        }])
    }

    fn project(
        &self,
        before: Option<Map<String, Value>>,
        _: &str,
        event: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        let mut after = payload(event)?;
        if self.folding == Folding::ReadAndFold {
            let number = |map: &Map<String, Value>, name| map[name].as_u64().unwrap();
            let had = before.map_or(0, |before| number(&before, "amount"));
            after["amount"] = json!(had + number(&after, "amount"));
        }
        Ok(Some(after))
    }
}

/// A log in memory, and a process that keeps both views in a MongoDB.
struct Site {
    log: InMemoryEventStore,
    signal: CommitSignal,
    store: Arc<dyn ReadStore>,
    live: LiveViews,
    _running: DropGuard,
}

impl Site {
    async fn start(url: &str) -> Self {
        let partitions = Partitions::new(4).unwrap();
        let log = InMemoryEventStore::new(partitions);
        let signal = CommitSignal::new(partitions);
        let store = MongoReadStore::connect(url, &MongoOptions::default()).await;
        let store: Arc<dyn ReadStore> = Arc::new(store.unwrap());
        let reader: Arc<dyn LogReader> = Arc::new(log.clone());
        let bus = Arc::new(InProcessEventBus::new());
        let tail = Tail::new(
            partitions,
            bus.clone(),
            reader.clone(),
            Some(signal.clone()),
            TailOptions::default(),
        );
        let relay = Relay::new(
            partitions,
            reader.clone(),
            bus,
            Some(signal.clone()),
            RelayOptions::default(),
        );
        let catalog = Catalog::new(vec![
            Payments::view("last", Folding::FullState),
            Payments::view("account", Folding::ReadAndFold),
        ]);
        let owner = Uuid::now_v7().to_string();
        let options = ViewsOptions::default();
        let views = Views::new(
            catalog.unwrap(),
            store.clone(),
            reader,
            tail.clone(),
            owner,
            options,
        );
        let live = views.live();
        let stop = CancellationToken::new();
        tokio::spawn(relay.run(stop.clone()));
        let (tailing, keeping) = (stop.clone(), stop.clone());
        tokio::spawn(async move { tail.run(tailing).await });
        tokio::spawn(async move { views.run(keeping).await });
        Self {
            log,
            signal,
            store,
            live,
            _running: stop.drop_guard(),
        }
    }

    /// Appends `count` payments, of 1 each, from the `from`th on.
    async fn pay(&self, from: usize, count: usize) {
        for number in from..from + count {
            let payload = json!({"to": number % ACCOUNTS, "amount": 1, "number": number});
            let event = NewEvent {
                id: EventId::new(Uuid::now_v7()),
                event_type: "payment.made".into(),
                schema_version: 1,
                payload: Payload::of(&payload).unwrap(),
                metadata: Payload::of(&json!({})).unwrap(),
            };
            let stream = StreamId::new("payment", &format!("s{}", number % STREAMS)).unwrap();
            let append = Append::one(stream, ExpectedVersion::Any, vec![event]);
            let done = self.log.append(0, Arc::from([append])).await;
            let done = &done[0].as_ref().unwrap()[0];
            self.signal
                .committed([(done.partition, done.position.unwrap())]);
        }
    }

    /// How many events the views have together, as far as their subscriptions know.
    fn projected(&self) -> u64 {
        let all = self.live.all();
        let partitions = all.iter().flat_map(|status| status.partitions());
        partitions
            .map(|partition| partition.cursor.position.number())
            .sum()
    }

    async fn until_projected(&self, events: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.projected() < events {
            assert!(Instant::now() < deadline, "{:?}", self.live.states());
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until all `events` are projected into both views, and compares them with what the events say.
    async fn must_have(&self, events: usize) {
        self.until_projected(2 * u64::try_from(events).unwrap())
            .await;
        let last = self.documents("last").await;
        let found = last
            .into_iter()
            .map(|(id, (data, version))| (id, (data["number"].as_u64().unwrap(), version)))
            .collect::<BTreeMap<_, _>>();
        let mut expected = BTreeMap::new();
        for number in 0..events {
            let of_stream = expected
                .entry(format!("s{}", number % STREAMS))
                .or_insert((0, 0));
            *of_stream = (number as u64, of_stream.1 + 1);
        }
        assert_eq!(found, expected);
        let accounts = self.documents("account").await;
        let mut expected = BTreeMap::new();
        for number in 0..events {
            *expected
                .entry(format!("account-{}", number % ACCOUNTS))
                .or_insert(0) += 1;
        }
        let amount = |data: &Map<String, Value>| data["amount"].as_u64().unwrap();
        let found: BTreeMap<_, _> = accounts
            .into_iter()
            .map(|(id, (data, version))| {
                assert_eq!(amount(&data), version, "{id}");
                (id, version)
            })
            .collect();
        assert_eq!(found, expected);
    }

    async fn documents(&self, view: &str) -> BTreeMap<String, (Map<String, Value>, u64)> {
        let everything = Query {
            limit: 10_000,
            ..Query::default()
        };
        let deadline = Instant::now() + PATIENCE;
        let alias = loop {
            match self.store.load_alias(view).await.unwrap() {
                Some(alias) if alias.built => break alias,
                alias => assert!(Instant::now() < deadline, "{alias:?}"),
            }
            sleep(Duration::from_millis(2)).await;
        };
        let found = self.store.find(&alias.collection, &everything).await;
        found
            .unwrap()
            .into_iter()
            .map(|document| (document.id, (document.data, document.version.number())))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongod_that_is_killed_in_the_middle_of_projecting_leaves_no_gap_and_no_repeat() {
    let mut server = Server::start(Engine::MongoDb).await;
    let site = Site::start(server.url()).await;
    let mut paid = 0;
    for round in 1..=4_u64 {
        // Payments go on while it is killed.
        let pay = async {
            for _ in 0..40 {
                site.pay(paid, 25).await;
                paid += 25;
                sleep(Duration::from_millis(2)).await;
            }
        };
        let kill = async {
            site.until_projected((round - 1) * 2_000 + 300 * round)
                .await;
            server.kill();
        };
        tokio::join!(pay, kill);
        let all = 2 * u64::try_from(paid).unwrap();
        assert!(site.projected() < all, "it was not killed in the middle");
        server.restart().await;
        site.must_have(paid).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_whose_answer_is_lost_counts_once() {
    let server = Server::start(Engine::MongoDb).await;
    let proxy = TcpProxy::start(server.port()).await;
    let site = Site::start(&proxy.url(server.url())).await;
    site.pay(0, 500).await;
    site.must_have(500).await;
    for round in 1..=5 {
        // Only the view that counts has such ids.
        let lost = proxy.lose_answer_to(b"account-");
        site.pay(500 * round, 500).await;
        lost.await;
        site.must_have(500 * (round + 1)).await;
    }
}
