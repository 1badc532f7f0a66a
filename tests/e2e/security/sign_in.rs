//! Signing in: each way in which a token can be wrong, who may do what, and the keys that change.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use tidelog_test_support::{AUDIENCE, ISSUER, Issuer, SigningKey};

use crate::client::{Answer, Client, must};
use crate::services::{CommandLine, Role, Service, free_address};
use crate::waiting::eventually;

/// The public half of an RSA key; nobody has the other.
const RSA: &str = include_str!("../../../http/src/sign_in/tests/rsa.json");

/// What the services of these tests permit.
const RULES: &str = "post/delete=editor, post/patch=author|editor, customer/*=clerk, view/customer=clerk, feed=follower, \
                     admin/read=ops, admin/operate=ops-lead";

/// A service whose callers sign in with tokens of an issuer.
struct Signed {
    issuer: Issuer,
    key: SigningKey,
    service: Service,
}

impl Signed {
    async fn start(more: &[(&str, &str)]) -> Self {
        let key = SigningKey::new("first");
        let issuer = Issuer::start(&[&key]).await;
        let url = issuer.jwks_url();
        let mut settings = vec![
            ("TIDELOG_AUTH_JWKS", &*url),
            ("TIDELOG_AUTH_ISSUER", ISSUER),
            ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
            ("TIDELOG_ROLES", RULES),
        ];
        settings.extend(more);
        let service = Service::start_with(Role::Dev, &settings).await;
        Self {
            issuer,
            key,
            service,
        }
    }

    /// Asks `client` as a caller with these roles.
    async fn ask(&self, client: &Client, what: (Method, &str), roles: &[&str]) -> Answer {
        let token = self.key.token(&json!({"roles": roles}));
        ask(client, what, &token, &post("x")).await
    }
}

/// Sends a request with this token.
async fn ask(client: &Client, what: (Method, &str), token: &str, body: &Value) -> Answer {
    let has_body = what.0 == Method::POST || what.0 == Method::PATCH;
    let mut request = client.request(what.0, what.1).bearer_auth(token);
    if has_body {
        request = request.json(body);
    }
    must(request).await
}

fn post(title: &str) -> Value {
    json!({"title": title, "content": "c", "author_name": "Ann"})
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A token that is signed by a secret.
pub(crate) fn by_secret(secret: &[u8], header: &Value) -> String {
    use base64::Engine;
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now() + 60});
    let parts = [header, &claims].map(|part| encoded(part.to_string().as_bytes()));
    let message = parts.join(".");
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", encoded(tag.as_ref()))
}

/// Tokens that are signed in a wrong way, or whose header leads elsewhere, to `url`, say.
fn wrong_headers(
    key: &SigningKey,
    evil_key: &SigningKey,
    url: &str,
) -> Vec<(&'static str, String)> {
    let elsewhere =
        |name: &str, value: Value| evil_key.token_with(&json!({name: value}), &json!({}));
    let good = key.token(&json!({}));
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    let none = key.token_with(&json!({"alg": "none"}), &json!({}));
    let (none, _) = none.rsplit_once('.').unwrap();
    let jwk = key.jwk().to_string();
    vec![
        (
            "alg none, signed",
            key.token_with(&json!({"alg": "none"}), &json!({})),
        ),
        ("alg none, unsigned", format!("{none}.")),
        (
            "alg none in another case",
            key.token_with(&json!({"alg": "nOnE"}), &json!({})),
        ),
        ("without a signature", format!("{unsigned}.")),
        (
            "a public key as a secret",
            by_secret(jwk.as_bytes(), &json!({"alg": "HS256", "kid": "first"})),
        ),
        ("no secret at all", by_secret(b"", &json!({"alg": "HS256"}))),
        (
            "another algorithm of the same family",
            key.token_with(&json!({"alg": "ES384"}), &json!({})),
        ),
        ("another key of the same name", evil_key.token(&json!({}))),
        ("jku", elsewhere("jku", json!(url))),
        ("x5u", elsewhere("x5u", json!(url))),
        ("jwk", elsewhere("jwk", evil_key.jwk())),
        ("x5c", elsewhere("x5c", json!(["MIIB"]))),
        (
            "crit",
            key.token_with(&json!({"crit": ["exp"]}), &json!({})),
        ),
        (
            "another type",
            key.token_with(&json!({"typ": "JWE"}), &json!({})),
        ),
        (
            "an unknown kid",
            key.token_with(&json!({"kid": "second"}), &json!({})),
        ),
        (
            "a kid that is a path",
            key.token_with(&json!({"kid": "../../etc/passwd"}), &json!({})),
        ),
    ]
}

/// Tokens that say what is wrong, or are none.
fn wrong_claims(key: &SigningKey) -> Vec<(&'static str, String)> {
    let good = key.token(&json!({}));
    let with = |claims: Value| key.token(&claims);
    vec![
        ("expired", with(json!({"exp": now() - 60}))),
        ("not yet valid", with(json!({"nbf": now() + 120}))),
        ("issued in the future", with(json!({"iat": now() + 120}))),
        (
            "another issuer",
            with(json!({"iss": "https://evil.example"})),
        ),
        ("several issuers", with(json!({"iss": [ISSUER]}))),
        ("another audience", with(json!({"aud": "other"}))),
        ("no audience", with(json!({"aud": null}))),
        ("no end", with(json!({"exp": null}))),
        ("an end that is a text", with(json!({"exp": "9000000000"}))),
        ("nobody", with(json!({"sub": null}))),
        (
            "roles that are none",
            with(json!({"roles": {"ops-lead": true}})),
        ),
        (
            "a claim twice",
            key.sign(
                r#"{"alg":"ES256","kid":"first"}"#,
                &format!(
                    r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"ann","sub":"bob","exp":{}}}"#,
                    now() + 60
                ),
            ),
        ),
        ("truncated", good[..good.len() - 3].to_owned()),
        ("too long", with(json!({"more": "x".repeat(8 * 1024)}))),
        ("four parts", format!("{good}.AA")),
        ("no token", "x".to_owned()),
    ]
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_is_turned_away() {
    let signed = Signed::start(&[]).await;
    // Where keys of others are. Nobody may ask there.
    let evil_key = SigningKey::new("first");
    let evil = Issuer::start(&[&evil_key]).await;
    let mut wrong = wrong_headers(&signed.key, &evil_key, &evil.jwks_url());
    wrong.extend(wrong_claims(&signed.key));
    for client in [signed.service.commands(), signed.service.queries()] {
        for (what, token) in &wrong {
            let answer = ask(&client, (Method::GET, "/posts"), token, &Value::Null).await;
            let problem = answer.problem(401, "unauthenticated");
            assert!(
                answer
                    .header("www-authenticate")
                    .starts_with("Bearer error="),
                "{what}"
            );
            let told = problem.to_string();
            assert!(
                !told.contains(token.as_str()) || token.len() < 9,
                "{what}: {told}"
            );
        }
    }
    assert_eq!(evil.requests(), 0, "somebody asked where a token said");
    let metrics = must(signed.service.admin().request(Method::GET, "/metrics"))
        .await
        .body;
    for reason in [
        "algorithm",
        "header",
        "signature",
        "expired",
        "issuer",
        "audience",
        "key",
    ] {
        let counted = format!(r#"reason="{reason}""#);
        assert!(metrics.contains(&counted), "no {counted}");
    }
}

#[tokio::test]
async fn who_guesses_tokens_is_told_to_wait_and_who_has_one_is_not() {
    let signed = Signed::start(&[("TIDELOG_RATE_LIMIT", "5/m")]).await;
    let queries = signed.service.queries();
    let wrong = SigningKey::new("first");
    let guess = async |number: u32| {
        let token = wrong.token(&json!({"jti": number}));
        let what = (Method::GET, "/posts");
        ask(&queries, what, &token, &Value::Null).await.status
    };
    for number in 0..5 {
        assert_eq!(guess(number).await, 401);
    }
    assert_eq!(guess(5).await, 429);
    assert_eq!(queries.get("/posts").await.status, 429);
    assert_eq!(queries.get("/openapi.json").await.status, 429);
    let signed_in = signed.ask(&queries, (Method::GET, "/posts"), &[]).await;
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
}

#[tokio::test]
async fn a_token_counts_in_one_header_and_nowhere_else() {
    let signed = Signed::start(&[]).await;
    let token = signed.key.token(&json!({}));
    let queries = signed.service.queries();
    let get = |path: &str| queries.request(Method::GET, path);
    for (what, request, status) in [
        ("as it should be", get("/posts").bearer_auth(&token), 200),
        (
            "a scheme in another case",
            get("/posts").header("authorization", format!("bEaReR {token}")),
            200,
        ),
        ("nothing", get("/posts"), 401),
        (
            "as a parameter",
            get(&format!("/posts?access_token={token}")),
            401,
        ),
        (
            "as a cookie",
            get("/posts").header("cookie", format!("token={token}; access_token={token}")),
            401,
        ),
        (
            "twice",
            get("/posts")
                .bearer_auth(&token)
                .header("authorization", format!("Bearer {token}")),
            401,
        ),
        (
            "without a scheme",
            get("/posts").header("authorization", &token),
            401,
        ),
        (
            "as a password",
            get("/posts").basic_auth("ann", Some(&token)),
            401,
        ),
        (
            "in another header",
            get("/posts").header("x-forwarded-user", "ann"),
            401,
        ),
        ("the description", get("/openapi.json"), 200),
        ("the page of it", get("/docs"), 200),
    ] {
        let answer = must(request).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if status == 401 {
            assert!(
                answer.header("www-authenticate").starts_with("Bearer"),
                "{what}"
            );
        }
    }
    let document = queries.get("/openapi.json").await.json();
    assert_eq!(
        document["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );
    // Health and metrics are asked by those who have no token.
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(signed.service.admin().get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn who_may_do_what_is_for_the_roles_to_say() {
    let signed = Signed::start(&[]).await;
    let (commands, queries, admin) = (
        signed.service.commands(),
        signed.service.queries(),
        signed.service.admin(),
    );
    let created = signed.ask(&commands, (Method::POST, "/post"), &[]).await;
    let id = created.data(201)["id"].as_str().unwrap().to_owned();
    let one = format!("/post/{id}");
    let history = format!("/post/{id}/history");
    let heads = "/events/heads";
    let (get, patch, delete) = (Method::GET, Method::PATCH, Method::DELETE);
    let at_admin = "/admin/api/subscriptions";
    let pause = "/admin/api/subscriptions/post/pause";
    for (client, method, path, needs) in [
        (&commands, &patch, &*one, Some("author")),
        (&commands, &Method::POST, "/customer", Some("clerk")),
        (&commands, &get, heads, Some("follower")),
        (&commands, &get, "/events?partition=0", Some("follower")),
        (&queries, &get, "/posts", None),
        (&queries, &get, &*history, None),
        (&queries, &get, "/customers", Some("clerk")),
        (&queries, &get, "/customer/1", Some("clerk")),
        (&queries, &get, "/customer/1/history", Some("clerk")),
        (&queries, &get, "/customer?email=a", Some("clerk")),
        (&admin, &get, at_admin, Some("ops")),
        (&admin, &Method::POST, pause, Some("ops-lead")),
        (&commands, &delete, &*one, Some("editor")),
    ] {
        let what = || (method.clone(), path);
        let others: Vec<&str> = ["author", "clerk", "follower", "ops", "ops-lead", "editor"]
            .into_iter()
            .filter(|role| Some(*role) != needs)
            .filter(|role| path != at_admin || *role != "ops-lead")
            .filter(|role| *method != patch || *role != "editor")
            .collect();
        let without = signed.ask(client, what(), &others).await;
        if let Some(needs) = needs {
            let problem = without.problem(403, "forbidden");
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                client.address() == admin.address() || detail.contains(needs),
                "{path}: {detail}"
            );
            let with = signed.ask(client, what(), &[needs]).await;
            assert!(![401, 403].contains(&with.status), "{path}: {with:?}");
        } else {
            assert_eq!(without.status, 200, "{path}: {without:?}");
        }
    }
    // Also what is told as it changes.
    let token = signed.key.token(&json!({"roles": ["author"]}));
    let live = queries
        .request(Method::GET, "/customers")
        .bearer_auth(&token);
    let live = must(live.header("accept", "text/event-stream")).await;
    live.problem(403, "forbidden");
}

#[tokio::test]
async fn what_was_done_is_recorded_in_the_name_of_who_signed_in() {
    let signed = Signed::start(&[]).await;
    let created = signed
        .ask(&signed.service.commands(), (Method::POST, "/post"), &[])
        .await;
    let id = created.data(201)["id"].as_str().unwrap().to_owned();
    let queries = signed.service.queries();
    let path = format!("/post/{id}/history");
    let history = signed.ask(&queries, (Method::GET, &path), &[]).await;
    assert_eq!(
        history.data(200)[0]["metadata"]["actor"],
        "ann",
        "{history:?}"
    );
    let admin = signed.service.admin();
    let pause = (Method::POST, "/admin/api/subscriptions/post/pause");
    let token = signed.key.token(&json!({"roles": ["ops-lead"]}));
    let paused = ask(&admin, pause, &token, &json!({})).await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let record = signed
        .ask(&admin, (Method::GET, "/admin/api/audit"), &["ops"])
        .await;
    // Nobody with an admin token is called so.
    assert_eq!(record.data(200)[0]["by"], "jwt:ann", "{record:?}");
}

#[tokio::test]
async fn a_key_of_idempotency_is_that_of_whoever_brings_it() {
    let signed = Signed::start(&[]).await;
    let commands = signed.service.commands();
    let create = async |sub: &str| {
        let token = signed.key.token(&json!({"sub": sub}));
        let request = commands.request(Method::POST, "/post").bearer_auth(token);
        let request = request.header("idempotency-key", r#""k""#).json(&post("x"));
        must(request).await.data(201)["id"].clone()
    };
    let ann = create("ann").await;
    assert_eq!(create("ann").await, ann);
    assert_ne!(create("bob").await, ann);
}

#[tokio::test]
async fn a_token_without_a_tenant_is_refused_where_there_are_tenants() {
    let signed = Signed::start(&[("TIDELOG_AUTH_TENANT_CLAIM", "org")]).await;
    let (commands, admin) = (signed.service.commands(), signed.service.admin());
    for org in [json!(null), json!(""), json!("a:b"), json!(["acme"])] {
        let token = signed
            .key
            .token(&json!({"org": org, "roles": ["ops-lead"]}));
        for (client, path) in [
            (&commands, "/events/heads"),
            (&admin, "/admin/api/subscriptions"),
        ] {
            let answer = ask(client, (Method::GET, path), &token, &Value::Null).await;
            answer.problem(403, "forbidden");
        }
    }
    // What is of all tenants is for none of them.
    let roles = ["follower", "ops", "ops-lead"];
    let token = signed.key.token(&json!({"org": "acme", "roles": roles}));
    for (client, path) in [
        (&commands, "/events/heads"),
        (&admin, "/admin/api/subscriptions"),
    ] {
        let answer = ask(client, (Method::GET, path), &token, &Value::Null).await;
        let problem = answer.problem(403, "forbidden");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("all tenants"), "{detail}");
    }
}

#[tokio::test]
async fn keys_change_and_go_away_without_a_restart() {
    let mut signed = Signed::start(&[]).await;
    let queries = signed.service.queries();
    let reads = async |key: &SigningKey| {
        let token = key.token(&json!({"jti": now()}));
        ask(&queries, (Method::GET, "/posts"), &token, &Value::Null)
            .await
            .status
    };
    assert_eq!(reads(&signed.key).await, 200);
    let second = SigningKey::new("second");
    signed.issuer.publish(&[&second]);
    eventually("the new key to be known", async || {
        match reads(&second).await {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(reads(&signed.key).await, 401, "the old key is taken back");
    assert!(
        signed.issuer.requests() < 10,
        "{} requests",
        signed.issuer.requests()
    );
    signed.issuer.stop().await;
    assert_eq!(reads(&second).await, 200, "what was known counts on");
}

#[tokio::test]
async fn without_keys_nobody_is_wrong_and_it_is_said_when_to_ask_again() {
    let mut issuer = Issuer::start(&[]).await;
    issuer.stop().await;
    let (url, key) = (issuer.jwks_url(), SigningKey::new("first"));
    let settings = [
        ("TIDELOG_AUTH_JWKS", &*url),
        ("TIDELOG_AUTH_ISSUER", ISSUER),
        ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
    ];
    let service = Service::start_with(Role::Dev, &settings).await;
    let read = async || {
        let token = key.token(&json!({}));
        ask(
            &service.queries(),
            (Method::GET, "/posts"),
            &token,
            &Value::Null,
        )
        .await
    };
    let answer = read().await;
    answer.problem(503, "unavailable");
    assert!(!answer.header("retry-after").is_empty());
    issuer.start_again().await;
    issuer.publish(&[&key]);
    eventually("the keys to be known", async || match read().await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(format!("{answer:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_live_query_ends_when_the_token_does() {
    let signed = Signed::start(&[]).await;
    let queries = signed.service.queries();
    // It counts for half a minute more than it says. On a machine that takes longer than what is left of it, another is tried.
    let live = eventually("a live query", async || {
        let token = signed.key.token(&json!({"exp": now() - 25}));
        let live = queries.request(Method::GET, "/posts").bearer_auth(token);
        // Read whole: without an end it would not be.
        let live = must(live.header("accept", "text/event-stream")).await;
        if live.status == 200 {
            Ok(live)
        } else {
            Err(format!("{live:?}"))
        }
    })
    .await;
    assert!(live.body.contains("event: page"), "{}", live.body);
}

/// What who shows `token` gets for the list of posts.
async fn read_posts(service: &Service, token: &str) -> Answer {
    let what = (Method::GET, "/posts");
    ask(&service.queries(), what, token, &Value::Null).await
}

#[tokio::test]
async fn tokens_can_be_signed_with_a_shared_secret_or_with_the_keys_in_a_file() {
    let common = [
        ("TIDELOG_AUTH_ISSUER", ISSUER),
        ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
    ];
    let secret = "a-secret-of-at-least-32-bytes-for-development";
    let settings = [&common[..], &[("TIDELOG_AUTH_SECRET", secret)]].concat();
    let service = Service::start_with(Role::Dev, &settings).await;
    let token = by_secret(secret.as_bytes(), &json!({"alg": "HS256"}));
    let read = read_posts(&service, &token).await;
    assert_eq!(read.status, 200, "{read:?}");
    let forged = by_secret(
        b"another-secret-of-at-least-32-bytes",
        &json!({"alg": "HS256"}),
    );
    let read = read_posts(&service, &forged).await;
    read.problem(401, "unauthenticated");
    let output = service.process().output();
    assert!(
        output.contains("TIDELOG_AUTH_JWKS") && !output.contains(secret),
        "{output}"
    );
    // The public half of an RSA key whose other half nobody has, and what it signed once.
    let rsa: Value = serde_json::from_str(RSA).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"keys": [rsa["jwk"]]}).to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let settings = [&common[..], &[("TIDELOG_AUTH_JWKS", path)]].concat();
    let service = Service::start_with(Role::Dev, &settings).await;
    let token = rsa["RS256"].as_str().unwrap();
    let read = read_posts(&service, token).await;
    assert_eq!(read.status, 200, "{read:?}");
    for secret in [
        rsa["jwk"].to_string(),
        rsa["jwk"]["n"].as_str().unwrap().to_owned(),
    ] {
        let forged = by_secret(secret.as_bytes(), &json!({"alg": "HS256", "kid": "r"}));
        let read = read_posts(&service, &forged).await;
        read.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn nothing_is_open_beyond_the_machine_unless_somebody_signs_in_or_it_is_told() {
    for (key, variable) in [
        ("command_addr", "TIDELOG_COMMAND_ADDR"),
        ("query_addr", "TIDELOG_QUERY_ADDR"),
        ("admin_addr", "TIDELOG_ADMIN_ADDR"),
    ] {
        let everywhere = free_address().replace("127.0.0.1", "0.0.0.0");
        let addresses: Vec<(&str, String)> = [
            "TIDELOG_COMMAND_ADDR",
            "TIDELOG_QUERY_ADDR",
            "TIDELOG_ADMIN_ADDR",
        ]
        .iter()
        .map(|name| (*name, free_address()))
        .collect();
        let addresses = addresses.iter().map(|(name, value)| (*name, &**value));
        let ended = CommandLine::new(&["serve"])
            .with(addresses)
            .with([
                (variable, &*everywhere),
                ("DATABASE_URL", "sqlite://log.db"),
            ])
            .run()
            .await;
        assert_ne!(ended.code, Some(0), "{}", ended.output);
        for part in [key, &everywhere, "auth_jwks", "--insecure-no-auth"] {
            assert!(ended.output.contains(part), "no {part} in {}", ended.output);
        }
        let settings = [
            (variable, &*everywhere),
            ("TIDELOG_INSECURE_NO_AUTH", "true"),
        ];
        let service = Service::launch(Role::Dev, &settings);
        let warning = service.process().wait_for_line("nobody signs in").await;
        assert!(
            warning.contains(key) && warning.contains("WARN"),
            "{warning}"
        );
    }
}

#[tokio::test]
async fn rules_about_nothing_that_there_is_are_an_error_at_the_start() {
    let ended = CommandLine::new(&["dev"])
        .with([
            (
                "TIDELOG_AUTH_SECRET",
                "a-secret-of-at-least-32-bytes-for-development",
            ),
            ("TIDELOG_AUTH_ISSUER", ISSUER),
            ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
            ("TIDELOG_ROLES", "post/publish=editor"),
        ])
        .run()
        .await;
    assert_ne!(ended.code, Some(0));
    for part in ["post/publish", "post/create", "view/customer"] {
        assert!(ended.output.contains(part), "{}", ended.output);
    }
}
