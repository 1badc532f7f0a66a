use axum::http::{Method, Uri};
use serde_json::Value;
use tidelog_eventbus::messaging::{HandlerError, MessageContext, Subject};
use tidelog_http::ApiDocument;
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;
use crate::App;

const PRICE: Subject<RouteRequest, u32> = Subject::new("shop.price");

fn check(routes: &[(Method, &str)]) -> Result<(), String> {
    let app = App::new("shop").entities_from(None).unwrap();
    let app = routes.iter().fold(app, |app, (method, path)| {
        app.message_route(MessageRoute::send(method.clone(), path, &PRICE))
    });
    app.check().map_err(|error| error.to_string())
}

#[test]
fn a_route_has_a_place_of_its_own() {
    let (get, post) = (Method::GET, Method::POST);
    let fine = [
        (get.clone(), "/articles/{id}/price"),
        (post.clone(), "/articles/{id}/price"),
        (get.clone(), "/articles"),
    ];
    assert_eq!(check(&fine), Ok(()));
    for (routes, part) in [
        (vec![(get.clone(), "articles")], "segments"),
        (vec![(get.clone(), "/articles/")], "segments"),
        (vec![(get.clone(), "/articles/{i d}")], "segments"),
        (vec![(get.clone(), "/articles/{*rest}")], "segments"),
        (
            vec![(Method::from_bytes(b"BREW").unwrap(), "/articles")],
            "segments",
        ),
        (vec![(get.clone(), "/{id}/price")], "begin with a name"),
        (vec![(get.clone(), "/post/{id}/price")], "answers to"),
        (vec![(get.clone(), "/events/x")], "answers to"),
        (
            vec![(get.clone(), "/a/{id}"), (post, "/a/{name}")],
            "other names",
        ),
        (vec![(get.clone(), "/a/{id}"), (get, "/a/{id}")], "twice"),
    ] {
        let error = check(&routes).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_routes_of_one_subject_are_for_the_same_roles() {
    let send = |path, roles: &[&str]| {
        MessageRoute::send(Method::POST, path, &PRICE).roles(roles.iter().copied())
    };
    let check = |second: MessageRoute| {
        let app = App::new("shop").entities_from(None).unwrap();
        let app = app.message_route(send("/first", &["clerk", "admin"]));
        app.message_route(second)
            .check()
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(send("/second", &["admin", "clerk"])), Ok(()));
    let shard = PRICE.shard("eu").unwrap();
    for other in [
        send("/second", &[]),
        send("/second", &["admin"]),
        MessageRoute::send(Method::GET, "/second", &shard),
    ] {
        let error = check(other).unwrap_err();
        assert!(error.contains("for other roles"), "{error}");
    }
    const OTHER: Subject<RouteRequest> = Subject::new("shop.visited");
    assert_eq!(
        check(MessageRoute::emit(Method::GET, "/second", &OTHER)),
        Ok(())
    );
}

#[test]
fn a_handlers_answer_is_a_problem_of_its_kind() {
    for (code, status) in [
        (ReplyError::MALFORMED, 400),
        (ReplyError::UNAVAILABLE, 503),
        (ReplyError::FAILED, 500),
        ("sold-out", 422),
    ] {
        let problem = answered(&ReplyError::new(code, "why"));
        assert_eq!(problem.status().as_u16(), status, "{code}");
    }
}

/// Sends a request, and gives the status and the body of the answer.
async fn ask(served: &Router, method: &str, path: &str, key: Option<&str>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = served.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let status = parts.status.as_u16();
    assert_eq!(parts.headers.contains_key("retry-after"), status == 409);
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_key_makes_each_request_with_it_the_same_message() {
    const WHICH: Subject<RouteRequest, String> = Subject::new("shop.which");
    const SLOW: Subject<RouteRequest, String> = Subject::new("shop.slow");
    let messaging = Messaging::in_process("shop");
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes_on) = (Arc::clone(&begun), Arc::clone(&go_on));
    let worker = messaging
        .worker("g")
        .handle(&WHICH, |_, message: MessageContext| async move {
            Ok::<_, HandlerError>(message.id().to_string())
        })
        .handle(&SLOW, move |_, message: MessageContext| {
            let (begins, goes_on) = (Arc::clone(&begins), Arc::clone(&goes_on));
            async move {
                begins.notify_one();
                goes_on.notified().await;
                Ok::<_, HandlerError>(message.id().to_string())
            }
        });
    let worker = worker.start().await.unwrap();
    let post = Method::POST;
    let routes = [
        MessageRoute::send(post.clone(), "/which", &WHICH),
        MessageRoute::send(post.clone(), "/other", &WHICH),
        MessageRoute::send(post.clone(), "/slow", &SLOW),
        MessageRoute::emit(post, "/emitted", &WHICH),
    ];
    let timeout = Duration::from_secs(60);
    let served = tidelog_http::app(router(&routes, &messaging, timeout));
    let served = tidelog_http::open_to_all(served);
    let (one, two) = (Some("\"one\""), Some("\"two\""));
    let (status, first) = ask(&served, "POST", "/which", one).await;
    assert_eq!(status, 200);
    assert_eq!(
        ask(&served, "POST", "/which", one).await,
        (200, first.clone())
    );
    let mut others = vec![first];
    for (path, key) in [
        ("/which", two),
        ("/other", one),
        ("/which?of=a", one),
        ("/which?of=b", one),
        ("/which", None),
        ("/which", None),
    ] {
        let (status, other) = ask(&served, "POST", path, key).await;
        assert_eq!(status, 200);
        assert!(!others.contains(&other), "{path} {key:?}");
        others.push(other);
    }
    let (status, emitted) = ask(&served, "POST", "/emitted", one).await;
    assert_eq!((status, emitted["data"]["id"].is_string()), (202, true));
    assert_eq!(ask(&served, "POST", "/emitted", one).await, (202, emitted));
    assert_eq!(ask(&served, "POST", "/which", Some("one")).await.0, 400);

    let slow = ask(&served, "POST", "/slow", one);
    let meanwhile = async {
        begun.notified().await;
        let (status, problem) = ask(&served, "POST", "/slow", one).await;
        let kind = problem["type"].as_str().unwrap();
        assert_eq!(
            (status, kind),
            (409, "urn:tidelog:problem:request-in-progress")
        );
        go_on.notify_one();
    };
    let ((status, first), ()) = futures_util::join!(slow, meanwhile);
    assert_eq!(status, 200);
    go_on.notify_one();
    assert_eq!(ask(&served, "POST", "/slow", one).await, (200, first));
    worker.stop().await;
}

#[test]
fn a_key_is_that_of_its_caller() {
    let id = |tenant: Option<&str>, principal: Option<&str>| {
        let tenant = tenant.map(|tenant| Tenant::new(tenant).unwrap());
        let caller = Caller::in_process(tenant, principal);
        let uri = Uri::from_static("/which");
        message_id(&caller, &Method::POST, &uri, "k")
            .unwrap()
            .to_string()
    };
    let callers = [
        id(None, None),
        id(Some("acme"), None),
        id(None, Some("acme")),
        id(Some("acme"), Some("ann")),
        id(Some("acme"), Some("bob")),
    ];
    let all: BTreeSet<_> = callers.iter().collect();
    assert_eq!(all.len(), callers.len());
    assert_eq!(callers[0], "e4204205-8e6b-5e04-a17b-3b8170754b8b");
}

#[test]
fn what_is_declared_of_a_routes_subject_is_a_request() {
    const BASKET: Subject<Basket, u32> = Subject::new("shop.price");
    const ANY: Subject<Value, u32> = Subject::new("shop.price");
    const OF_BASKET: Subject<RouteRequest<Basket>, u32> = Subject::new("shop.price");
    let app = || {
        let app = App::new("shop").entities_from(None).unwrap();
        app.message_route(MessageRoute::send(Method::POST, "/price", &PRICE))
    };
    for right in [
        app().handles_subject(&OF_BASKET),
        app().sends_subject(&PRICE),
        app().handles_subject(&ANY),
        app().handles_subject(&BASKET.shard("eu").unwrap()),
    ] {
        right.check().unwrap();
    }
    let error = app()
        .handles_subject(&BASKET)
        .check()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("shop.price") && error.contains("RouteRequest"),
        "{error}"
    );
}

/// What is in a basket.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "its schema alone is used")]
struct Basket {
    articles: Vec<Article>,
}

/// One of them.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "its schema alone is used")]
struct Article {
    cents: u32,
}

/// The document of what serves the routes of `app`.
fn document(app: &App) -> Value {
    let mut api = ApiDocument::new("shop", "");
    describe(&mut api, app);
    api.finish()
}

#[test]
fn a_declared_route_is_in_the_document_with_what_is_known_of_it() {
    const BASKET: Subject<RouteRequest<Basket>, u32> = Subject::new("shop.basket");
    const VISITED: Subject<RouteRequest> = Subject::new("shop.visited");
    let (get, post) = (Method::GET, Method::POST);
    let app = App::new("shop")
        .message_route(MessageRoute::send(post.clone(), "/a/{id}/b/{c}", &BASKET))
        .message_route(MessageRoute::send(post.clone(), "/again", &BASKET))
        .message_route(MessageRoute::send(get.clone(), "/price", &PRICE))
        .message_route(MessageRoute::emit(post, "/visits", &VISITED))
        .message_route(MessageRoute::emit(Method::CONNECT, "/c", &VISITED));
    let document = document(&app.handles_subject(&BASKET));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 4, "{paths:?}");
    let basket = &paths["/a/{id}/b/{c}"]["post"];
    assert_eq!(basket["operationId"], "route.shop.basket.post");
    assert_eq!(
        paths["/again"]["post"]["operationId"],
        "route.shop.basket.post.2"
    );
    assert_eq!(basket["tags"][0], "route/shop.basket");
    assert_eq!(document["tags"].as_array().unwrap().len(), 3);
    let names = [&basket["parameters"][0], &basket["parameters"][1]];
    assert_eq!(
        names.map(|one| (&one["name"], &one["in"])),
        [("id", "path"), ("c", "path")]
            .map(|(name, place)| (json!(name), json!(place)))
            .each_ref()
            .map(|(name, place)| (name, place))
    );
    let body = &basket["requestBody"];
    assert_eq!(body["required"], true);
    let schemas = &document["components"]["schemas"];
    let schema = &schemas["route.shop.basket.body"];
    let definitions = schema["$defs"].as_object().unwrap();
    assert_eq!(
        definitions.keys().collect::<Vec<_>>(),
        ["Basket", "Article"]
    );
    assert_eq!(schemas["route.shop.basket.reply"]["type"], "integer");
    let statuses = |path: &str, method: &str| {
        let responses = paths[path][method]["responses"].as_object().unwrap();
        responses.keys().cloned().collect::<Vec<_>>()
    };
    let common = ["400", "406", "413", "415", "429", "500", "503", "504"];
    for status in common.iter().chain(&["200", "422"]) {
        assert!(statuses("/price", "get").contains(&(*status).to_owned()));
    }
    for status in common.iter().chain(&["202"]) {
        assert!(statuses("/visits", "post").contains(&(*status).to_owned()));
    }
    assert!(!statuses("/visits", "post").contains(&"422".to_owned()));
    // Of what nobody says anything, anything goes; who only looks brings nothing.
    assert!(paths["/price"]["get"].get("requestBody").is_none());
    let any = &paths["/visits"]["post"]["requestBody"];
    assert_eq!(any["required"], false);
    assert_eq!(any["content"]["application/json"]["schema"], json!({}));
}
