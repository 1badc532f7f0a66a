//! What a socket is said, and what it answers.

use super::*;

#[tokio::test]
async fn who_is_not_signed_in_gets_no_socket() {
    let site = start(SocketSettings::default(), None).await;
    let refused = |error: tungstenite::Error| match error {
        tungstenite::Error::Http(response) => response.status().as_u16(),
        other => unreachable!("{other}"),
    };
    assert_eq!(site.handshake(&[]).await.err().map(refused), Some(401));
    let evil = [
        ("authorization", "Bearer ann"),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(site.handshake(&evil).await.err().map(refused), Some(403));
    let shop = [
        ("sec-websocket-protocol", "tidelog.v1, bearer.bea"),
        ("origin", "https://shop.example"),
    ];
    let mut page = site.handshake(&shop).await.unwrap();
    page.say(&command("1", "/echo")).await;
    assert_eq!(page.hear().await["body"]["who"], "bea");
}

#[tokio::test]
async fn commands_are_answered_as_over_http() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.say(&command("1", "/echo")).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["id"], &answer["status"]),
        (&json!("1"), &json!(201))
    );
    let body = json!({"who": "ann", "key": "k", "body": "{\"a\":1}", "peer": true});
    assert_eq!(answer["body"], body);
    assert_eq!(answer["headers"]["etag"], "\"1\"");
    assert!(answer["headers"]["x-correlation-id"].is_string());
    assert_eq!(answer["headers"]["server"], Value::Null);
    for (path, status, problem) in [("/nowhere", 404, "not-found"), ("/broken", 500, "internal")] {
        client.say(&command("2", path)).await;
        let answer = client.hear().await;
        assert_eq!(answer["status"], status, "{answer}");
        assert_eq!(
            answer["body"]["type"],
            format!("urn:tidelog:problem:{problem}")
        );
    }
    client
        .say(&json!({"id": "3", "command": {"method": "PATCH", "path": "/echo"}}))
        .await;
    assert_eq!(client.hear().await["headers"]["allow"], "POST");
}

#[tokio::test]
async fn several_live_queries_are_told_side_by_side_until_they_are_ended() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.subscribe("1", "/posts").await;
    let page = client.hear().await;
    assert_eq!(
        page,
        json!({"id": "1", "event": "page", "after": "a.1", "data": {"who": "ann", "after": null}})
    );
    assert_eq!(
        client.hear().await,
        json!({"id": "1", "event": "beat", "after": "a.2"})
    );
    client
        .say(&json!({"id": "2", "subscribe": "/posts", "after": "a.7"}))
        .await;
    assert_eq!(client.hear().await["status"], 200);
    assert_eq!(client.hear().await["data"]["after"], "a.7");
    client.hear().await;
    // An id is one's own as long as it lasts.
    client.say(&json!({"id": "2", "subscribe": "/posts"})).await;
    assert_eq!(client.hear().await["status"], 400);
    client.say(&json!({"id": "1", "unsubscribe": true})).await;
    assert_eq!(
        client.hear().await,
        json!({"id": "1", "ended": "unsubscribed"})
    );
    until_so(|| site.shared.open.load(Ordering::SeqCst) == 1).await;
    client.subscribe("1", "/short").await;
    assert_eq!(
        client.hear().await,
        json!({"id": "1", "event": "state", "data": 1})
    );
    assert_eq!(client.hear().await, json!({"id": "1", "ended": "over"}));
    drop(client);
    until_so(|| site.shared.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_said_to_be() {
    let site = start(
        SocketSettings {
            max_subscriptions: 1,
            ..SocketSettings::default()
        },
        None,
    )
    .await;
    let mut client = site.client().await;
    for (path, status) in [("/nowhere", 404), ("/plain", 406)] {
        client.say(&json!({"id": "1", "subscribe": path})).await;
        let answer = client.hear().await;
        assert_eq!(
            (&answer["id"], &answer["status"]),
            (&json!("1"), &json!(status))
        );
    }
    client.subscribe("1", "/posts").await;
    client.hear().await;
    client.hear().await;
    client.say(&json!({"id": "2", "subscribe": "/posts"})).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["status"], &answer["headers"]["retry-after"]),
        (&json!(503), &json!("1"))
    );
}

#[tokio::test]
async fn nobody_can_name_the_subscription_of_another_socket() {
    let site = start(SocketSettings::default(), None).await;
    let (mut mine, mut theirs) = (site.client().await, site.client().await);
    mine.subscribe("1", "/posts").await;
    theirs.say(&json!({"id": "1", "unsubscribe": true})).await;
    assert_eq!(theirs.hear().await["status"], 404);
    assert_eq!(site.shared.open.load(Ordering::SeqCst), 1);
    theirs.subscribe("1", "/posts").await;
    theirs.say(&json!({"id": "1", "unsubscribe": true})).await;
    while theirs.hear().await["ended"] != "unsubscribed" {}
    assert_eq!(mine.hear().await["event"], "page");
    assert_eq!(site.shared.open.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_socket_goes_on() {
    let site = start(SocketSettings::default(), None).await;
    let mut client = site.client().await;
    client.raw(Message::text("{")).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["status"], &answer["id"]),
        (&json!(400), &Value::Null)
    );
    client.say(&json!({"id": "7", "sing": true})).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["status"], &answer["id"]),
        (&json!(400), &json!("7"))
    );
    client.say(&json!({"ping": {"at": 1}})).await;
    assert_eq!(client.hear().await, json!({"pong": {"at": 1}}));
    client.raw(Message::Ping("mine".into())).await;
    loop {
        match client.next().await {
            Message::Pong(pong) => return assert_eq!(pong, "mine"),
            Message::Ping(_) => {}
            other => unreachable!("{other:?}"),
        }
    }
}
