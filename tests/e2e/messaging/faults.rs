//! A server fails in the middle: nothing is lost, and all goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidelog::Failure;
use tidelog::messaging::{
    EmitError, HandlerError, MessageContext, MessageId, MessageOptions, RunningWorker, SendError,
    Worker,
};
use tidelog_test_support::{Durability, Engine, Server, ServerOptions, unique_name};
use tokio::sync::Semaphore;

use super::{ECHO, NOTE, PATIENCE, Seen, at, empty, eventually, soon, stored_of};

mod connections;

on_each_server!(
    a_server_that_is_restarted_in_the_middle_loses_nothing,
    a_server_that_went_back_in_time_has_a_worker_handle_again_what_it_did_since,
    a_message_in_the_place_of_one_that_the_server_lost_is_handled,
    after_all_is_thrown_away_groups_and_inboxes_are_made_anew,
    a_send_while_the_server_is_away_fails_in_time_and_goes_well_afterwards,
);

async fn a_server_that_is_restarted_in_the_middle_loses_nothing(engine: Engine) {
    let mut server = Server::start(engine).await;
    let url = server.url().to_owned();
    let ends = at(&url, "app");
    let seen = Seen::default();
    let handled = seen.clone();
    let worker = ends
        .server
        .worker("g")
        .idle(Duration::from_secs(1))
        .policy(soon(1_000))
        .handle(&NOTE, move |number, _: MessageContext| {
            let handled = handled.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                handled.add(number);
                Ok(())
            }
        });
    let worker = worker.start().await.unwrap();
    let emitting = tokio::spawn({
        let messaging = ends.one.clone();
        async move {
            for number in 0..2_000 {
                // One that may be there, or may not, is emitted again under the same id.
                let id = MessageId::unique();
                let emit = async || {
                    let options = MessageOptions::default().id(id.clone());
                    messaging.emit_with(&NOTE, &number, options).await
                };
                while emit().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    });
    for at_least in [200, 600] {
        eventually("some are handled", async || seen.count() >= at_least).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.restart().await;
    }
    emitting.await.unwrap();
    eventually("all is handled", async || seen.count() == 2_000).await;
    eventually("all is settled", async || {
        stored_of(&server, "app", &NOTE.channel()).await == 0
    })
    .await;
    worker.stop().await;
}

async fn a_server_that_went_back_in_time_has_a_worker_handle_again_what_it_did_since(
    engine: Engine,
) {
    let options = ServerOptions {
        durability: Durability::Full,
        ..ServerOptions::default()
    };
    let mut server = Server::start_with(engine, options).await;
    let ends = at(server.url(), "app");
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    // With one at a time, one that cannot be settled would be the last.
    let worker = || {
        let (handled, gate) = (seen.clone(), Arc::clone(&gate));
        let worker = ends.server.worker("g").concurrency(1);
        worker.handle(&NOTE, move |number, _: MessageContext| {
            handled.add(number);
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await.unwrap());
                Ok::<_, HandlerError>(())
            }
        })
    };
    worker().start().await.unwrap().stop().await;
    ends.one.emit_all(&NOTE, &[1, 2]).await.unwrap();
    let before = server.snapshot().await;
    let running = started(worker).await;
    eventually("it is at the first", async || seen.count() == 1).await;
    server.restore(&before).await;
    gate.add_permits(1);
    eventually("both are settled", async || {
        stored_of(&server, "app", &NOTE.channel()).await == 0
    })
    .await;
    assert_eq!(seen.times(), BTreeMap::from([(1, 2), (2, 1)]));
    running.stop().await;
}

async fn a_message_in_the_place_of_one_that_the_server_lost_is_handled(engine: Engine) {
    let options = ServerOptions {
        durability: Durability::Full,
        ..ServerOptions::default()
    };
    let mut server = Server::start_with(engine, options).await;
    let ends = at(server.url(), "app");
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let worker = || {
        let (handled, gate) = (seen.clone(), Arc::clone(&gate));
        let worker = ends.server.worker("g").concurrency(2);
        let worker = worker.idle(Duration::from_secs(1));
        worker.handle(&NOTE, move |number, _: MessageContext| {
            handled.add(number);
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await.unwrap());
                Ok::<_, HandlerError>(())
            }
        })
    };
    worker().start().await.unwrap().stop().await;
    let before = server.snapshot().await;
    let running = started(worker).await;
    eventually("one is emitted", async || {
        seen.count() == 1 || ends.one.emit(&NOTE, &1).await.is_ok()
    })
    .await;
    eventually("it is at it", async || seen.count() == 1).await;
    server.restore(&before).await;
    eventually("another is emitted", async || {
        ends.one.emit(&NOTE, &2).await.is_ok()
    })
    .await;
    // Long enough for it to come while the worker is at the first, mostly.
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.add_permits(1);
    eventually("the other is handled", async || {
        seen.times().contains_key(&2)
    })
    .await;
    eventually("nothing is left", async || {
        stored_of(&server, "app", &NOTE.channel()).await == 0
    })
    .await;
    running.stop().await;
}

/// Starts a worker: connections of before may be found to be lost.
async fn started(worker: impl Fn() -> Worker) -> RunningWorker {
    let started = async {
        loop {
            match worker().start().await {
                Ok(running) => return running,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap()
}

async fn after_all_is_thrown_away_groups_and_inboxes_are_made_anew(engine: Engine) {
    let server = Server::start(engine).await;
    let ends = at(server.url(), "app");
    let worker = ends
        .server
        .worker("g")
        .handle(&ECHO, |value, _: MessageContext| async move {
            Ok::<_, HandlerError>(value)
        });
    let worker = worker.start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(ends.one.send(&ECHO, &json!(1)).await.unwrap(), 1);
        empty(&server).await;
        let options = || MessageOptions::default().timeout(Duration::from_millis(500));
        eventually("it goes on", async || {
            match ends.one.send_with(&ECHO, &json!(2), options()).await {
                Ok(reply) => reply == 2,
                Err(SendError::TimedOut { .. } | SendError::UnknownSubject { .. }) => false,
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
    }
    worker.stop().await;
}

async fn a_send_while_the_server_is_away_fails_in_time_and_goes_well_afterwards(engine: Engine) {
    let mut server = Server::start(engine).await;
    let ends = at(server.url(), "app");
    let worker = ends
        .server
        .worker("g")
        .idle(Duration::from_secs(1))
        .handle(&ECHO, |value, _: MessageContext| async move {
            Ok::<_, HandlerError>(value)
        });
    let worker = worker.start().await.unwrap();
    assert_eq!(ends.one.send(&ECHO, &json!(1)).await.unwrap(), 1);
    server.kill();
    let options = || MessageOptions::default().timeout(Duration::from_secs(2));
    let sent = ends.one.send_with(&ECHO, &json!(2), options()).await;
    assert!(
        matches!(sent, Err(SendError::Bus(_) | SendError::TimedOut { .. })),
        "{sent:?}"
    );
    assert!(ends.two.emit(&NOTE, &1).await.is_err());
    server.restart().await;
    eventually("it goes on", async || {
        let sent = ends.one.send_with(&ECHO, &json!(3), options()).await;
        sent.is_ok_and(|reply| reply == 3)
    })
    .await;
    worker.stop().await;
}

/// A NATS with these settings.
async fn nats_with(settings: &str) -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings).unwrap();
    let arguments = ["-c", file.path().to_str().unwrap()];
    let options = ServerOptions {
        arguments: arguments.map(str::to_owned).to_vec(),
        ..ServerOptions::default()
    };
    (Server::start_with(Engine::Nats, options).await, file)
}

#[tokio::test]
async fn a_user_with_the_documented_rights_on_nats_emits_sends_and_handles() {
    let app = unique_name();
    let account = include_str!("../../../deploy/nats/messages.conf");
    let (server, _file) = nats_with(&account.replace("APP", &app)).await;
    let url = server.url().replace("://", "://messaging:PASSWORD@");
    let ends = at(&url, &app);
    let seen = Seen::default();
    let tries = seen.clone();
    let worker = ends
        .server
        .worker("g")
        .policy(soon(2))
        .handle(&NOTE, move |number, _: MessageContext| {
            let times = tries.add(number);
            async move {
                match times {
                    1 | 2 => Err(Failure::permanent("not yet").into()),
                    _ => Ok::<_, HandlerError>(()),
                }
            }
        })
        .handle(&ECHO, |value, _: MessageContext| async move { Ok(value) });
    let worker = worker.start().await.unwrap();
    assert_eq!(ends.one.send(&ECHO, &json!("a")).await.unwrap(), "a");
    ends.one.emit_all(&NOTE, &[1, 2]).await.unwrap();
    let letters = ends.two.dead_letters("g", &NOTE).unwrap();
    eventually("two are dead", async || {
        letters.list(None, 10).await.unwrap().len() == 2
    })
    .await;
    let dead = letters.list(None, 10).await.unwrap();
    assert!(letters.discard(&dead[0].entry).await.unwrap());
    assert!(letters.retry(&dead[1].entry).await.unwrap());
    eventually("it is handled", async || {
        seen.times().values().any(|times| *times == 3)
    })
    .await;
    // One whose caller is gone is taken back; what is held is given back.
    worker.stop().await;
    let soon = MessageOptions::default().timeout(Duration::from_millis(50));
    let sent = ends.one.send_with(&ECHO, &json!(1), soon).await;
    assert!(matches!(sent, Err(SendError::TimedOut { .. })), "{sent:?}");
    ends.one.close().await;
}

#[tokio::test]
async fn a_message_that_nats_takes_as_no_dead_letter_holds_nobody_up() {
    let server = Server::start(Engine::Nats).await;
    let ends = at(server.url(), "app");
    let seen = Seen::default();
    let handled = seen.clone();
    let worker = ends.server.worker("g").concurrency(1).policy(soon(2));
    let worker = worker.handle(&NOTE, move |number, _: MessageContext| {
        handled.add(number);
        async { Ok::<_, HandlerError>(()) }
    });
    let worker = worker.start().await.unwrap();
    // Of somebody who writes no messages of ours; with headers it has no room.
    let client = async_nats::connect(server.url()).await.unwrap();
    let large = vec![b'x'; client.server_info().max_payload];
    client
        .publish("app.messages.test.note", large.into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    ends.one.emit(&NOTE, &1).await.unwrap();
    eventually("the next is handled", async || seen.count() == 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_right_on_nats_that_is_missing_is_named_by_who_cannot_join() {
    let account = include_str!("../../../deploy/nats/messages.conf").replace("APP", "app");
    let right = "\"$JS.API.CONSUMER.CREATE.*.*\"\n";
    assert!(account.contains(right));
    let (server, _file) = nats_with(&account.replace(right, "")).await;
    let url = server.url().replace("://", "://messaging:PASSWORD@");
    let worker = at(&url, "app").server.worker("g");
    let worker = worker.handle(&NOTE, |_, _: MessageContext| async move {
        Ok::<_, HandlerError>(())
    });
    let Err(error) = worker.start().await else {
        panic!("it joined");
    };
    let said = tidelog_domain::causes(&error).to_string();
    for part in ["$JS.API.CONSUMER.CREATE.app=messages=test~note.g", "may"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_for_nats_is_refused_and_its_bound_is_said() {
    let (server, _file) = nats_with("max_payload: 65536\n").await;
    let ends = at(server.url(), "app");
    let emitted = ends.one.emit(&super::TEXT, &"x".repeat(60_000)).await;
    assert!(
        matches!(emitted, Err(EmitError::TooLarge { max: 49_152, .. })),
        "{emitted:?}"
    );
    ends.one
        .emit(&super::TEXT, &"x".repeat(48_000))
        .await
        .unwrap();
    // A reply that is too large is said to be.
    let worker = ends
        .server
        .worker("g")
        .handle(&ECHO, |_, _: MessageContext| async move {
            Ok::<_, HandlerError>(json!("x".repeat(60_000)))
        });
    let worker = worker.start().await.unwrap();
    let sent = ends.two.send(&ECHO, &json!(1)).await;
    assert!(
        matches!(&sent, Err(SendError::Refused(error)) if error.code == "too-large"),
        "{sent:?}"
    );
    worker.stop().await;
}
