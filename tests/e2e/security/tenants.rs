//! One tenant tries to reach what is another's, by every path, parameter, header and id there is.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tidelog_test_support::{Issuer, SigningKey};

use crate::client::{Answer, Client, must};
use crate::log;
use crate::services::{Backends, Role, Service, of_tenants};

/// What stands in everything that is the victim's, and must stand in no answer to anybody else.
const SECRET: &str = "only-acme-may-read-this";

/// The victim's post.
const ID: &str = "p1";

/// A program in which the victim has some data, on one kind of backends, and the issuer of everybody's tokens.
struct Ground {
    service: Service,
    commands: Client,
    queries: Client,
    key: SigningKey,
    /// What the victim's writes and reads were answered.
    token: String,
    cursors: Vec<(String, String)>,
    live_id: String,
    tag: String,
    event: String,
    _issuer: Issuer,
}

impl Ground {
    async fn new(role: Role, backends: &[(&str, &str)]) -> Self {
        let key = SigningKey::new("one");
        let issuer = Issuer::start(&[&key]).await;
        let jwks = issuer.jwks_url();
        let roles = "feed=everything, admin/read=everything, admin/operate=everything";
        let sign_in = of_tenants(&jwks);
        let settings = [backends, &sign_in, &[("TIDELOG_ROLES", roles)]].concat();
        let service = Service::start_with(role, &settings).await;
        let mut ground = Self {
            commands: service.commands(),
            queries: service.queries(),
            service,
            key,
            token: String::new(),
            cursors: Vec::new(),
            live_id: String::new(),
            tag: String::new(),
            event: String::new(),
            _issuer: issuer,
        };
        ground.settle().await;
        ground
    }

    /// What the victim has.
    async fn settle(&mut self) {
        for id in [ID, "p2", "p3"] {
            let made = self.write("acme", Method::POST, "/post", &post(id)).await;
            made.data(201);
            self.token = made.token().to_owned();
        }
        let read = self
            .acme("/post/p3")
            .header("consistency-token", &self.token);
        let read = must(read.header("prefer", "wait=30")).await;
        read.data(200);
        self.tag = read.header("etag").to_owned();
        for path in ["/posts?limit=1", "/posts?limit=1&sort=-title"] {
            let page = must(self.acme(path)).await;
            let next = page.json()["next"].as_str().unwrap().to_owned();
            self.cursors.push((path.to_owned(), next));
        }
        let history = must(self.acme("/post/p1/history")).await;
        self.event = history.data(200)[0]["id"].as_str().unwrap().to_owned();
        let live = self.acme("/posts").header("accept", "text/event-stream");
        let (id, page) = told(live, "page").await;
        assert!(page.contains(SECRET));
        self.live_id = id;
    }

    /// A request of the victim's.
    fn acme(&self, path: &str) -> RequestBuilder {
        let request = self.queries.request(Method::GET, path);
        request.bearer_auth(self.key.token(&json!({"tenant": "acme"})))
    }

    /// A token of somebody of another tenant, who has every role there is.
    fn beta(&self) -> String {
        let roles = ["everything"];
        let claims = json!({"tenant": "beta", "sub": "mallory", "roles": roles});
        self.key.token(&claims)
    }

    async fn write(&self, tenant: &str, method: Method, path: &str, body: &Value) -> Answer {
        let token = self.key.token(&json!({"tenant": tenant}));
        let request = self.commands.request(method, path).json(body);
        must(request.bearer_auth(token)).await
    }

    /// What the attacker gets for a request with these headers.
    async fn tries(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = client.request(method, path).bearer_auth(self.beta());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = must(request).await;
        let headers = format!("{:?}", answer.headers);
        assert!(
            !answer.body.contains(SECRET) && !headers.contains(SECRET) && answer.status < 500,
            "{path}: {answer:?}"
        );
        answer
    }

    async fn reads(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.tries(&self.queries, Method::GET, path, headers, None)
            .await
    }

    /// All that the log has of the victim's.
    async fn log(&self) -> Vec<log::Row> {
        let mut rows = log::read(&self.service.database_url()).await;
        rows.retain(|row| row.stream.starts_with("acme:"));
        rows
    }
}

fn post(id: &str) -> Value {
    json!({"id": id, "title": format!("{SECRET} {id}"), "content": SECRET, "author_name": SECRET})
}

/// Id and text of the first event called `name` of a live connection.
async fn told(request: RequestBuilder, name: &str) -> (String, String) {
    let read = told_until(request, name).await;
    let event = format!("event: {name}\n");
    let told = read.split("\n\n").find(|frame| frame.contains(&event));
    let told = told.unwrap_or_default();
    let id = told.lines().find_map(|line| line.strip_prefix("id: "));
    (id.unwrap_or_default().to_owned(), told.to_owned())
}

/// All that a live connection tells until the first event called `name` is whole.
async fn told_until(request: RequestBuilder, name: &str) -> String {
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut read, name) = (String::new(), format!("event: {name}\n"));
    loop {
        let chunk = response.chunk().await.unwrap().expect("an event");
        read.push_str(&String::from_utf8_lossy(&chunk));
        let (whole, _) = read.rsplit_once("\n\n").unwrap_or_default();
        if whole.contains(&name) {
            return read;
        }
    }
}

/// Runs a case on one SQLite file, and on servers.
async fn everywhere(case: impl AsyncFn(&Ground)) {
    case(&Ground::new(Role::Dev, &[]).await).await;
    let backends = Backends::fresh().await;
    case(&Ground::new(Role::All, &backends.settings()).await).await;
}

/// Every way of writing the victim's id.
const IDS: [&str; 8] = [
    "p1",
    "acme:p1",
    "acme%3Ap1",
    "acme:post%2Fp1",
    "acme%E2%90%9Fp1",
    "%E2%90%9Facme%E2%90%9Fp1",
    "..%2Facme:post%2Fp1",
    "*",
];

/// Headers by which somebody may hope to be taken for another tenant.
const HEADERS: [(&str, &str); 8] = [
    ("tenant", "acme"),
    ("x-tenant", "acme"),
    ("x-tenant-id", "acme"),
    ("x-forwarded-user", "acme"),
    ("x-forwarded-host", "acme.example"),
    ("forwarded", "for=127.0.0.1;host=acme.example"),
    ("x-original-url", "/post/p1"),
    ("cookie", "tenant=acme; tidelog_admin=acme"),
];

#[tokio::test]
async fn no_path_leads_to_what_is_another_tenants() {
    everywhere(async |ground| {
        for id in IDS {
            for path in [
                format!("/post/{id}"),
                format!("/post/{id}/history"),
                format!("/post/{id}?version=1"),
                format!("/post/{id}?deleted=include"),
                format!("/post/{id}?at=2999-01-01T00:00:00Z"),
                format!("/acme:post/{id}"),
                format!("/acme/post/{id}"),
            ] {
                let answer = ground.reads(&path, &[]).await;
                assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
            }
            for method in [Method::PATCH, Method::DELETE] {
                let body = json!({"title": "mine"});
                let body = (method == Method::PATCH).then_some(&body);
                for path in [format!("/post/{id}"), format!("/acme:post/{id}")] {
                    let tried = ground.tries(&ground.commands, method.clone(), &path, &[], body);
                    let status = tried.await.status;
                    assert!(
                        [400, 404, 405].contains(&status),
                        "{method} {path}: {status}"
                    );
                }
            }
        }
        assert_eq!(ground.log().await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn no_parameter_leads_to_what_is_another_tenants() {
    everywhere(async |ground| {
        for query in [
            "",
            "title[prefix]=",
            "title[contains]=only",
            "id=p1",
            "id[in]=p1,p2",
            "id[gte]=",
            "id[ne]=x",
            "id=acme%E2%90%9Fp1",
            "id[prefix]=acme",
            "id[lt]=~",
            "id[exists]=true",
            "version[gte]=0",
            "created_at[gte]=2000-01-01T00:00:00Z",
            "match=any&id=p1&title[prefix]=o",
            "match=any&id[exists]=true&title[exists]=true",
            "sort=-id",
            "sort=title&limit=200",
            "deleted=include",
            "count=exact",
            "fields=title,content",
            "author_name[ne]=nobody",
        ] {
            let page = ground.reads(&format!("/posts?{query}"), &[]).await;
            assert_eq!(page.data(200), json!([]), "{query}");
            assert_eq!(page.json()["next"], Value::Null, "{query}");
            assert!(
                [Value::Null, json!(0)].contains(&page.json()["count"]),
                "{query}"
            );
            if !query.contains("limit") && !query.contains("count") {
                ground
                    .reads(&format!("/post?{query}"), &[])
                    .await
                    .problem(404, "not-found");
            }
        }
        for query in [
            "tenant=acme",
            "tenant[eq]=acme",
            "metadata.tenant=acme",
            "id[contains]=acme",
            "id[$ne]=x",
        ] {
            let answer = ground.reads(&format!("/posts?{query}"), &[]).await;
            assert_eq!(answer.status, 400, "{query}: {answer:?}");
        }
        for (path, cursor) in &ground.cursors {
            let answer = ground.reads(&format!("{path}&after={cursor}"), &[]).await;
            answer.problem(400, "malformed-request");
        }
    })
    .await;
}

#[tokio::test]
async fn no_header_leads_to_what_is_another_tenants() {
    everywhere(async |ground| {
        for header in HEADERS {
            ground
                .reads("/post/p1", &[header])
                .await
                .problem(404, "not-found");
            assert_eq!(ground.reads("/posts", &[header]).await.data(200), json!([]));
            let body = json!({"title": "mine"});
            let headers = [header];
            let tried = ground.tries(
                &ground.commands,
                Method::PATCH,
                "/post/p1",
                &headers,
                Some(&body),
            );
            tried.await.problem(404, "not-found");
        }
        let token = [("consistency-token", ground.token.as_str())];
        for path in ["/post/p1", "/posts", "/post"] {
            ground
                .reads(path, &token)
                .await
                .problem(400, "malformed-request");
        }
        let known = [("if-none-match", ground.tag.as_str())];
        ground
            .reads("/post/p3", &known)
            .await
            .problem(404, "not-found");
        let body = json!({"title": "mine"});
        for header in [("if-match", "\"1\""), ("if-match", ground.tag.as_str())] {
            let headers = [header];
            let tried = ground.tries(
                &ground.commands,
                Method::PATCH,
                "/post/p1",
                &headers,
                Some(&body),
            );
            assert!([404, 412].contains(&tried.await.status));
        }
        // Who comes back with the id of another's live query is told what is his own: nothing.
        let request = ground
            .queries
            .request(Method::GET, "/posts")
            .bearer_auth(ground.beta());
        let request = request.header("accept", "text/event-stream");
        let (_, page) = told(request.header("last-event-id", &ground.live_id), "page").await;
        assert!(
            page.contains("\"data\":[]") && !page.contains(SECRET),
            "{page}"
        );
        // Of one document that he does not have he is told that it begins anew, and no more.
        let request = ground
            .queries
            .request(Method::GET, "/post/p1")
            .bearer_auth(ground.beta());
        let request = request.header("accept", "text/event-stream");
        let request = request.header("last-event-id", &ground.live_id);
        told(request, "reset").await;
        assert_eq!(ground.log().await.len(), 3);
    })
    .await;
}

/// Beta's live list of all posts; `last` is where it goes on from.
fn live_posts(ground: &Ground, last: Option<&str>) -> RequestBuilder {
    let request = ground.queries.request(Method::GET, "/posts");
    let request = request.bearer_auth(ground.beta());
    let request = request.header("accept", "text/event-stream");
    match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    }
}

#[tokio::test]
async fn who_comes_back_to_a_live_list_hears_nothing_of_what_another_tenant_did_meanwhile() {
    everywhere(async |ground| {
        let (last, _) = told(live_posts(ground, None), "page").await;
        // They lie in all partitions: before and behind what is its own.
        let ids: Vec<_> = (0..32).map(|n| format!("merger-{n}")).collect();
        for id in &ids {
            let made = ground.write("acme", Method::POST, "/post", &post(id)).await;
            made.data(201);
        }
        let own = json!({"id": "merger-0", "title": "t", "content": "c", "author_name": "a"});
        let made = ground.write("beta", Method::POST, "/post", &own).await;
        let token = [("consistency-token", made.token()), ("prefer", "wait=30")];
        ground.reads("/post/merger-0", &token).await.data(200);
        let read = told_until(live_posts(ground, Some(&last)), "changed").await;
        assert!(
            !read.contains("removed") && !read.contains(SECRET),
            "{read}"
        );
        assert!(read.contains(r#""id":"merger-0""#), "{read}");
    })
    .await;
}

#[tokio::test]
async fn nothing_that_a_command_says_makes_it_another_tenants() {
    everywhere(async |ground| {
        let key = [("idempotency-key", "\"the-same\"")];
        let own = ground
            .commands
            .request(Method::POST, "/post")
            .header(key[0].0, key[0].1);
        let own = own.bearer_auth(
            ground
                .key
                .token(&json!({"tenant": "acme", "sub": "mallory"})),
        );
        must(own.json(&post("p4"))).await.data(201);
        // The same key and request of another tenant is another command, and its answer is about another post.
        let mut body = post("p4");
        for field in ["title", "content", "author_name"] {
            body[field] = json!("mine");
        }
        let made = ground
            .tries(&ground.commands, Method::POST, "/post", &key, Some(&body))
            .await;
        assert_eq!(
            (
                made.status,
                made.headers.contains_key("idempotency-replayed")
            ),
            (201, false)
        );
        for member in ["tenant", "actor", "metadata", "_tenant", "stream"] {
            let mut body = body.clone();
            body["id"] = json!("p5");
            body[member] = json!("acme");
            let refused = ground
                .tries(&ground.commands, Method::POST, "/post", &[], Some(&body))
                .await;
            refused.problem(422, "invalid");
        }
        for id in ["acme:p1", "acme:post/p1", "acme␟p1", "../p1"] {
            let mut body = body.clone();
            body["id"] = json!(id);
            let refused = ground
                .tries(&ground.commands, Method::POST, "/post", &[], Some(&body))
                .await;
            refused.problem(400, "malformed-request");
        }
        let streams: Vec<_> = ground
            .log()
            .await
            .into_iter()
            .map(|row| (row.stream, row.version))
            .collect();
        let mut streams: Vec<_> = streams
            .iter()
            .map(|(stream, version)| (stream.as_str(), *version))
            .collect();
        streams.sort_unstable();
        assert_eq!(
            streams,
            [
                "acme:post/p1",
                "acme:post/p2",
                "acme:post/p3",
                "acme:post/p4"
            ]
            .map(|stream| (stream, 1))
        );
    })
    .await;
}

#[tokio::test]
async fn the_feed_and_the_administration_are_not_for_who_has_a_tenant() {
    everywhere(async |ground| {
        for path in [
            "/events?partition=0",
            "/events/heads",
            "/events?partition=0&after=0",
        ] {
            let answer = ground
                .tries(&ground.commands, Method::GET, path, &[], None)
                .await;
            answer.problem(403, "forbidden");
        }
        let admin = ground.service.admin();
        let event = format!("/admin/api/events/{}", ground.event);
        for path in [
            "/admin/api/events",
            "/admin/api/events?tenant=acme",
            "/admin/api/streams?prefix=acme:",
            "/admin/api/streams/acme:post/p1",
            "/admin/api/views",
            "/admin/api/subscriptions",
            "/admin/api/audit",
            &event,
        ] {
            let answer = ground.tries(&admin, Method::GET, path, &[], None).await;
            answer.problem(403, "forbidden");
        }
        let answer = ground
            .tries(&admin, Method::GET, "/metrics", &[], None)
            .await;
        assert!(!answer.body.contains("acme"), "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn whose_tenant_cannot_be_told_gets_nothing() {
    let ground = Ground::new(Role::Dev, &[]).await;
    for claims in [
        json!({}),
        json!({"tenant": ""}),
        json!({"tenant": ["acme"]}),
        json!({"tenant": ["acme", "beta"]}),
        json!({"tenant": {"acme": true}}),
        json!({"tenant": 7}),
        json!({"tenant": true}),
        json!({"tenant": "acme:post"}),
        json!({"tenant": "acme␟"}),
        json!({"tenant": "ac me"}),
        json!({"tenant": "x".repeat(57)}),
        json!({"Tenant": "acme"}),
    ] {
        let token = ground.key.token(&claims);
        for path in ["/post/p1", "/posts", "/post/p1/history"] {
            let request = ground.queries.request(Method::GET, path);
            let answer = must(request.bearer_auth(&token)).await;
            assert_eq!(answer.status, 403, "{claims}: {answer:?}");
        }
        let request = ground
            .commands
            .request(Method::POST, "/post")
            .json(&post("p9"));
        let answer = must(request.bearer_auth(&token)).await;
        assert_eq!(answer.status, 403, "{claims}: {answer:?}");
    }
    // Whose name only hardly differs is another.
    for tenant in ["ACME", "acme.", "acm", "acme2"] {
        let token = ground.key.token(&json!({"tenant": tenant}));
        let answer = must(
            ground
                .queries
                .request(Method::GET, "/posts")
                .bearer_auth(token),
        )
        .await;
        assert_eq!(answer.data(200), json!([]), "{tenant}");
    }
}
