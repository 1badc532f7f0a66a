//! The backup of an SQLite file, and the restore, as `docs/operations/backup.md` has them.

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tidelog_test_support::Signal;

use crate::load::Load;
use crate::log::read;
use crate::services::{CommandLine, Site};
use crate::view::View;

/// How many writes are acknowledged before the backup is taken, and how many more are on their way.
const BEFORE: usize = 120;
const MEANWHILE: usize = 400;

#[tokio::test]
async fn a_backup_that_is_taken_under_writes_has_all_that_was_acknowledged_before() {
    let mut site = Site::dev().await;
    let before = Load::start(&site.commands, BEFORE).finish().await;
    let saved = read(&site.database_url()).await;
    before.assert_in(&saved);
    let mut load = Load::start(&site.commands, MEANWHILE);
    load.reaches(MEANWHILE / 8).await;

    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("tidelog.db");
    let file = site.services[0].data_file();
    let running = SqliteConnectOptions::new().filename(&file);
    let mut running = running.connect().await.unwrap();
    let least = BEFORE + load.acknowledged();
    sqlx::query("VACUUM INTO ?")
        .bind(backup.to_str().unwrap())
        .execute(&mut running)
        .await
        .unwrap();
    running.close().await.unwrap();
    assert!(
        load.acknowledged() < MEANWHILE,
        "all was written before the backup was done: write more"
    );
    let after = load.finish().await;

    // The whole directory goes away, and the backup into its place.
    let service = &mut site.services[0];
    assert_eq!(service.stop(Signal::Term).await, Some(0));
    let data = file.parent().unwrap();
    std::fs::rename(data, data.with_extension("lost")).unwrap();
    std::fs::create_dir(data).unwrap();
    std::fs::copy(&backup, &file).unwrap();
    let renewed = CommandLine::new(&["doctor", "--new-history"])
        .with([("TIDELOG_DATA_DIR", data.to_str().unwrap())]);
    renewed.run().await.succeeded();
    site.services[0].restart().await;

    let mut rows = read(&site.database_url()).await;
    crate::log::assert_dense(&rows);
    rows.retain(|row| row.stream.starts_with("post/"));
    let missing = saved.iter().find(|row| !rows.contains(row));
    assert_eq!(missing, None, "it was acknowledged before the backup");
    assert!(
        (least..=BEFORE + after.count()).contains(&rows.len()),
        "{least} writes were acknowledged before the backup, and {} are in it",
        rows.len()
    );
    let view = View::of(&site, None).await;
    view.equals_the_fold("post").await;
    // It goes on, and knows what was done.
    Load::start(&site.commands, 40).finish().await;
    view.equals_the_fold("post").await;
    let record = site.services[0].admin().get("/admin/api/audit").await;
    let record = record.data(200);
    assert_eq!(
        (&record[0]["action"], &record[0]["ended"]["outcome"]),
        (&json!("log.new-history"), &json!("done"))
    );
}
