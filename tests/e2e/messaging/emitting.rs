//! Emitted messages: each group handles each of them.

use std::collections::BTreeSet;
use std::time::Duration;

use tidelog::Failure;
use tidelog::messaging::{HandlerError, MessageContext, MessageOptions, Messaging, Worker};
use tidelog_domain::Metadata;
use tokio::sync::mpsc;

use super::{Ends, NOTE, Seen, at, eventually, shared_of, soon, stored_of};
use tidelog_test_support::{Engine, unique_name};

on_each_bus!(
    a_hundred_emits_to_two_workers_are_each_handled_once,
    what_fails_is_tried_again_and_then_a_dead_letter,
    a_worker_that_stops_finishes_what_it_can_and_gives_the_rest_back,
    a_handler_sees_what_the_sender_says_of_a_message,
    a_dead_letter_that_two_retry_at_once_is_put_back_once,
);
on_each_server!(a_stream_is_trimmed_of_what_every_group_has_handled);

/// A worker that counts what comes.
fn counting(messaging: &Messaging, group: &str, seen: &Seen) -> Worker {
    let seen = seen.clone();
    messaging
        .worker(group)
        .handle(&NOTE, move |number, _: MessageContext| {
            let seen = seen.clone();
            async move {
                seen.add(number);
                Ok(())
            }
        })
}

async fn a_hundred_emits_to_two_workers_are_each_handled_once(ends: Ends) {
    let (one, two, other) = (Seen::default(), Seen::default(), Seen::default());
    let first = counting(&ends.server, "g", &one).start().await.unwrap();
    let second = counting(&ends.two, "g", &two).start().await.unwrap();
    let third = counting(&ends.two, "h", &other).start().await.unwrap();
    for number in 0..100 {
        ends.one.emit(&NOTE, &number).await.unwrap();
    }
    eventually("all is handled", async || {
        one.count() + two.count() == 100 && other.count() == 100
    })
    .await;
    for worker in [first, second, third] {
        worker.stop().await;
    }
    let mut all = one.times();
    all.extend(two.times());
    assert_eq!(all.len(), 100, "none went to both");
    assert!(
        all.into_values()
            .chain(other.times().into_values())
            .all(|times| times == 1)
    );
}

async fn what_fails_is_tried_again_and_then_a_dead_letter(ends: Ends) {
    let seen = Seen::default();
    let tries = seen.clone();
    let worker = ends.server.worker("g").policy(soon(3)).handle(
        &NOTE,
        move |number, message: MessageContext| {
            let times = tries.add(number);
            async move {
                let is_counted = matches!(number, 1 | 2);
                assert!(!is_counted || message.attempt() == times);
                match number {
                    1 if times < 3 => Err(Failure::permanent("not yet").into()),
                    2 => panic!("never"),
                    3 if times <= 10 => Err(Failure::transient("down").into()),
                    4 if times == 1 => {
                        Err(Failure::retry_after(Duration::from_millis(50), "wait").into())
                    }
                    5 => Err(Failure::park("at once").into()),
                    6 => Err(Failure::skip("no matter").into()),
                    _ => Ok::<_, HandlerError>(()),
                }
            }
        },
    );
    let worker = worker.start().await.unwrap();
    let numbers: Vec<u64> = (0..10).collect();
    ends.one.emit_all(&NOTE, &numbers).await.unwrap();
    let letters = ends.two.dead_letters("g", &NOTE).unwrap();
    eventually("two are dead", async || {
        letters.list(None, 10).await.unwrap().len() == 2
    })
    .await;
    eventually("all is handled", async || seen.times().get(&3) == Some(&11)).await;
    let times = seen.times();
    let expected = [1, 3, 3, 11, 2, 1, 1, 1, 1, 1];
    assert_eq!(times.into_values().collect::<Vec<_>>(), expected);
    let dead = letters.list(None, 10).await.unwrap();
    let by_payload = |payload: &str| dead.iter().find(|dead| dead.payload == payload).unwrap();
    let (panicked, parked) = (by_payload("2"), by_payload("5"));
    assert!(panicked.error.contains("never"), "{}", panicked.error);
    assert_eq!(
        (panicked.attempts, parked.attempts, &*parked.error),
        (3, 1, "at once")
    );

    assert!(letters.retry(&parked.entry).await.unwrap());
    eventually("it was tried again", async || {
        seen.times().get(&5) == Some(&2)
    })
    .await;
    assert!(letters.discard(&panicked.entry).await.unwrap());
    eventually("it is dead again", async || {
        letters.list(None, 10).await.unwrap().len() == 1
    })
    .await;
    worker.stop().await;
}

async fn a_stream_is_trimmed_of_what_every_group_has_handled(engine: Engine) {
    let (server, app) = (shared_of(engine).await, unique_name());
    let ends = at(server.url(), &app);
    let (seen, late) = (Seen::default(), Seen::default());
    // A group that has joined, and has nobody at work.
    counting(&ends.two, "late", &late)
        .start()
        .await
        .unwrap()
        .stop()
        .await;
    let worker = counting(&ends.server, "g", &seen).start().await.unwrap();
    let numbers: Vec<u64> = (0..2_000).collect();
    ends.one.emit_all(&NOTE, &numbers).await.unwrap();
    eventually("all is handled", async || seen.count() == 2_000).await;
    worker.stop().await;
    let left = async || stored_of(server, &app, &NOTE.channel()).await;
    assert_eq!(left().await, 2_000, "one group has not");
    let worker = counting(&ends.two, "late", &late).start().await.unwrap();
    eventually("all is handled", async || late.count() == 2_000).await;
    eventually("nothing is left", async || left().await == 0).await;
    worker.stop().await;
}

async fn a_worker_that_stops_finishes_what_it_can_and_gives_the_rest_back(ends: Ends) {
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let worker = ends
        .server
        .worker("g")
        .stop_timeout(Duration::from_millis(300))
        .handle(&NOTE, move |number, message: MessageContext| {
            let begun = begun.clone();
            async move {
                begun.send((number, message.attempt())).unwrap();
                let long = if number == 0 { 100 } else { 3_600_000 };
                tokio::time::sleep(Duration::from_millis(long)).await;
                Ok(())
            }
        });
    let worker = worker.start().await.unwrap();
    ends.one.emit_all(&NOTE, &[0, 1, 2]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(has_begun.recv().await.unwrap().1, 1);
    }
    worker.stop().await;
    let (given, mut came) = mpsc::unbounded_channel();
    let next = ends
        .two
        .worker("g")
        .handle(&NOTE, move |number, message: MessageContext| {
            given.send((number, message.attempt())).unwrap();
            async { Ok(()) }
        });
    let next = next.start().await.unwrap();
    let came = BTreeSet::from([came.recv().await.unwrap(), came.recv().await.unwrap()]);
    assert_eq!(
        came,
        BTreeSet::from([(1, 1), (2, 1)]),
        "at once, and not counted"
    );
    next.stop().await;
}

async fn a_handler_sees_what_the_sender_says_of_a_message(ends: Ends) {
    let shard = NOTE.shard("acme.v2").unwrap();
    let (seen, mut came) = mpsc::unbounded_channel();
    let worker = ends
        .server
        .worker("g")
        .handle(&shard, move |_, message: MessageContext| {
            seen.send(message).unwrap();
            async { Ok(()) }
        });
    let worker = worker.start().await.unwrap();
    let metadata = Metadata {
        correlation_id: "a conversation".to_owned(),
        actor: Some("ann".to_owned()),
        tenant: Some("acme".to_owned()),
        ..Metadata::default()
    };
    let options = MessageOptions::default()
        .id(tidelog::messaging::MessageId::new("my-id").unwrap())
        .metadata(metadata.clone());
    ends.one.emit(&NOTE, &1).await.unwrap();
    ends.one.emit_with(&shard, &2, options).await.unwrap();
    let message = came.recv().await.unwrap();
    assert_eq!(message.id().as_str(), "my-id");
    assert_eq!(message.channel().as_str(), "test.note/acme.v2");
    assert_eq!(*message.metadata(), metadata);
    assert!(!message.is_request());
    worker.stop().await;
}

async fn a_dead_letter_that_two_retry_at_once_is_put_back_once(ends: Ends) {
    let seen = Seen::default();
    let tries = seen.clone();
    let worker =
        ends.server
            .worker("g")
            .policy(soon(1))
            .handle(&NOTE, move |number, _: MessageContext| {
                let times = tries.add(number);
                async move {
                    match times {
                        1 => Err(Failure::permanent("not yet").into()),
                        _ => Ok::<_, HandlerError>(()),
                    }
                }
            });
    let worker = worker.start().await.unwrap();
    let numbers: Vec<u64> = (0..20).collect();
    ends.one.emit_all(&NOTE, &numbers).await.unwrap();
    let one = ends.one.dead_letters("g", &NOTE).unwrap();
    let two = ends.two.dead_letters("g", &NOTE).unwrap();
    eventually("all are dead", async || {
        one.list(None, 100).await.unwrap().len() == 20
    })
    .await;
    for letter in one.list(None, 100).await.unwrap() {
        let entry = &letter.entry;
        let retried = tokio::join!(one.retry(entry), two.retry(entry), two.retry(entry));
        let retried = [retried.0, retried.1, retried.2].map(Result::unwrap);
        assert_eq!(retried.iter().filter(|own| **own).count(), 1, "{retried:?}");
    }
    assert!(one.list(None, 100).await.unwrap().is_empty());
    ends.one.emit(&NOTE, &20).await.unwrap();
    eventually("all is handled", async || {
        seen.count() == 21 && seen.times().values().all(|times| *times >= 1)
    })
    .await;
    eventually("all are tried again", async || {
        (0..20).all(|number| seen.times().get(&number) >= Some(&2))
    })
    .await;
    worker.stop().await;
    assert!((0..20).all(|number| seen.times().get(&number) == Some(&2)));
}
