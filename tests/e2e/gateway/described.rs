//! What is exported of subjects is what goes over messages, byte for byte.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidelog::messaging::{HandlerError, MessageContext, Messaging, RunningWorker, Subject};
use tidelog::settings::{Role, Settings};
use tidelog_test_support::{Engine, shared, unique_name};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::post;
use super::routes::{Visits, commands, settings, shop, worker};
use crate::cli::schema::are_right;
use crate::messaging::ask;
use crate::services::CommandLine;
use crate::story_day_two::program::program;
use crate::waiting::eventually;

/// The messages of a stream.
async fn messages(key: &str) -> Vec<Value> {
    type Entry = (String, BTreeMap<String, String>);
    let mut range = redis::cmd("XRANGE");
    range.arg(key).arg("-").arg("+");
    let entries: Vec<Entry> = ask(shared::redis().await.url(), &range).await;
    let messages = entries.iter().map(|(_, fields)| &fields["message"]);
    messages
        .map(|text| serde_json::from_str(text).unwrap())
        .collect()
}

async fn put(key: &str, message: &Value) {
    let mut add = redis::cmd("XADD");
    add.arg(key)
        .arg("*")
        .arg("message")
        .arg(message.to_string());
    let _entry: String = ask(shared::redis().await.url(), &add).await;
}

fn stream(app: &str, subject: &str) -> String {
    format!("{{{app}:messages:{subject}}}")
}

/// Takes what comes on `subject`, tells of it and never ends with it.
async fn holding(app: &str, subject: &str) -> (RunningWorker, mpsc::UnboundedReceiver<Value>) {
    let (tells, told) = mpsc::unbounded_channel();
    let subject: Subject<Value, Value> = Subject::parse(subject).unwrap();
    let messaging = Messaging::connect(shared::redis().await.url(), app).unwrap();
    let worker =
        messaging
            .worker("holding")
            .handle(&subject, move |data: Value, _: MessageContext| {
                let _ = tells.send(data);
                std::future::pending::<Result<Value, HandlerError>>()
            });
    let worker = worker.stop_timeout(Duration::ZERO).start().await.unwrap();
    (worker, told)
}

/// The request on `subject` that `asking` makes, as it is on the bus.
async fn request_of(app: &str, subject: &str, asking: impl Future<Output = ()>) -> Value {
    let (worker, mut told) = holding(app, subject).await;
    // It is taken back when its caller is gone.
    let seen = async {
        let data = told.recv().await.unwrap();
        (messages(&stream(app, subject)).await.remove(0), data)
    };
    let (request, data) = tokio::select! {
        seen = seen => seen,
        () = asking => panic!("it was answered"),
    };
    assert_eq!(request["data"], data);
    worker.stop().await;
    request
}

/// The reply to `request`, sent once more by somebody without the library.
async fn reply_to(app: &str, subject: &str, request: &Value) -> Value {
    let inbox = format!("{{{app}:replies:{}}}", Uuid::new_v4());
    put(&inbox, &Value::Null).await;
    let mut request = request.clone();
    request["id"] = json!(Uuid::now_v7());
    request["replyto"] = json!(inbox);
    request["timeoutms"] = json!(600_000);
    put(&stream(app, subject), &request).await;
    eventually("a reply", async || {
        let replies = messages(&inbox).await;
        replies.get(1).cloned().ok_or_else(String::new)
    })
    .await
}

/// What a directory's `envelopes`, `messages` and `replies` have to say of `message`, on `subject`.
fn fits(kind: &str, subject: &str, message: &Value) -> [(String, bool, Value); 3] {
    let (directory, envelope) = match kind {
        "reply" => ("replies", "json-schema/envelopes/reply.json"),
        _ => ("messages", "json-schema/envelopes/message.json"),
    };
    let of_data = format!("json-schema/{directory}/{subject}.json");
    [
        (envelope.to_owned(), true, message.clone()),
        (of_data.clone(), true, message["data"].clone()),
        (of_data, false, json!({"method": 1, "status": "x"})),
    ]
}

#[tokio::test]
async fn what_goes_over_messages_fits_what_is_exported() {
    let home = tempfile::tempdir().unwrap();
    let out = ["shop", "stock"].map(|name| home.path().join(name));
    let [of_shop, of_stock] = out.each_ref().map(|out| out.to_str().unwrap());
    let arguments = |out| ["schema", "export", "--out", out];
    let shops = CommandLine::of(program, &arguments(of_shop)).with([("MESSAGES", "1")]);
    shops.run().await.succeeded();
    let stock = CommandLine::new(&arguments(of_stock));
    stock.run().await.succeeded();

    let name = unique_name();
    let gateway = shop(&name)
        .start(settings(Role::Gateway, Engine::Redis).await)
        .await
        .unwrap();
    let client = commands(&gateway);
    client
        .post("/visits", &json!({"page": "/"}))
        .await
        .data(202);
    let visited = messages(&stream(&name, "shop.visited")).await.remove(0);
    let price = request_of(&name, "shop.price", async {
        client
            .post("/baskets/b/price", &json!({"articles": 3}))
            .await;
    });
    let price = price.await;
    let command = "tidelog.command.post";
    let creation = request_of(&name, command, async {
        client.post("/post", &post("p")).await;
    });
    let creation = creation.await;

    let workers = shop(&name).start(Settings {
        aggregates: vec!["post".to_owned()],
        ..settings(Role::All, Engine::Redis).await
    });
    let workers = workers.await.unwrap();
    let priced = worker(Engine::Redis, &name, &Visits::default()).await;
    let told = reply_to(&name, "shop.price", &price).await;
    assert_eq!(told["data"], 15);
    let created = reply_to(&name, command, &creation).await;
    assert_eq!(created["data"]["status"], 201, "{created}");
    let mut rejected = creation.clone();
    rejected["data"]["method"] = json!("DELETE");
    rejected["data"]["path"] = json!("/post/nobody");
    rejected["data"].as_object_mut().unwrap().remove("body");
    let rejected = reply_to(&name, command, &rejected).await;
    assert_eq!(rejected["data"]["status"], 404, "{rejected}");
    let mut empty = price.clone();
    empty["data"]["body"]["articles"] = json!(0);
    let refused = reply_to(&name, "shop.price", &empty).await;
    assert_eq!(refused["type"], "tidelog.error");

    let mut of_shop = [
        fits("message", "shop.visited", &visited),
        fits("message", "shop.price", &price),
        fits("reply", "shop.price", &told),
    ]
    .concat();
    let envelope = "json-schema/envelopes/reply.json".to_owned();
    of_shop.push((envelope.clone(), true, refused));
    of_shop.push((envelope, false, json!({"type": "shop.price"})));
    let mut odd = price["data"].clone();
    odd["body"] = json!({"articles": "x"});
    of_shop.push((
        "json-schema/messages/shop.price.json".to_owned(),
        false,
        odd,
    ));
    let read = are_right(&out[0], &of_shop).await;
    assert!(read.contains(" subject.shop.stock, "), "{read}");

    let mut of_stock = [
        fits("message", command, &creation),
        fits("reply", command, &created),
        fits("reply", command, &rejected),
    ]
    .concat();
    let mut odd = creation["data"].clone();
    odd["body"]["title"] = json!(1);
    of_stock.push((format!("json-schema/messages/{command}.json"), false, odd));
    are_right(&out[1], &of_stock).await;
    priced.stop().await;
    assert!(workers.stop().await);
    assert!(gateway.stop().await);
}
