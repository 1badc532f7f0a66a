//! `streams show`: what a stream was, and what changed.

use serde_json::json;

use super::{Ground, retitle, write};

#[tokio::test]
async fn a_stream_is_shown_as_it_was_at_any_version() {
    for ground in Ground::both().await {
        write(&ground.site.commands, "a", "A", "c").await;
        retitle(&ground.site.commands, "a", "B", "c").await;
        retitle(&ground.site.commands, "a", "C", "c").await;
        let said = ground.says(&["streams", "show", "post/a"]).await;
        for part in [
            "post.created",
            "post.updated",
            "post/a at version 3:",
            "\"title\": \"C\"",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
        let shown = ground
            .json(&["streams", "show", "post/a", "--at", "2", "--json"])
            .await;
        assert_eq!(shown["state"]["title"], "B", "{shown:#}");
        assert_eq!(
            (&shown["version"], &shown["last"], &shown["lifecycle"]),
            (&json!(2), &json!(3), &json!("live"))
        );
        assert_eq!(shown["events"].as_array().unwrap().len(), 2);

        let said = ground
            .says(&["streams", "show", "post/a", "--diff", "1", "3"])
            .await;
        let line = said.lines().find(|line| line.contains("title"));
        assert_eq!(line, Some("  /title: \"A\" → \"C\""), "{said}");
        let diff = ground
            .json(&["streams", "show", "post/a", "--diff", "3", "1", "--json"])
            .await;
        let changes = diff["changes"].as_array().unwrap();
        let title = changes.iter().find(|own| own["path"] == "/title");
        assert_eq!(
            title,
            Some(&json!({"path": "/title", "before": "C", "after": "A"}))
        );

        let posts = ground.says(&["streams", "post"]).await;
        assert!(posts.contains("post/a"), "{posts}");
        for (arguments, code) in [
            (&["streams", "show", "post/none"][..], 4),
            (&["streams", "show", "nonsense"], 2),
            (&["streams", "show", "post/a", "--at", "9"], 2),
            (&["streams", "show", "post/a", "--diff", "1", "9"], 2),
            (&["streams", "show", "post/a", "--diff", "1"], 2),
            (
                &["streams", "show", "post/a", "--at", "1", "--diff", "1", "2"],
                2,
            ),
        ] {
            let ended = ground.cli(arguments).await;
            assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.output);
        }
    }
}

#[tokio::test]
async fn a_stream_of_nobodys_is_shown_without_a_state() {
    let ground = Ground::dev().await;
    let refused = ground.cli(&["subscriptions", "pause", "nobody"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.output);
    let said = ground
        .says(&["streams", "show", "tidelog/operations"])
        .await;
    for part in ["tidelog.operation-asked", "no state at version 2: "] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}
