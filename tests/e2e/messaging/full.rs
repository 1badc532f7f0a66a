//! What has no room, or nowhere to go, keeps nothing else waiting.

use std::time::Duration;

use serde_json::json;
use tidelog::Failure;
use tidelog::messaging::{HandlerError, MessageContext, MessageOptions, Messaging, SendError};
use tidelog_test_support::{shared, unique_name};

use super::{ECHO, NOTE, Seen, ask, at, eventually, soon};

/// From then on Redis takes nothing new; or does again.
async fn has_room(url: &str, has_room: bool) {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET")
        .arg("maxmemory")
        .arg(if has_room { 0 } else { 1 });
    ask::<String>(url, &set).await;
}

#[tokio::test]
async fn a_reply_to_what_is_no_inbox_does_not_keep_its_slot() {
    let (url, app) = (shared::redis().await.url(), unique_name());
    let messaging = Messaging::connect(url, &app).unwrap();
    let worker = messaging.worker("g").concurrency(1);
    let worker = worker.handle(&ECHO, |value, _: MessageContext| async move {
        Ok::<_, HandlerError>(value)
    });
    let worker = worker.start().await.unwrap();
    let key = format!("{app}:a-string");
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("no inbox");
    ask::<String>(url, &set).await;
    let request = json!({"id": "a", "replyto": key, "data": 1}).to_string();
    let put = messaging
        .bus()
        .request(&ECHO.channel(), request.as_bytes())
        .await;
    put.unwrap();
    let options = MessageOptions::default().timeout(Duration::from_secs(30));
    let reply = messaging.send_with(&ECHO, &json!(2), options).await;
    assert_eq!(reply.unwrap(), 2);
    worker.stop().await;
}

mod faults {
    use tidelog_test_support::{Engine, Server};

    use super::*;

    #[tokio::test]
    async fn a_reply_that_finds_no_room_does_not_keep_its_slot() {
        let server = Server::start(Engine::Redis).await;
        let url = server.url().to_owned();
        let (ends, seen) = (at(&url, "app"), Seen::default());
        let worker = ends.server.worker("g").concurrency(1);
        let (emits, handled) = (ends.two.clone(), seen.clone());
        let worker = worker
            .handle(&ECHO, move |value, _: MessageContext| {
                let (emits, url) = (emits.clone(), url.clone());
                async move {
                    emits.emit(&NOTE, &1).await?;
                    has_room(&url, false).await;
                    Ok::<_, HandlerError>(value)
                }
            })
            .handle(&NOTE, move |number, _: MessageContext| {
                handled.add(number);
                async { Ok(()) }
            });
        let worker = worker.start().await.unwrap();
        let options = MessageOptions::default().timeout(Duration::from_secs(2));
        let sent = ends.one.send_with(&ECHO, &json!(1), options).await;
        assert!(matches!(sent, Err(SendError::TimedOut { .. })), "{sent:?}");
        eventually("the slot is free", async || seen.count() == 1).await;
        worker.stop().await;
    }

    #[tokio::test]
    async fn a_dead_letter_that_finds_no_room_waits_without_a_slot() {
        let server = Server::start(Engine::Redis).await;
        let url = server.url().to_owned();
        let (ends, seen) = (at(&url, "app"), Seen::default());
        let worker = ends.server.worker("g").concurrency(1).policy(soon(1));
        let (emits, handled, to) = (ends.two.clone(), seen.clone(), url.clone());
        let worker = worker.handle(&NOTE, move |number, _: MessageContext| {
            let (emits, handled, url) = (emits.clone(), handled.clone(), to.clone());
            async move {
                let times = handled.add(number);
                if number == 1 {
                    if times == 1 {
                        emits.emit(&NOTE, &2).await?;
                        has_room(&url, false).await;
                    }
                    return Err(HandlerError::from(Failure::park("never")));
                }
                Ok(())
            }
        });
        let worker = worker.start().await.unwrap();
        ends.one.emit(&NOTE, &1).await.unwrap();
        eventually("the slot is free", async || seen.count() == 2).await;
        has_room(&url, true).await;
        let letters = ends.one.dead_letters("g", &NOTE).unwrap();
        eventually("it is a dead letter", async || {
            letters
                .list(None, 9)
                .await
                .is_ok_and(|all| all.len() == 1 && all[0].attempts == 1)
        })
        .await;
        worker.stop().await;
    }
}
