//! Customers who fill baskets all the time, and look into them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Answer, Client};

/// How many there are.
const CUSTOMERS: usize = 4;

/// How many baskets each has.
const BASKETS: usize = 5;

/// How long each waits after a write: a replay that is held back, so that it can be seen, gets on faster than they do.
const PAUSE: Duration = Duration::from_millis(50);

/// After so many writes a customer looks whether the last one is to be seen.
const LOOK: usize = 10;

/// What was acknowledged: the event's type and cents, by basket and version.
pub(super) type Acknowledged = BTreeMap<(String, i64), (&'static str, u64)>;

/// Where the shop is. A new process takes the place of an old one while customers are at work.
pub(super) struct Shop {
    pub(super) commands: Client,
    pub(super) queries: Client,
}

/// Customers at work.
pub(super) struct Customers {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    shop: Mutex<Arc<Shop>>,
    acknowledged: Mutex<Acknowledged>,
    count: AtomicUsize,
    stop: AtomicBool,
}

impl Shared {
    /// The shop, for one request: it is kept until its answer.
    fn shop(&self) -> Arc<Shop> {
        Arc::clone(&self.shop.lock().unwrap())
    }

    /// Keeps what was acknowledged by `answer`.
    fn keep(&self, answer: &Answer, id: &str, event: &'static str, cents: u64) {
        let version = answer.json()["data"]["version"].as_i64().unwrap();
        let key = (id.to_owned(), version);
        let before = self
            .acknowledged
            .lock()
            .unwrap()
            .insert(key, (event, cents));
        assert_eq!(before, None, "{id}@{version} was given to two who wrote");
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    async fn open(&self, id: &str) {
        let shop = self.shop();
        let basket = json!({"id": id});
        let opened = shop.commands.post("/basket/open", &basket).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        self.keep(&opened, id, "basket.opened", 0);
    }

    async fn add(&self, id: &str, cents: u64) -> Answer {
        let path = format!("/basket/{id}/add");
        let shop = self.shop();
        let item = json!({"cents": cents});
        let added = shop.commands.post(&path, &item).await;
        assert_eq!(added.status, 200, "{added:?}");
        self.keep(&added, id, "basket.added", cents);
        added
    }
}

impl Customers {
    pub(super) fn begin(shop: Shop) -> Self {
        let shared = Arc::new(Shared {
            shop: Mutex::new(Arc::new(shop)),
            acknowledged: Mutex::default(),
            count: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for customer in 0..CUSTOMERS {
            tasks.spawn(buy(customer, Arc::clone(&shared)));
        }
        Self { tasks, shared }
    }

    /// Sends all that come from now on to other processes, and waits until nobody is on the way to the old ones, as who balances loads does. (What
    /// comes just when a process that stops closes a connection has no answer.)
    pub(super) async fn go_to(&self, shop: Shop) {
        let old = std::mem::replace(&mut *self.shared.shop.lock().unwrap(), Arc::new(shop));
        while Arc::strong_count(&old) > 1 {
            sleep(PAUSE).await;
        }
    }

    /// Waits until so many more writes were acknowledged. Fails when one was not.
    pub(super) async fn buy(&mut self, more: usize) {
        let count = || self.shared.count.load(Ordering::Relaxed);
        let until = count() + more;
        while count() < until {
            if let Some(Err(ended)) = self.tasks.try_join_next() {
                std::panic::resume_unwind(ended.into_panic());
            }
            sleep(PAUSE).await;
        }
    }

    /// One more customer, whose basket is opened and has this in it.
    pub(super) async fn fill(&self, id: &str, cents: u64) {
        self.shared.open(id).await;
        self.shared.add(id, cents).await;
    }

    /// Puts more into a basket.
    pub(super) async fn add(&self, id: &str, cents: u64) -> Answer {
        self.shared.add(id, cents).await
    }

    /// Keeps a voucher that was redeemed, for which this is the answer.
    pub(super) fn redeemed(&self, answer: &Answer, id: &str, cents: u64) {
        assert_eq!(answer.status, 200, "{answer:?}");
        self.shared.keep(answer, id, "basket.redeemed", cents);
    }

    /// Ends them, and gives all that was acknowledged. Fails when a write was not, or was not seen.
    pub(super) async fn end(&mut self) -> Acknowledged {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        std::mem::take(&mut self.shared.acknowledged.lock().unwrap())
    }
}

async fn buy(customer: usize, shared: Arc<Shared>) {
    let basket = |number: usize| format!("basket-{customer}-{number}");
    for number in 0..BASKETS {
        shared.open(&basket(number)).await;
    }
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let id = basket(number % BASKETS);
        let added = shared.add(&id, 1 + number as u64 % 500).await;
        if number % LOOK == 0 {
            let path = format!("/total/{id}");
            let seen = shared.shop().queries.get_after(&path, added.token()).await;
            assert_eq!(seen.status, 200, "{seen:?}");
        }
        sleep(PAUSE).await;
    }
}
