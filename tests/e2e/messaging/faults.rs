//! Redis fails in the middle: nothing is lost, and all goes on.

use std::time::Duration;

use serde_json::json;
use tidelog::messaging::{HandlerError, MessageContext, MessageId, MessageOptions, SendError};
use tidelog_test_support::{Engine, Server};

use super::{ECHO, NOTE, Seen, ask, at, eventually, soon};

#[tokio::test]
async fn a_redis_that_is_restarted_in_the_middle_loses_nothing() {
    let mut server = Server::start(Engine::Redis).await;
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
    let mut xlen = redis::cmd("XLEN");
    xlen.arg("{app:messages:test.note}");
    eventually("all is settled", async || {
        ask::<usize>(&url, &xlen).await == 0
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn after_a_flush_groups_and_inboxes_are_made_anew() {
    let server = Server::start(Engine::Redis).await;
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
        ask::<String>(server.url(), &redis::cmd("FLUSHALL")).await;
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

#[tokio::test]
async fn a_send_while_redis_is_away_fails_in_time_and_goes_well_afterwards() {
    let mut server = Server::start(Engine::Redis).await;
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
