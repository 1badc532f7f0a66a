//! Large answers are compressed for clients that accept it, and known by tags of their own.

use flate2::read::GzDecoder;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::targets::{Target, targets};
use crate::client::{Answer, must};

/// An answer that came compressed.
struct Compressed {
    headers: HeaderMap,
    /// As many bytes came.
    bytes: usize,
    json: Value,
}

/// Asks for a compressed answer, which must come.
async fn compressed(request: RequestBuilder) -> Compressed {
    let response = request
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers["content-encoding"], "gzip", "{headers:?}");
    assert_eq!(headers["vary"], "accept-encoding", "{headers:?}");
    let bytes = response.bytes().await.unwrap();
    let json = serde_json::from_reader(GzDecoder::new(&*bytes)).unwrap();
    Compressed {
        headers,
        bytes: bytes.len(),
        json,
    }
}

/// Makes a note that is worth compressing, and waits until it can be read.
async fn long_note(target: &Target, id: &str) -> Value {
    let note = json!({"id": id, "text": "tide ".repeat(1000)});
    let made = target.site.commands.post("/note", &note).await;
    made.data(201);
    let path = format!("/note/{id}");
    let read = target.queries().get_after(&path, made.token()).await;
    assert!(!read.headers.contains_key("content-encoding"), "{read:?}");
    assert_eq!(read.header("vary"), "accept-encoding");
    read.data(200)
}

#[tokio::test]
async fn documents_and_lists_are_compressed_for_who_accepts_it() {
    for target in targets().await {
        let note = long_note(target, "compressed").await;
        let queries = target.queries();
        let one = compressed(queries.request(Method::GET, "/note/compressed")).await;
        assert_eq!(one.json["data"], note);
        assert!(one.bytes < 1000, "{} bytes", one.bytes);
        let list = compressed(queries.request(Method::GET, "/notes?id=compressed")).await;
        assert_eq!(list.json["data"], json!([note]));
        let short = queries
            .request(Method::GET, "/note/compressed?fields=rank")
            .header("accept-encoding", "gzip");
        let short = must(short).await;
        assert!(!short.headers.contains_key("content-encoding"), "{short:?}");
        short.data(200);
    }
}

#[tokio::test]
async fn a_compressed_document_has_a_tag_of_its_own_that_still_tells_its_version() {
    for target in targets().await {
        long_note(target, "tagged").await;
        let queries = target.queries();
        let get = || queries.request(Method::GET, "/note/tagged");
        let plain = queries.get("/note/tagged").await;
        let tag = compressed(get()).await.headers["etag"].clone();
        let tag = tag.to_str().unwrap();
        assert_eq!(Some(tag), suffixed(&plain).as_deref());
        let known = |accepts: &str| {
            get()
                .header("if-none-match", tag)
                .header("accept-encoding", accepts)
        };
        let unchanged = must(known("gzip")).await;
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, tag));
        // Who cannot read what is compressed has not got it.
        let other = must(known("br")).await;
        other.data(200);
        assert_eq!(other.header("etag"), plain.header("etag"));
        let patch = |text: &str| {
            let request = target.site.commands.request(Method::PATCH, "/note/tagged");
            let request = request.header("if-match", tag);
            must(request.json(&json!({"text": text})))
        };
        patch("low").await.data(200);
        patch("high").await.problem(412, "precondition-failed");
    }
}

/// The tag of an answer as it is when that is compressed.
fn suffixed(answer: &Answer) -> Option<String> {
    let tag = answer.header("etag").strip_suffix('"')?;
    Some(format!("{tag}-gzip\""))
}

#[tokio::test]
async fn what_a_command_answers_is_compressed_too_and_tagged_by_its_version() {
    for target in targets().await {
        long_note(target, "written").await;
        let commands = &target.site.commands;
        let patch = commands
            .request(Method::PATCH, "/note/written")
            .json(&json!({"rank": 1}));
        let patched = compressed(patch).await;
        assert_eq!(patched.json["data"]["version"], 2);
        assert_eq!(patched.headers["etag"], "\"2\"");
        let api = compressed(commands.request(Method::GET, "/openapi.json")).await;
        assert!(api.json["paths"].is_object());
    }
}
