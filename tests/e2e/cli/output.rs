//! How it is shown: colours on a terminal alone, JSON for programs, exit statuses.

use serde_json::json;

use super::{Ground, write};
use crate::services::CommandLine;

#[tokio::test]
async fn colours_are_for_terminals_alone() {
    let ground = Ground::dev().await;
    for arguments in [&["subscriptions"][..], &["views"], &["doctor"], &["events"]] {
        let piped = ground.cli(arguments).await.succeeded();
        assert!(!piped.stdout.contains('\u{1b}'), "{:?}", piped.stdout);
    }
    // What a terminal would be given.
    let forced = ground
        .command(&["subscriptions"])
        .with([("CLICOLOR_FORCE", "1")]);
    let forced = forced.run().await.succeeded().stdout;
    assert!(forced.contains("\u{1b}[1mNAME\u{1b}[0m"), "{forced:?}");
}

#[tokio::test]
async fn what_was_done_is_told_to_programs() {
    for ground in Ground::both().await {
        let paused = ground
            .json(&["subscriptions", "pause", "post", "--json"])
            .await;
        assert_eq!(
            (&paused["name"], &paused["paused"]),
            (&json!("post"), &json!(true))
        );
        let resumed = ground
            .json(&["subscriptions", "resume", "post", "--json"])
            .await;
        assert_eq!(resumed["paused"], false);
        assert_eq!(ground.json(&["parked", "list", "--json"]).await, json!([]));
        assert_eq!(
            ground.json(&["parked", "skipped", "post", "--json"]).await,
            json!([])
        );
        assert_eq!(
            ground.says(&["parked", "skipped", "post"]).await,
            "nothing was skipped"
        );
        let views = ground.json(&["views", "--json"]).await;
        let mut views = views.as_array().unwrap().iter();
        assert!(views.any(|view| view["view"] == "post"));
    }
}

#[tokio::test]
async fn the_settings_are_told_to_programs_without_their_secrets() {
    let url = ("DATABASE_URL", "mysql://u:Sesame-9@127.0.0.1:1/d");
    let shown = CommandLine::new(&["config", "--json"])
        .with([url])
        .run()
        .await
        .succeeded();
    assert!(!shown.output.contains("Sesame"), "{}", shown.output);
    let settings: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let mut settings = settings.as_array().unwrap().iter();
    let database = settings.find(|own| own["key"] == "database_url").unwrap();
    assert_eq!(database["origin"], "environment DATABASE_URL");
    assert!(database["value"].as_str().unwrap().contains("***"));
}

#[tokio::test]
async fn the_exit_status_says_what_kind_of_failure_it_is() {
    for ground in Ground::both().await {
        write(&ground.site.commands, "a", "A", "c").await;
        for (arguments, code) in [
            (&["subscriptions", "pause", "nothing"][..], 4),
            (&["parked", "retry", "post", "nothing"], 4),
            (&["replay", "nothing"], 4),
            (&["views", "rollback", "post"], 4),
            (&["restart", "nothing", "--from", "now"], 4),
            (&["restart", "post", "--from", "now"], 2),
            (&["events", "--stream", "nonsense"], 2),
            (&["events", "--nonsense"], 2),
        ] {
            let ended = ground.cli(arguments).await;
            assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.output);
        }
    }
    let nowhere = ("DATABASE_URL", "mysql://root@127.0.0.1:1/d");
    let away = CommandLine::new(&["events"]).with([nowhere]).run().await;
    assert_eq!(away.code, Some(3), "{}", away.output);
    let help = CommandLine::new(&["--help"]).run().await.succeeded();
    assert!(help.stdout.contains("Exit status:"), "{}", help.stdout);
}
