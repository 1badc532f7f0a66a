//! The states that a stream had, folded from its events by the program's own aggregate.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidelog_domain::{
    Decider, Lifecycle, Loading, RecordedEvent, State, StreamId, Version, causes,
};
use tidelog_http::Problem;
use tokio::sync::OwnedSemaphorePermit;

use super::{LogView, problem};

/// How many events of a stream are folded at most, where each state needs all events before it.
const MAX_FOLDED: u64 = 10_000;

/// How many events are read and folded at once.
const PAGE: u64 = 500;

/// The state of a stream at one of its versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StateEntry {
    /// After this event.
    pub(crate) version: u64,
    /// Whether it is `live` or has `ended`; missing where there is no state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lifecycle: Option<String>,
    /// The state as clients see it; missing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// From which version on there are no states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatesEnd {
    /// The first version without one.
    pub(crate) version: u64,
    /// Why.
    pub(crate) why: String,
}

/// What came of folding a stream.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Folded {
    /// The states that were wanted, by version.
    pub(super) states: BTreeMap<u64, StateEntry>,
    /// Where they end, if they do before the last that was wanted.
    pub(super) end: Option<StatesEnd>,
}

impl Folded {
    fn ending(version: u64, why: &str) -> Self {
        let why = why.to_owned();
        Self {
            end: Some(StatesEnd { version, why }),
            ..Self::default()
        }
    }

    /// The state at `version`; the one before the first event is empty.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn at(&self, version: u64) -> Result<Value, String> {
        if version == 0 {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        let entry = self.states.get(&version);
        if let Some(state) = entry.and_then(|entry| entry.state.clone()) {
            return Ok(state);
        }
        let own = entry.and_then(|entry| entry.why.clone());
        let end = self.end.as_ref().map(|end| {
            let StatesEnd { version, why } = end;
            format!("The states end before version {version}: {why}")
        });
        Err(own
            .or(end)
            .unwrap_or_else(|| "There is no state of it.".to_owned()))
    }
}

/// The states that `stream` had at the versions `wanted`.
///
/// # Errors
///
/// A [`Problem`]: the log cannot be read, or too many ask for states.
pub(super) async fn fold(
    view: &LogView,
    stream: &StreamId,
    wanted: BTreeSet<u64>,
) -> Result<Folded, Problem> {
    let Some(&last) = wanted.last() else {
        return Ok(Folded::default());
    };
    let mut all = view.deciders.iter();
    let Some(decider) = all.find(|own| own.category() == stream.category()) else {
        return Ok(Folded::ending(
            1,
            "The program has no aggregate of this category.",
        ));
    };
    let turn = view.folding_turn().await?;
    let (runs, too_many) = match decider.loading() {
        // Each event has all of it.
        Loading::LastEvent => (runs(&wanted), false),
        Loading::AllEvents => (vec![(1, last.min(MAX_FOLDED))], last > MAX_FOLDED),
    };
    let mut folding = Folding {
        decider: Arc::clone(decider),
        wanted,
        state: None,
        folded: Folded::default(),
        _turn: turn,
    };
    for (first, last) in runs {
        let mut after = first - 1;
        while after < last && folding.folded.end.is_none() {
            let limit = usize::try_from((last - after).min(PAGE)).unwrap_or(1);
            let read = view.log.read_stream(stream, Version::new(after), limit);
            let events = read.await.map_err(problem)?;
            let Some(end) = events.last() else { break };
            after = end.version.number();
            // It is the user's code that runs, for as long as it likes.
            let taking = tokio::task::spawn_blocking(move || folding.take(&events));
            folding = taking.await.map_err(|_| Problem::internal())?;
        }
    }
    let mut folded = folding.folded;
    if too_many && folded.end.is_none() {
        let why = format!("At most {MAX_FOLDED} events are folded.");
        let version = MAX_FOLDED + 1;
        folded.end = Some(StatesEnd { version, why });
    }
    Ok(folded)
}

/// The versions `wanted` as ranges without a gap.
fn runs(wanted: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &version in wanted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == version => *last = version,
            _ => runs.push((version, version)),
        }
    }
    runs
}

/// A stream that is being folded.
struct Folding {
    decider: Arc<dyn Decider>,
    wanted: BTreeSet<u64>,
    /// The state so far, where it is needed for the next.
    state: Option<State>,
    folded: Folded,
    /// Goes along to where the user's code runs: that goes on when nobody waits for it any more, and nobody else has his turn before
    /// it is done.
    _turn: OwnedSemaphorePermit,
}

impl Folding {
    /// The same after `events`, or as many of them as can be read.
    fn take(mut self, events: &[RecordedEvent]) -> Self {
        let needs_all = self.decider.loading() == Loading::AllEvents;
        for event in events {
            let version = event.version.number();
            let before = self.state.take();
            match self.evolve(before, event) {
                Ok((state, entry)) => {
                    self.state = needs_all.then_some(state);
                    self.folded
                        .states
                        .extend(entry.map(|entry| (version, entry)));
                }
                Err(why) if needs_all => {
                    self.folded.end = Some(StatesEnd { version, why });
                    return self;
                }
                Err(why) => {
                    let entry = StateEntry {
                        version,
                        lifecycle: None,
                        state: None,
                        why: Some(why),
                    };
                    self.folded.states.insert(version, entry);
                }
            }
        }
        self
    }

    /// The state after `event`, and as it is shown, where it is wanted.
    fn evolve(
        &self,
        before: Option<State>,
        event: &RecordedEvent,
    ) -> Result<(State, Option<StateEntry>), String> {
        let version = event.version.number();
        let evolved = guarded(|| {
            let before = before.unwrap_or_else(|| self.decider.initial());
            let (kind, shape) = (&event.event_type, event.schema_version);
            let state = self.decider.evolve(before, kind, shape, &event.payload)?;
            let shown = self.wanted.contains(&version);
            let shown = shown.then(|| self.decider.show(&state));
            Ok((state, shown))
        });
        let (state, shown) =
            evolved?.map_err(|error: tidelog_domain::DecodeError| causes(&error))?;
        let lifecycle = match state.lifecycle() {
            Lifecycle::Ended => "ended",
            Lifecycle::Missing | Lifecycle::Live => "live",
        };
        let entry = shown.map(|shown| StateEntry {
            version,
            lifecycle: Some(lifecycle.to_owned()),
            state: Some(shown),
            why: None,
        });
        Ok((state, entry))
    }
}

/// Runs code of a user's, whose panic is a sentence.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        "The aggregate panicked at this event; what it said is in the process' log.".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use serde_json::json;
    use tidelog_command::store::{EventStore, InMemoryEventStore};
    use tidelog_domain::{
        Append, CommandInput, CommandSpec, Context, DecodeError, EventDraft, EventId, EventShape,
        ExpectedVersion, NewEvent, Partitions, Payload, Refusal, Upcasters,
    };
    use uuid::Uuid;

    use super::*;

    /// The number whose event takes until `IS_OVER`.
    const SLOW: u64 = 17;

    static IS_OVER: AtomicBool = AtomicBool::new(false);

    /// Adds up numbers, and panics at 13; or, of the last event alone, has its number.
    struct Sum(Loading, Upcasters);

    impl Decider for Sum {
        fn category(&self) -> &str {
            "sum"
        }

        fn commands(&self) -> &[CommandSpec] {
            &[]
        }

        fn events(&self) -> Vec<EventShape> {
            Vec::new()
        }

        fn upcasters(&self) -> &Upcasters {
            &self.1
        }

        fn loading(&self) -> Loading {
            self.0
        }

        fn initial(&self) -> State {
            State::new(Lifecycle::Missing, 0_u64)
        }

        fn check(&self, _: &CommandInput) -> Result<(), Refusal> {
            Err(Refusal::UnknownCommand)
        }

        fn decide(
            &self,
            _: &State,
            _: &CommandInput,
            _: &Context,
        ) -> Result<Vec<EventDraft>, Refusal> {
            Err(Refusal::UnknownCommand)
        }

        fn evolve(
            &self,
            state: State,
            event_type: &str,
            schema_version: u32,
            payload: &Payload,
        ) -> Result<State, DecodeError> {
            let unreadable = |error| DecodeError::payload(event_type, schema_version, error);
            let number: u64 = payload.decode().map_err(unreadable)?;
            assert_ne!(number, 13, "an unlucky number");
            while number == SLOW && !IS_OVER.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let sum = state.get::<u64>().copied().unwrap_or_default() + number;
            Ok(State::new(Lifecycle::Live, sum))
        }

        fn show(&self, state: &State) -> Value {
            json!({"sum": state.get::<u64>()})
        }
    }

    /// A log with a stream of these payloads.
    async fn view(loading: Loading, payloads: &[&str]) -> (LogView, StreamId) {
        let log = InMemoryEventStore::new(Partitions::new(4).unwrap());
        let stream = StreamId::parse("sum/a").unwrap();
        let event = |payload: &&str| NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: "sum.added".into(),
            schema_version: 1,
            payload: Payload::from_stored(payload.as_bytes()),
            metadata: Payload::from_stored(b"{}"),
        };
        for page in payloads.chunks(100) {
            let events = page.iter().map(event).collect();
            let append = Append::one(stream.clone(), ExpectedVersion::Any, events);
            let mut appended = log.append(0, Arc::from([append])).await;
            appended.pop().unwrap().unwrap();
        }
        let decider: Arc<dyn Decider> = Arc::new(Sum(loading, Upcasters::new([], [])));
        (LogView::new("test", &[decider], Arc::new(log)), stream)
    }

    async fn folded(loading: Loading, payloads: &[&str], wanted: &[u64]) -> Folded {
        let (view, stream) = view(loading, payloads).await;
        let wanted = wanted.iter().copied().collect();
        fold(&view, &stream, wanted).await.unwrap()
    }

    /// The sums by version, `?` where there is none.
    fn sums(folded: &Folded) -> Vec<String> {
        let sum = |entry: &StateEntry| match &entry.state {
            Some(state) => format!("{}: {}", entry.version, state["sum"]),
            None => format!("{}: ?", entry.version),
        };
        folded.states.values().map(sum).collect()
    }

    #[tokio::test]
    async fn each_state_has_all_events_before_it() {
        let folded = folded(Loading::AllEvents, &["1", "2", "3", "4"], &[2, 4]).await;
        assert_eq!(sums(&folded), ["2: 3", "4: 10"]);
        assert_eq!(folded.end, None);
        assert_eq!(folded.at(0), Ok(json!({})));
        assert_eq!(folded.at(4), Ok(json!({"sum": 10})));
        assert!(folded.at(3).is_err());
    }

    #[tokio::test]
    async fn states_end_at_an_event_that_cannot_be_read() {
        for (bad, says) in [("\"x\"", "expected u64"), ("13", "panicked")] {
            let folded = folded(Loading::AllEvents, &["1", bad, "3"], &[1, 2, 3]).await;
            assert_eq!(sums(&folded), ["1: 1"]);
            assert!(folded.at(3).unwrap_err().contains("end before version 2"));
            let end = folded.end.unwrap();
            assert_eq!(end.version, 2);
            assert!(end.why.contains(says), "{}", end.why);
        }
    }

    #[tokio::test]
    async fn where_each_event_has_all_of_it_only_what_is_wanted_is_read_and_one_spoils_no_other() {
        let payloads = ["1", "\"x\"", "3", "13", "5"];
        let folded = folded(Loading::LastEvent, &payloads, &[2, 3, 5]).await;
        assert_eq!(sums(&folded), ["2: ?", "3: 3", "5: 5"]);
        assert_eq!(folded.end, None);
        assert!(folded.at(2).unwrap_err().contains("expected u64"));
    }

    #[tokio::test]
    async fn at_most_so_many_events_are_folded_and_the_program_has_to_know_the_category() {
        let payloads = vec!["1"; 10_002];
        let wanted = [10_000, 10_001];
        let folded = folded(Loading::AllEvents, &payloads, &wanted).await;
        assert_eq!(sums(&folded), ["10000: 10000"]);
        assert_eq!(folded.end.as_ref().unwrap().version, 10_001);
        let (view, _) = view(Loading::AllEvents, &[]).await;
        let other = StreamId::parse("other/a").unwrap();
        let folded = fold(&view, &other, BTreeSet::from([1])).await.unwrap();
        assert_eq!(folded.end.unwrap().version, 1);
    }

    #[tokio::test]
    async fn who_gave_up_has_his_turn_until_the_users_code_is_done() {
        let (view, stream) = view(Loading::AllEvents, &[&SLOW.to_string()]).await;
        let folding = fold(&view, &stream, BTreeSet::from([1]));
        let given_up = tokio::time::timeout(Duration::from_millis(50), folding).await;
        assert!(given_up.is_err());
        let turns = view.folds.available_permits();
        // Else the test would not end.
        IS_OVER.store(true, Ordering::SeqCst);
        assert_eq!(turns, 0);
        drop(view.folding_turn().await.unwrap());
    }

    #[test]
    fn versions_are_read_by_the_run() {
        let wanted = BTreeSet::from([1, 2, 3, 7, 9, 10]);
        assert_eq!(runs(&wanted), [(1, 3), (7, 7), (9, 10)]);
        assert!(runs(&BTreeSet::new()).is_empty());
    }
}
