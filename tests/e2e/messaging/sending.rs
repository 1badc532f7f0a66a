//! Requests and their replies.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidelog::Failure;
use tidelog::messaging::{
    HandlerError, MessageContext, MessageOptions, Messaging, Replies, ReplyError, RunningWorker,
    SendError, Subject,
};

use super::{ECHO, Ends, Seen, soon};

on_each_bus!(
    a_hundred_sends_from_two_requesters_reach_the_right_one,
    any_json_value_and_any_text_is_a_payload_and_a_reply,
    an_error_of_the_handler_is_an_error_for_the_caller,
    several_values_come_in_order_with_an_end,
    a_request_that_has_expired_is_not_begun,
);

const COUNT: Subject<u64, u64> = Subject::new("test.count");

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Asked {
    by: String,
    number: u64,
}

const WHO: Subject<Asked, Asked> = Subject::new("test.who");

async fn echoing(messaging: &Messaging) -> RunningWorker {
    let worker = messaging.worker("g").policy(soon(3));
    let worker = worker.handle(&ECHO, |value, _: MessageContext| async move {
        Ok::<_, HandlerError>(value)
    });
    worker.start().await.unwrap()
}

async fn a_hundred_sends_from_two_requesters_reach_the_right_one(ends: Ends) {
    let worker =
        ends.server
            .worker("g")
            .concurrency(16)
            .handle(&WHO, |asked: Asked, _| async move {
                tokio::time::sleep(Duration::from_millis(asked.number % 7)).await;
                Ok::<_, HandlerError>(asked)
            });
    let worker = worker.start().await.unwrap();
    let ask = |messaging: Messaging, by: &'static str, number| async move {
        let asked = Asked {
            by: by.to_owned(),
            number,
        };
        let reply = messaging.send(&WHO, &asked).await.unwrap();
        assert_eq!(reply, asked);
    };
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..50 {
        asking.spawn(ask(ends.one.clone(), "one", number));
        asking.spawn(ask(ends.two.clone(), "two", number));
    }
    assert_eq!(asking.join_all().await.len(), 100);
    worker.stop().await;
}

async fn any_json_value_and_any_text_is_a_payload_and_a_reply(ends: Ends) {
    let worker = echoing(&ends.server).await;
    let large = "x".repeat(512 * 1024);
    for value in [
        json!(true),
        json!(false),
        json!("abc"),
        json!(""),
        Value::Null,
        json!([[], [[1, [null]]], {"a": []}]),
        json!({}),
        json!(1.5e300),
        json!("\u{0} \" ä 😀"),
        json!(large),
    ] {
        assert_eq!(ends.one.send(&ECHO, &value).await.unwrap(), value);
    }
    let exact: Subject<Box<RawValue>, Box<RawValue>> = Subject::new("test.exact");
    let exactly = ends
        .server
        .worker("g")
        .handle(&exact, |value, _| async move { Ok(value) });
    let exactly = exactly.start().await.unwrap();
    let raw =
        RawValue::from_string(r#"{"b":1,"a":1.0,"n":12345678901234567890123}"#.to_owned()).unwrap();
    assert_eq!(ends.two.send(&exact, &raw).await.unwrap().get(), raw.get());
    exactly.stop().await;
    let empty: Subject<(), ()> = Subject::new("test.echo");
    ends.two.send(&empty, &()).await.unwrap();
    let too_large = json!("x".repeat(2 * 1024 * 1024));
    let refused = ends.one.send(&ECHO, &too_large).await;
    assert!(
        matches!(refused, Err(SendError::TooLarge { max, .. }) if max == ends.one.max_message_bytes()),
        "{refused:?}"
    );
    worker.stop().await;
}

async fn an_error_of_the_handler_is_an_error_for_the_caller(ends: Ends) {
    let tries = Seen::default();
    let seen = tries.clone();
    let worker = ends
        .server
        .worker("g")
        .policy(soon(5))
        .handle(&COUNT, move |number: u64, _| {
            let times = seen.add(number);
            async move {
                match number {
                    0 => Err(ReplyError::new("sold-out", "there are none left").into()),
                    1 => Err(Failure::permanent("a secret").into()),
                    2 => panic!("another secret"),
                    3 if times < 4 => Err(Failure::transient("down").into()),
                    4 => Err(Failure::retry_after(Duration::from_secs(3_600), "later").into()),
                    number => Ok::<_, HandlerError>(number),
                }
            }
        });
    let worker = worker.start().await.unwrap();
    let told = async |number: u64| match ends.one.send(&COUNT, &number).await {
        Err(SendError::Refused(error)) => (error.code, error.detail),
        other => panic!("{number}: {other:?}"),
    };
    assert_eq!(
        told(0).await,
        ("sold-out".into(), "there are none left".into())
    );
    for number in [1, 2] {
        let (code, detail) = told(number).await;
        assert_eq!(code, ReplyError::FAILED);
        assert!(!detail.contains("secret"));
    }
    assert_eq!(ends.one.send(&COUNT, &3).await.unwrap(), 3);
    assert_eq!(told(4).await.0, ReplyError::UNAVAILABLE);
    let times: Vec<_> = tries.times().into_values().collect();
    assert_eq!(times, [1, 1, 1, 4, 1]);

    let odd: Subject<String, u64> = Subject::new("test.count");
    let malformed = ends.one.send(&odd, &"one".to_owned()).await;
    assert!(
        matches!(malformed, Err(SendError::Refused(error)) if error.code == ReplyError::MALFORMED)
    );
    let odd: Subject<u64, String> = Subject::new("test.count");
    assert!(matches!(
        ends.one.send(&odd, &7).await,
        Err(SendError::Decode(_))
    ));
    let unknown: Subject<u64, u64> = Subject::new("test.unknown");
    let begun = std::time::Instant::now();
    let refused = ends.one.send(&unknown, &1).await;
    assert!(
        matches!(refused, Err(SendError::UnknownSubject { subject }) if subject == "test.unknown")
    );
    assert!(begun.elapsed() < Duration::from_secs(4), "at once");
    worker.stop().await;
}

async fn several_values_come_in_order_with_an_end(ends: Ends) {
    let worker = ends.server.worker("g").handle_stream(
        &COUNT,
        |to: u64, _: MessageContext, replies: Replies<u64>| async move {
            for number in 0..to {
                replies.send(&number).await?;
            }
            if to == 3 {
                return Err(ReplyError::new("broken-off", "").into());
            }
            Ok(())
        },
    );
    let worker = worker.start().await.unwrap();
    for to in [0, 1, 500] {
        let mut values = ends
            .one
            .send_stream(&COUNT, &to, MessageOptions::default())
            .await
            .unwrap();
        let mut came = Vec::new();
        while let Some(value) = values.next().await {
            came.push(value.unwrap());
        }
        assert_eq!(came, (0..to).collect::<Vec<_>>());
        assert!(values.next().await.is_none());
    }
    let mut values = ends
        .one
        .send_stream(&COUNT, &3, MessageOptions::default())
        .await
        .unwrap();
    for number in 0..3 {
        assert_eq!(values.next().await.unwrap().unwrap(), number);
    }
    let broken = values.next().await.unwrap();
    assert!(matches!(broken, Err(SendError::Refused(error)) if error.code == "broken-off"));
    assert!(values.next().await.is_none());
    worker.stop().await;
}

async fn a_request_that_has_expired_is_not_begun(ends: Ends) {
    echoing(&ends.server).await.stop().await;
    let expired =
        br#"{"id":"late","type":"test.echo","replyto":"nobody","timeoutms":1,"data":"late"}"#;
    let bus = ends.one.bus();
    bus.request(&ECHO.channel(), expired).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let seen = Seen::default();
    let began = seen.clone();
    let worker = ends
        .server
        .worker("g")
        .handle(&ECHO, move |value: Value, _| {
            began.add(u64::from(value == "late"));
            async move { Ok::<_, HandlerError>(value) }
        });
    let worker = worker.start().await.unwrap();
    ends.two.send(&ECHO, &json!("in time")).await.unwrap();
    worker.stop().await;
    assert_eq!(seen.times().into_iter().collect::<Vec<_>>(), [(0, 1)]);
}
