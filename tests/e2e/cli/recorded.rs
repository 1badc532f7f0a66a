//! What the command line does is in the record of the administration, or is not done.

use serde_json::{Value, json};
use sqlx::Executor;

use super::{Ground, write};
use crate::log::connect;
use crate::services::Ended;

async fn as_ann(ground: &Ground, arguments: &[&str]) -> Ended {
    ground
        .command(arguments)
        .with([("USER", "ann")])
        .run()
        .await
}

/// Which collection the view is read from.
async fn collection(ground: &Ground) -> Value {
    let views = ground.json(&["views", "--json"]).await;
    views[0]["collection"].clone()
}

#[tokio::test]
async fn what_is_done_to_a_view_is_recorded_wherever_it_is_done() {
    for (ground, by, via) in [
        (Ground::servers().await, "ann@", "cli"),
        (Ground::dev().await, "local", "api"),
    ] {
        let written = write(&ground.site.commands, "a", "A", "c").await;
        let read = ground.site.queries.get_after("/post/a", written.token());
        read.await.data(200);
        for (arguments, code) in [
            (&["replay", "post", "--compare", "full", "--keep"][..], 0),
            (&["replay", "post", "--document", "a"], 0),
            (&["views", "rollback", "post"], 0),
            (&["views", "clean", "post"], 0),
            (&["views", "rollback", "post"], 4),
            (
                &["restart", "post", "--from", "now", "--reason", "a try"],
                2,
            ),
        ] {
            let ended = as_ann(&ground, arguments).await;
            assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.output);
        }
        let recorded = ground.json(&["audit", "--json"]).await;
        let entries = recorded.as_array().unwrap().iter().rev();
        let entries = entries.map(|own| {
            assert!(own["by"].as_str().unwrap().starts_with(by), "{own}");
            assert_eq!(own["via"], via, "{own}");
            assert_eq!(own["target"], "post", "{own}");
            assert!(own["at"].as_str() <= own["ended_at"].as_str(), "{own}");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&own["action"]), text(&own["ended"]["outcome"]))
        });
        let entry = |action: &str, outcome: &str| (action.to_owned(), outcome.to_owned());
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [
                entry("view.replay", "done"),
                entry("view.replay", "done"),
                entry("view.rollback", "done"),
                entry("view.clean", "done"),
                entry("view.rollback", "refused"),
                entry("reaction.restart", "refused"),
            ]
        );
        assert_eq!(
            recorded[5]["said"],
            json!({"compare": "full", "keep": true, "throttle": null})
        );
        assert_eq!(
            recorded[0]["said"],
            json!({"from": "now", "reason": "a try"})
        );
        let api = ground.admin().get("/admin/api/audit").await.data(200);
        assert_eq!(api, recorded);

        let said = ground.says(&["audit", "--limit", "2"]).await;
        for part in [by, "view.rollback", "refused", "there may be more:"] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        let number = recorded[1]["number"].to_string();
        let earlier = ground.json(&["audit", "--json", "--before", &number]).await;
        assert_eq!(
            earlier.as_array().unwrap(),
            &recorded.as_array().unwrap()[2..]
        );
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let ground = Ground::servers().await;
    let written = write(&ground.site.commands, "a", "A", "c").await;
    let read = ground.site.queries.get_after("/post/a", written.token());
    read.await.data(200);
    ground.says(&["replay", "post"]).await;
    let before = (
        collection(&ground).await,
        ground.json(&["audit", "--json"]).await,
    );

    // Nothing can be appended while somebody else has the heads.
    let mut log = connect(&ground.site.database_url()).await;
    log.execute("BEGIN").await.unwrap();
    log.execute("SELECT * FROM log_head FOR UPDATE")
        .await
        .unwrap();
    let (replay, rollback, clean) = tokio::join!(
        ground.cli(&["replay", "post"]),
        ground.cli(&["views", "rollback", "post"]),
        ground.cli(&["views", "clean", "post"]),
    );
    for ended in [replay, rollback, clean] {
        assert_eq!(ended.code, Some(3), "{}", ended.output);
        assert!(ended.output.contains("it was not done"), "{}", ended.output);
    }
    log.execute("ROLLBACK").await.unwrap();

    let after = (
        collection(&ground).await,
        ground.json(&["audit", "--json"]).await,
    );
    assert_eq!(after, before);
    // Nor is it while the log is away.
    let away = [("DATABASE_URL", "mysql://root@127.0.0.1:1/none")];
    for arguments in [&["replay", "post"][..], &["views", "rollback", "post"]] {
        let ended = ground.command(arguments).with(away).run().await;
        assert_eq!(ended.code, Some(3), "{}", ended.output);
    }
    assert_eq!(collection(&ground).await, before.0);
}
