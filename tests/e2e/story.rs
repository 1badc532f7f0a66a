//! The story of a post, on each set of backends: created, patched, deleted; seen by the one that wrote it at once.

use reqwest::Method;
use serde_json::json;
use tidelog_test_support::shared;

use crate::client::must;
use crate::log::{assert_dense, read, read_stream};
use crate::services::{Backends, Site};
use crate::view::View;

#[tokio::test]
async fn a_post_lives_on_one_embedded_file() {
    let mut site = Site::dev().await;
    a_post_lives(&mut site, None).await;
}

#[tokio::test]
async fn a_post_lives_on_mysql_redis_and_mongodb_with_each_role_its_own_process() {
    let backends = Backends::fresh().await;
    let mut site = Site::three(&backends).await;
    a_post_lives(&mut site, Some(&backends)).await;
}

#[tokio::test]
async fn a_post_lives_on_mariadb_redis_and_mongodb_with_each_role_its_own_process() {
    let backends = Backends::fresh_on(shared::mariadb().await).await;
    let mut site = Site::three(&backends).await;
    a_post_lives(&mut site, Some(&backends)).await;
}

#[tokio::test]
async fn a_post_lives_on_servers_with_all_roles_in_one_process() {
    let backends = Backends::fresh().await;
    let mut site = Site::all(&backends).await;
    a_post_lives(&mut site, Some(&backends)).await;
}

async fn a_post_lives(site: &mut Site, backends: Option<&Backends>) {
    let (id, token) = it_is_created_and_read(site).await;
    let token = it_is_patched_on_condition(site, &id, &token).await;
    it_is_listed(site, &id, &token).await;
    site.restart().await;
    let again = site.queries.get(&format!("/post/{id}")).await.data(200);
    assert_eq!(
        (&again["title"], &again["version"]),
        (&json!("Hello"), &json!(2)),
        "after a restart"
    );
    it_is_deleted(site, &id).await;
    the_log_has_its_three_versions(site, &id).await;
    the_view_has_one_document(site, backends, &id).await;
}

async fn it_is_created_and_read(site: &Site) -> (String, String) {
    let missing = site.queries.get("/post?author_name=Ann").await;
    missing.problem(404, "not-found");
    let post = json!({"title": "Hello", "content": "First", "author_name": "Ann"});
    let created = site.commands.post("/post", &post).await;
    let data = created.data(201);
    let id = data["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        data,
        json!({"id": id, "version": 1, "title": "Hello", "content": "First", "author_name": "Ann"})
    );
    assert_eq!(created.header("etag"), "\"1\"");
    assert!(
        created.header("location").ends_with(&format!("/post/{id}")),
        "{created:?}"
    );
    let read = site
        .queries
        .get_after(&format!("/post/{id}"), created.token())
        .await;
    let data = read.data(200);
    for (field, value) in [
        ("title", "Hello"),
        ("content", "First"),
        ("author_name", "Ann"),
    ] {
        assert_eq!(data[field], value, "{read:?}");
    }
    assert_eq!(
        (&data["id"], &data["version"]),
        (&json!(id), &json!(1)),
        "{read:?}"
    );
    assert!(read.header("etag").starts_with("\"1."), "{read:?}");
    assert_eq!(data["created_at"], data["updated_at"], "{read:?}");
    (id, created.token().to_owned())
}

async fn it_is_patched_on_condition(site: &Site, id: &str, token: &str) -> String {
    let path = format!("/post/{id}");
    let read = site.queries.get_after(&path, token).await;
    let etag = read.header("etag").to_owned();
    let with_etag = |etag: &str, content: &str| {
        let request = site
            .commands
            .request(Method::PATCH, &path)
            .header("if-match", etag);
        request.json(&json!({"content": content}))
    };
    let patched = must(with_etag(&etag, "Second")).await;
    let data = patched.data(200);
    assert_eq!(
        (&data["title"], &data["content"], &data["version"]),
        (&json!("Hello"), &json!("Second"), &json!(2))
    );
    assert_eq!(patched.header("etag"), "\"2\"");
    must(with_etag(&etag, "Third"))
        .await
        .problem(412, "precondition-failed");
    must(with_etag("\"1\"", "Third"))
        .await
        .problem(412, "precondition-failed");

    let nothing = site
        .commands
        .patch(&path, &json!({"content": "Second"}))
        .await;
    assert_eq!(
        nothing.data(200)["version"],
        2,
        "a patch that changes nothing appends nothing"
    );

    let after = site.queries.get_after(&path, patched.token()).await;
    assert_eq!(after.data(200)["content"], "Second");
    let unchanged = site
        .queries
        .request(Method::GET, &path)
        .header("if-none-match", after.header("etag"));
    assert_eq!(must(unchanged).await.status, 304);
    let changed = site
        .queries
        .request(Method::GET, &path)
        .header("if-none-match", etag);
    assert_eq!(must(changed).await.status, 200);
    patched.token().to_owned()
}

async fn it_is_listed(site: &Site, id: &str, token: &str) {
    let other =
        json!({"id": "other", "title": "Another", "content": "First", "author_name": "Bob"});
    let other = site.commands.post("/post", &other).await;
    assert_eq!(other.data(201)["id"], "other");
    let ids = |answer: crate::client::Answer| {
        let posts = answer.data(200);
        let ids = posts
            .as_array()
            .expect("a list")
            .iter()
            .map(|post| post["id"].as_str().expect("an id").to_owned());
        ids.collect::<Vec<_>>()
    };
    let both = ids(site.queries.get_after("/posts", other.token()).await);
    let mut expected = [id.to_owned(), "other".to_owned()];
    expected.sort();
    assert_eq!(both, expected);
    assert_eq!(
        ids(site
            .queries
            .get_after("/posts?author_name=Ann", token)
            .await),
        [id]
    );
    assert_eq!(
        ids(site
            .queries
            .get("/posts?author_name=Ann&title=Another")
            .await),
        Vec::<String>::new()
    );
    let first = site.queries.get("/post?author_name=Ann").await;
    assert_eq!(first.data(200)["id"], id, "the first match");
    site.queries
        .get("/post?author_name=Eve")
        .await
        .problem(404, "not-found");

    let page = site.queries.get("/posts?limit=1").await;
    let next = page.json()["next"]
        .as_str()
        .expect("there is more")
        .to_owned();
    let page = site
        .queries
        .get(&format!("/posts?limit=1&after={next}"))
        .await;
    assert_eq!(ids(page.clone()), expected[1..]);
    assert_eq!(page.json()["next"], json!(null), "{page:?}");
}

async fn it_is_deleted(site: &Site, id: &str) {
    let path = format!("/post/{id}");
    let deleted = site.commands.delete(&path).await;
    assert_eq!(deleted.data(200)["version"], 3);
    site.queries
        .get_after(&path, deleted.token())
        .await
        .problem(404, "not-found");
    let list = site.queries.get("/posts").await.data(200);
    assert_eq!(list.as_array().expect("a list").len(), 1, "{list}");
    site.commands
        .patch(&path, &json!({"title": "Back"}))
        .await
        .problem(410, "deleted");
    site.commands.delete(&path).await.problem(410, "deleted");
    let again = json!({"id": id, "title": "Back", "content": "", "author_name": "Ann"});
    site.commands
        .post("/post", &again)
        .await
        .problem(409, "already-exists");
}

async fn the_log_has_its_three_versions(site: &Site, id: &str) {
    let rows = read_stream(&site.database_url(), &format!("post/{id}")).await;
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.version, row.event_type.as_str(), row.payload.clone()))
        .collect();
    let state = |content: &str| json!({"title": "Hello", "content": content, "author_name": "Ann"});
    let expected = [
        (
            1,
            "post.created",
            json!({"state": state("First"), "before": {}}),
        ),
        (
            2,
            "post.updated",
            json!({"state": state("Second"), "before": {"content": "First"}}),
        ),
        (
            3,
            "post.deleted",
            json!({"state": state("Second"), "before": {}}),
        ),
    ];
    assert_eq!(seen, expected);
    assert_dense(&read(&site.database_url()).await);
}

async fn the_view_has_one_document(site: &Site, backends: Option<&Backends>, id: &str) {
    let view = View::of(site, backends).await;
    view.equals_the_fold("post").await;
    let documents = view.documents("post").await;
    let post = documents
        .get(id)
        .expect("the deleted post leaves a tombstone");
    assert_eq!((post.version, post.deleted), (3, true));
    assert_eq!(post.state["content"], "Second", "the last state");
    assert_eq!(documents.len(), 2, "one document a post");
}
