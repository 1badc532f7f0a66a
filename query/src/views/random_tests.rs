//! Whatever happens to the processes that keep the views, and to their store: each view equals the fold of the log in the end.

use std::time::Duration;

use proptest::prelude::*;
use tidelog_command::store::EventStore;
use tokio::runtime::Builder;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::replay::Only;
use crate::testing::{Change, FaultyStore, Process, System, authors, posts};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Posts are written, or deleted.
    Write(Vec<(u8, Change)>),
    /// Time passes.
    Wait(u8),
    /// The process ends as it should, and another one starts.
    Restart,
    /// The process is killed at its next call but so many, and another one starts.
    Die(u8),
    /// The process stands still at its next call but so many, another one starts, and the first one wakes beside it.
    Hang(u8),
    /// The store cannot be reached for so long.
    CutOff(u8),
    /// The store dies after so many documents of the next bulk.
    Tear(u8),
    /// A view is replayed; that dies at its next call but so many, unless it is done before.
    Replay(bool, Option<u8>),
    /// One document of a view is replayed, as above.
    ReplayOne(bool, u8, Option<u8>),
    /// The log has a new history.
    NewHistory,
}

fn change() -> impl Strategy<Value = (u8, Change)> {
    let author = prop_oneof![Just("ann"), Just("bob"), Just("cleo")];
    let change = prop_oneof![
        6 => ("[a-c]", author).prop_map(|(title, author)| Change::Write(title, author.to_owned())),
        1 => Just(Change::Delete),
    ];
    (any::<u8>(), change)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(change(), 1..25).prop_map(Step::Write),
        2 => any::<u8>().prop_map(Step::Wait),
        1 => Just(Step::Restart),
        2 => (0..80_u8).prop_map(Step::Die),
        1 => (0..80_u8).prop_map(Step::Hang),
        1 => any::<u8>().prop_map(Step::CutOff),
        2 => (0..5_u8).prop_map(Step::Tear),
        2 => (any::<bool>(), prop::option::of(0..60_u8)).prop_map(|(posts, dies)| Step::Replay(posts, dies)),
        2 => (any::<bool>(), any::<u8>(), prop::option::of(0..12_u8))
            .prop_map(|(posts, which, dies)| Step::ReplayOne(posts, which, dies)),
        1 => Just(Step::NewHistory),
    ]
}

/// A log, its views, and the process that keeps them.
struct Run {
    system: System,
    /// As the process reaches it.
    store: FaultyStore,
    process: Process,
    /// Processes that stood still, with their stores.
    hung: Vec<(FaultyStore, Process)>,
}

impl Run {
    fn on(store: FaultyStore) -> Self {
        let system = System::on(store);
        let (store, process) = Self::start(&system);
        Self {
            system,
            store,
            process,
            hung: Vec::new(),
        }
    }

    fn start(system: &System) -> (FaultyStore, Process) {
        let store = system.store.elsewhere();
        let views = vec![posts(), authors()];
        let process = system.start_with(views, System::options(), store.clone());
        (store, process)
    }

    /// Starts another process, and gives the one before.
    fn replace(&mut self) -> (FaultyStore, Process) {
        let (store, process) = Self::start(&self.system);
        (
            std::mem::replace(&mut self.store, store),
            std::mem::replace(&mut self.process, process),
        )
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write(changes) => {
                for (post, change) in changes {
                    let _ = self.system.log.change(&format!("p{post}"), &change).await;
                }
            }
            Step::Wait(ms) => sleep(Duration::from_millis(ms.into())).await,
            Step::Restart => {
                let (_, process) = self.replace();
                process.stop().await;
            }
            Step::Die(calls) => {
                self.store.freeze_after(calls.into());
                self.store.frozen().await;
                let (_, process) = self.replace();
                process.kill();
            }
            Step::Hang(calls) => {
                self.store.freeze_after(calls.into());
                self.store.frozen().await;
                let hung = self.replace();
                self.hung.push(hung);
            }
            Step::CutOff(ms) => {
                self.store.cut_off(true);
                sleep(Duration::from_millis(ms.into())).await;
                self.store.cut_off(false);
            }
            Step::Tear(documents) => self.store.tear_next_write(documents.into()),
            Step::Replay(of_posts, dies) => self.replay(of_posts, None, dies).await,
            Step::ReplayOne(of_posts, which, dies) => {
                let key = if of_posts {
                    format!("p{which}")
                } else {
                    ["ann", "bob", "cleo"][usize::from(which) % 3].to_owned()
                };
                self.replay(of_posts, Some(Only::Document(key)), dies).await;
            }
            Step::NewHistory => {
                self.system.log.store.renew_history().await.unwrap();
            }
        }
    }

    /// It may be turned down: the view is not built yet, or another replay runs or has died a moment ago.
    async fn replay(&self, of_posts: bool, only: Option<Only>, dies: Option<u8>) {
        let view = if of_posts { posts() } else { authors() };
        let store = self.system.store.elsewhere();
        if let Some(calls) = dies {
            store.freeze_after(calls.into());
        }
        let replay = self.system.replay_on(store.clone());
        let never = CancellationToken::new();
        let replaying = async {
            match only {
                None => drop(replay.run(&view, &|_| {}, &never).await),
                Some(only) => drop(replay.run_only(&view, &only, &|_| {}, &never).await),
            }
        };
        tokio::select! {
            () = replaying => {}
            () = store.frozen() => {}
        }
    }

    /// Wakes whoever stood still, and looks what the views have.
    async fn finish(mut self) {
        for (store, _) in &self.hung {
            store.thaw();
        }
        self.take(Step::Write(vec![(
            0,
            Change::Write("last".to_owned(), "ann".to_owned()),
        )]))
        .await;
        self.system.settled(&*posts()).await;
        self.system.settled(&*authors()).await;
        for (_, process) in self.hung {
            process.stop().await;
        }
        self.process.stop().await;
        self.system.settled(&*posts()).await;
        self.system.settled(&*authors()).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_in_memory_equal_the_fold_of_the_log_whatever_happens(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut run = Run::on(FaultyStore::default());
            for step in steps {
                run.take(step).await;
            }
            run.finish().await;
        });
    }
}

#[cfg(feature = "sqlite")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_in_sqlite_equal_the_fold_of_the_log_whatever_happens(steps in prop::collection::vec(step(), 1..12)) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("tidelog.db");
            let store = crate::store::SqliteReadStore::open(&file).await.unwrap();
            let mut run = Run::on(FaultyStore::around(std::sync::Arc::new(store)));
            for step in steps {
                run.take(step).await;
            }
            run.finish().await;
        });
    }
}

#[cfg(feature = "mongodb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_in_mongodb_equal_the_fold_of_the_log_whatever_happens(steps in prop::collection::vec(step(), 1..12)) {
        use crate::store::{MongoOptions, MongoReadStore};
        use tidelog_test_support::{fresh_mongodb_database, shared};

        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            let url = fresh_mongodb_database(shared::mongodb().await);
            let store = MongoReadStore::connect(&url, &MongoOptions::default()).await.unwrap();
            let mut run = Run::on(FaultyStore::around(std::sync::Arc::new(store)));
            for step in steps {
                run.take(step).await;
            }
            run.finish().await;
        });
    }
}
