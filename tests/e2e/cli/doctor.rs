//! `doctor`: what it finds, and what it says to do.

use serde_json::Value;
use sqlx::{Connection, Executor};

use super::{Ground, write};
use crate::log::connect;
use crate::services::{Backends, CommandLine, Role, Service};

/// The checks that were made, by name: how each came out, the worst last.
fn finding(report: &Value, check: &str) -> Vec<String> {
    let checks = report.as_array().unwrap().iter();
    let own = checks.filter(|own| own["check"] == check);
    own.map(|own| own["finding"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs it on `backends`; gives what it found, and its exit status.
async fn doctor(backends: &Backends, settings: &[(&str, &str)]) -> (Value, Option<i32>) {
    let command = CommandLine::new(&["doctor", "--json"]).with(backends.settings());
    let ended = command.with(settings.iter().copied()).run().await;
    let report = serde_json::from_str(&ended.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", ended.output));
    (report, ended.code)
}

#[tokio::test]
async fn nothing_is_wrong_with_what_is_right() {
    for ground in Ground::both().await {
        write(&ground.site.commands, "a", "A", "c").await;
        let report = ground.json(&["doctor", "--json"]).await;
        let failed = report
            .as_array()
            .unwrap()
            .iter()
            .filter(|own| own["finding"] == "FAIL");
        assert_eq!(failed.count(), 0, "{report:#}");
        for check in [
            "settings",
            "log",
            "migrations",
            "partitions",
            "heads",
            "views",
        ] {
            let found = finding(&report, check);
            assert!(
                found.iter().all(|own| own == "ok") && !found.is_empty(),
                "{check}: {report:#}"
            );
        }
        let of_place = match ground
            .settings
            .iter()
            .any(|(name, _)| name == "DATABASE_URL")
        {
            true => &["clock", "bus memory", "bus keys", "read models' durability"][..],
            false => &["write-ahead log", "disk"],
        };
        for check in of_place {
            assert_ne!(finding(&report, check), [""; 0], "{check}: {report:#}");
        }
        let said = ground.says(&["doctor"]).await;
        assert!(
            said.lines().any(|line| line.starts_with("ok    heads: ")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn all_is_checked_whatever_is_wrong_before() {
    let mut backends = Backends::fresh().await;
    let command = Service::start(Role::Command, &backends).await;
    write(&command.commands(), "a", "A", "c").await;
    let right = backends.mongodb_url.clone();
    backends.mongodb_url = "mongodb://127.0.0.1:1/none".to_owned();
    let (report, code) = doctor(&backends, &[]).await;
    assert_eq!(code, Some(5), "{report:#}");
    assert_eq!(finding(&report, "read models"), ["FAIL"], "{report:#}");
    assert_eq!(finding(&report, "heads"), ["ok"], "{report:#}");
    assert_eq!(
        finding(&report, "bus").first().map(String::as_str),
        Some("ok"),
        "{report:#}"
    );
    // Each failure says what to do.
    let checks = report.as_array().unwrap().iter();
    for failed in checks.filter(|own| own["finding"] == "FAIL") {
        assert!(
            failed["do"]
                .as_str()
                .is_some_and(|advice| !advice.is_empty()),
            "{failed}"
        );
    }

    backends.mongodb_url = right;
    let (report, code) = doctor(&backends, &[("TIDELOG_PARTITIONS", "8")]).await;
    assert_eq!(
        (finding(&report, "partitions"), code),
        (vec!["FAIL".to_owned()], Some(5))
    );

    // Nobody works on the views.
    let (report, code) = doctor(&backends, &[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    assert!(
        finding(&report, "views").contains(&"warn".to_owned()),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_log_that_was_changed_past_the_program_is_found() {
    let backends = Backends::without_a_log().await;
    let (report, code) = doctor(&backends, &[]).await;
    // Nothing was made by looking.
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(finding(&report, "views"), ["skip"], "{report:#}");
    let command = Service::start(Role::Command, &backends).await;
    write(&command.commands(), "a", "A", "c").await;
    let mut connection = connect(&backends.database_url).await;
    connection.execute("DELETE FROM events").await.unwrap();
    connection.close().await.unwrap();
    let (report, code) = doctor(&backends, &[]).await;
    assert_eq!(code, Some(5), "{report:#}");
    assert_eq!(finding(&report, "heads"), ["FAIL"], "{report:#}");
}
