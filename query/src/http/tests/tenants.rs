//! What is one tenant's is not there for another, whatever a request brings.

use tidelog_domain::Tenant;

use super::live::Live;
use super::*;

fn of(tenant: &str) -> Caller {
    Caller::in_process(Some(Tenant::new(tenant).unwrap()), None)
}

impl Service {
    /// Two tenants that call their posts the same, and one that has none; and posts of no tenant.
    async fn shared() -> Self {
        let service = Self::new().await;
        for (id, title) in [
            ("acme:p1", "acme one"),
            ("acme:p2", "acme two"),
            ("acme2:p1", "acme2 one"),
            ("beta:p1", "beta one"),
            ("beta:p3", "beta three"),
            ("p1", "nobody's"),
        ] {
            service.write(id, title, "ann").await;
        }
        service
    }

    async fn get_as(&self, tenant: &str, uri: &str) -> Answer {
        self.send_as(&of(tenant), "GET", uri, &[]).await
    }
}

#[tokio::test]
async fn each_tenant_reads_its_own_document_under_the_same_id() {
    let service = Service::shared().await;
    for (tenant, title) in [("acme", "acme one"), ("beta", "beta one")] {
        let answer = service.get_as(tenant, "/post/p1").await;
        assert_eq!(answer.body["data"]["title"], title);
        assert_eq!(answer.body["data"]["id"], "p1");
    }
    assert_eq!(
        service.get("/post/p1").await.body["data"]["title"],
        "nobody's"
    );
    assert_eq!(service.get_as("gamma", "/post/p1").await.status, 404);
    assert_eq!(service.get_as("beta", "/post/p2").await.status, 404);
    // The aggregate of one tenant's authors knows nothing of another's.
    for (tenant, posts) in [("acme", 2), ("acme2", 1)] {
        let author = service.get_as(tenant, "/author/ann").await;
        assert_eq!(author.body["data"]["posts"], posts, "{tenant}");
    }
}

#[tokio::test]
async fn no_parameter_leads_to_another_tenants_documents() {
    let service = Service::shared().await;
    let other = "acme%E2%90%9Fp1";
    for uri in [
        "/posts",
        "/posts?match=any&title=acme%20one&title[prefix]=a&author=ann",
        "/posts?id[ne]=p9",
        "/posts?id[gte]=&id[lt]=zzz&match=any",
        "/posts?id[prefix]=",
        "/posts?id[exists]=true",
        "/posts?deleted=include",
        "/posts?sort=-id",
        "/posts?sort=title,-version",
        &format!("/posts?match=any&id={other}&id[in]=p1,p3,{other}"),
        "/posts?id[lt]=zzz",
    ] {
        let answer = service.get_as("beta", uri).await;
        assert_eq!(answer.status, 200, "{uri}: {}", answer.body);
        let mut ids = answer.ids();
        ids.sort_unstable();
        assert_eq!(ids, ["p1", "p3"], "{uri}");
        assert!(!answer.body.to_string().contains("acme"), "{uri}");
    }
    for uri in [
        format!("/post/{other}"),
        format!("/post/{other}/history"),
        "/post/acme:p1".to_owned(),
        "/post/acme%3Ap1/history".to_owned(),
    ] {
        let answer = service.get_as("beta", &uri).await;
        assert_eq!(answer.problem(), (400, "malformed-request"), "{uri}");
    }
    // The keys of authors may be anything.
    let author = service.get_as("beta", "/author/acme%E2%90%9Fann").await;
    assert_eq!(author.status, 404);
    let answer = service.get_as("beta", &format!("/posts?id={other}")).await;
    assert_eq!(answer.ids(), [""; 0]);
    let counted = service.get_as("beta", "/posts?count=exact").await;
    assert_eq!(counted.body["count"], 2);
    let contains = service.get_as("beta", "/posts?id[contains]=bet").await;
    assert_eq!(contains.problem(), (400, "unknown-parameter"));
    let first = service.get_as("beta", "/post?sort=title").await;
    assert_eq!(first.body["data"]["title"], "beta one");
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_refused() {
    let service = Service::shared().await;
    for uri in ["/posts?limit=1", "/posts?limit=1&sort=title"] {
        let page = service.get_as("acme", uri).await;
        let next = page.body["next"].as_str().unwrap();
        let uri = format!("{uri}&after={next}");
        assert_eq!(service.get_as("acme", &uri).await.ids(), ["p2"]);
        for other in [of("beta"), of("acme2"), Caller::anybody()] {
            let answer = service.send_as(&other, "GET", &uri, &[]).await;
            assert_eq!(answer.problem(), (400, "malformed-request"), "{uri}");
        }
    }
}

#[tokio::test]
async fn a_token_of_another_tenants_write_is_refused() {
    let service = Service::shared().await;
    let token = service
        .write("acme:p1", "acme new", "ann")
        .await
        .to_string();
    let headers = [("Consistency-Token", token.as_str())];
    let own = service
        .send_as(&of("acme"), "GET", "/post/p1", &headers)
        .await;
    assert_eq!(own.body["data"]["title"], "acme new");
    for uri in ["/post/p1", "/posts", "/post"] {
        for other in [of("beta"), Caller::anybody()] {
            let answer = service.send_as(&other, "GET", uri, &headers).await;
            assert_eq!(answer.problem(), (400, "malformed-request"), "{uri}");
        }
    }
}

#[tokio::test]
async fn the_past_of_a_document_is_that_of_the_tenants_own() {
    let service = Service::shared().await;
    service.write("acme:p1", "acme later", "ann").await;
    let titles = async |tenant| {
        let history = service.get_as(tenant, "/post/p1/history").await;
        let events = history.body["data"].as_array().unwrap().clone();
        let title = |event: &Value| event["data"]["state"]["title"].as_str().unwrap().to_owned();
        events.iter().map(title).collect::<Vec<_>>()
    };
    assert_eq!(titles("acme").await, ["acme one", "acme later"]);
    assert_eq!(titles("beta").await, ["beta one"]);
    let then = service.get_as("acme", "/post/p1?version=1").await;
    assert_eq!(then.body["data"]["title"], "acme one");
    assert_eq!(then.body["data"]["id"], "p1");
    assert_eq!(
        service.get_as("beta", "/post/p1?version=2").await.status,
        404
    );
    assert_eq!(service.get_as("beta", "/post/p2/history").await.status, 404);
}

#[tokio::test]
async fn a_live_list_tells_of_the_tenants_own_documents_alone() {
    let service = Service::shared().await;
    let mut live = Live::open_as(&service.app, &of("beta"), "/posts", &[]).await;
    live.frame().await.unwrap();
    let page = live.event().await;
    assert_eq!(page.data["data"].as_array().unwrap().len(), 2);
    service.write("acme:p1", "acme again", "ann").await;
    service.write("beta:p3", "beta again", "ann").await;
    let changed = live.event().await;
    assert_eq!(changed.data["data"]["title"], "beta again");
    assert_eq!(changed.data["data"]["id"], "p3");
    service.delete("acme:p2").await;
    service.delete("beta:p3").await;
    let removed = live.event().await;
    assert_eq!(
        (&*removed.name, &removed.data["id"]),
        ("removed", &json!("p3"))
    );
    // Another tenant that comes back with the id begins anew, with its own.
    let last = [("Last-Event-ID", removed.id.as_str())];
    let mut other = Live::open_as(&service.app, &of("acme"), "/posts", &last).await;
    other.frame().await.unwrap();
    assert_eq!(other.event().await.name, "reset");
    let page = other.event().await.data.to_string();
    assert!(
        page.contains("acme again") && !page.contains("beta"),
        "{page}"
    );
}
