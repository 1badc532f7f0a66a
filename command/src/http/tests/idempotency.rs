//! Idempotency keys as a client sees them.

use super::*;
use crate::http::idempotency::IDEMPOTENCY_REPLAYED;

const KEY: &str = "idempotency-key: \"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

impl Api {
    /// Sends JSON with the key [`KEY`].
    async fn keyed(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send_with(method, path, &[JSON, KEY], body.to_string())
            .await
    }
}

impl Answer {
    /// All that a client can tell one success from another by, but for the header that says that it was given before, and the
    /// request's own id.
    #[track_caller]
    fn success(&self, replayed: bool) -> (u16, String, Vec<Option<&str>>) {
        assert!(self.status < 300, "{}", self.body);
        let said = self.headers.get(IDEMPOTENCY_REPLAYED);
        assert_eq!(
            said.map(|value| value.to_str().unwrap()),
            replayed.then_some("true"),
            "{}",
            self.body
        );
        let header = |name| self.headers.get(name).map(|value| value.to_str().unwrap());
        let headers = ["location", "etag", "consistency-token"].map(header);
        (self.status, self.body.to_string(), headers.into())
    }
}

#[tokio::test]
async fn a_creation_with_a_key_is_done_once_and_answered_the_same_each_time() {
    let api = Api::new().await;
    let first = api.keyed("POST", "/post", &a_post()).await;
    assert_eq!(first.status, 201);
    let id = first.body["data"]["id"].as_str().unwrap();
    assert_eq!(Uuid::try_parse(id).unwrap().get_version_num(), 8);
    let again = api.keyed("POST", "/post", &a_post()).await;
    assert_eq!(again.success(true), first.success(false));
    // It has changed since, and was deleted; it is the first answer all the same.
    let path = format!("/post/{id}");
    let patched = api.send("PATCH", &path, &json!({"title": "b"})).await;
    assert_eq!(patched.status, 200);
    assert_eq!(api.send("DELETE", &path, &Value::Null).await.status, 200);
    let late = api.keyed("POST", "/post", &a_post()).await;
    assert_eq!(late.success(true), first.success(false));
    assert_eq!(api.store.size().await, 3);
}

#[tokio::test]
async fn each_command_may_be_sent_again_with_its_key() {
    let api = Api::new().await;
    api.created("1").await;
    let patch = json!({"title": "b"});
    let at_1 = [JSON, KEY, "if-match: \"1\""];
    let send_patch = || api.send_with("PATCH", "/post/1", &at_1, patch.to_string());
    let patched = send_patch().await;
    assert_eq!(send_patch().await.success(true), patched.success(false));
    let deleted = api.keyed("DELETE", "/post/1", &Value::Null).await;
    let again = api.keyed("DELETE", "/post/1", &Value::Null).await;
    assert_eq!(again.success(true), deleted.success(false));
    assert_eq!(send_patch().await.success(true), patched.success(false));
    assert_eq!(api.store.events("post/1").await.len(), 3);

    let body = json!({"id": "ann"});
    let opened = api.keyed("POST", "/account/open", &body).await;
    let deposit = json!({"cents": 5});
    let first = api.keyed("POST", "/account/ann/deposit", &deposit).await;
    let again = api.keyed("POST", "/account/ann/deposit", &deposit).await;
    assert_eq!(again.success(true), first.success(false));
    let reopened = api.keyed("POST", "/account/open", &body).await;
    assert_eq!(reopened.success(true), opened.success(false));
    assert_eq!(api.store.events("account/ann").await.len(), 2);
}

#[tokio::test]
async fn a_command_that_changed_nothing_changes_nothing_when_it_is_sent_again() {
    let api = Api::new().await;
    api.created("1").await;
    let same = json!({"title": "a"});
    let first = api.keyed("PATCH", "/post/1", &same).await;
    let other = api.send("PATCH", "/post/1", &json!({"title": "b"})).await;
    assert_eq!(
        (first.header("etag"), other.header("etag")),
        ("\"1\"", "\"2\"")
    );
    let again = api.keyed("PATCH", "/post/1", &same).await;
    assert_eq!(again.success(true), first.success(false));
    assert_eq!(api.store.events("post/1").await.len(), 2);
}

#[tokio::test]
async fn a_key_is_for_one_request() {
    let api = Api::new().await;
    api.created("1").await;
    api.created("2").await;
    let patch = json!({"title": "b"}).to_string();
    let first = api.send_with("PATCH", "/post/1", &[JSON, KEY], patch.clone());
    first.await.success(false);
    let others = [
        (
            "/post/1",
            vec![JSON, KEY],
            json!({"title": "c"}).to_string(),
        ),
        ("/post/1", vec![JSON, KEY], format!(" {patch}")),
        ("/post/2", vec![JSON, KEY], patch.clone()),
        ("/post/1", vec![JSON, KEY, "if-match: \"1\""], patch.clone()),
    ];
    for (path, headers, body) in others {
        let answer = api.send_with("PATCH", path, &headers, body).await;
        answer.problem(422, "idempotency-key-reused");
    }
    // Another command has keys of its own.
    api.keyed("DELETE", "/post/2", &Value::Null)
        .await
        .success(false);
    assert_eq!(api.store.size().await, 4);
}

#[tokio::test]
async fn a_rejection_is_decided_again() {
    let api = Api::new().await;
    api.send("POST", "/account/open", &json!({"id": "ann"}))
        .await;
    let withdraw = json!({"cents": 5});
    let path = "/account/ann/withdraw";
    for _ in 0..2 {
        let rejected = api.keyed("POST", path, &withdraw).await;
        rejected.problem(422, "rejected");
    }
    api.send("POST", "/account/ann/deposit", &json!({"cents": 5}))
        .await;
    let done = api.keyed("POST", path, &withdraw).await;
    let again = api.keyed("POST", path, &withdraw).await;
    assert_eq!(again.success(true), done.success(false));
}

#[tokio::test]
async fn a_key_that_is_being_worked_on_is_said_to_be() {
    let api = Api::new().await;
    api.store.hold_up();
    let post = a_post();
    let first = api.keyed("POST", "/post", &post);
    let meanwhile = async {
        while api.store.batches().is_empty() {
            tokio::task::yield_now().await;
        }
        let second = api.keyed("POST", "/post", &post).await;
        second.problem(409, "request-in-progress");
        assert!(second.header("retry-after").parse::<u64>().unwrap() > 0);
        api.store.let_go();
    };
    let (first, ()) = tokio::join!(first, meanwhile);
    let again = api.keyed("POST", "/post", &post).await;
    assert_eq!(again.success(true), first.success(false));
}

#[tokio::test]
async fn a_key_whose_client_went_away_is_in_progress_until_its_command_is_done() {
    let api = Api::new().await;
    api.store.hold_up();
    let post = a_post();
    {
        let gone = api.keyed("POST", "/post", &post);
        let taken = async {
            while api.store.batches().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = taken => {}
            _ = gone => unreachable!("the store is held up"),
        }
    }
    let meanwhile = api.keyed("POST", "/post", &post).await;
    meanwhile.problem(409, "request-in-progress");
    api.store.let_go();
    let answer = loop {
        let answer = api.keyed("POST", "/post", &post).await;
        if answer.status != 409 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    answer.success(true);
    assert_eq!(api.store.size().await, 1);
}

#[tokio::test]
async fn a_command_in_doubt_may_be_sent_again_with_its_key() {
    let api = Api::new().await;
    let in_doubt = || AppendError::InDoubt("the answer was lost".into());
    api.store.inject([Fault::Append(Box::new(in_doubt))]);
    let post = json!({"id": "1", "title": "a", "content": "c", "author_name": "ann"});
    let without = api.send("POST", "/post", &post).await;
    without.problem(504, "in-doubt");
    assert!(!without.headers.contains_key("retry-after"));
    // It was committed, though its answer was lost.
    api.store.inject([Fault::LostAnswer]);
    let doubtful = api.keyed("POST", "/post", &a_post()).await;
    let detail = doubtful.problem(504, "in-doubt");
    assert!(detail.contains("same Idempotency-Key"), "{detail}");
    assert!(doubtful.header("retry-after").parse::<u64>().unwrap() > 0);
    let found = api.keyed("POST", "/post", &a_post()).await;
    assert_eq!(found.success(true).0, 201);
    // It was not.
    api.store.inject([Fault::Append(Box::new(in_doubt))]);
    let patch = json!({"title": "b"});
    let path = format!("/post/{}", found.body["data"]["id"].as_str().unwrap());
    let doubtful = api.keyed("PATCH", &path, &patch).await;
    doubtful.problem(504, "in-doubt");
    api.keyed("PATCH", &path, &patch).await.success(false);
    assert_eq!(api.store.size().await, 2);
}

#[tokio::test]
async fn two_services_on_one_log_do_a_key_once() {
    let api = Api::new().await;
    let other = service_on(Arc::clone(&api.store) as _, AppenderSettings::default()).await;
    let store = Arc::clone(&api.store);
    let other = Api::of(store, other, CommandSettings::default()).await;
    let post = a_post();
    let (one, two) = tokio::join!(
        api.keyed("POST", "/post", &post),
        other.keyed("POST", "/post", &post)
    );
    let one_was_first = one.headers.get(IDEMPOTENCY_REPLAYED).is_none();
    assert_eq!(one.success(!one_was_first), two.success(one_was_first));
    assert_eq!(api.store.size().await, 1);
    assert!(
        other
            .service
            .close(std::time::Duration::from_secs(60))
            .await
    );
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let api = Api::new().await;
    for key in ["", "unquoted", "\"\"", "\"a\", \"b\""] {
        let line = format!("idempotency-key: {key}");
        let post = a_post().to_string();
        let answer = api.send_with("POST", "/post", &[JSON, &line], post).await;
        let detail = answer.problem(400, "malformed-request");
        assert!(detail.contains("Idempotency-Key"), "{detail}");
    }
    assert_eq!(api.store.size().await, 0);
}
