//! A program whose reaction remembers what it was given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::json;
use tidelog::prelude::*;
use tidelog::settings::Settings;
use tidelog::{CommandId, CommandRequest, EventId, ReactionState, ReactionStatus, Running, Start};
use tidelog_command::store::{EventStore, MySqlEventStore, MySqlOptions};
use tidelog_test_support::grants::administrator;

use crate::services::Backends;
use crate::waiting::{BOUND, eventually};

/// A note.
#[entity]
pub(crate) struct Note {
    pub(crate) text: String,
}

/// An event that a reaction was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) id: EventId,
    pub(crate) text: String,
}

/// What a reaction was given, over all its lives, in the order in which it was done with it.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<Given>>>);

impl Memory {
    pub(crate) fn all(&self) -> Vec<Given> {
        self.0.lock().unwrap().clone()
    }

    /// The versions of each note, in the order in which they came.
    pub(crate) fn versions(&self) -> BTreeMap<String, Vec<u64>> {
        let mut versions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for given in self.all() {
            versions
                .entry(given.stream)
                .or_default()
                .push(given.version);
        }
        versions
    }

    /// Waits until so many events have come, and makes sure that it is not one more.
    pub(crate) async fn has(&self, count: usize) {
        eventually("the reaction to be given all events", async || {
            let has = self.all().len();
            (has >= count)
                .then_some(())
                .ok_or(format!("{has} of {count}"))
        })
        .await;
        assert_eq!(self.all().len(), count);
    }
}

/// Remembers each event, but for those that say "poison": they cannot be handled.
pub(crate) struct Remember {
    pub(crate) memory: Memory,
    pub(crate) start: Start,
}

impl Reaction for Remember {
    const NAME: &'static str = "remember";
    type Event = EntityEvent<Note>;

    fn start(&self) -> Start {
        self.start.clone()
    }

    fn policy(&self) -> FailurePolicy {
        FailurePolicy {
            first_delay: Duration::from_millis(20),
            attempts: 3,
            ..FailurePolicy::default()
        }
    }

    async fn react(&self, e: &Recorded<Self::Event>) -> Result<(), Failure> {
        // Somebody else's turn, so that the order is not by chance.
        tokio::task::yield_now().await;
        let text = e.event.after().map_or("", |note| &note.text).to_owned();
        if text == "poison" {
            return Err(Failure::permanent("as the note says"));
        }
        self.memory.0.lock().unwrap().push(Given {
            stream: e.stream_id.clone(),
            version: e.version.number(),
            id: e.id,
            text,
        });
        Ok(())
    }
}

impl Memory {
    /// The reaction that writes this memory.
    pub(crate) fn reaction(&self) -> Remember {
        Remember {
            memory: self.clone(),
            start: Start::Beginning,
        }
    }
}

/// The program with the notes, and a reaction to them.
pub(crate) fn notes(reaction: Remember) -> App {
    App::new("notes").entity::<Note>().reaction(reaction)
}

/// Copies each note, once, under the same correlation id.
pub(crate) struct Copy {
    client: Arc<OnceLock<tidelog::Client>>,
    given: Arc<AtomicUsize>,
    /// What the copies are called.
    names: &'static [&'static str],
}

impl Reaction for Copy {
    const NAME: &'static str = "copy";
    type Event = EntityEvent<Note>;

    async fn react(&self, e: &Recorded<Self::Event>) -> Result<(), Failure> {
        self.given.fetch_add(1, Ordering::Relaxed);
        let EntityEvent::Created(note) = &e.event else {
            return Ok(());
        };
        if e.stream_id.contains('-') {
            return Ok(());
        }
        let client = self
            .client
            .get()
            .ok_or_else(|| Failure::transient("not yet"))?;
        for name in self.names {
            let id = format!("{name}-{}", e.stream_id);
            let copy = CommandRequest::new("note", "create", json!({"text": note.text})).to(id);
            let copy = copy
                .once(CommandId::caused_by(e.id, name))
                .with_metadata(e.metadata_for_commands());
            let copied = client.execute(copy).await;
            copied.map_err(|error| Failure::transient(error.to_string()))?;
        }
        Ok(())
    }
}

/// The program with the notes, which copies each, and how often its reaction was given an event.
pub(crate) async fn copying(settings: Settings) -> (Running, Arc<AtomicUsize>) {
    copying_as(&["copy"], settings).await
}

/// The same with several copies of each, called so.
pub(crate) async fn copying_as(
    names: &'static [&'static str],
    settings: Settings,
) -> (Running, Arc<AtomicUsize>) {
    let (client, given) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let reaction = Copy {
        client: client.clone(),
        given: given.clone(),
        names,
    };
    let app = App::new("notes").entity::<Note>().reaction(reaction);
    let running = app.start(settings).await.unwrap();
    assert!(client.set(running.client()).is_ok());
    (running, given)
}

/// All roles in this process, on these servers.
pub(crate) fn on_servers(backends: &Backends) -> Settings {
    at_any_port(Settings {
        database_url: Some(backends.database_url.clone()),
        bus_url: Some(backends.bus_url.clone()),
        mongodb_url: Some(backends.mongodb_url.clone()),
        ..Settings::default()
    })
}

/// The same settings, listening wherever there is room.
pub(crate) fn at_any_port(settings: Settings) -> Settings {
    let any = || "127.0.0.1:0".to_owned();
    Settings {
        command_addr: any(),
        query_addr: any(),
        admin_addr: any(),
        // A stop is to end in order, however slow the machine is.
        shutdown_grace: BOUND,
        ..settings
    }
}

/// Writes the next version of the note `id`.
pub(crate) async fn write(program: &Running, id: &str, text: &str) {
    let client = program.client();
    let body = json!({"text": text});
    let patch = CommandRequest::new("note", "patch", body.clone()).to(id);
    if client.execute(patch).await.is_err() {
        let create = CommandRequest::new("note", "create", body).to(id);
        client.execute(create).await.unwrap();
    }
}

/// What can be seen of the one reaction.
pub(crate) fn status(program: &Running) -> ReactionStatus {
    let mut reactions = program.reactions();
    assert_eq!(reactions.len(), 1);
    reactions.remove(0)
}

/// Waits until the one reaction is held.
pub(crate) async fn until_held(program: &Running) {
    eventually("the reaction to be held", async || {
        let status = status(program);
        match status.state {
            ReactionState::Held(_) => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    })
    .await;
}

/// The log on MySQL, beside the program, as its administrator has it: one who may give it a new history.
pub(crate) async fn log(url: &str) -> Arc<dyn EventStore> {
    let options = MySqlOptions::from_url(&administrator(url)).unwrap();
    Arc::new(MySqlEventStore::connect(options).await.unwrap())
}
