//! `migrate --dry-run`.

use serde_json::Value;
use sqlx::{Connection, Executor};
use tidelog_test_support::{fresh_mysql_database, shared};

use super::Ground;
use crate::log::connect;
use crate::services::{CommandLine, Ended};

async fn migrate(url: &str, arguments: &[&str]) -> Ended {
    let all: Vec<_> = ["migrate"].iter().chain(arguments).copied().collect();
    CommandLine::new(&all)
        .with([("DATABASE_URL", url)])
        .run()
        .await
}

async fn run(url: &str, sql: &'static str) {
    let mut connection = connect(url).await;
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_is_due_is_told_and_not_made() {
    let url = fresh_mysql_database(shared::mysql().await).await;
    let due = migrate(&url, &["--dry-run"]).await;
    assert_eq!(due.code, Some(5), "{}", due.output);
    let lines = due.stdout.lines().filter(|line| line.starts_with("due "));
    let count = lines.count();
    assert!(count >= 4, "{}", due.stdout);
    let mut connection = connect(&url).await;
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
    let tables: i64 = sqlx::query_scalar(tables)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);

    migrate(&url, &[]).await.succeeded();
    let nothing = migrate(&url, &["--dry-run"]).await.succeeded();
    assert!(
        nothing.stdout.contains("no migration is due"),
        "{}",
        nothing.stdout
    );

    run(&url, "DELETE FROM log_migrations WHERE version = 4").await;
    let one = migrate(&url, &["--dry-run", "--sql", "--json"]).await;
    assert_eq!(one.code, Some(5), "{}", one.output);
    let one: Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(
        (&one[0]["number"], &one[1]),
        (&Value::from(4), &Value::Null)
    );
    assert!(one[0]["sql"].as_str().unwrap().contains("CREATE TABLE"));

    run(
        &url,
        "UPDATE log_migrations SET version = 999 WHERE version = 1",
    )
    .await;
    let newer = migrate(&url, &["--dry-run"]).await;
    assert_eq!(newer.code, Some(1), "{}", newer.output);
    assert!(newer.output.contains("999"), "{}", newer.output);
}

#[tokio::test]
async fn the_file_of_a_running_dev_is_looked_at_too() {
    let ground = Ground::dev().await;
    let said = ground.says(&["migrate", "--dry-run"]).await;
    assert!(said.contains("no migration is due"), "{said}");
    let home = tempfile::tempdir().unwrap();
    let missing = format!("sqlite://{}", home.path().join("none.db").display());
    let due = migrate(&missing, &["--dry-run"]).await;
    assert_eq!(due.code, Some(5), "{}", due.output);
    assert!(!home.path().join("none.db").exists());
}
