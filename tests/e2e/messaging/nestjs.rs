//! The form of the Redis Streams transport for NestJS, byte for byte: what its clients and servers write and read is written and read here by
//! commands.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tidelog::Failure;
use tidelog::messaging::{
    EmitError, HandlerError, MessageBusError, MessageContext, MessageOptions, Messaging,
    NestPatterns, RedisMessageBus, ReplyError, SendError, Subject,
};
use tidelog_test_support::{shared, unique_name};

use super::{Seen, ask, eventually, soon};

const HEADER: &str = "x-nestjs-redis-stream-header";
const RESPONSES: &str = "x-nestjs-redis-stream-response";

type Entries = Vec<(String, Vec<String>)>;

/// A subject, and the stream that it is.
struct Place {
    subject: Subject<Value, Value>,
    pattern: String,
    url: &'static str,
}

impl Place {
    async fn new() -> Self {
        let name = unique_name();
        Self {
            subject: Subject::parse(name.clone()).unwrap(),
            pattern: format!("{name}:create user"),
            url: shared::redis().await.url(),
        }
    }

    fn messaging(&self) -> Messaging {
        let patterns = NestPatterns::default().with(&self.subject, &self.pattern);
        let bus = RedisMessageBus::for_nestjs(self.url, patterns.unwrap()).unwrap();
        Messaging::new(Arc::new(bus), "shop")
    }

    /// As a program of theirs.
    async fn add(&self, stream: &str, fields: &[&str]) -> String {
        let mut xadd = redis::cmd("XADD");
        xadd.arg(stream).arg("*").arg(fields);
        ask(self.url, &xadd).await
    }

    async fn emitted(&self, fields: &[&str]) -> String {
        self.add(&self.pattern, fields).await
    }

    async fn entries(&self, stream: &str) -> Entries {
        let mut xrange = redis::cmd("XRANGE");
        xrange.arg(stream).arg("-").arg("+");
        ask(self.url, &xrange).await
    }

    async fn group(&self, group: &str) {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.pattern).arg(group);
        let _made: String = ask(self.url, create.arg("$").arg("MKSTREAM")).await;
    }

    async fn pending(&self, group: &str) -> usize {
        let mut xpending = redis::cmd("XPENDING");
        xpending.arg(&self.pattern).arg(group);
        let pending: Vec<redis::Value> = ask(self.url, &xpending).await;
        redis::from_redis_value(pending[0].clone()).unwrap()
    }

    /// What theirs would read as the reply to a request: the fields that are none of the header.
    async fn reply(&self, correlation: &str) -> Vec<String> {
        let header = format!("\"correlationId\":\"{correlation}\"");
        let found = Mutex::new(Vec::new());
        eventually("the reply", async || {
            let entries = self.entries(RESPONSES).await;
            let fits = |fields: &&Vec<String>| {
                let [.., name, value] = &fields[..] else {
                    return false;
                };
                name == HEADER && value.contains(&header)
            };
            let reply = entries.iter().map(|(_, fields)| fields).find(fits).cloned();
            let is_there = reply.is_some();
            *found.lock().unwrap() = reply.unwrap_or_default();
            is_there
        })
        .await;
        let mut reply = found.into_inner().unwrap();
        reply.truncate(reply.len() - 2);
        reply
    }
}

#[tokio::test]
async fn what_a_client_of_nestjs_emits_is_handled_even_what_came_before_the_first_start() {
    let place = Place::new().await;
    place
        .emitted(&["n", "1", "nested", r#"{"a":[null,{"b":"ü"}]}"#])
        .await;
    place
        .emitted(&["0", "1", "1", "[2]", HEADER, r#"{"isArray":true}"#])
        .await;
    let messaging = place.messaging();
    let got = Arc::new(Mutex::new(Vec::new()));
    let (seen, tries) = (Arc::clone(&got), Seen::default());
    let worker = messaging
        .worker("billing")
        .concurrency(1)
        .policy(soon(3))
        .handle(
            &place.subject,
            move |value: Value, message: MessageContext| {
                let times = tries.add(1);
                let seen = Arc::clone(&seen);
                async move {
                    if times == 1 {
                        return Err(Failure::permanent("the first try").into());
                    }
                    assert!(!message.is_request());
                    seen.lock().unwrap().push(value);
                    Ok::<_, HandlerError>(Value::Null)
                }
            },
        );
    let worker = worker.start().await.unwrap();
    let expected = [
        json!({"n": 1, "nested": {"a": [null, {"b": "ü"}]}}),
        json!([1, [2]]),
    ];
    eventually("both are handled", async || {
        let got = got.lock().unwrap();
        expected.iter().all(|value| got.contains(value)) && got.len() == 2
    })
    .await;
    eventually("both are acknowledged, and thrown away", async || {
        place.pending("billing").await == 0 && place.entries(&place.pattern).await.is_empty()
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn a_request_of_a_client_of_nestjs_has_its_reply() {
    let place = Place::new().await;
    let messaging = place.messaging();
    let worker = messaging.worker("billing").handle(
        &place.subject,
        |value: Value, _: MessageContext| async move {
            match value["do"].as_str() {
                Some("refuse") => Err(ReplyError::new("sold-out", "there are none").into()),
                Some("panic") => panic!("a secret"),
                Some("true") => Ok(json!(true)),
                Some("nothing") => Ok(Value::Null),
                _ => Ok::<_, HandlerError>(value),
            }
        },
    );
    let worker = worker.start().await.unwrap();
    let ask = async |correlation: &str, fields: &[&str], is_array: bool| {
        let header = match is_array {
            true => format!(r#"{{"correlationId":"{correlation}","isArray":true}}"#),
            false => format!(r#"{{"correlationId":"{correlation}"}}"#),
        };
        let fields = [fields, &[HEADER, &header]].concat();
        place.emitted(&fields).await;
        place.reply(correlation).await
    };
    let id = |n: u32| format!("{}-{n}", place.subject);
    let object = ["a", "{\"b\":[1,null]}", "c", "\"x\""];
    assert_eq!(ask(&id(1), &object, false).await, object);
    let array = ["0", "1", "1", "[]"];
    assert_eq!(ask(&id(2), &array, true).await, array);
    assert!(ask(&id(3), &[], true).await.is_empty());
    assert!(ask(&id(4), &[], false).await.is_empty());
    let refused = ask(&id(5), &["do", "\"refuse\""], false).await;
    assert_eq!(
        refused,
        ["error", r#"{"code":"sold-out","detail":"there are none"}"#]
    );
    let failed = ask(&id(6), &["do", "\"panic\""], false).await;
    assert!(failed[1].contains("\"failed\"") && !failed[1].contains("secret"));
    let unfit = ask(&id(7), &["do", "\"true\""], false).await;
    assert!(unfit[1].contains("\"unfit\""), "{unfit:?}");
    assert!(ask(&id(8), &["do", "\"nothing\""], false).await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn what_a_consumer_of_nestjs_left_behind_is_taken_over() {
    let place = Place::new().await;
    place.group("billing").await;
    let header = format!(r#"{{"correlationId":"{}"}}"#, place.subject);
    place.emitted(&["a", "1", HEADER, &header]).await;
    let mut take = redis::cmd("XREADGROUP");
    take.arg("GROUP").arg("billing").arg("crashed");
    take.arg("STREAMS").arg(&place.pattern).arg(">");
    let _taken: redis::Value = ask(place.url, &take).await;
    let messaging = place.messaging();
    let worker = messaging
        .worker("billing")
        .idle(Duration::from_millis(100))
        .handle(
            &place.subject,
            |value: Value, message: MessageContext| async move {
                assert_eq!(message.attempt(), 2);
                Ok::<_, HandlerError>(value)
            },
        );
    let worker = worker.start().await.unwrap();
    assert_eq!(place.reply(place.subject.name()).await, ["a", "1"]);
    worker.stop().await;
    assert_eq!(place.pending("billing").await, 0);
}

#[tokio::test]
async fn a_dead_letter_that_is_retried_keeps_its_id_and_is_for_its_group_alone() {
    let place = Place::new().await;
    let messaging = place.messaging();
    let ids = Arc::new(Mutex::new(Vec::new()));
    let worker = |group: &str, fails: bool| {
        let ids = Arc::clone(&ids);
        let name = group.to_owned();
        let worker = messaging.worker(group).policy(soon(1));
        worker.handle(&place.subject, move |_: Value, message: MessageContext| {
            ids.lock()
                .unwrap()
                .push((name.clone(), message.id().to_string()));
            async move {
                match fails {
                    true => Err(Failure::permanent("no").into()),
                    false => Ok::<_, HandlerError>(Value::Null),
                }
            }
        })
    };
    let other = worker("other", false).start().await.unwrap();
    let failing = worker("billing", true).start().await.unwrap();
    place.emitted(&["a", "{\"b\":1}"]).await;
    let dead = messaging.dead_letters("billing", &place.subject).unwrap();
    eventually("it is a dead letter", async || {
        dead.list(None, 10).await.unwrap().len() == 1
    })
    .await;
    failing.stop().await;
    let letter = dead.list(None, 10).await.unwrap().remove(0);
    assert_eq!(letter.payload, r#"{"a":{"b":1}}"#);
    let mended = worker("billing", false).start().await.unwrap();
    assert!(dead.retry(&letter.entry).await.unwrap());
    eventually("it is handled, and passed over by the other", async || {
        ids.lock().unwrap().len() == 3 && place.entries(&place.pattern).await.is_empty()
    })
    .await;
    mended.stop().await;
    other.stop().await;
    let mut ids = ids.lock().unwrap().clone();
    ids.sort();
    let id = letter.id.unwrap();
    let expected = ["billing", "billing", "other"].map(|group| (group.to_owned(), id.clone()));
    assert_eq!(ids, expected);
}

/// Replies to the requests on a pattern as a server of theirs does.
async fn serve(place: &Place, replies: &[(&[&str], bool)]) -> Entries {
    let mut served = Entries::new();
    for (fields, is_array) in replies {
        eventually("a request", async || {
            place.entries(&place.pattern).await.len() > served.len()
        })
        .await;
        served = place.entries(&place.pattern).await;
        let header: Value = serde_json::from_str(served.last().unwrap().1.last().unwrap()).unwrap();
        let header = match is_array {
            true => json!({"correlationId": header["correlationId"], "isArray": true}),
            false => json!({"correlationId": header["correlationId"]}),
        };
        // Others' replies are on the same stream.
        place.add(RESPONSES, &["a", "1"]).await;
        place
            .add(RESPONSES, &[HEADER, r#"{"correlationId":"another"}"#])
            .await;
        let header = header.to_string();
        let fields = [*fields, &[HEADER, &header]].concat();
        place.add(RESPONSES, &fields).await;
    }
    served
}

#[tokio::test]
async fn a_request_to_a_server_of_nestjs_has_its_reply() {
    let place = Place::new().await;
    let messaging = place.messaging();
    let unknown = messaging.send(&place.subject, &json!({})).await;
    assert!(matches!(unknown, Err(SendError::UnknownSubject { .. })));
    place.group("nest").await;
    let replies: [(&[&str], bool); 3] = [
        (&["sum", "3", "nested", "{\"a\":[null]}"], false),
        (&["0", "\"a\"", "1", "2"], true),
        (&[], false),
    ];
    let sends = async {
        let send = async |value: Value| messaging.send(&place.subject, &value).await.unwrap();
        let sum = send(json!({"a": 1, "b": {"c": [2]}})).await;
        assert_eq!(sum, json!({"sum": 3, "nested": {"a": [null]}}));
        assert_eq!(send(json!([1, {"b": null}])).await, json!(["a", 2]));
        assert_eq!(send(json!({})).await, json!({}));
    };
    let (served, ()) = tokio::join!(serve(&place, &replies), sends);
    let fields = |n: usize| &served[n].1[..served[n].1.len() - 1];
    assert_eq!(fields(0), ["a", "1", "b", "{\"c\":[2]}", HEADER]);
    assert_eq!(fields(1), ["0", "1", "1", "{\"b\":null}", HEADER]);
    assert!(served[1].1.last().unwrap().contains("\"isArray\":true"));
    assert_eq!(fields(2), [HEADER]);

    // One whose server says nothing is taken back.
    let options = MessageOptions::default().timeout(Duration::from_millis(50));
    let late = json!({"late": 1});
    let sent = messaging.send_with(&place.subject, &late, options).await;
    assert!(matches!(sent, Err(SendError::TimedOut { .. })));
    eventually("it is taken back", async || {
        place.entries(&place.pattern).await.len() == 3
    })
    .await;
    messaging.close().await;
}

#[tokio::test]
async fn what_the_form_of_nestjs_cannot_carry_is_an_error_and_is_not_sent() {
    let place = Place::new().await;
    place.group("nest").await;
    let messaging = place.messaging();
    for value in [
        json!(true),
        json!("abc"),
        json!(null),
        json!(7),
        json!({HEADER: 1}),
    ] {
        let emitted = messaging.emit(&place.subject, &value).await;
        let is_unfit = matches!(&emitted, Err(EmitError::Bus(MessageBusError::Unfit(_))));
        assert!(is_unfit, "{emitted:?}");
        let sent = messaging.send(&place.subject, &value).await;
        let is_unfit = matches!(&sent, Err(SendError::Bus(MessageBusError::Unfit(_))));
        assert!(is_unfit, "{sent:?}");
    }
    assert!(place.entries(&place.pattern).await.is_empty());
    messaging.emit(&place.subject, &json!({})).await.unwrap();
    let entries = place.entries(&place.pattern).await;
    assert_eq!(
        entries[0].1[0], HEADER,
        "an object without keys has a header"
    );
}

#[tokio::test]
async fn both_ends_of_this_library_understand_each_other_in_the_form_of_nestjs() {
    let place = Place::new().await;
    let (server, client) = (place.messaging(), place.messaging());
    let worker = server.worker("billing").handle(
        &place.subject,
        |value: Value, message: MessageContext| async move {
            assert_eq!(message.metadata().tenant.as_deref(), Some("acme"));
            match value["do"].as_str() {
                Some("refuse") => Err(ReplyError::new("sold-out", "there are none").into()),
                Some("nothing") => Ok(Value::Null),
                _ => Ok::<_, HandlerError>(value),
            }
        },
    );
    let worker = worker.start().await.unwrap();
    let send = |value: Value| {
        let mut options = MessageOptions::default();
        options.metadata.tenant = Some("acme".to_owned());
        let client = client.clone();
        let subject = place.subject.clone();
        async move { client.send_with(&subject, &value, options).await }
    };
    let asking = (0..100).map(|n| send(json!({"n": n})));
    for (n, reply) in futures_util::future::join_all(asking)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(reply.unwrap(), json!({"n": n}));
    }
    assert_eq!(send(json!({"do": "nothing"})).await.unwrap(), Value::Null);
    let refused = send(json!({"do": "refuse"})).await;
    assert!(matches!(refused, Err(SendError::Refused(error)) if error.code == "sold-out"));
    worker.stop().await;
    let mut xlen = redis::cmd("XLEN");
    xlen.arg(&place.pattern);
    assert_eq!(
        ask::<usize>(place.url, &xlen).await,
        0,
        "what is handled is thrown away"
    );
}

#[tokio::test]
async fn two_subjects_with_one_pattern_of_nestjs_are_refused() {
    let place = Place::new().await;
    let other: Subject<Value, Value> = Subject::parse(unique_name()).unwrap();
    let patterns = NestPatterns::default()
        .with(&place.subject, &place.pattern)
        .and_then(|patterns| patterns.with(&other, &place.pattern));
    let bus = RedisMessageBus::for_nestjs(place.url, patterns.unwrap()).unwrap();
    let messaging = Messaging::new(Arc::new(bus), "shop");
    let echo = |value: Value, _: MessageContext| async move { Ok::<_, HandlerError>(value) };
    let worker = messaging.worker("g").handle(&place.subject, echo);
    let refused = worker.handle(&other, echo).start().await;
    let error = refused.err().expect("two handlers for one stream");
    let said = tidelog_domain::causes(&error).to_string();
    for part in [&place.pattern, place.subject.name(), other.name()] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_pattern_of_nestjs_has_bounds() {
    let subject: Subject<()> = Subject::new("a");
    for odd in ["", "a{b", "}", RESPONSES, &"a".repeat(257)] {
        assert!(
            NestPatterns::default().with(&subject, odd).is_err(),
            "{odd}"
        );
    }
}
