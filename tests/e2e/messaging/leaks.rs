//! What is left behind by callers who go away: nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tidelog::messaging::{HandlerError, MessageContext, MessageOptions, SendError};
use tidelog_test_support::{Engine, unique_name};

use super::{ECHO, at, eventually, members, shared_of, stored, stream_of};

on_each_server!(
    ten_thousand_sends_that_timed_out_leave_nothing_behind,
    an_inbox_is_trimmed_while_it_is_used,
);

async fn ten_thousand_sends_that_timed_out_leave_nothing_behind(engine: Engine) {
    let (server, app) = (shared_of(engine).await, unique_name());
    let ends = at(server.url(), &app);
    let worker = || {
        let worker = ends.server.worker("g");
        worker.handle(&ECHO, |value, _: MessageContext| async move {
            Ok::<_, HandlerError>(value)
        })
    };
    worker().start().await.unwrap().stop().await;
    let channel = ECHO.channel();
    let stream = stream_of(server, &app, &channel);
    let now = async || {
        (
            stored(server, &app).await,
            members(server, &app, &channel).await,
        )
    };
    let before = now().await;
    assert_eq!(before, (BTreeMap::from([(stream.clone(), 0)]), 0));

    let payload = json!({"padding": "x".repeat(1_000)});
    let send = |number: u32| {
        let (messaging, payload) = (ends.one.clone(), payload.clone());
        async move {
            if number.is_multiple_of(10) {
                // One whose caller goes away by itself, maybe while it is on its way.
                let wait = Duration::from_micros(u64::from(number));
                let sent = tokio::time::timeout(wait, messaging.send(&ECHO, &payload)).await;
                assert!(sent.is_err());
                return;
            }
            let options = MessageOptions::default().timeout(Duration::from_millis(100));
            let sent = messaging.send_with(&ECHO, &payload, options).await;
            assert!(matches!(sent, Err(SendError::TimedOut { .. })), "{sent:?}");
        }
    };
    let sends = futures_util::stream::iter(0..10_000).map(send);
    sends.buffer_unordered(500).collect::<Vec<_>>().await;
    eventually("all is taken back", async || {
        stored(server, &app).await.get(&stream) == Some(&0)
    })
    .await;
    let (all, members) = now().await;
    assert_eq!(members, 0);
    // The inbox may be a stream too.
    assert!(
        all.len() <= 2 && all.values().sum::<usize>() <= 1,
        "{all:?}"
    );

    let worker = worker().start().await.unwrap();
    assert_eq!(
        ends.one.send(&ECHO, &json!("after")).await.unwrap(),
        "after"
    );
    worker.stop().await;
    ends.one.close().await;
    assert!(matches!(
        ends.one.send(&ECHO, &json!(1)).await,
        Err(SendError::Closed)
    ));
    assert_eq!(now().await, before);
}

async fn an_inbox_is_trimmed_while_it_is_used(engine: Engine) {
    let server = shared_of(engine).await;
    let ends = at(server.url(), &unique_name());
    let worker = ends
        .server
        .worker("g")
        .handle(&ECHO, |value, _: MessageContext| async move {
            Ok::<_, HandlerError>(value)
        });
    let worker = worker.start().await.unwrap();
    let send = |number: u32| {
        let messaging = ends.one.clone();
        async move { messaging.send(&ECHO, &json!(number)).await }
    };
    let sends = futures_util::stream::iter(0..5_000).map(send);
    for reply in sends.buffer_unordered(100).collect::<Vec<_>>().await {
        reply.unwrap();
    }
    let app = ends.one.app().to_string();
    eventually("all is thrown away", async || {
        stored(server, &app).await.values().sum::<usize>() <= 1
    })
    .await;
    worker.stop().await;
}
