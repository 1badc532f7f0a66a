//! Subscriptions that stand still, because a server is gone or their process hangs.

use std::time::Duration;

use tidelog_test_support::grants::administrator;
use tidelog_test_support::{Engine, Server, Signal, fresh_mongodb_database};

use super::Site;
use super::metrics::{page, sample};
use crate::services::{Backends, CommandLine, Role};
use crate::waiting::eventually;

/// Whether a page says that a partition of the view is stalled.
fn is_stalled(page: &str) -> bool {
    let mut stalled = page.lines();
    stalled.any(|line| {
        line.starts_with("tidelog_subscription_stalled{subscription=\"post\"")
            && line.ends_with(" 1")
    })
}

/// What `doctor` says of `check`: how it came out, and what was found.
async fn doctor(backends: &Backends, check: &str) -> (String, String) {
    let command = CommandLine::new(&["doctor", "--json"]).with(backends.settings());
    let ended = command.run().await;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let mut checks = report.as_array().unwrap().iter();
    let own = checks.find(|own| own["check"] == check);
    let own = own.unwrap_or_else(|| panic!("no {check} in {report:#}"));
    let text = |name: &str| own[name].as_str().unwrap().to_owned();
    (text("finding"), text("found"))
}

#[tokio::test]
async fn doctor_tells_of_a_redis_that_is_nearly_full_and_of_what_is_old_in_it() {
    let redis = Server::start(Engine::Redis).await;
    let backends = Backends {
        bus_url: redis.url().to_owned(),
        ..Backends::fresh().await
    };
    let mut site = Site::on(backends).await;
    site.write("a").await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    eventually("the event to be on the bus", async || {
        let mut connection = connection.clone();
        let size = redis::cmd("DBSIZE");
        let size: u64 = size.query_async(&mut connection).await.unwrap();
        (size == 1).then_some(()).ok_or_else(|| size.to_string())
    })
    .await;
    let (finding, found) = doctor(&site.backends, "bus keys").await;
    assert_eq!((&*finding, &*found), ("ok", "all are of the log's history"));
    let (finding, found) = doctor(&site.backends, "bus memory").await;
    assert_eq!(finding, "ok", "{found}");

    assert_eq!(site.command.stop(Signal::Term).await, Some(0));
    let renew = CommandLine::new(&["doctor", "--new-history"]);
    let operator = administrator(&site.backends.database_url);
    let renew = renew.with(site.backends.settings());
    let renew = renew.with([("DATABASE_URL", operator.as_str())]);
    renew.run().await.succeeded();
    let (finding, found) = doctor(&site.backends, "bus keys").await;
    assert!(
        finding == "ok" && found.starts_with("1 stream of other histories"),
        "{found}"
    );

    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut lines = info.lines();
    let used = lines
        .find_map(|line| line.strip_prefix("used_memory:"))
        .unwrap();
    let used: u64 = used.trim().parse().unwrap();
    let mut set = redis::cmd("CONFIG");
    let most = used * 100 / 90;
    let _: String = set
        .arg(&["SET", "maxmemory", &most.to_string()])
        .query_async(&mut connection)
        .await
        .unwrap();
    let (finding, found) = doctor(&site.backends, "bus memory").await;
    assert!(["warn", "FAIL"].contains(&&*finding), "{found}");
    assert!(found.contains("maxmemory"), "{found}");
}

#[tokio::test]
async fn a_read_store_that_is_gone_is_an_alarm_and_the_writes_go_on() {
    let mut mongodb = Server::start(Engine::MongoDb).await;
    let backends = Backends {
        mongodb_url: fresh_mongodb_database(&mongodb),
        ..Backends::fresh().await
    };
    let site = Site::on(backends).await;
    let eventbus = site.start(Role::EventBus).await;
    let admin = eventbus.admin();
    site.write("before").await;
    eventually("the view to be live", async || {
        let page = page(&admin).await;
        let live = sample(
            &page,
            "tidelog_subscription_state",
            &["\"post\"", "\"live\""],
        );
        live.map(|_| ()).ok_or(page)
    })
    .await;
    assert!(!is_stalled(&page(&admin).await));

    mongodb.kill();
    site.write("during").await;
    let told = |text: &str| {
        let lines = eventbus.process().stderr().into_iter();
        let of_it = lines.filter(|line| line.contains("subscription=\"post\""));
        of_it.filter(|line| line.contains(text)).collect::<Vec<_>>()
    };
    let line = async |text| {
        let told = async || told(text).pop().ok_or_else(|| eventbus.process().output());
        eventually(text, told).await
    };
    let alarm = line("a subscription is stalled").await;
    for part in ["ERROR", "backing-off", "bring that back"] {
        assert!(alarm.contains(part), "no {part} in {alarm}");
    }
    assert!(is_stalled(&page(&admin).await));
    let listed = admin.get("/admin/api/subscriptions").await.data(200);
    let posts = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|own| own["name"] == "post");
    let posts = posts.unwrap();
    assert!(posts["problem"].is_string(), "{posts}");
    let stalled = posts["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|own| own["stalled"] == true);
    let stalled = stalled.unwrap_or_else(|| panic!("{posts}"));
    assert_eq!(stalled["state"], "backing-off");
    assert!(
        stalled["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );

    mongodb.restart().await;
    line("the subscription goes on").await;
    assert!(!is_stalled(&page(&admin).await));
    // It was said once.
    assert_eq!(told("a subscription is stalled").len(), 1);
}

/// How long nothing may be told: longer than an alarm takes.
const QUIET: Duration = Duration::from_secs(12);

#[tokio::test]
async fn a_quiet_store_is_no_alarm() {
    let site = Site::new().await;
    let eventbus = site.start(Role::EventBus).await;
    let query = site.start(Role::Query).await;
    let written = site.write("before").await;
    let queries = query.queries();
    queries
        .get_after("/post/before", written.token())
        .await
        .data(200);
    tokio::time::sleep(QUIET).await;
    assert!(!is_stalled(&page(&eventbus.admin()).await));
    let listed = site.cli(&["subscriptions"]).await.succeeded();
    assert!(!listed.stdout.contains("STALLED"), "{}", listed.stdout);
    let output = eventbus.process().output();
    assert!(!output.contains("stalled"), "{output}");
    // And it still moves.
    let written = site.write("after").await;
    queries
        .get_after("/post/after", written.token())
        .await
        .data(200);
}

#[tokio::test]
async fn a_process_that_hangs_is_an_alarm_for_who_asks_from_elsewhere() {
    let site = Site::new().await;
    let eventbus = site.start(Role::EventBus).await;
    let live = async |state: &'static str| {
        eventually("the state", async || {
            let listed = site.cli(&["subscriptions"]).await.succeeded();
            let line = listed.stdout.lines().find(|line| line.starts_with("post "));
            let is_it = line.is_some_and(|line| line.contains(state));
            is_it.then_some(listed.stdout.clone()).ok_or(listed.output)
        })
        .await
    };
    live("live").await;
    eventbus.process().signal(Signal::Stop);
    site.write("during").await;
    let listed = live("STALLED").await;
    assert!(listed.contains("its owner does not get on"), "{listed}");
    eventbus.process().signal(Signal::Cont);
    live("live").await;
}
