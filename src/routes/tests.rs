use axum::http::Method;
use tidelog_eventbus::messaging::Subject;

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
