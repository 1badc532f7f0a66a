//! Pausing a subscription and letting it go on.

use reqwest::Method;

use super::Site;
use crate::client::must;
use crate::services::Role;

#[tokio::test]
async fn a_paused_view_stands_still_until_it_is_resumed_and_says_why() {
    let site = Site::new().await;
    let eventbus = site.start(Role::EventBus).await;
    let query = site.start(Role::Query).await;
    let queries = query.queries();
    let before = site.write("before").await;
    queries
        .get_after("/post/before", before.token())
        .await
        .data(200);

    let reason = "the mail server moves";
    let paused = site
        .cli(&["subscriptions", "pause", "post", "--reason", reason])
        .await
        .succeeded();
    assert!(
        paused.stdout.contains("subscriptions resume post"),
        "{}",
        paused.stdout
    );
    let during = site.write("during").await;
    let read = queries
        .request(Method::GET, "/post/during")
        .header("consistency-token", during.token())
        .header("prefer", "wait=1");
    must(read).await.problem(503, "not-yet-projected");
    let listed = site.cli(&["subscriptions"]).await.succeeded();
    let line = listed
        .stdout
        .lines()
        .find(|line| line.starts_with("post "))
        .unwrap();
    // It is behind by the write, and by the record of the pause, as far as that came after it.
    assert!(line.contains("paused") && line.contains(" event"), "{line}");
    assert!(listed.stdout.contains(reason), "{}", listed.stdout);
    // Who works on a partition is found by its name: in a line of that process' log.
    let by_partition = site.cli(&["subscriptions", "--by-partition"]).await;
    let by_partition = by_partition.succeeded().stdout;
    let owner = by_partition
        .split_whitespace()
        .find(|word| word.starts_with("eventbus-"));
    let owner = owner.unwrap_or_else(|| panic!("{by_partition}"));
    let told = eventbus.process().stderr();
    assert!(
        told.iter().any(|line| line.contains(owner)),
        "{owner}: {told:?}"
    );

    let customers = listed
        .stdout
        .lines()
        .find(|line| line.starts_with("customer "));
    assert!(customers.unwrap().contains("live"), "{}", listed.stdout);

    site.cli(&["subscriptions", "resume", "post"])
        .await
        .succeeded();
    queries
        .get_after("/post/during", during.token())
        .await
        .data(200);
    // Standing still on purpose is no alarm.
    let output = eventbus.process().output();
    assert!(!output.contains("is stalled"), "{output}");
}

#[tokio::test]
async fn an_unknown_subscription_is_named_with_those_that_there_are() {
    let site = Site::new().await;
    let _eventbus = site.start(Role::EventBus).await;
    let refused = site.cli(&["subscriptions", "pause", "nothing"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.output);
    for part in ["nothing", "post", "customer"] {
        assert!(refused.output.contains(part), "{}", refused.output);
    }
}
