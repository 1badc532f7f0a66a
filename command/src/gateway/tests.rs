//! Commands over messages, as a worker meets them.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidelog_eventbus::messaging::{MessageId, MessageOptions, Messaging, RunningWorker, SendError};

use super::*;
use crate::appender::AppenderSettings;
use crate::fixtures::*;
use crate::handling::Sent;
use crate::http::{CommandSettings, command_router};

struct Here {
    store: Arc<WatchedStore>,
    messaging: Messaging,
    _worker: RunningWorker,
}

async fn here() -> Here {
    let store = WatchedStore::new();
    let service = service_on(Arc::clone(&store) as _, AppenderSettings::default()).await;
    let router = tidelog_http::app(command_router(service, CommandSettings::default()));
    let messaging = Messaging::in_process("app");
    let worker = command_worker(&messaging, &router, ["post"], &Trust::default()).unwrap();
    Here {
        store,
        messaging,
        _worker: worker.start().await.unwrap(),
    }
}

fn creation(path: &str, headers: &[(&str, &str)]) -> CommandCall {
    let all = [("content-type", "application/json")];
    let all = all.iter().chain(headers);
    CommandCall {
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers: all
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        caller: PassedCaller::default(),
        body: RawValue::from_string(a_post().to_string()).ok(),
        text: None,
    }
}

impl Here {
    /// What is replied to `call` in the message `id`.
    async fn send(&self, call: &CommandCall, id: &str) -> Result<CommandReply, SendError> {
        let options = MessageOptions::default().id(MessageId::new(id).unwrap());
        let subject = subject("post").unwrap();
        self.messaging.send_with(&subject, call, options).await
    }
}

fn shown(reply: &CommandReply) -> (u16, &[(String, String)], &str) {
    let body = reply.body.as_deref();
    (reply.status, &reply.headers, body.unwrap().get())
}

#[tokio::test]
async fn a_command_that_is_taken_twice_is_done_once_and_answered_the_same() {
    let here = here().await;
    let (call, id) = (creation("/post", &[]), Uuid::now_v7().to_string());
    let first = here.send(&call, &id).await.unwrap();
    let again = here.send(&call, &id).await.unwrap();
    assert_eq!(first.status, 201);
    assert_eq!(shown(&again), shown(&first));
    assert!(
        first
            .headers
            .iter()
            .all(|(name, _)| name != "idempotency-replayed")
    );
    assert_eq!(here.store.size().await, 1);
    // A client who knows the id, and brings it as a key, names another command.
    let key = format!("\"{id}\"");
    let keyed = creation("/post", &[("idempotency-key", &key)]);
    let other = here
        .send(&keyed, &Uuid::now_v7().to_string())
        .await
        .unwrap();
    assert_ne!(shown(&other).2, shown(&first).2);
    assert_eq!(here.store.size().await, 2);
}

#[tokio::test]
async fn what_is_no_command_of_the_subject_is_refused_and_not_run() {
    let here = here().await;
    let id = Uuid::now_v7().to_string();
    let odd = CommandCall {
        method: "PO ST".to_owned(),
        ..creation("/post", &[])
    };
    for (call, id) in [
        (creation("/account/open", &[]), id.as_str()),
        (creation("/pos%74s", &[]), &id),
        (creation("/pos%7", &[]), &id),
        (creation("/pos%C3%A4", &[]), &id),
        (creation("no path", &[]), &id),
        (odd, &id),
        (creation("/post", &[]), "1"),
    ] {
        let refused = here.send(&call, id).await.unwrap_err();
        assert!(
            matches!(&refused, SendError::Refused(error) if error.code == ReplyError::MALFORMED),
            "{refused:?}"
        );
    }
    assert_eq!(here.store.size().await, 0);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_into_a_message_goes_without_the_state() {
    let state = "x".repeat(MAX_MESSAGE_BYTES);
    let one = |id: &str| json!({"id": id, "version": 3, "text": state});
    let answering = |status: u16, data: Value| {
        let body = data.to_string();
        any(move || async move {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [("etag", "\"3\"")], body)
        })
    };
    let router = Router::new()
        .route("/post", answering(201, json!({"data": one("p")})))
        .route(
            "/post/both",
            answering(200, json!({"data": [one("p"), one("q")]})),
        )
        .route("/post/odd", answering(422, json!({"detail": state})));
    let messaging = Messaging::in_process("app");
    let worker = command_worker(&messaging, &router, ["post"], &Trust::default()).unwrap();
    let worker = worker.start().await.unwrap();
    let ask = async |path: &str| {
        let id = MessageId::new(&Uuid::now_v7().to_string()).unwrap();
        let options = MessageOptions::default().id(id);
        let call = creation(path, &[]);
        messaging
            .send_with(&subject("post").unwrap(), &call, options)
            .await
    };
    let named = |id: &str| json!({"id": id, "version": 3});
    for (path, status, data) in [
        ("/post", 201, named("p")),
        ("/post/both", 200, json!([named("p"), named("q")])),
    ] {
        let reply = ask(path).await.unwrap();
        let (own, headers, body) = shown(&reply);
        assert_eq!(own, status);
        assert!(headers.contains(&("etag".to_owned(), "\"3\"".to_owned())));
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, json!({ "data": data }));
    }
    let refused = ask("/post/odd").await.unwrap_err();
    assert!(
        matches!(&refused, SendError::Refused(error) if error.code == ReplyError::TOO_LARGE),
        "{refused:?}"
    );
    worker.stop().await;
}

#[test]
fn the_id_of_what_is_created_follows_from_that_of_the_message() {
    let id = Uuid::now_v7();
    let created = |id: Uuid| Sent::by_message(&id.to_string()).unwrap().created_id();
    let one = created(id);
    assert_eq!(
        (
            one.get_version_num(),
            one.get_timestamp().map(|at| at.to_unix().0)
        ),
        (7, id.get_timestamp().map(|at| at.to_unix().0))
    );
    assert_eq!(one, created(id));
    assert_ne!(one, id);
    assert_ne!(one, created(Uuid::now_v7()));
    assert!(Sent::by_message(&Uuid::new_v4().to_string()).is_err());
}
