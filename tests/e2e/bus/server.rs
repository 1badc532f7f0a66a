//! What a Redis bus says of the server that it was led to, within the time that a start-up check has.

use std::time::{Duration, Instant};

use tidelog_eventbus::{RedisConnectError, RedisEventBus, RedisServer};
use tidelog_test_support::{free_port, shared, unique_name};
use tokio::net::TcpListener;

use super::kit::redis_at;

/// What an operator waits at most, with room for a slow machine.
const BOUND: Duration = Duration::from_secs(20);

async fn ask(url: &str) -> Result<RedisServer, RedisConnectError> {
    let started = Instant::now();
    let answer = RedisEventBus::new(url, "app").unwrap().server().await;
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    answer
}

fn whole(error: &RedisConnectError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_redis_says_who_it_is() {
    let server = ask(shared::redis().await.url()).await.unwrap();
    assert_eq!(server.name, "redis");
    assert!(server.version.starts_with(|c: char| c.is_ascii_digit()));
}

#[tokio::test]
async fn a_mysql_is_not_redis() {
    let url = format!("redis://127.0.0.1:{}", shared::mysql().await.port());
    let error = ask(&url).await.unwrap_err();
    assert!(
        matches!(
            error,
            RedisConnectError::NotRedis(_) | RedisConnectError::CutOff(_)
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("not Redis"), "{error}");
}

#[tokio::test]
async fn a_mongodb_is_not_redis() {
    let url = format!("redis://127.0.0.1:{}", shared::mongodb().await.port());
    let error = ask(&url).await.unwrap_err();
    assert!(error.to_string().contains("not Redis"), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let error = ask(&url).await.unwrap_err();
    assert!(
        matches!(error, RedisConnectError::Unreachable(_)) && error.is_temporary(),
        "{error:?}"
    );
}

#[tokio::test]
async fn somebody_who_never_answers_is_unreachable() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let error = ask(&url).await.unwrap_err();
    assert!(
        matches!(error, RedisConnectError::Unreachable(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_named_as_such_and_not_shown() {
    let (server, user) = (shared::redis().await, unique_name());
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg(&user).arg("on").arg(">right");
    acl.arg("~*").arg("+@all");
    let _: String = acl
        .query_async(&mut redis_at(server.url()).await)
        .await
        .unwrap();
    let url = |password: &str| format!("redis://{user}:{password}@127.0.0.1:{}", server.port());
    ask(&url("right")).await.unwrap();
    let error = ask(&url("hunter2")).await.unwrap_err();
    assert!(
        matches!(error, RedisConnectError::Refused(_)) && !error.is_temporary(),
        "{error:?}"
    );
    assert!(!format!("{} {error:?}", whole(&error)).contains("hunter2"));

    let mut gone = redis::cmd("ACL");
    let _: i64 = gone
        .arg("DELUSER")
        .arg(&user)
        .query_async(&mut redis_at(server.url()).await)
        .await
        .unwrap();
    let error = ask(&url("right")).await.unwrap_err();
    assert!(matches!(error, RedisConnectError::Refused(_)), "{error:?}");
}
