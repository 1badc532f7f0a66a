//! Events and streams, looked for by what they are.

use serde_json::Value;

use super::{Ground, names, retitle, write};

/// What is in payloads alone.
const SECRET: &str = "Sesame-4812";

/// Three posts, of which one was changed twice.
async fn fill(ground: &Ground) {
    let commands = &ground.site.commands;
    write(commands, "a", SECRET, "story-1").await;
    write(commands, "b", SECRET, "story-2").await;
    retitle(commands, "a", "A2", "story-1").await;
    retitle(commands, "a", "A3", "story-11").await;
    write(commands, "c", SECRET, "story-2").await;
}

#[tokio::test]
async fn events_are_found_by_what_they_are() {
    for ground in Ground::both().await {
        fill(&ground).await;
        let all = ground.events(&[]).await;
        assert_eq!(
            names(&all),
            ["post/c@1", "post/a@3", "post/a@2", "post/b@1", "post/a@1"]
        );
        let found = async |arguments: &[&str]| names(&ground.events(arguments).await);
        let created = ["post/c@1", "post/b@1", "post/a@1"];
        assert_eq!(found(&["--type", "post.created"]).await, created);
        assert_eq!(found(&["--limit", "2"]).await, ["post/c@1", "post/a@3"]);
        let correlated = ["--correlation", "story-1"];
        assert_eq!(found(&correlated).await, ["post/a@2", "post/a@1"]);
        let oldest = ["--stream", "post/a", "--oldest"];
        let stream = ["post/a@1", "post/a@2", "post/a@3"];
        assert_eq!(found(&oldest).await, stream);
        let newest = ["--stream", "post/a", "--limit", "2"];
        assert_eq!(found(&newest).await, ["post/a@3", "post/a@2"]);
        let none = ["--stream", "post/a", "--type", "post.deleted"];
        assert_eq!(found(&none).await, [""; 0]);

        // By the command, and by the time: from the third event on, and before it.
        let command = all[2]["causationid"].as_str().unwrap();
        assert_eq!(found(&["--causation", command]).await, ["post/a@2"]);
        let time = all[2]["time"].as_str().unwrap();
        let since = found(&["--since", time, "--oldest"]).await;
        assert_eq!(since, ["post/a@2", "post/a@3", "post/c@1"]);
        let until = found(&["--until", time]).await;
        assert_eq!(until, ["post/b@1", "post/a@1"]);
        assert_eq!(found(&["--since", "1h"]).await.len(), 5);
        let stream = ["--stream", "post/a", "--until", time];
        assert_eq!(found(&stream).await, ["post/a@1"]);
    }
}

#[tokio::test]
async fn payloads_are_shown_to_who_asks_alone() {
    for ground in Ground::both().await {
        fill(&ground).await;
        for hidden in [
            &["events"][..],
            &["events", "--json"],
            &["show", "post/a@1"],
            &["show", "post/a@1", "--json"],
            &["streams"],
        ] {
            let said = ground.cli(hidden).await.succeeded();
            assert!(!said.output.contains(SECRET), "{}", said.output);
        }
        for shown in [
            &["events", "--payload"][..],
            &["events", "--json", "--payload"],
            &["show", "post/a@1", "--payload"],
            &["show", "post/a@1", "--payload", "--json"],
        ] {
            let said = ground.says(shown).await;
            assert!(said.contains(SECRET), "{said}");
        }
    }
}

#[tokio::test]
async fn an_event_is_shown_by_each_of_its_names_with_what_belongs_to_it() {
    for ground in Ground::both().await {
        fill(&ground).await;
        let event = &ground.events(&["--stream", "post/a", "--oldest"]).await[1];
        let place = format!(
            "{}:{}",
            event["partition"],
            event["position"].as_str().unwrap()
        );
        for name in [event["id"].as_str().unwrap(), "post/a@2", &place] {
            let said = ground.says(&["show", name]).await;
            for part in ["post.updated", "story-1", "shown with --payload"] {
                assert!(said.contains(part), "no {part} in {said}");
            }
            // The other event of the same request stands beside it.
            let tree: Vec<_> = said
                .lines()
                .skip_while(|line| !line.starts_with("request "))
                .collect();
            assert_eq!(tree[0], "request story-1");
            let line = |part: &str| tree.iter().find(|line| line.contains(part));
            assert!(
                line("post/a@1").is_some_and(|line| !line.contains('←')),
                "{said}"
            );
            assert!(
                line("post/a@2").is_some_and(|line| line.contains('←')),
                "{said}"
            );
            assert_eq!(
                tree.iter().filter(|line| line.contains("command ")).count(),
                2
            );
        }
        let shown = ground.json(&["show", "post/a@2", "--json"]).await;
        assert_eq!(shown["event"]["id"], event["id"]);
        assert_eq!(shown["chain"]["commands"].as_array().unwrap().len(), 2);

        let nobody = uuid_of_nobody();
        for (name, code) in [
            ("post/a@9", 4),
            ("post/nobody@1", 4),
            ("0:999", 4),
            ("999:1", 4),
            (&*nobody, 4),
            ("nonsense", 2),
        ] {
            let refused = ground.cli(&["show", name]).await;
            assert_eq!(refused.code, Some(code), "{name}: {}", refused.output);
        }
    }
}

fn uuid_of_nobody() -> String {
    "01890f3e-7b5a-7c3d-9f00-0123456789ab".to_owned()
}

#[tokio::test]
async fn streams_are_listed_by_name() {
    for ground in Ground::both().await {
        fill(&ground).await;
        let listed = ground.says(&["streams", "post"]).await;
        let rows: Vec<_> = listed
            .lines()
            .map(str::split_whitespace)
            .map(Vec::from_iter)
            .collect();
        assert_eq!(rows[0], ["STREAM", "VERSION"]);
        assert_eq!(rows[1], ["post/a", "3"]);
        assert_eq!(rows[3], ["post/c", "1"]);
        let one = ground.json(&["streams", "post/b", "--json"]).await;
        assert_eq!(one[0]["stream"], "post/b");
        assert_eq!(one.as_array().map(Vec::len), Some(1));
        // A category, and not what begins like it.
        let none = ground.json(&["streams", "pos", "--json"]).await;
        assert_eq!(none, serde_json::json!([]));
        let first = ground.says(&["streams", "post", "--limit", "1"]).await;
        assert!(first.contains("--after post/a"), "{first}");
        let rest = ground
            .json(&["streams", "post", "--after", "post/a", "--json"])
            .await;
        let rest: Vec<_> = rest
            .as_array()
            .unwrap()
            .iter()
            .map(|own| own["stream"].clone())
            .collect();
        assert_eq!(rest, [Value::from("post/b"), Value::from("post/c")]);
    }
}
