//! Following another program by its feed.

use sqlx::Executor;
use tidelog::settings::Settings;
use tidelog::{App, PartitionState, ReactionState, Running, Start};
use tidelog_eventbus::{FeedLogReader, restart};

use super::kit::{Memory, at_any_port, log, notes, on_servers, status, until_held, write};
use crate::log::connect;
use crate::services::{Backends, free_address};
use crate::waiting::eventually;

/// The program with the notes, always at the same address.
struct Notes {
    backends: Backends,
    address: String,
}

impl Notes {
    async fn new() -> Self {
        Self {
            backends: Backends::fresh().await,
            address: free_address(),
        }
    }

    async fn start(&self) -> Running {
        let settings = Settings {
            command_addr: self.address.clone(),
            ..on_servers(&self.backends)
        };
        let program = notes(Memory::default().reaction());
        program.start(settings).await.unwrap()
    }

    fn feed(&self) -> String {
        format!("http://{}/events", self.address)
    }
}

/// The program that follows the notes, on a file of its own.
struct Follower {
    home: tempfile::TempDir,
    memory: Memory,
    feed: String,
}

impl Follower {
    fn of(notes: &Notes) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            memory: Memory::default(),
            feed: notes.feed(),
        }
    }

    async fn start(&self) -> Running {
        let settings = Settings::on_file(self.home.path().join("reader.db"));
        let app = App::new("reader").follow("notes", &self.feed, self.memory.reaction());
        app.start(at_any_port(settings)).await.unwrap()
    }
}

async fn until_unreachable(follower: &Running) -> String {
    eventually("the follower to say that it reaches nobody", async || {
        let status = status(follower);
        status.unreachable.clone().ok_or(format!("{status:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_programs_events_are_reacted_to_whichever_of_the_two_is_restarted() {
    let notes = Notes::new().await;
    let follower = Follower::of(&notes);
    let memory = &follower.memory;
    let reader = follower.start().await;
    assert_eq!(status(&reader).name, "remember@notes");
    until_unreachable(&reader).await;

    let program = notes.start().await;
    for text in ["1", "2", "3"] {
        for note in 0..20 {
            write(&program, &note.to_string(), text).await;
        }
    }
    memory.has(60).await;
    let expected = (0..20).map(|note| (note.to_string(), vec![1, 2, 3]));
    assert_eq!(memory.versions(), expected.collect());
    assert_eq!(status(&reader).unreachable, None);

    // The other program goes away and comes back.
    assert!(program.stop().await);
    until_unreachable(&reader).await;
    let program = notes.start().await;
    write(&program, "0", "4").await;
    memory.has(61).await;

    // The follower does.
    assert!(reader.stop().await);
    write(&program, "0", "5").await;
    let reader = follower.start().await;
    memory.has(62).await;
    assert_eq!(memory.versions()["0"], [1, 2, 3, 4, 5]);
    assert!(reader.stop().await);
    assert!(program.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_is_held_when_the_other_log_has_a_new_history() {
    let notes = Notes::new().await;
    let follower = Follower::of(&notes);
    let memory = &follower.memory;
    let program = notes.start().await;
    let reader = follower.start().await;
    write(&program, "a", "1").await;
    memory.has(1).await;
    let log = log(&notes.backends.database_url).await;
    log.renew_history().await.unwrap();
    until_held(&reader).await;
    write(&program, "a", "2").await;
    assert!(reader.stop().await);
    let reader = follower.start().await;
    until_held(&reader).await;
    memory.has(1).await;
    assert!(reader.stop().await);

    // By hand, as `restart remember@notes --from beginning` does.
    let path = follower.home.path().join("reader.db");
    let options = tidelog_command::store::SqliteOptions::new(path);
    let states = tidelog_command::store::SqliteEventStore::open(options);
    let states = states.await.unwrap();
    let feed = FeedLogReader::new("notes", notes.feed().parse().unwrap()).unwrap();
    let restarted = restart("remember@notes", &states, &feed, &Start::Beginning).await;
    restarted.unwrap();
    drop(states);
    let reader = follower.start().await;
    memory.has(3).await;
    assert_eq!(memory.versions()["a"], [1, 1, 2]);
    assert!(matches!(status(&reader).state, ReactionState::Running(_)));
    assert!(reader.stop().await);
    assert!(program.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_went_back_in_time_is_noticed_through_its_feed() {
    let notes = Notes::new().await;
    let follower = Follower::of(&notes);
    let program = notes.start().await;
    let reader = follower.start().await;
    for text in ["1", "2"] {
        write(&program, "a", text).await;
    }
    follower.memory.has(2).await;
    let mut connection = connect(&notes.backends.database_url).await;
    for sql in [
        "UPDATE log_head JOIN events USING (partition_no) SET next_position=2 WHERE stream='note/a'",
        "DELETE FROM events WHERE stream='note/a' AND version=2",
    ] {
        connection.execute(sql).await.unwrap();
    }
    let has = |state: &PartitionState| matches!(state, PartitionState::Diverged { .. });
    eventually("the follower to notice", async || {
        match status(&reader).state {
            ReactionState::Running(status)
                if status.partitions().iter().any(|one| has(&one.state)) =>
            {
                Ok(())
            }
            state => Err(format!("{state:?}")),
        }
    })
    .await;
    follower.memory.has(2).await;
    assert!(reader.stop().await);
    assert!(program.stop().await);
}

#[tokio::test]
async fn the_feed_of_another_program_than_the_one_that_is_followed_is_not_read() {
    let notes = Notes::new().await;
    let program = notes.start().await;
    write(&program, "a", "1").await;
    let memory = Memory::default();
    let app = App::new("reader").follow("blog", &notes.feed(), memory.reaction());
    let reader = app.start(at_any_port(Settings::in_memory())).await.unwrap();
    let reason = until_unreachable(&reader).await;
    assert!(
        reason.contains("notes") && reason.contains("blog"),
        "{reason}"
    );
    assert!(memory.all().is_empty());
    assert!(reader.stop().await);
    assert!(program.stop().await);
}
