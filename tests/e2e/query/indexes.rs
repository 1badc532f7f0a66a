//! Indexes that a view declares: there is nothing to see of them but that they are there.

use serde_json::json;

use super::targets::targets;
use crate::services::CommandLine;
use crate::waiting::eventually;

#[tokio::test]
async fn the_indexes_of_a_view_are_made_and_shown() {
    for target in targets().await {
        let admin = target.site.services[0].admin();
        let expected = json!([
            {"by": "title", "state": "ready"},
            {"by": "-pages,title", "state": "ready"},
            {"by": "author.name", "state": "ready"},
            {"by": "-created_at", "state": "ready"},
        ]);
        eventually("the indexes to be ready", async || {
            let shown = admin.get("/admin/api/views/book").await.data(200);
            if shown["indexes"] == expected {
                return Ok(());
            }
            Err(shown.to_string())
        })
        .await;
        let note = admin.get("/admin/api/views/note").await.data(200);
        assert_eq!(note["indexes"], json!([]));
    }
}

#[tokio::test]
async fn the_command_line_shows_the_indexes() {
    let [_, servers] = targets().await;
    let backends = servers.backends.as_ref().unwrap();
    let entities = servers.entities.path().to_str().unwrap();
    let settings = backends.settings().into_iter();
    let settings = settings.chain([("TIDELOG_ENTITIES", entities)]);
    let command = CommandLine::new(&["views"]).with(settings);
    let shown = command.run().await;
    assert_eq!(shown.code, Some(0), "{}", shown.output);
    assert!(
        shown.output.contains("index -pages,title: "),
        "{}",
        shown.output
    );
}

#[tokio::test]
async fn an_index_that_cannot_be_is_an_error_at_the_start() {
    let entities = tempfile::tempdir().unwrap();
    let file = entities.path().join("note.schema.json");
    for (indexes, why) in [
        (json!(["rnak"]), "the view note declares the index \"rnak\""),
        (json!("rank"), "x-tidelog-indexes"),
    ] {
        let schema = json!({
            "type": "object",
            "properties": {"rank": {"type": "integer"}},
            "x-tidelog-indexes": indexes
        });
        std::fs::write(&file, schema.to_string()).unwrap();
        let settings = [("TIDELOG_ENTITIES", entities.path().to_str().unwrap())];
        let command = CommandLine::new(&["dev"]).with(settings);
        let ended = command.run().await;
        assert_eq!(ended.code, Some(1), "{}", ended.output);
        assert!(ended.output.contains(why), "{}", ended.output);
    }
}
