//! What is left behind by callers who go away: nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tidelog::messaging::{HandlerError, MessageContext, MessageOptions, SendError};
use tidelog_test_support::shared;

use super::{ECHO, ask, eventually, on_redis};

/// How many entries each stream of the app has.
async fn entries(url: &str, app: &str) -> BTreeMap<String, usize> {
    let mut keys = redis::cmd("KEYS");
    keys.arg(format!("{{{app}:*"));
    let mut entries = BTreeMap::new();
    for key in ask::<Vec<String>>(url, &keys).await {
        let mut xlen = redis::cmd("XLEN");
        xlen.arg(&key);
        entries.insert(key.clone(), ask(url, &xlen).await);
    }
    entries
}

async fn consumers(url: &str, key: &str) -> usize {
    let mut xinfo = redis::cmd("XINFO");
    xinfo.arg("CONSUMERS").arg(key).arg("g");
    ask::<Vec<redis::Value>>(url, &xinfo).await.len()
}

#[tokio::test]
async fn ten_thousand_sends_that_timed_out_leave_nothing_behind() {
    let ends = on_redis().await;
    let url = shared::redis().await.url();
    let app = ends.one.app().to_string();
    let worker = || {
        let worker = ends.server.worker("g");
        worker.handle(&ECHO, |value, _: MessageContext| async move {
            Ok::<_, HandlerError>(value)
        })
    };
    worker().start().await.unwrap().stop().await;
    let key = format!("{{{app}:messages:{ECHO}}}");
    let before = (entries(url, &app).await, consumers(url, &key).await);
    assert_eq!(before, (BTreeMap::from([(key.clone(), 0)]), 0));

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
        entries(url, &app).await.get(&key) == Some(&0)
    })
    .await;
    assert_eq!(consumers(url, &key).await, 0);
    let all = entries(url, &app).await;
    assert!(
        all.len() == 2 && all.values().sum::<usize>() <= 1,
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
    assert_eq!(
        (entries(url, &app).await, consumers(url, &key).await),
        before
    );
}

#[tokio::test]
async fn an_inbox_is_trimmed_while_it_is_used() {
    let ends = on_redis().await;
    let url = shared::redis().await.url();
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
        entries(url, &app).await.values().sum::<usize>() <= 1
    })
    .await;
    worker.stop().await;
}
