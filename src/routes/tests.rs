use axum::http::Method;
use serde_json::Value;
use tidelog_eventbus::messaging::Subject;
use tidelog_http::ApiDocument;

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
