//! The program: tallies, and views of them that show what was lost, done twice or done out of order.
//!
//! A projection is pure, and here it is not: it fails at random, or at what is poison, as the environment says. So the failures
//! take the whole way of a real one, which is a bug in somebody's code.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::MySqlPool;
use tidelog::prelude::*;
use tidelog_domain::{DecodeError, Event, RecordedEvent};

/// The amount of an event that the views cannot handle which [`POISONED`] names.
pub(crate) const POISON: u64 = 666_666;

/// Says of each view, by name, that poison is poison to it.
pub(super) const POISONED: &str = "TIDELOG_CHAOS_POISONED";

/// How many of a thousand tries to handle an event fail.
pub(super) const FAILING: &str = "TIDELOG_CHAOS_FAILING";

/// What the dice are thrown by.
pub(super) const SEED: &str = "TIDELOG_CHAOS_SEED";

#[aggregate]
struct Tally {
    amount: u64,
}

#[commands]
enum TallyCommand {
    #[create]
    Begin {
        groups: Vec<String>,
    },
    Add {
        amount: u64,
        groups: Vec<String>,
    },
}

#[events("tally")]
enum TallyEvent {
    Begun { groups: Vec<String> },
    Added { amount: u64, groups: Vec<String> },
}

#[rejections]
enum TallyRejection {
    /// Nothing is to be added.
    Nothing,
}

impl Aggregate for Tally {
    type Command = TallyCommand;
    type Event = TallyEvent;
    type Rejection = TallyRejection;

    fn decide(&self, command: TallyCommand, _: &Context) -> Decision<Self> {
        Ok(vec![match command {
            TallyCommand::Begin { groups } => TallyEvent::Begun { groups },
            TallyCommand::Add { amount: 0, .. } => return Err(TallyRejection::Nothing),
            TallyCommand::Add { amount, groups } => TallyEvent::Added { amount, groups },
        }])
    }

    fn evolve(&mut self, event: &TallyEvent) {
        self.amount += event.amount();
    }
}

impl TallyEvent {
    fn amount(&self) -> u64 {
        match self {
            Self::Begun { .. } => 0,
            Self::Added { amount, .. } => *amount,
        }
    }

    fn groups(&self) -> &[String] {
        match self {
            Self::Begun { groups } | Self::Added { groups, .. } => groups,
        }
    }
}

/// What one tally comes to. An event that is poison cannot be decoded for it.
#[view]
struct Sheet {
    count: u64,
    sum: u64,
    last: u64,
    /// How often an event was not the one after the last.
    wrong: u64,
}

/// The events as the view of one tally reads them.
struct OfOne(TallyEvent);

impl EventSet for OfOne {
    const NAMES: &'static [&'static str] = <TallyEvent as Event>::TYPES;

    fn read(event: &RecordedEvent) -> Result<Self, DecodeError> {
        let read = <TallyEvent as EventSet>::read(event)?;
        if is_poison("sheet", &read) {
            let source = serde_json::from_str::<u64>("poison").unwrap_err();
            let version = event.schema_version;
            return Err(DecodeError::payload(&event.event_type, version, source));
        }
        Ok(Self(read))
    }
}

impl Projection for Sheet {
    const SINGLE_STREAM: bool = true;
    type Event = OfOne;

    fn keys(e: &Recorded<OfOne>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<OfOne>) -> Option<Self> {
        throw_dice();
        let mut view = view.unwrap_or_default();
        let version = e.version.number();
        view.wrong += u64::from(version != view.last + 1);
        view.last = version;
        view.count += 1;
        view.sum += e.event.0.amount();
        Some(view)
    }
}

/// What all tallies of a group come to: they are in several partitions.
#[view]
struct Club {
    count: u64,
    sum: u64,
    /// The last version of each tally.
    last: BTreeMap<String, u64>,
    /// How often an event came after a later one of its tally.
    wrong: u64,
}

impl Projection for Club {
    type Event = TallyEvent;

    fn keys(e: &Recorded<TallyEvent>) -> Keys {
        e.event.groups().to_vec()
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<TallyEvent>) -> Option<Self> {
        throw_dice();
        assert!(!is_poison("club", &e.event), "this is poison");
        let mut view = view.unwrap_or_default();
        let last = view.last.entry(e.stream_id.clone()).or_default();
        view.wrong += u64::from(e.version.number() <= *last);
        *last = e.version.number();
        view.count += 1;
        view.sum += e.event.amount();
        Some(view)
    }
}

/// Writes down each event that it is given, in the order in which it is done with them.
struct Witness {
    seen: MySqlPool,
}

impl Reaction for Witness {
    const NAME: &'static str = "witness";
    type Event = TallyEvent;

    fn policy(&self) -> FailurePolicy {
        FailurePolicy {
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(2),
            ..FailurePolicy::default()
        }
    }

    async fn react(&self, e: &Recorded<TallyEvent>) -> Result<(), Failure> {
        throw_dice();
        let written = sqlx::query(
            "INSERT INTO seen (event_id, stream, version, at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))",
        )
        .bind(e.id.to_string().replace('-', ""))
        .bind(&e.stream_id)
        .bind(e.version.number())
        .execute(&self.seen)
        .await;
        written.map_err(Failure::transient)?;
        // It may also fail when all is done: then it is done again.
        throw_dice();
        Ok(())
    }
}

/// The program, with a reaction that writes into the table `seen` of the database at `seen`.
pub(super) fn app(seen: &str) -> App {
    let seen = seen.parse::<sqlx::mysql::MySqlConnectOptions>().unwrap();
    let seen = seen.ssl_mode(sqlx::mysql::MySqlSslMode::Disabled);
    let seen = sqlx::mysql::MySqlPoolOptions::new()
        .max_connections(4)
        .connect_lazy_with(seen);
    App::new("chaos")
        .aggregate::<Tally>()
        .projection::<Sheet>()
        .projection::<Club>()
        .reaction(Witness { seen })
}

fn is_poison(view: &str, event: &TallyEvent) -> bool {
    static POISONED_VIEWS: LazyLock<String> =
        LazyLock::new(|| std::env::var(POISONED).unwrap_or_default());
    event.amount() == POISON && POISONED_VIEWS.split(',').any(|poisoned| poisoned == view)
}

/// Fails, now and then.
fn throw_dice() {
    static DICE: LazyLock<Mutex<(u32, StdRng)>> = LazyLock::new(|| {
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        let seed = number(SEED).unwrap_or_default();
        Mutex::new((
            number(FAILING).unwrap_or_default(),
            StdRng::seed_from_u64(seed.into()),
        ))
    });
    let fails = {
        let (failing, random) = &mut *DICE.lock().unwrap();
        random.random_range(0..1_000) < *failing
    };
    assert!(!fails, "the dice say no");
}
