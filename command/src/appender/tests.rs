//! Group commit, on the store in memory: order, confirmation, conflicts, bounds, faults.

mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tidelog_domain::{
    Context, EventDraft, Lifecycle, Metadata, Refusal, State, StreamId, TypedDecider, Version,
};
use tidelog_eventbus::{CommitSignal, LogReader};
use uuid::Uuid;

use super::*;
use crate::fixtures::*;
use crate::handling::{CommandRequest, CommandService};
use crate::store::AppendError;

async fn service(store: &Arc<WatchedStore>) -> Arc<CommandService> {
    service_on(Arc::clone(store) as _, AppenderSettings::default()).await
}

/// Runs commands at once, and gives their results in order.
async fn at_once(
    service: &Arc<CommandService>,
    requests: impl IntoIterator<Item = CommandRequest>,
) -> Vec<Result<crate::handling::CommandOutcome, CommandError>> {
    join_all(requests.into_iter().map(|request| service.execute(request))).await
}

/// Starts a command, and waits until its batch is with the store, which holds it up.
async fn start_one(
    store: &Arc<WatchedStore>,
    service: &Arc<CommandService>,
    request: CommandRequest,
) -> tokio::task::JoinHandle<Result<crate::handling::CommandOutcome, CommandError>> {
    let before = store.batches().len();
    store.hold_up();
    let service = Arc::clone(service);
    let running = tokio::spawn(async move { service.execute(request).await });
    until(|| store.batches().len() > before).await;
    running
}

/// Waits for a condition that is about to come true. (The bound is for a test that is broken.)
async fn until(condition: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "it never came true"
        );
        tokio::task::yield_now().await;
    }
}

fn versions(results: &[Result<crate::handling::CommandOutcome, CommandError>]) -> Vec<u64> {
    results
        .iter()
        .map(|result| result.as_ref().unwrap().version.number())
        .collect()
}

#[tokio::test]
async fn commands_that_wait_together_are_committed_together() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let first = start_one(&store, &service, create("first")).await;
    let waiting = at_once(&service, (0..100).map(|n| create(&format!("p{n}"))));
    let release = async {
        until(|| service.waiting() == 100).await;
        store.let_go();
    };
    let (results, ()) = tokio::join!(waiting, release);
    assert!(results.iter().all(Result::is_ok));
    first.await.unwrap().unwrap();
    assert_eq!(store.batches(), [1, 100]);
}

#[tokio::test]
async fn a_hot_aggregate_moves_at_the_rate_of_the_batches() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("hot")).await.unwrap();
    let patches = (0..256).map(|n| retitle("hot", &format!("title {n}")));
    let results = at_once(&service, patches).await;
    assert_eq!(versions(&results), (2..=257).collect::<Vec<_>>());
    let events = store.events("post/hot").await;
    assert_eq!(events.len(), 257);
    assert!(store.batches().len() <= 4, "{:?}", store.batches());
    // Each was decided on the result of the one before it.
    for (n, event) in events.iter().skip(2).enumerate() {
        let payload: serde_json::Value = event.payload.decode().unwrap();
        assert_eq!(payload["before"]["title"], format!("title {n}"));
    }
}

#[tokio::test]
async fn what_the_log_already_says_is_not_appended_again() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let created = service.execute(create("1")).await.unwrap();
    let same = service.execute(retitle("1", "a")).await.unwrap();
    assert!(created.appended && !same.appended);
    assert_eq!((same.version, &same.data), (Version::new(1), &a_post()));
    assert_eq!(same.token, created.token);
    assert_eq!(store.size().await, 1);
    // Decided on a cached state, so confirmed by a batch of its own.
    assert_eq!(store.batches(), [1, 1]);
}

#[tokio::test]
async fn a_command_that_changes_nothing_gets_the_position_of_its_predecessor_in_the_batch() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let results = at_once(
        &service,
        [create("1"), retitle("1", "b"), retitle("1", "b")],
    )
    .await;
    let [_, changed, same] = &results[..] else {
        unreachable!()
    };
    let (changed, same) = (changed.as_ref().unwrap(), same.as_ref().unwrap());
    assert_eq!(store.batches(), [3]);
    assert!(changed.appended && !same.appended);
    assert_eq!(changed.token, same.token);
    assert_eq!(changed.token.positions[0].1.number(), 2);
}

#[tokio::test]
async fn a_command_that_changes_nothing_on_an_old_state_is_decided_on_the_new_one() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("1")).await.unwrap();
    store.rival("post/1", retitled("b")).await;
    // On the cached state this would change nothing.
    let back = service.execute(retitle("1", "a")).await.unwrap();
    assert!(back.appended);
    assert_eq!(back.version, Version::new(3));
}

#[tokio::test]
async fn a_rejection_on_an_old_state_is_decided_on_the_new_one() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(open("1")).await.unwrap();
    let other = service_on(Arc::clone(&store) as _, AppenderSettings::default()).await;
    other.execute(deposit("1", 10)).await.unwrap();
    let withdrawn = service.execute(withdraw("1", 10)).await.unwrap();
    assert_eq!(withdrawn.version, Version::new(3));
    let refused = service.execute(withdraw("1", 1)).await.unwrap_err();
    let CommandError::Refused { refusal, .. } = refused else {
        unreachable!("{refused:?}")
    };
    assert!(matches!(refusal, Refusal::Rejected { code, .. } if code == "insufficient-funds"));
}

#[tokio::test]
async fn what_was_just_read_from_the_log_needs_no_second_look() {
    let store = WatchedStore::new();
    service(&store).await.execute(create("1")).await.unwrap();
    let fresh = service(&store).await;
    assert!(!fresh.execute(retitle("1", "a")).await.unwrap().appended);
    assert_eq!((store.reads(), store.batches()), (vec![1], vec![1]));
}

#[tokio::test]
async fn the_streams_of_a_batch_are_read_together() {
    let store = WatchedStore::new();
    let ids: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let writer = service(&store).await;
    at_once(&writer, ids.iter().map(|id| create(id))).await;
    at_once(&writer, ids.iter().map(|id| open(id))).await;
    let fresh = service(&store).await;
    let results = at_once(
        &fresh,
        ids.iter().flat_map(|id| [retitle(id, "b"), deposit(id, 1)]),
    )
    .await;
    assert!(versions(&results).iter().all(|version| *version == 2));
    assert_eq!(store.reads(), [100]);
}

#[tokio::test]
async fn a_stream_that_is_longer_than_one_read_is_read_to_its_end() {
    let store = WatchedStore::new();
    store
        .rival("account/1", event("account.opened", &json!("Opened")))
        .await;
    let moved = || event("account.moved", &json!({"Moved": {"cents": 1}}));
    let many = (0..20_000).map(|_| moved()).collect();
    let append = tidelog_domain::Append::one(
        StreamId::parse("account/1").unwrap(),
        tidelog_domain::ExpectedVersion::Any,
        many,
    );
    store.log.append(0, Arc::new([append])).await[0]
        .as_ref()
        .unwrap();
    let done = service(&store).await.execute(withdraw("1", 20_000)).await;
    assert_eq!(done.unwrap().data, json!({"cents": 0}));
    assert_eq!(store.reads(), [1, 1]);
}

#[tokio::test]
async fn a_conflict_is_decided_again_with_all_that_rested_on_it() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("1")).await.unwrap();
    let stream = StreamId::parse("post/1").unwrap();
    store.inject([Fault::Rival(retitled("theirs"), stream)]);
    let patches = (0..10).map(|n| retitle("1", &format!("title {n}")));
    let results = at_once(&service, patches).await;
    assert_eq!(versions(&results), (3..=12).collect::<Vec<_>>());
    let events = store.events("post/1").await;
    let payload: serde_json::Value = events[2].payload.decode().unwrap();
    assert_eq!(payload["before"]["title"], "theirs");
    // The create, the batch that met the rival, and the same again.
    assert_eq!(store.batches(), [1, 10, 10]);
}

#[tokio::test]
async fn a_command_that_meets_a_conflict_each_time_is_given_up() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("1")).await.unwrap();
    let stream = StreamId::parse("post/1").unwrap();
    store.inject((0..100).map(|n| Fault::Rival(retitled(&n.to_string()), stream.clone())));
    let error = service.execute(retitle("1", "mine")).await.unwrap_err();
    assert!(
        matches!(&error, CommandError::Conflict { attempts, .. } if *attempts == MAX_ATTEMPTS),
        "{error:?}"
    );
    assert_eq!(store.batches().len(), 1 + MAX_ATTEMPTS as usize);
    assert_eq!(store.size().await, 1 + u64::from(MAX_ATTEMPTS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_appenders_on_one_log_lose_no_update() {
    let store = WatchedStore::new();
    let services = [service(&store).await, service(&store).await];
    for n in 0..10 {
        services[0].execute(open(&n.to_string())).await.unwrap();
    }
    let clients = (0..32).map(|client| {
        let service = Arc::clone(&services[client % 2]);
        tokio::spawn(async move {
            let mut done = 0;
            for n in 0..40 {
                let id = ((client + n) % 10).to_string();
                match service.execute(deposit(&id, 1)).await {
                    Ok(_) => done += 1,
                    Err(error) => {
                        assert!(matches!(error, CommandError::Conflict { .. }), "{error:?}")
                    }
                }
            }
            done
        })
    });
    let done: i64 = join_all(clients)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    let mut total = 0;
    for n in 0..10 {
        let id = n.to_string();
        let state = services[0].execute(deposit(&id, 0)).await.unwrap();
        total += state.data["cents"].as_i64().unwrap();
        let events = store.events(&format!("account/{n}")).await;
        let numbers: Vec<u64> = events.iter().map(|event| event.version.number()).collect();
        assert_eq!(numbers, (1..=state.version.number()).collect::<Vec<_>>());
    }
    assert_eq!(total, done);
}

#[tokio::test]
async fn a_command_for_a_version_fails_at_any_other_and_is_not_decided_again() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("1")).await.unwrap();
    let done = service.execute(retitle("1", "b").at(Version::new(1))).await;
    assert_eq!(done.unwrap().version, Version::new(2));
    let late = service.execute(retitle("1", "c").at(Version::new(1))).await;
    let actual_is = |error: &CommandError, version| matches!(error, CommandError::PreconditionFailed { actual, .. } if actual.number() == version);
    assert!(actual_is(&late.unwrap_err(), 2));
    // Right on the cached state, wrong in the log.
    let stream = StreamId::parse("post/1").unwrap();
    store.inject([Fault::Rival(retitled("theirs"), stream)]);
    let batches = store.batches().len();
    let late = service.execute(retitle("1", "c").at(Version::new(2))).await;
    assert!(actual_is(&late.unwrap_err(), 3));
    assert_eq!(store.batches().len(), batches + 1);
    // Wrong on the cached state, right in the log.
    service.execute(retitle("1", "d")).await.unwrap();
    store.rival("post/1", retitled("theirs again")).await;
    let done = service.execute(retitle("1", "e").at(Version::new(5))).await;
    assert_eq!(done.unwrap().version, Version::new(6));
}

#[tokio::test]
async fn an_id_is_never_used_again() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let results = at_once(
        &service,
        [create("1"), create("1"), delete("1"), create("1")],
    )
    .await;
    let refusal = |n: usize| match results[n].as_ref().unwrap_err() {
        CommandError::Refused { refusal, .. } => refusal,
        other => unreachable!("{other:?}"),
    };
    assert!(matches!(refusal(1), Refusal::AlreadyExists));
    assert!(matches!(refusal(3), Refusal::AlreadyExists));
    assert_eq!(store.size().await, 2);
    let fresh = service_on(Arc::clone(&store) as _, AppenderSettings::default()).await;
    for request in [
        create("1"),
        retitle("1", "b"),
        delete("1"),
        retitle("2", "b"),
    ] {
        assert!(matches!(
            fresh.execute(request).await,
            Err(CommandError::Refused { .. })
        ));
    }
    assert_eq!(store.size().await, 2);
}

#[tokio::test]
async fn one_bad_command_of_a_batch_harms_no_other() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(open("1")).await.unwrap();
    store
        .rival("account/2", event("account.strange", &json!({})))
        .await;
    let note = |bytes| CommandRequest::new("account", "note", json!({"bytes": bytes})).to("1");
    let broken = CommandRequest::new("account", "break", json!({})).to("1");
    let first = start_one(&store, &service, deposit("1", 1)).await;
    let requests = [
        deposit("1", 1),
        note(600_000),
        broken,
        deposit("2", 1),
        deposit("1", 1),
    ];
    let release = async {
        until(|| service.waiting() == 5).await;
        store.let_go();
    };
    let (results, ()) = tokio::join!(at_once(&service, requests), release);
    first.await.unwrap().unwrap();
    assert_eq!(results[0].as_ref().unwrap().version, Version::new(3));
    assert!(matches!(results[1], Err(CommandError::TooLarge { .. })));
    assert!(matches!(results[2], Err(CommandError::Defect { .. })));
    let strange = results[3].as_ref().unwrap_err().to_string();
    let at = &store.events("account/2").await[0];
    let at = format!("{}-{}", at.partition, at.position);
    assert_eq!(
        strange,
        format!("account.strange, version 1 of account/2, at {at}, cannot be read")
    );
    assert_eq!(results[4].as_ref().unwrap().data, json!({"cents": 3}));
}

#[tokio::test]
async fn what_the_store_says_of_a_batch_its_commands_are_told() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("1")).await.unwrap();
    store.inject([
        Fault::Append(Box::new(|| AppendError::Unavailable("gone".into()))),
        Fault::Append(Box::new(|| AppendError::InDoubt("cut off".into()))),
        Fault::Append(Box::new(|| AppendError::Diverged)),
        Fault::Panic,
    ]);
    let mut errors = Vec::new();
    for _ in 0..4 {
        errors.push(service.execute(retitle("1", "b")).await.unwrap_err());
    }
    assert!(matches!(errors[0], CommandError::Unavailable(_)));
    assert!(matches!(errors[1], CommandError::InDoubt(_)));
    assert!(matches!(errors[2], CommandError::Diverged));
    assert!(matches!(errors[3], CommandError::InDoubt(_)));
    // The lane goes on.
    assert!(service.execute(retitle("1", "b")).await.unwrap().appended);
}

#[tokio::test]
async fn a_token_names_the_new_history_once_it_is_told() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let old = service.execute(create("1")).await.unwrap().token.history;
    let new = store.log.renew_history().await.unwrap();
    service.history_is(new);
    let token = service.execute(retitle("1", "b")).await.unwrap().token;
    assert_ne!(old, new);
    assert_eq!(token.history, new);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_back() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let running = start_one(&store, &service, create("1")).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    store.let_go();
    assert!(service.close(Duration::from_secs(60)).await);
    assert_eq!(store.size().await, 1);
}

#[tokio::test]
async fn a_full_queue_is_said_at_once() {
    let store = WatchedStore::new();
    let settings = AppenderSettings {
        queue_max_commands: 2,
        ..AppenderSettings::default()
    };
    let service = service_on(Arc::clone(&store) as _, settings).await;
    let running = start_one(&store, &service, create("0")).await;
    let mut waiting = Box::pin(at_once(&service, ["1", "2"].map(create)));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let refused = service.execute(create("3")).await;
    assert!(matches!(refused, Err(CommandError::Overloaded)));
    store.let_go();
    assert!(waiting.await.iter().all(Result::is_ok));
    running.await.unwrap().unwrap();
    assert_eq!(store.size().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waited_too_long_is_not_run() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let running = start_one(&store, &service, create("0")).await;
    let mut late = Box::pin(service.execute(create("1")));
    assert!(futures_util::poll!(&mut late).is_pending());
    let timeout = Duration::from_millis(AppenderSettings::default().queue_timeout_ms);
    tokio::time::advance(timeout + Duration::from_millis(1)).await;
    store.let_go();
    running.await.unwrap().unwrap();
    assert!(matches!(late.await, Err(CommandError::Overloaded)));
    assert_eq!(store.size().await, 1);
}

#[tokio::test]
async fn commands_hold_a_bounded_number_of_bytes_while_they_wait() {
    let store = WatchedStore::new();
    let settings = AppenderSettings {
        queue_max_bytes: 2_000,
        ..AppenderSettings::default()
    };
    let service = service_on(Arc::clone(&store) as _, settings).await;
    let large = CommandRequest::new("post", "create", {
        let mut body = a_post();
        body["content"] = json!("x".repeat(2_000));
        body
    });
    assert!(matches!(
        service.execute(large).await,
        Err(CommandError::Overloaded)
    ));
    service.execute(create("1")).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes() {
    let store = WatchedStore::new();
    let settings = AppenderSettings {
        batch_max_bytes: 250_000,
        ..AppenderSettings::default()
    };
    let service = service_on(Arc::clone(&store) as _, settings).await;
    service.execute(open("1")).await.unwrap();
    let note = || CommandRequest::new("account", "note", json!({"bytes": 100_000})).to("1");
    let results = at_once(&service, (0..7).map(|_| note())).await;
    assert_eq!(versions(&results), (2..=8).collect::<Vec<_>>());
    assert_eq!(store.batches(), [1, 3, 3, 1]);
}

#[tokio::test]
async fn closing_finishes_what_waits_and_takes_no_more() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let first = start_one(&store, &service, create("0")).await;
    let waiting = at_once(&service, (1..=20).map(|n| create(&n.to_string())));
    let close = async {
        until(|| service.waiting() == 20).await;
        assert!(!service.close(Duration::ZERO).await, "the first is held up");
        store.let_go();
        assert!(service.close(Duration::from_secs(60)).await);
        service.execute(create("late")).await.unwrap_err()
    };
    let (results, late) = tokio::join!(waiting, close);
    first.await.unwrap().unwrap();
    assert!(results.iter().all(Result::is_ok));
    assert!(matches!(late, CommandError::Closing));
    assert_eq!(store.size().await, 21);
}

#[tokio::test]
async fn each_commit_is_signalled_with_the_heads() {
    let store = WatchedStore::new();
    let identity = store.identity().await.unwrap();
    let signal = CommitSignal::new(identity.partitions);
    let mut changed = signal.subscribe();
    let service = CommandService::new(
        [post()],
        Arc::clone(&store) as _,
        identity,
        signal.clone(),
        AppenderSettings::default(),
    );
    let done = service.unwrap().execute(create("1")).await.unwrap();
    changed.changed().await.unwrap();
    let (partition, position) = done.token.positions[0];
    assert_eq!(signal.head(partition), position);
}

/// Moves cents between two accounts.
struct Transfer(i64);

impl Decide for Transfer {
    fn decide(&self, states: &[&State], _: &Context) -> Result<Vec<Vec<EventDraft>>, Refusal> {
        let balance = |n: usize| states[n].get::<Account>().unwrap().cents;
        if balance(0) < self.0 {
            return Err(Refusal::Rejected {
                code: "insufficient-funds".to_owned(),
                detail: String::new(),
            });
        }
        let moved = |cents: i64| EventDraft {
            event_type: "account.moved".into(),
            schema_version: 1,
            payload: tidelog_domain::Payload::of(&json!({"Moved": {"cents": cents}})).unwrap(),
        };
        Ok(vec![vec![moved(-self.0)], vec![moved(self.0)]])
    }
}

#[tokio::test]
async fn a_command_over_two_streams_is_all_or_nothing() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    at_once(&service, [open("a"), open("b"), deposit("a", 5)]).await;
    let appender = Appender::start(
        Arc::clone(&store) as _,
        PARTITIONS,
        CommitSignal::new(PARTITIONS),
        AppenderSettings::default(),
    );
    let transfer = |cents| {
        let targets = ["account/a", "account/b"].map(|stream| Target {
            stream: StreamId::parse(stream).unwrap(),
            decider: Arc::new(TypedDecider::<Account>::new().unwrap()),
            required: Lifecycle::Live,
            precondition: Precondition::None,
        });
        appender.submit(Work {
            command_id: Uuid::now_v7(),
            metadata: Metadata::default(),
            targets: targets.into(),
            key: None,
            decide: Box::new(Transfer(cents)),
            size: 0,
        })
    };
    let (first, second) = tokio::join!(transfer(4), transfer(4));
    assert!(matches!(second, Err(CommandError::Refused { .. })));
    let cents: Vec<i64> = first
        .unwrap()
        .streams
        .iter()
        .map(|s| s.state.get::<Account>().unwrap().cents)
        .collect();
    assert_eq!(cents, [1, 4]);
    // A rival at the second stream turns down both writes; then both happen.
    let rival = event("account.moved", &json!({"Moved": {"cents": 10}}));
    store.inject([Fault::Rival(rival, StreamId::parse("account/b").unwrap())]);
    transfer(1).await.unwrap();
    assert_eq!(store.events("account/a").await.len(), 4);
    assert_eq!(store.events("account/b").await.len(), 4);
}

/// Opens an account in the name of whoever asks, and says what it was told.
struct Introduced;

impl Decide for Introduced {
    fn decide(&self, _: &[&State], context: &Context) -> Result<Vec<Vec<EventDraft>>, Refusal> {
        let metadata = context.metadata();
        let told = json!({"Noted": {"text": format!(
            "{:?} for {:?}, {}, {:?}, caused by {:?}",
            context.actor(),
            context.tenant(),
            metadata.correlation_id,
            metadata.traceparent,
            metadata.causation_id == Some(context.command_id()),
        )}});
        Ok(vec![vec![EventDraft {
            event_type: "account.noted".into(),
            schema_version: 1,
            payload: tidelog_domain::Payload::of(&told).unwrap(),
        }]])
    }
}

#[tokio::test]
async fn who_asks_and_why_is_known_to_the_decision_and_recorded_with_the_event() {
    let store = WatchedStore::new();
    let appender = Appender::start(
        Arc::clone(&store) as _,
        PARTITIONS,
        CommitSignal::new(PARTITIONS),
        AppenderSettings::default(),
    );
    let metadata = Metadata {
        correlation_id: "order-7".to_owned(),
        actor: Some("ann".to_owned()),
        tenant: Some("acme".to_owned()),
        traceparent: Some("00-1-2-01".to_owned()),
        ..Metadata::default()
    };
    let command_id = Uuid::now_v7();
    let target = Target {
        stream: StreamId::parse("account/a").unwrap(),
        decider: Arc::new(TypedDecider::<Account>::new().unwrap()),
        required: Lifecycle::Missing,
        precondition: Precondition::None,
    };
    let done = appender.submit(Work {
        command_id,
        metadata: metadata.clone(),
        targets: vec![target],
        decide: Box::new(Introduced),
        key: None,
        size: 0,
    });
    done.await.unwrap();
    let event = &store.events("account/a").await[0];
    let recorded = Metadata {
        causation_id: Some(command_id),
        ..metadata
    };
    assert_eq!(event.metadata().unwrap(), recorded);
    let payload: serde_json::Value = event.payload.decode().unwrap();
    assert_eq!(
        payload["Noted"]["text"],
        r#"Some("ann") for Some("acme"), order-7, Some("00-1-2-01"), caused by true"#
    );
}

#[tokio::test]
async fn a_command_that_brings_no_correlation_is_correlated_by_its_own_id() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    let ours = Metadata {
        actor: Some("ann".to_owned()),
        ..Metadata::default()
    };
    let request = create("1").with_metadata(ours);
    let command_id = request.command_id;
    service.execute(request).await.unwrap();
    let metadata = store.events("post/1").await[0].metadata().unwrap();
    assert_eq!(metadata.correlation_id, command_id.to_string());
    assert_eq!(metadata.causation_id, Some(command_id));
    assert_eq!(metadata.actor.as_deref(), Some("ann"));
}

#[tokio::test]
async fn an_event_that_nobody_knows_stops_only_its_own_stream() {
    let store = WatchedStore::new();
    let service = service(&store).await;
    service.execute(create("1")).await.unwrap();
    let mut newer = retitled("of a newer program");
    newer.schema_version = 2;
    store.rival("post/2", newer).await;
    store
        .rival("post/3", event("post.starred", &json!({})))
        .await;
    let requests = ["1", "2", "3"].map(|id| retitle(id, "b"));
    let results = at_once(&service, requests).await;
    assert!(results[0].is_ok());
    let cause = |n: usize| match results[n].as_ref().unwrap_err() {
        CommandError::Unreadable { source, .. } => source.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(
        cause(1),
        "post.updated is stored in version 2, and this program reads version 1"
    );
    assert_eq!(cause(2), "no event is called post.starred");
}
