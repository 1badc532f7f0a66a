//! Random interleavings of commands, keys, retries, rivals and faults, over two services on one log, against what must hold
//! whatever happens: I1 (acknowledged once, failed never, in doubt at most once), I2 (dense versions and positions), I5 (a key
//! gets one answer).

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use tidelog_domain::{Cursor, RecordedEvent, StreamId};
use tidelog_eventbus::LogReader;
use uuid::Uuid;

use super::{CommandError, CommandKey, CommandOutcome, CommandRequest, CommandService};
use crate::appender::AppenderSettings;
use crate::fixtures::*;
use crate::store::AppendError;

/// How often a client sends a command whose fate it does not know.
const PATIENCE: usize = 100;

/// A command of a client.
#[derive(Clone, Debug)]
struct Step {
    service: usize,
    account: u8,
    kind: Kind,
    key: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Open,
    /// Of 0 cents it changes nothing.
    Deposit(i64),
    Withdraw(i64),
}

/// What happens to a batch.
#[derive(Clone, Debug)]
enum Trouble {
    None,
    /// It is committed, and the answer lost.
    LostAnswer,
    /// It is in doubt, and never happened.
    LostBatch,
    Unavailable,
    /// Somebody else was faster.
    Rival(u8),
}

/// Commands that are sent at once, and what happens to the batches meanwhile.
#[derive(Clone, Debug)]
struct Round {
    steps: Vec<Step>,
    troubles: Vec<Trouble>,
}

/// What became of a step: each time that it was sent, by the command's id, and the last answer.
struct Sent {
    step: Step,
    attempts: Vec<Uuid>,
    result: Result<CommandOutcome, CommandError>,
}

fn steps() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        2 => Just(Kind::Open),
        4 => (0..3_i64).prop_map(Kind::Deposit),
        3 => (1..3_i64).prop_map(Kind::Withdraw),
    ];
    (
        0..2_usize,
        0..3_u8,
        kind,
        prop::option::weighted(0.7, 0..4_u8),
    )
        .prop_map(|(service, account, kind, key)| Step {
            service,
            account,
            kind,
            key,
        })
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let trouble = prop_oneof![
        4 => Just(Trouble::None),
        2 => Just(Trouble::LostAnswer),
        1 => Just(Trouble::LostBatch),
        1 => Just(Trouble::Unavailable),
        2 => (0..3_u8).prop_map(Trouble::Rival),
    ];
    let round = (vec(steps(), 1..8), vec(trouble, 0..4));
    vec(
        round.prop_map(|(steps, troubles)| Round { steps, troubles }),
        1..8,
    )
}

impl Step {
    fn request(&self) -> CommandRequest {
        let id = self.account.to_string();
        let request = match self.kind {
            Kind::Open => open(&id),
            Kind::Deposit(cents) => deposit(&id, cents),
            Kind::Withdraw(cents) => withdraw(&id, cents),
        };
        match self.key {
            Some(key) => request.with_key(CommandKey::new(key.to_string()).unwrap()),
            None => request,
        }
    }

    /// The key in its scope, as far as it matters here.
    fn scoped(&self) -> Option<(String, u8)> {
        Some((self.request().input.name, self.key?))
    }

    /// Sends it, with a key until its fate is known.
    async fn send(self, services: &[Arc<CommandService>]) -> Sent {
        let mut attempts = Vec::new();
        loop {
            let request = self.request();
            attempts.push(request.command_id);
            let result = services[self.service].execute(request).await;
            let unknown = matches!(
                result,
                Err(CommandError::InDoubt(_)
                    | CommandError::Unavailable(_)
                    | CommandError::InProgress
                    | CommandError::Conflict { .. })
            );
            if self.key.is_none() || !unknown {
                return Sent {
                    step: self,
                    attempts,
                    result,
                };
            }
            assert!(attempts.len() < PATIENCE, "{self:?}: {result:?}");
            tokio::task::yield_now().await;
        }
    }
}

impl Trouble {
    fn fault(&self) -> Fault {
        match self {
            Self::None => Fault::None,
            Self::LostAnswer => Fault::LostAnswer,
            Self::LostBatch => Fault::Append(Box::new(|| AppendError::InDoubt("lost".into()))),
            Self::Unavailable => {
                Fault::Append(Box::new(|| AppendError::Unavailable("gone".into())))
            }
            Self::Rival(account) => {
                let moved = event("account.moved", &json!({"Moved": {"cents": 1}}));
                let stream = StreamId::new("account", &account.to_string()).unwrap();
                Fault::Rival(moved, stream)
            }
        }
    }
}

/// Runs the rounds, and then sends each command with a key again.
async fn run(rounds: Vec<Round>) {
    let store = WatchedStore::new();
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(service_on(Arc::clone(&store) as _, AppenderSettings::default()).await);
    }
    let mut sent = Vec::new();
    for round in rounds {
        store.inject(round.troubles.iter().map(Trouble::fault));
        let steps = round.steps.into_iter();
        sent.extend(join_all(steps.map(|step| step.send(&services))).await);
    }
    store.forget_faults();
    let keyed: Vec<Step> = sent.iter().map(|sent| sent.step.clone()).collect();
    for step in keyed.into_iter().filter(|step| step.key.is_some()) {
        sent.push(step.send(&services).await);
    }
    let log = whole_log(&store).await;
    assert_acknowledged_once(&sent, &log);
    assert_one_answer_a_key(&sent, &log);
    assert_answers_are_true(&sent, &log);
}

/// The events of the log, after a look at their positions and versions.
async fn whole_log(store: &WatchedStore) -> Vec<RecordedEvent> {
    let mut log = Vec::new();
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    for partition in PARTITIONS.iter() {
        let events = store
            .read(partition, Cursor::START, usize::MAX)
            .await
            .unwrap();
        for (position, event) in (1..).zip(&events) {
            assert_eq!(event.position.number(), position);
            let version = versions.entry(event.stream.clone()).or_default();
            *version += 1;
            assert_eq!(event.version.number(), *version);
        }
        log.extend(events);
    }
    log
}

/// How many events the attempts of `sent` have in the log.
fn events_of(sent: &Sent, log: &[RecordedEvent]) -> usize {
    let ours = |event: &&RecordedEvent| {
        let metadata: serde_json::Value = event.metadata.decode().unwrap();
        let cause = metadata["causation_id"].as_str();
        cause.is_some_and(|cause| sent.attempts.contains(&Uuid::try_parse(cause).unwrap()))
    };
    log.iter().filter(ours).count()
}

/// I1, of each command without a key.
fn assert_acknowledged_once(sent: &[Sent], log: &[RecordedEvent]) {
    for sent in sent.iter().filter(|sent| sent.step.key.is_none()) {
        let events = events_of(sent, log);
        match &sent.result {
            Ok(outcome) => assert_eq!(events, usize::from(outcome.appended), "{:?}", sent.step),
            Err(CommandError::InDoubt(_)) => assert!(events <= 1, "{:?}", sent.step),
            Err(error) => assert_eq!(events, 0, "{:?}: {error}", sent.step),
        }
    }
}

/// I5, and I1 of all commands of a key together: one request, one answer, and its events once.
fn assert_one_answer_a_key(sent: &[Sent], log: &[RecordedEvent]) {
    let mut by_key: HashMap<_, Vec<&Sent>> = HashMap::new();
    for sent in sent {
        if let Some(key) = sent.step.scoped() {
            by_key.entry(key).or_default().push(sent);
        }
    }
    for (key, sent) in by_key {
        let done: Vec<_> = sent
            .iter()
            .filter_map(|sent| Some((&sent.step, sent.result.as_ref().ok()?)))
            .collect();
        let events: usize = sent.iter().map(|sent| events_of(sent, log)).sum();
        let Some((step, first)) = done.first() else {
            assert_eq!(events, 0, "{key:?} was never acknowledged");
            continue;
        };
        assert_eq!(events, usize::from(first.appended), "{key:?}");
        for (other, outcome) in &done {
            assert_eq!(
                (other.kind, other.account),
                (step.kind, step.account),
                "{key:?}"
            );
            let again = CommandOutcome {
                replayed: first.replayed,
                ..(*outcome).clone()
            };
            assert_eq!(again, **first, "{key:?}");
        }
        let fresh = done.iter().filter(|(_, outcome)| !outcome.replayed);
        assert!(fresh.count() <= 1, "{key:?} was done twice");
    }
}

/// Each answer has the state that the log has at its version.
fn assert_answers_are_true(sent: &[Sent], log: &[RecordedEvent]) {
    for outcome in sent.iter().filter_map(|sent| sent.result.as_ref().ok()) {
        let cents: i64 = log
            .iter()
            .filter(|event| event.stream.id() == outcome.id && event.version <= outcome.version)
            .filter_map(|event| {
                let payload: serde_json::Value = event.payload.decode().unwrap();
                payload["Moved"]["cents"].as_i64()
            })
            .sum();
        assert_eq!(outcome.data["cents"], cents);
        assert!(cents >= 0, "an account is never overdrawn");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_key_is_done_once_and_nothing_is_lost(rounds in rounds()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(rounds));
    }
}
