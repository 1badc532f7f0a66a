//! A user of Redis with the rights of `deploy/redis` can do what is needed, and one with fewer is told what is
//! missing.

use std::time::Duration;

use tidelog_domain::{HistoryId, Partition, Position};
use tidelog_eventbus::{EventBus, RedisConnectError, RedisEventBus};
use tidelog_test_support::{shared, unique_name};
use uuid::Uuid;

use super::kit::{Log, partitions, redis_at};

/// The user of one Redis, or of each node of a cluster, as the server loads it from its `aclfile`.
const ALONE: &str = include_str!("../../../deploy/redis/users.acl");
const ON_A_CLUSTER: &str = include_str!("../../../deploy/redis/users-cluster.acl");

const DOCUMENT: &str = include_str!("../../../docs/redis.md");

/// The command that gives `user` the rights for `app` in one of the files in `deploy/redis`, that with `keys`.
pub(super) fn documented_rights(keys: &str, user: &str, app: &str) -> Vec<String> {
    let mut files = [ALONE, ON_A_CLUSTER].into_iter();
    let rule = files.find(|line| line.contains(&format!(" ~{keys} ")));
    let rule = rule.unwrap_or_else(|| panic!("no rule for {keys}"));
    let rights = rule.trim().strip_prefix("user tidelog ").unwrap();
    let rights = rights.split(' ').map(|word| word.replace("APP", app));
    let command = ["ACL", "SETUSER", user].map(str::to_owned);
    command.into_iter().chain(rights).collect()
}

#[test]
fn the_document_names_the_rights_of_the_files() {
    for file in [ALONE, ON_A_CLUSTER] {
        let rule = file.trim().replacen("user", "ACL SETUSER", 1);
        let lines = DOCUMENT.lines().map(str::trim);
        assert_eq!(lines.filter(|line| *line == rule).count(), 1, "{rule}");
    }
}

/// Does all that a bus is asked for, trimming included.
pub(super) async fn everything_works(url: &str, app: &str) {
    let bus = RedisEventBus::new(url, app).unwrap();
    let bus = bus.keeping_bytes(64 * 1024, partitions());
    bus.server().await.unwrap();
    let log = Log::new();
    log.append(4_000).await;
    let history = HistoryId::new(Uuid::now_v7());
    for partition in partitions().iter() {
        assert_eq!(bus.last(history, partition).await.unwrap(), None);
        let events = log.events(partition).await;
        bus.publish(history, partition, &events).await.unwrap();
        let last = bus.last(history, partition).await.unwrap().unwrap();
        assert_eq!(Some(last), events.last().map(|event| event.cursor()));
        let after = [(partition, Position::START)];
        let read = bus.read(history, &after, 10_000, Duration::from_millis(1));
        let read = read.await.unwrap();
        assert!(events.ends_with(&read) && read.len() < events.len() && !read.is_empty());
    }
}

async fn set_user(rule: &[String]) {
    let mut connection = redis_at(shared::redis().await.url()).await;
    let mut command = redis::Cmd::new();
    let _: String = command
        .arg(rule)
        .query_async(&mut connection)
        .await
        .unwrap();
}

async fn url(user: &str) -> String {
    let url = shared::redis().await.url();
    url.replace("://", &format!("://{user}:PASSWORD@"))
}

#[tokio::test]
async fn a_user_with_the_documented_rights_does_what_is_needed() {
    let (user, app) = (unique_name(), unique_name());
    set_user(&documented_rights("{APP:events}:*", &user, &app)).await;
    everything_works(&url(&user).await, &app).await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let (user, app) = (unique_name(), unique_name());
    let all = documented_rights("{APP:events}:*", &user, &app);
    let url = url(&user).await;
    for missing in all.iter().filter(|word| word.starts_with('+')) {
        let rule: Vec<_> = all
            .iter()
            .filter(|word| *word != missing)
            .cloned()
            .collect();
        assert_eq!(rule.len(), all.len() - 1);
        set_user(&rule).await;
        let error = RedisEventBus::new(&url, &app).unwrap().server().await;
        let error = error.unwrap_err();
        assert!(
            matches!(&error, RedisConnectError::Forbidden { what } if what.contains(&missing[1..]))
                && !error.is_temporary(),
            "without {missing}: {error:?}"
        );
    }
}

#[tokio::test]
async fn keys_that_are_missing_are_named() {
    let (user, app) = (unique_name(), unique_name());
    set_user(&documented_rights("{APP:events}:*", &user, "another")).await;
    let bus = RedisEventBus::new(&url(&user).await, &app).unwrap();
    let error = bus.server().await.unwrap_err();
    let keys = format!("{{{app}:events}}:*");
    assert!(
        matches!(&error, RedisConnectError::Forbidden { what } if what.contains(&keys)),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_start_up_check_leaves_nothing_behind() {
    let app = unique_name();
    let url = shared::redis().await.url();
    RedisEventBus::new(url, &app)
        .unwrap()
        .server()
        .await
        .unwrap();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("*{app}*"))
        .query_async(&mut redis_at(url).await)
        .await
        .unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn a_right_that_is_taken_away_later_is_named_by_what_fails() {
    let (user, app) = (unique_name(), unique_name());
    set_user(&documented_rights("{APP:events}:*", &user, &app)).await;
    let bus = RedisEventBus::new(&url(&user).await, &app).unwrap();
    bus.server().await.unwrap();
    set_user(&["ACL", "SETUSER", &user, "-xadd"].map(str::to_owned)).await;
    let log = Log::new();
    log.append(64).await;
    let partition = Partition::new(0);
    let events = log.events(partition).await;
    let failed = bus.publish(log.history(), partition, &events).await;
    let causes = tidelog_domain::causes(&failed.unwrap_err());
    assert!(causes.contains("'xadd'"), "{causes}");
}
