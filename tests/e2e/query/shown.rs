//! What is shown of documents: chosen fields, deleted ones, and whether the client has them.

use reqwest::Method;
use serde_json::{Value, json};

use super::targets::{refuses, targets};
use crate::client::must;

#[tokio::test]
async fn only_the_fields_that_are_chosen_are_shown_and_the_id() {
    for target in targets().await {
        let shown = json!({"id": "b1", "title": "Tides", "author": {"name": "Ann"}});
        for (path, list) in [
            ("/book/b1?fields=title,author.name", false),
            ("/book?fields=title,author.name&title=Tides", false),
            ("/books?fields=title,author.name&title=Tides", true),
        ] {
            let data = target.queries().get(path).await.data(200);
            let expected = if list { json!([shown]) } else { shown.clone() };
            assert_eq!(data, expected, "{path}");
        }
        let version = target
            .queries()
            .get("/book/b3?fields=version,subtitle,author.name")
            .await;
        assert_eq!(
            version.data(200),
            json!({"id": "b3", "subtitle": null, "version": 1})
        );
    }
    refuses("/books?fields=title,colour", "unknown-parameter", "fields").await;
    refuses("/book/b1?fields=$where", "unknown-parameter", "fields").await;
    refuses("/books?fields=", "malformed-request", "fields").await;
}

#[tokio::test]
async fn a_deleted_document_is_shown_to_who_asks_for_it() {
    for target in targets().await {
        target
            .queries()
            .get("/book/b7")
            .await
            .problem(404, "not-found");
        let gone = target
            .queries()
            .get("/book/b7?deleted=include")
            .await
            .data(200);
        assert_eq!(
            (&gone["title"], &gone["deleted"]),
            (&json!("Tides gone"), &json!(true))
        );
        assert_eq!(gone["version"], 2);
        let both = target
            .queries()
            .get("/books?title[prefix]=Tides&deleted=include")
            .await
            .data(200);
        let both: Vec<(&Value, &Value)> = both
            .as_array()
            .unwrap()
            .iter()
            .map(|book| (&book["id"], &book["deleted"]))
            .collect();
        assert_eq!(
            both,
            [(&json!("b1"), &json!(false)), (&json!("b7"), &json!(true))]
        );
        target
            .queries()
            .get("/book?title=Tides+gone")
            .await
            .problem(404, "not-found");
        let first = target
            .queries()
            .get("/book?title=Tides+gone&deleted=include")
            .await;
        assert_eq!(first.data(200)["id"], "b7");
        target
            .queries()
            .get("/book/b8?deleted=include")
            .await
            .problem(404, "not-found");
    }
    refuses("/books?deleted=only", "malformed-request", "deleted").await;
}

#[tokio::test]
async fn a_client_that_has_what_it_asks_for_gets_304() {
    for target in targets().await {
        for path in [
            "/book/b1",
            "/book/b1?fields=title",
            "/book?title=Tides",
            "/book/b7?deleted=include",
        ] {
            let first = target.queries().get(path).await;
            first.data(200);
            let tag = first.header("etag");
            let again = target
                .queries()
                .request(Method::GET, path)
                .header("if-none-match", tag);
            let again = must(again).await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
            let other = target
                .queries()
                .request(Method::GET, path)
                .header("if-none-match", "\"1.0\"");
            must(other).await.data(200);
        }
    }
}
