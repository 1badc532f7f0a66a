//! Routes that a program declares: each request becomes a message, and its answer a reply.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tidelog::messaging::{
    HandlerError, MessageContext, Messaging, ReplyError, RunningWorker, Subject,
};
use tidelog::routes::{MessageRoute, RouteRequest};
use tidelog::settings::{AuthSettings, Role, Settings};
use tidelog::{App, Running, data};
use tidelog_test_support::{AUDIENCE, Engine, ISSUER, Issuer, SigningKey, unique_name};

use crate::client::{Client, must};
use crate::messaging::{on_each_server, shared_of};
use crate::waiting::eventually;

#[data]
struct Basket {
    articles: u32,
}

const PRICE: Subject<RouteRequest<Basket>, u32> = Subject::new("shop.price");
const SEEN: Subject<RouteRequest, RouteRequest> = Subject::new("shop.seen");
const VISITED: Subject<RouteRequest> = Subject::new("shop.visited");
const STOCK: Subject<Basket, u32> = Subject::new("shop.stock");
const SLOW: Subject<RouteRequest, u32> = Subject::new("shop.slow");
const NOBODYS: Subject<RouteRequest, u32> = Subject::new("shop.nobodys");

pub(super) fn shop(name: &str) -> App {
    declared(App::new(name).entities_from(None).unwrap())
}

/// The same program with the routes, and with the types of two of their subjects and of one without a route.
pub(crate) fn declared(app: App) -> App {
    let app = app.sends_subject(&PRICE).sends_subject(&VISITED);
    app.handles_subject(&STOCK)
        .message_route(
            MessageRoute::send(Method::POST, "/baskets/{id}/price", &PRICE).max_bytes(1_000),
        )
        .message_route(MessageRoute::send(Method::GET, "/seen/{what}", &SEEN).roles(["watcher"]))
        .message_route(MessageRoute::emit(Method::POST, "/visits", &VISITED))
        .message_route(
            MessageRoute::send(Method::GET, "/slow", &SLOW).timeout(Duration::from_millis(200)),
        )
        .message_route(MessageRoute::send(Method::GET, "/nobodys", &NOBODYS))
}

pub(super) async fn settings(role: Role, engine: Engine) -> Settings {
    let anywhere = || "127.0.0.1:0".to_owned();
    Settings {
        role,
        bus_url: Some(shared_of(engine).await.url().to_owned()),
        command_addr: anywhere(),
        query_addr: anywhere(),
        admin_addr: anywhere(),
        ..Settings::in_memory()
    }
}

pub(super) fn commands(running: &Running) -> Client {
    Client::new(running.command_addr().expect("it takes commands"))
}

/// What the emitted requests have.
pub(super) type Visits = Arc<Mutex<Vec<RouteRequest>>>;

pub(super) async fn worker(engine: Engine, name: &str, visits: &Visits) -> RunningWorker {
    let visits = Arc::clone(visits);
    let messaging = Messaging::connect(shared_of(engine).await.url(), name).unwrap();
    let worker = messaging
        .worker("shop")
        .handle(
            &PRICE,
            |request: RouteRequest<Basket>, _: MessageContext| async move {
                match request.body.articles {
                    0 => Err(ReplyError::new("empty", "There is nothing in it.").into()),
                    1_000 => Err(HandlerError::from(std::io::Error::other(
                        "a secret of ours",
                    ))),
                    articles => Ok(articles * 5),
                }
            },
        )
        .handle(
            &SEEN,
            |request, _| async move { Ok::<_, HandlerError>(request) },
        )
        .handle(&VISITED, move |request, _| {
            let visits = Arc::clone(&visits);
            async move {
                visits.lock().unwrap().push(request);
                Ok(())
            }
        })
        .handle(&SLOW, |_, _| async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok::<_, HandlerError>(1)
        })
        .stop_timeout(Duration::ZERO);
    worker.start().await.unwrap()
}

on_each_server!(a_request_to_a_declared_route_is_answered_by_a_worker);

async fn a_request_to_a_declared_route_is_answered_by_a_worker(engine: Engine) {
    for role in [Role::Gateway, Role::All] {
        let (name, visits) = (unique_name(), Visits::default());
        let settings = settings(role, engine).await;
        let running = shop(&name).start(settings).await.unwrap();
        let commands = commands(&running);
        let nobody = commands.get("/nobodys").await;
        nobody.problem(503, "unavailable");
        nobody.header("retry-after");
        let worker = worker(engine, &name, &visits).await;
        let price = async |articles: u32| {
            let body = json!({"articles": articles});
            commands.post("/baskets/b%201/price", &body).await
        };
        let told = price(3).await;
        assert_eq!((told.status, told.json()), (200, json!(15)), "{told:?}");
        assert_eq!(told.header("content-type"), "application/json");
        let rejected = price(0).await.problem(422, "rejected");
        assert_eq!(
            (&rejected["code"], &rejected["detail"]),
            (&json!("empty"), &json!("There is nothing in it."))
        );
        let failed = price(1_000).await;
        failed.problem(500, "internal");
        assert!(!failed.body.contains("secret"), "{failed:?}");
        let odd = commands
            .post("/baskets/1/price", &json!({"articles": "x"}))
            .await;
        odd.problem(400, "malformed-request");
        let large = json!({"articles": 1, "more": "x".repeat(1_000)});
        commands
            .post("/baskets/1/price", &large)
            .await
            .problem(413, "too-large");
        commands
            .get("/baskets/1/price")
            .await
            .problem(405, "method-not-allowed");
        commands.get("/slow").await.problem(504, "in-doubt");
        let document = commands.get("/openapi.json").await.json();
        let priced = &document["paths"]["/baskets/{id}/price"]["post"];
        let body = &priced["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["$ref"], "#/components/schemas/route.shop.price.body");
        assert!(document["paths"]["/visits"]["post"]["responses"]["202"].is_object());
        assert!(document["paths"]["/post"]["post"].is_object());

        let seen = commands.get("/seen/a%2Fb?x=1&y=%C3%A4&x=2").await.json();
        assert_eq!(seen["method"], "GET");
        assert_eq!(seen["path"], "/seen/a%2Fb");
        assert_eq!(seen["parameters"], json!({"what": "a/b"}));
        assert_eq!(seen["query"], json!([["x", "1"], ["y", "ä"], ["x", "2"]]));
        assert_eq!(seen["body"], json!(null));

        let emitted = commands.post("/visits", &json!({"page": "/"})).await;
        emitted.data(202)["id"].as_str().expect("an id");
        eventually("a visit to be handled", async || {
            let visits = visits.lock().unwrap();
            visits
                .first()
                .map(|own| own.body.clone())
                .ok_or_else(String::new)
        })
        .await;
        worker.stop().await;
        assert!(running.stop().await);
    }
}

#[tokio::test]
async fn a_declared_route_is_for_those_whom_the_rules_name() {
    let key = SigningKey::new("one");
    let issuer = Issuer::start(&[&key]).await;
    let (name, visits) = (unique_name(), Visits::default());
    let running = shop(&name).start(Settings {
        auth: AuthSettings {
            jwks: Some(issuer.jwks_url()),
            issuer: Some(ISSUER.to_owned()),
            audience: Some(AUDIENCE.to_owned()),
            roles: Some("route/shop.price=clerk".to_owned()),
            ..AuthSettings::default()
        },
        ..settings(Role::Gateway, Engine::Redis).await
    });
    let running = running.await.unwrap();
    let worker = worker(Engine::Redis, &name, &visits).await;
    let commands = commands(&running);
    let paths = &commands.get("/openapi.json").await.json()["paths"];
    let roles = |path: &str, method: &str| paths[path][method]["x-tidelog-roles"].clone();
    assert_eq!(roles("/baskets/{id}/price", "post"), json!(["clerk"]));
    assert_eq!(roles("/seen/{what}", "get"), json!(["watcher"]));
    assert_eq!(roles("/visits", "post"), json!(null));
    commands
        .get("/seen/a")
        .await
        .problem(401, "unauthenticated");
    let ask = async |method: Method, path: &str, role: &str| {
        let token = key.token(&json!({"sub": "ann", "roles": [role]}));
        let request = commands.request(method, path).bearer_auth(token);
        must(request.json(&json!({"articles": 1}))).await
    };
    ask(Method::GET, "/seen/a", "clerk")
        .await
        .problem(403, "forbidden");
    let seen = ask(Method::GET, "/seen/a", "watcher").await.json();
    assert_eq!(
        (&seen["caller"]["principal"], &seen["caller"]["roles"]),
        (&json!("ann"), &json!(["watcher"]))
    );
    ask(Method::POST, "/baskets/1/price", "watcher")
        .await
        .problem(403, "forbidden");
    assert_eq!(
        ask(Method::POST, "/baskets/1/price", "clerk").await.status,
        200
    );
    // Where no rule says for whom, it is for all who are signed in.
    ask(Method::POST, "/visits", "anybody").await.data(202);
    worker.stop().await;
    assert!(running.stop().await);
}
