//! Reactions to a program's own events.

use std::collections::BTreeMap;

use tidelog::prelude::Utc;
use tidelog::settings::Settings;
use tidelog::{Partition, ReactionState, Start};
use tidelog_command::store::InMemoryEventStore;
use tidelog_domain::Partitions;
use tidelog_eventbus::{LogReader, ParkedState, Pause, StateRecord, StateStore, restart};
use tidelog_test_support::shared;

use super::kit::{
    Memory, Remember, at_any_port, log, notes, on_servers, status, until_held, write,
};
use crate::services::Backends;
use crate::waiting::eventually;

const NOTES: usize = 20;
const VERSIONS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_event_is_reacted_to_in_order_on_mysql() {
    let backends = Backends::fresh().await;
    each_event_is_reacted_to_in_order(on_servers(&backends)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_event_is_reacted_to_in_order_on_mariadb() {
    let backends = Backends::fresh_on(shared::mariadb().await).await;
    each_event_is_reacted_to_in_order(on_servers(&backends)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_event_is_reacted_to_in_order_on_a_file() {
    let home = tempfile::tempdir().unwrap();
    let settings = at_any_port(Settings::on_file(home.path().join("notes.db")));
    each_event_is_reacted_to_in_order(settings).await;
}

/// Once each where nothing fails, also after a restart, which goes on where it was.
async fn each_event_is_reacted_to_in_order(settings: Settings) {
    let memory = Memory::default();
    let mut expected = BTreeMap::new();
    for life in 0..2 {
        let program = notes(memory.reaction())
            .start(settings.clone())
            .await
            .unwrap();
        for version in 1..=VERSIONS {
            let writing = (0..NOTES).map(|note| {
                let program = &program;
                async move { write(program, &note.to_string(), &version.to_string()).await }
            });
            futures_util::future::join_all(writing).await;
        }
        let versions = (1..=VERSIONS * (life + 1)).collect::<Vec<_>>();
        expected.extend((0..NOTES).map(|note| (note.to_string(), versions.clone())));
        let count = NOTES * versions.len();
        memory.has(count).await;
        assert_eq!(memory.versions(), expected);
        assert!(program.stop().await);
    }
    let mut ids: Vec<_> = memory.all().iter().map(|given| given.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(
        ids.len(),
        memory.all().len(),
        "each event has an id of its own"
    );
}

#[tokio::test]
async fn an_event_that_cannot_be_handled_parks_its_stream_alone() {
    let backends = Backends::fresh().await;
    let memory = Memory::default();
    let program = notes(memory.reaction());
    let program = program.start(on_servers(&backends)).await.unwrap();
    write(&program, "a", "1").await;
    write(&program, "b", "poison").await;
    for text in ["2", "3"] {
        write(&program, "b", text).await;
        for note in 0..NOTES {
            write(&program, &note.to_string(), text).await;
        }
    }
    memory.has(1 + 2 * NOTES).await;
    let log = log(&backends.database_url).await;
    let parked = eventually("the stream to be parked", async || {
        let states = log.load_states("remember").await.unwrap().into_iter();
        let parked =
            states.flat_map(|(.., record)| record.parked.iter().cloned().collect::<Vec<_>>());
        let parked: Vec<_> = parked.collect();
        match parked.as_slice() {
            [one] if one.state == ParkedState::Parked => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    });
    let parked = parked.await;
    assert_eq!(parked.sequence, "note/b");
    assert_eq!(parked.attempts, 3);
    assert!(
        parked.error.contains("as the note says"),
        "{}",
        parked.error
    );
    assert!(!memory.versions().contains_key("b"));
    assert!(program.stop().await);
}

#[tokio::test]
async fn a_new_reaction_begins_where_it_says_and_that_is_remembered() {
    let backends = Backends::fresh().await;
    let settings = on_servers(&backends);
    let (before, memory) = (Memory::default(), Memory::default());
    let program = notes(before.reaction())
        .start(settings.clone())
        .await
        .unwrap();
    write(&program, "a", "before").await;
    before.has(1).await;
    assert!(program.stop().await);
    let log = log(&backends.database_url).await;
    for text in ["first", "second"] {
        let program = notes(before.reaction()).reaction(Now(memory.clone()));
        let program = program.start(settings.clone()).await.unwrap();
        eventually("the start to be persisted", async || {
            let states = log.load_states("from-now").await.unwrap().len();
            (states == 16).then_some(()).ok_or(format!("{states}"))
        })
        .await;
        write(&program, "a", text).await;
        eventually("the event to be reacted to", async || {
            let last = memory.all().last().map(|given| given.text.clone());
            (last.as_deref() == Some(text))
                .then_some(())
                .ok_or(format!("{last:?}"))
        })
        .await;
        assert!(program.stop().await);
    }
    let texts: Vec<_> = memory.all().into_iter().map(|given| given.text).collect();
    assert_eq!(texts, ["first", "second"]);
}

#[tokio::test]
async fn a_reaction_is_held_after_a_new_history_until_somebody_says_where_it_goes_on() {
    let backends = Backends::fresh().await;
    let memory = Memory::default();
    let program = notes(memory.reaction());
    let program = program.start(on_servers(&backends)).await.unwrap();
    write(&program, "a", "1").await;
    memory.has(1).await;
    let log = log(&backends.database_url).await;

    // While it runs, and again when it is started.
    log.renew_history().await.unwrap();
    until_held(&program).await;
    write(&program, "a", "2").await;
    assert!(program.stop().await);
    let program = notes(memory.reaction());
    let program = program.start(on_servers(&backends)).await.unwrap();
    until_held(&program).await;
    write(&program, "a", "3").await;
    // The views go on, by themselves, so the event has come by.
    let read = eventually("the view to have it", async || {
        let read = program.client().get("note", "a").await;
        let read = read.map_err(|error| error.to_string())?.unwrap_or_default();
        (read["text"] == "3").then_some(()).ok_or(read.to_string())
    });
    read.await;
    memory.has(1).await;

    restart("remember", &*log, &*log, &Start::Now)
        .await
        .unwrap();
    eventually("the reaction to run", async || {
        let status = status(&program);
        let follows = matches!(status.state, ReactionState::Running(_));
        follows.then_some(()).ok_or(format!("{status:?}"))
    })
    .await;
    write(&program, "a", "4").await;
    memory.has(2).await;
    assert_eq!(memory.versions()["a"], [1, 4]);

    // Also one that runs goes on where it is told to.
    let beginning = restart("remember", &*log, &*log, &Start::Beginning);
    beginning.await.unwrap();
    memory.has(6).await;
    assert_eq!(memory.versions()["a"], [1, 4, 1, 2, 3, 4]);
    assert!(program.stop().await);
}

#[tokio::test]
async fn a_restart_takes_a_partition_from_its_owner_and_leaves_it_paused() {
    let log = InMemoryEventStore::default();
    let history = log.identity().await.unwrap().history;
    let pause = Pause {
        reason: "for the night".to_owned(),
        since: Utc::now(),
    };
    let taken = StateRecord::at_start(history)
        .taken_by("a")
        .with_pause(Some(pause.clone()));
    let partition = Partition::new(3);
    let written = log.compare_and_set_state("remember", partition, 0, &taken);
    assert!(written.await.unwrap());
    restart("remember", &log, &log, &Start::Now).await.unwrap();
    let states = log.load_states("remember").await.unwrap();
    assert_eq!(states.len(), usize::from(Partitions::DEFAULT.count()));
    let (_, revision, record) = &states[3];
    assert_eq!((*revision, &record.pause), (2, &Some(pause)));
    assert_eq!(record.owner, None);
    assert!(record.epoch > taken.epoch);
}

/// The same as [`Remember`], from now on.
struct Now(Memory);

impl tidelog::Reaction for Now {
    const NAME: &'static str = "from-now";
    type Event = <Remember as tidelog::Reaction>::Event;

    fn start(&self) -> Start {
        Start::Now
    }

    async fn react(&self, e: &tidelog::Recorded<Self::Event>) -> Result<(), tidelog::Failure> {
        self.0.reaction().react(e).await
    }
}
