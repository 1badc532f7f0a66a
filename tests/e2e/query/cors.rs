//! Pages of other origins use the services in a browser where the settings let them.

use reqwest::Method;
use serde_json::json;

use super::targets::{SHOP, targets};
use crate::client::{Answer, Client, must};
use crate::services::{Role, Site};

/// What a browser asks before a page of `origin` may send `method`.
async fn preflight(client: &Client, origin: &str, method: &str) -> Answer {
    let request = client
        .request(Method::OPTIONS, "/note/1")
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "if-match");
    must(request).await
}

/// What a page of `origin` reads.
async fn get(client: &Client, origin: &str, path: &str) -> Answer {
    must(client.request(Method::GET, path).header("origin", origin)).await
}

fn allowed(answer: &Answer) -> Option<&str> {
    let origin = answer.headers.get("access-control-allow-origin")?;
    origin.to_str().ok()
}

#[tokio::test]
async fn a_page_of_a_listed_origin_reads_and_writes() {
    for target in targets().await {
        let queries = target.queries();
        let read = get(queries, SHOP, "/book/b1").await;
        read.data(200);
        assert_eq!(allowed(&read), Some(SHOP));
        let exposed = read.header("access-control-expose-headers");
        for name in ["etag", "projection-lag", "consistency-token"] {
            assert!(exposed.contains(name), "no {name} in {exposed}");
        }
        let missing = get(queries, SHOP, "/book/none").await;
        missing.problem(404, "not-found");
        assert_eq!(allowed(&missing), Some(SHOP));

        let commands = &target.site.commands;
        let asked = preflight(commands, SHOP, "PATCH").await;
        assert_eq!((asked.status, allowed(&asked)), (200, Some(SHOP)));
        let methods = asked.header("access-control-allow-methods");
        assert_eq!(methods, "GET,HEAD,POST,PATCH,DELETE");
        let headers = asked.header("access-control-allow-headers");
        assert!(headers.contains("if-match"), "{headers}");
        let note = json!({"text": "from a page"});
        let post = commands.request(Method::POST, "/note").json(&note);
        let written = must(post.header("origin", SHOP)).await;
        written.data(201);
        assert_eq!(allowed(&written), Some(SHOP));
        let asked = preflight(queries, SHOP, "GET").await;
        let methods = asked.header("access-control-allow-methods");
        assert_eq!((allowed(&asked), methods), (Some(SHOP), "GET,HEAD"));
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_let_nothing() {
    for target in targets().await {
        for client in [target.queries(), &target.site.commands] {
            for origin in ["https://evil.example", "null"] {
                let asked = preflight(client, origin, "POST").await;
                assert_eq!(allowed(&asked), None, "{origin}: {asked:?}");
                let read = get(client, origin, "/openapi.json").await;
                assert_eq!(allowed(&read), None, "{origin}: {read:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_origin_is_let_unless_said_and_none_ever_to_the_admin_listener() {
    let site = Site::dev().await;
    for client in [&site.queries, &site.commands] {
        let asked = preflight(client, SHOP, "GET").await;
        assert!(asked.status >= 400, "{asked:?}");
        assert_eq!(allowed(&asked), None);
        let read = get(client, SHOP, "/openapi.json").await;
        assert_eq!((read.status, allowed(&read)), (200, None));
    }
    let mut site = Site::with(Role::Dev, &[("TIDELOG_CORS_ORIGINS", "*")]).await;
    for client in [&site.queries, &site.commands] {
        let read = get(client, SHOP, "/openapi.json").await;
        assert_eq!((read.status, allowed(&read)), (200, Some("*")));
    }
    let admin = site.service(Role::Dev).admin();
    let health = get(&admin, SHOP, "/health/ready").await;
    assert_eq!((health.status, allowed(&health)), (200, None));
    assert_eq!(allowed(&preflight(&admin, SHOP, "GET").await), None);
}
