//! Bad input over HTTP: each answer is a problem document of the contract's table, and nothing is written.
//!
//! Each case runs on the embedded backends, on servers and through a gateway (with Redis and with NATS between it and its worker), since what must
//! not get through (a quote, a NUL, an operator) means something else to each of them. On servers that are not the tests' own there is no
//! gateway with NATS: it has a NATS to itself.

use reqwest::Method;
use serde_json::{Value, json};
use tidelog_test_support::{Engine, Server, shared};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::client::{Answer, Client, must};
use crate::log::read;
use crate::services::{Backends, Site};

/// A site with two posts: `alive`, and `gone`, which is deleted.
struct Target {
    site: Site,
    database_url: String,
    /// Held while a test counts events.
    turn: Mutex<()>,
    /// The bus, where it has one to itself.
    _bus: Option<Server>,
}

/// All kinds of site, shared by the tests of this module.
async fn targets() -> Vec<&'static Target> {
    static DEV: OnceCell<Target> = OnceCell::const_new();
    static SERVERS: OnceCell<Target> = OnceCell::const_new();
    static GATEWAY: OnceCell<Target> = OnceCell::const_new();
    static GATEWAY_ON_NATS: OnceCell<Target> = OnceCell::const_new();
    let servers = async || Target::of(Site::all(&Backends::fresh().await).await).await;
    let gateway = async || {
        let backends = Backends::for_a_gateway().await;
        Target::of(Site::through_a_gateway(&backends).await).await
    };
    let gateway_on_nats = async || {
        let (nats, backends) = Backends::with_a_bus_of_its_own(Engine::Nats).await;
        let target = Target::of(Site::through_a_gateway(&backends).await).await;
        Target {
            _bus: Some(nats),
            ..target
        }
    };
    let mut targets = vec![
        DEV.get_or_init(async || Target::of(Site::dev().await).await)
            .await,
        SERVERS.get_or_init(servers).await,
        GATEWAY.get_or_init(gateway).await,
    ];
    if shared::are_own() {
        targets.push(GATEWAY_ON_NATS.get_or_init(gateway_on_nats).await);
    }
    targets
}

impl Target {
    async fn of(mut site: Site) -> Self {
        site.commands = site.commands.shared();
        site.queries = site.queries.shared();
        for id in ["alive", "gone"] {
            let post = json!({"id": id, "title": "A title", "content": "", "author_name": "Ann"});
            site.commands.post("/post", &post).await.data(201);
        }
        let gone = site.commands.delete("/post/gone").await;
        gone.data(200);
        site.queries
            .get_after("/post/gone", gone.token())
            .await
            .problem(404, "not-found");
        Self {
            database_url: site.database_url(),
            site,
            turn: Mutex::new(()),
            _bus: None,
        }
    }

    /// Runs `attempt` and checks that the log is the same after it.
    async fn unchanged(&self, attempt: impl AsyncFnOnce(&Client)) {
        let _turn: MutexGuard<'_, ()> = self.turn.lock().await;
        let before = read(&self.database_url).await;
        attempt(&self.site.commands).await;
        assert_eq!(
            read(&self.database_url).await,
            before,
            "something was written"
        );
    }
}

/// Makes an attempt on each site, and checks that its answer is the problem `name` and that nothing was written.
async fn refused(status: u16, name: &str, attempt: impl AsyncFn(&Client) -> Answer) -> Vec<Value> {
    let mut problems = Vec::new();
    for target in targets().await {
        target
            .unchanged(async |commands| {
                problems.push(attempt(commands).await.problem(status, name))
            })
            .await;
    }
    problems
}

/// A body that would be right.
fn post() -> Value {
    json!({"title": "A title", "content": "", "author_name": "Ann"})
}

/// A body that would be right, with another value for one field, or one more field.
fn post_with(field: &str, value: Value) -> Value {
    let mut post = post();
    post[field] = value;
    post
}

/// Sends these bytes as JSON.
async fn post_bytes(commands: &Client, bytes: Vec<u8>) -> Answer {
    let request = commands
        .request(Method::POST, "/post")
        .header("content-type", "application/json");
    must(request.body(bytes)).await
}

/// A request line and headers as they are, with no body.
fn bare(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").into()
}

#[tokio::test]
async fn what_is_not_json_is_malformed() {
    for text in [
        "",
        "{",
        "{\"title\":}",
        "title=A",
        "{\"title\":\"A\"} x",
        "\u{feff}{}",
        "[1,]",
        "NaN",
    ] {
        refused(400, "malformed-request", async |commands| {
            post_bytes(commands, text.into()).await
        })
        .await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_is_malformed() {
    let bytes = b"{\"title\":\"\xff\xfe\",\"content\":\"\",\"author_name\":\"Ann\"}";
    refused(400, "malformed-request", async |commands| {
        post_bytes(commands, bytes.to_vec()).await
    })
    .await;
}

#[tokio::test]
async fn a_body_of_another_type_is_unsupported() {
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/xml",
        "",
    ] {
        refused(415, "unsupported-media-type", async |commands| {
            let request = commands
                .request(Method::POST, "/post")
                .header("content-type", kind);
            must(request.body(post().to_string())).await
        })
        .await;
    }
    refused(415, "unsupported-media-type", async |commands| {
        must(
            commands
                .request(Method::POST, "/post")
                .body(post().to_string()),
        )
        .await
    })
    .await;
}

#[tokio::test]
async fn an_unknown_field_is_refused_and_named() {
    for (body, field) in [
        (post_with("colour", json!("red")), "/colour"),
        (post_with("$where", json!("1")), "/$where"),
    ] {
        let problems = refused(422, "invalid", async |commands| {
            commands.post("/post", &body).await
        })
        .await;
        for problem in problems {
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
        let patch = json!({&field[1..]: "red"});
        refused(422, "invalid", async |commands| {
            commands.patch("/post/alive", &patch).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_field_that_the_server_sets_cannot_be_set() {
    for field in ["version", "created_at", "updated_at", "deleted"] {
        let body = post_with(field, json!(7));
        refused(422, "invalid", async |commands| {
            commands.post("/post", &body).await
        })
        .await;
        refused(422, "invalid", async |commands| {
            commands.patch("/post/alive", &json!({field: 7})).await
        })
        .await;
    }
    refused(422, "invalid", async |commands| {
        commands.patch("/post/alive", &json!({"id": "other"})).await
    })
    .await;
}

#[tokio::test]
async fn a_value_that_does_not_fit_the_schema_is_refused_and_named() {
    let long = "x".repeat(201);
    let wrong = [
        ("/title", json!(long)),
        ("/title", json!("")),
        ("/title", json!(7)),
        ("/content", json!(null)),
    ];
    for (field, value) in wrong {
        let body = post_with(&field[1..], value.clone());
        let problems = refused(422, "invalid", async |commands| {
            commands.post("/post", &body).await
        })
        .await;
        for problem in problems {
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
            assert!(
                !problem.to_string().contains(&long),
                "the answer repeats what the client sent"
            );
        }
        let patch = json!({&field[1..]: value});
        refused(422, "invalid", async |commands| {
            commands.patch("/post/alive", &patch).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    for body in [json!([]), json!("title"), json!(1), json!(null)] {
        refused(422, "invalid", async |commands| {
            commands.post("/post", &body).await
        })
        .await;
        refused(422, "invalid", async |commands| {
            commands.patch("/post/alive", &body).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_missing_field_is_refused_and_named() {
    let body = json!({"content": "", "author_name": "Ann"});
    for problem in refused(422, "invalid", async |commands| {
        commands.post("/post", &body).await
    })
    .await
    {
        assert_eq!(problem["errors"][0]["field"], "/title", "{problem}");
    }
}

#[tokio::test]
async fn an_unknown_id_or_aggregate_is_not_found() {
    let patch = json!({"title": "B"});
    refused(404, "not-found", async |commands| {
        commands.patch("/post/nobody", &patch).await
    })
    .await;
    refused(404, "not-found", async |commands| {
        commands.delete("/post/nobody").await
    })
    .await;
    refused(404, "not-found", async |commands| {
        commands.post("/nothing", &post()).await
    })
    .await;
    refused(404, "not-found", async |commands| {
        commands.patch("/nothing/alive", &patch).await
    })
    .await;
    refused(404, "not-found", async |commands| {
        commands.post("/", &post()).await
    })
    .await;
    refused(404, "not-found", async |commands| {
        commands.patch("/post/alive/title", &patch).await
    })
    .await;
}

#[tokio::test]
async fn a_deleted_id_is_gone_for_good() {
    let patch = json!({"title": "B"});
    refused(410, "deleted", async |commands| {
        commands.patch("/post/gone", &patch).await
    })
    .await;
    refused(410, "deleted", async |commands| {
        commands.delete("/post/gone").await
    })
    .await;
    for id in ["gone", "alive"] {
        let body = post_with("id", json!(id));
        refused(409, "already-exists", async |commands| {
            commands.post("/post", &body).await
        })
        .await;
    }
}

/// Patches a post that exists, on condition of `etag`.
async fn patch_if_match(commands: &Client, etag: &str) -> Answer {
    let request = commands
        .request(Method::PATCH, "/post/alive")
        .header("if-match", etag);
    must(request.json(&json!({"title": "B"}))).await
}

#[tokio::test]
async fn a_bad_if_match_is_malformed() {
    for etag in [
        "1",
        "\"1",
        "1\"",
        "'1'",
        "\"1\" \"2\"",
        "\"1\", *",
        "W/1",
        "",
    ] {
        refused(400, "malformed-request", async |commands| {
            patch_if_match(commands, etag).await
        })
        .await;
    }
}

#[tokio::test]
async fn an_if_match_of_another_version_fails() {
    for etag in [
        "\"2\"",
        "\"0\"",
        "\"2.abc\"",
        "\"999\"",
        "\"99999999999999999999999\"",
        "\"\"",
        "\"x\"",
        "\"-1\"",
        "W/\"1\"",
        "\"2\", \"3\"",
    ] {
        refused(412, "precondition-failed", async |commands| {
            patch_if_match(commands, etag).await
        })
        .await;
    }
}

#[tokio::test]
async fn a_body_of_two_mebibytes_is_too_large() {
    let body = post_with("content", json!("x".repeat(2 * 1024 * 1024))).to_string();
    refused(413, "too-large", async |commands| {
        let head = format!(
            "POST /post HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        commands.raw(&[head.as_bytes(), body.as_bytes()].concat()).await
    })
    .await;
    refused(413, "too-large", async |commands| {
        post_bytes(commands, body.clone().into()).await
    })
    .await;
}

#[tokio::test]
async fn a_body_of_two_mebibytes_in_chunks_is_too_large() {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
    refused(413, "too-large", async |commands| {
        let head = "POST /post HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                    Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = chunk.repeat(32) + "0\r\n\r\n";
        commands
            .raw(&[head.as_bytes(), body.as_bytes()].concat())
            .await
    })
    .await;
}

#[tokio::test]
async fn an_event_that_would_be_too_large_is_refused() {
    let body = post_with("content", json!("x".repeat(600 * 1024)));
    refused(413, "too-large", async |commands| {
        commands.post("/post", &body).await
    })
    .await;
}

#[tokio::test]
async fn a_body_nested_a_hundred_deep_is_malformed() {
    let deep = format!("{{\"title\":{}{}}}", "[".repeat(100), "]".repeat(100));
    refused(400, "malformed-request", async |commands| {
        post_bytes(commands, deep.clone().into()).await
    })
    .await;
    let deeper = "{\"a\":".repeat(100_000);
    refused(400, "malformed-request", async |commands| {
        post_bytes(commands, deeper.clone().into()).await
    })
    .await;
}

#[tokio::test]
async fn an_id_with_a_quote_is_malformed() {
    for id in ["a'b", "a\"b", "a`b", "' OR 1=1 --"] {
        let body = post_with("id", json!(id));
        refused_id(&body).await;
        let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        refused_path(&escaped).await;
    }
    refused_path("a'b").await;
}

#[tokio::test]
async fn an_id_with_a_nul_is_malformed() {
    refused_id(&post_with("id", json!("a\0b"))).await;
    refused_path("a%00b").await;
}

#[tokio::test]
async fn an_id_of_ten_kilobytes_is_malformed() {
    let long = "x".repeat(10 * 1024);
    refused_id(&post_with("id", json!(long))).await;
    refused_path(&long).await;
}

#[tokio::test]
async fn an_id_that_is_no_id_is_malformed() {
    for id in [
        json!(""),
        json!("."),
        json!(".."),
        json!("a/b"),
        json!("ä"),
        json!("a b"),
        json!("x".repeat(129)),
    ] {
        refused_id(&post_with("id", id)).await;
    }
    for path in ["..", "%2e%2e", "a%2fb", "%c3%a4", "%ff", "%zz", "a%20b"] {
        refused_path(path).await;
    }
}

/// A create whose body brings an id that is none.
async fn refused_id(body: &Value) {
    for target in targets().await {
        target
            .unchanged(async |commands| {
                let answer = commands.post("/post", body).await;
                // The id is a part of the body too, so a schema's violation would be as true.
                let name = if answer.status == 422 {
                    "invalid"
                } else {
                    "malformed-request"
                };
                answer.problem(if name == "invalid" { 422 } else { 400 }, name);
            })
            .await;
    }
}

/// A patch, a delete and a read of a path that has no id, as they are.
async fn refused_path(id: &str) {
    for method in ["PATCH", "DELETE"] {
        for target in targets().await {
            target
                .unchanged(async |commands| {
                    let mut request = bare(method, &format!("/post/{id}"));
                    if method == "PATCH" {
                        let body = "{\"title\":\"B\"}";
                        request = format!(
                            "PATCH /post/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                            body.len()
                        )
                        .into();
                    }
                    commands
                        .raw(&request)
                        .await
                        .problem(400, "malformed-request");
                })
                .await;
        }
    }
    for target in targets().await {
        target
            .site
            .queries
            .raw(&bare("GET", &format!("/post/{id}")))
            .await
            .problem(400, "malformed-request");
    }
}

#[tokio::test]
async fn bytes_that_are_no_http_get_no_answer_from_inside() {
    for target in targets().await {
        target
            .unchanged(async |commands| {
                for bytes in [
                    &b"\0\0\0\0\0\0\r\n\r\n"[..],
                    b"PATCH /post/a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
                ] {
                    let answer = commands.raw(bytes).await;
                    assert_eq!(answer.status, 400, "{answer:?}");
                }
            })
            .await;
    }
}

#[tokio::test]
async fn another_method_is_not_allowed_and_those_that_are_are_named() {
    for (method, path, allowed) in [
        (Method::GET, "/post", "POST"),
        (Method::PUT, "/post/alive", "PATCH"),
        (Method::GET, "/post/alive", "PATCH"),
    ] {
        for target in targets().await {
            target
                .unchanged(async |commands| {
                    let answer = must(commands.request(method.clone(), path)).await;
                    answer.problem(405, "method-not-allowed");
                    assert!(answer.header("allow").contains(allowed), "{answer:?}");
                })
                .await;
        }
    }
    for target in targets().await {
        for (method, path) in [
            (Method::POST, "/posts"),
            (Method::DELETE, "/post/alive"),
            (Method::PATCH, "/post"),
        ] {
            let answer = must(target.site.queries.request(method, path)).await;
            answer.problem(405, "method-not-allowed");
            assert!(answer.header("allow").contains("GET"), "{answer:?}");
        }
    }
}

/// Asks the query services and checks the problem.
async fn misread(path: &str, status: u16, name: &str) -> Vec<Value> {
    let mut problems = Vec::new();
    for target in targets().await {
        problems.push(target.site.queries.get(path).await.problem(status, name));
    }
    problems
}

#[tokio::test]
async fn an_unknown_field_or_operator_of_a_filter_is_named() {
    for (parameter, path) in [
        ("colour", "/posts?colour=red"),
        ("title[$ne]", "/posts?title[$ne]=x"),
        ("title[$ne]", "/post?title[$ne]=x"),
        ("title[$where]", "/posts?title%5B%24where%5D=1"),
        ("$where", "/posts?$where=1"),
        ("title.$ne", "/posts?title.$ne=x"),
        ("title[like]", "/posts?title[like]=x"),
        ("__proto__", "/posts?__proto__=x"),
    ] {
        for problem in misread(path, 400, "unknown-parameter").await {
            assert!(problem.to_string().contains(parameter), "{path}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_filter_value_is_data_and_nothing_else() {
    for value in ["{\"$ne\":null}", "' OR '1'='1", "[$ne]", "*", ".*", "%25"] {
        for target in targets().await {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("title", value)
                .finish();
            let answer = target.site.queries.get(&format!("/posts?{query}")).await;
            assert_eq!(answer.data(200), json!([]), "{value}");
        }
    }
}

#[tokio::test]
async fn a_bad_limit_is_malformed() {
    for limit in [
        "0",
        "-1",
        "201",
        "1.5",
        "x",
        "",
        "99999999999999999999",
        "1e2",
    ] {
        misread(&format!("/posts?limit={limit}"), 400, "malformed-request").await;
    }
}

#[tokio::test]
async fn a_bad_cursor_is_malformed() {
    for cursor in ["x", "", "%00", "AAAA", "..", &"x".repeat(5000)] {
        misread(&format!("/posts?after={cursor}"), 400, "malformed-request").await;
    }
}

#[tokio::test]
async fn a_bad_consistency_token_is_malformed() {
    for target in targets().await {
        for token in ["x", "1", "1.5.1-1", "", &"x".repeat(3000)] {
            let request = target
                .site
                .queries
                .request(Method::GET, "/post/alive")
                .header("consistency-token", token);
            must(request).await.problem(400, "malformed-request");
        }
    }
}

#[tokio::test]
async fn an_unknown_view_or_document_is_not_found() {
    for path in [
        "/nothing",
        "/nothings",
        "/nothing/alive",
        "/post/nobody",
        "/post/gone",
        "/",
        "/posts/alive",
    ] {
        misread(path, 404, "not-found").await;
    }
}

#[tokio::test]
async fn a_representation_that_there_is_not_is_not_acceptable() {
    for target in targets().await {
        let request = target
            .site
            .queries
            .request(Method::GET, "/post/alive")
            .header("accept", "application/xml");
        must(request).await.problem(406, "not-acceptable");
    }
}
