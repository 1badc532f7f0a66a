//! What the command line shows to a running process that wants to know who asks.

use super::{Ground, write};
use crate::services::{Role, Site};

const ANN: &str = "ann-has-the-permission";
const WALL: &str = "wall-is-a-screen-0000";

#[tokio::test]
async fn a_running_process_is_shown_the_token() {
    let tokens = format!("ann:operate:{ANN},wall:read:{WALL}");
    let site = Site::with(Role::Dev, &[("TIDELOG_ADMIN_TOKENS", &tokens)]).await;
    let ground = Ground::beside(site);
    write(&ground.site.commands, "a", "A", "c").await;
    let with = async |token: &str, arguments: &[&str]| {
        let command = ground.command(arguments);
        command.with([("TIDELOG_ADMIN_TOKEN", token)]).run().await
    };

    for ended in [
        ground.cli(&["subscriptions"]).await,
        with("nobody-has-this-one", &["subscriptions"]).await,
        with(WALL, &["subscriptions", "pause", "post"]).await,
        with(WALL, &["replay", "post"]).await,
    ] {
        assert_eq!(ended.code, Some(6), "{}", ended.output);
        for part in ["TIDELOG_ADMIN_TOKEN ", "--admin-token"] {
            assert!(ended.output.contains(part), "no {part} in {}", ended.output);
        }
        assert!(!ended.output.contains(WALL), "{}", ended.output);
    }
    with(WALL, &["subscriptions"]).await.succeeded();
    with(WALL, &["streams"]).await.succeeded();
    let pause = ["subscriptions", "pause", "post", "--reason", "a move"];
    with(ANN, &pause).await.succeeded();
    with(ANN, &["subscriptions", "resume", "post"])
        .await
        .succeeded();
    let said = with(WALL, &["audit"]).await.succeeded().stdout;
    for part in ["ann", "subscription.pause", "a move"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(!said.contains("wall"), "{said}");
}

#[tokio::test]
async fn a_token_is_not_shown_to_anybody_else() {
    let config = async |token: &str, json: &[&str]| {
        let arguments: Vec<_> = ["config"].iter().chain(json).copied().collect();
        let command = crate::services::CommandLine::new(&arguments);
        command.with([("TIDELOG_ADMIN_TOKEN", token)]).run().await
    };
    for json in [&[][..], &["--json"]] {
        let said = config(ANN, json).await.succeeded().output;
        assert!(!said.contains(ANN) && said.contains("***"), "{said}");
    }
    let short = config("too-short", &[]).await;
    assert_eq!(short.code, Some(2), "{}", short.output);
    assert!(!short.output.contains("too-short"), "{}", short.output);
    assert!(short.output.contains("admin_token"), "{}", short.output);
}
