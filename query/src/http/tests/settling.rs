//! A read of one document sees a write as soon as the document shows it.

use super::*;

impl Service {
    /// Writes a post, and projects it but for the checkpoints.
    async fn write_ahead(&self, id: &str, title: &str) -> ConsistencyToken {
        let change = Change::Write(title.to_owned(), "ann".to_owned());
        let token = self.log.change(id, &change).await.unwrap();
        self.write_documents().await;
        token
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_that_shows_the_write_is_read_before_the_checkpoint_follows() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    service.write("p2", "other", "bob").await;
    let token = service.write_ahead("p1", "two").await;
    let answer = service.get_with("/post/p1", &token, None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["data"]["title"], json!("two"));
    // Of several streams, too.
    let token = service.write_ahead("p3", "three").await;
    let answer = service.get_with("/author/ann", &token, None).await;
    assert_eq!(answer.body["data"]["posts"], json!(2), "{}", answer.body);
    // What else the write did, nothing shows yet.
    for uri in ["/post/p2", "/post/none", "/posts", "/author/bob"] {
        let answer = service.get_with(uri, &token, None).await;
        assert_eq!(answer.problem(), (503, "not-yet-projected"), "{uri}");
    }
    service.project().await;
    for uri in ["/post/p2", "/posts", "/author/bob"] {
        let answer = service.get_with(uri, &token, None).await;
        assert_eq!(answer.status, 200, "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_write_must_be_shown() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let shown = service.write_ahead("p1", "two").await;
    let change = Change::Write("three".to_owned(), "ann".to_owned());
    let later = service.log.change("p1", &change).await.unwrap();
    let both = format!("{shown}, {later}");
    let headers = [("Consistency-Token", both.as_str())];
    let answer = service.send("GET", "/post/p1", &headers).await;
    assert_eq!(answer.problem(), (503, "not-yet-projected"));
    service.write_documents().await;
    let answer = service.send("GET", "/post/p1", &headers).await;
    assert_eq!(answer.body["data"]["title"], json!("three"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_document_shows_that_it_is() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let token = service.log.change("p1", &Change::Delete).await.unwrap();
    service.write_documents().await;
    let answer = service.get_with("/post/p1", &token, None).await;
    assert_eq!(answer.problem(), (404, "not-found"));
}

#[tokio::test(start_paused = true)]
async fn a_document_that_the_store_loses_again_is_waited_for_once_more() {
    let service = Service::new().await;
    service.write("p1", "one", "ann").await;
    let token = service.write_ahead("p1", "two").await;
    service.store.forget_what_is_looked_at();
    let lost = service.get_with("/post/p1", &token, None).await;
    assert_eq!(lost.problem(), (503, "not-yet-projected"));
    service.write_documents().await;
    service.store.forget_what_is_looked_at();
    let (found, ()) = tokio::join!(
        service.get_with("/post/p1", &token, Some("wait=10")),
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            service.project().await;
        }
    );
    assert_eq!(found.body["data"]["title"], json!("two"), "{}", found.body);
}
