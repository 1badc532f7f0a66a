//! Settings: where they come from, and what is said of them.

use crate::services::CommandLine;

/// A password that would be noticed wherever it is printed.
const PASSWORD: &str = "Sesame-7311";

fn mysql_url() -> String {
    format!("mysql://app:{PASSWORD}@db.example:3306/app")
}

#[tokio::test]
async fn config_shows_each_value_with_its_origin_and_masks_secrets() {
    let url = mysql_url();
    let mongodb = format!(
        "mongodb://app:{PASSWORD}@mongo.example/app?tlsCertificateKeyFilePassword={PASSWORD}"
    );
    let file = "query_addr = \"127.0.0.1:4999\"\ncommand_addr = \"127.0.0.1:1\"\n";
    let shown = CommandLine::new(&[
        "config",
        "--admin-addr",
        "127.0.0.1:5999",
        "--mongodb-url",
        &mongodb,
    ])
    .with([
        ("DATABASE_URL", url.as_str()),
        ("REDIS_URL", "redis://:Sesame-7311@r.example:1"),
    ])
    .with([("TIDELOG_COMMAND_ADDR", "127.0.0.1:3999")])
    .with_file("tidelog.toml", file);
    let shown = shown.run().await.succeeded();
    for (value, origin) in [
        ("127.0.0.1:5999", "--admin-addr"),
        ("127.0.0.1:3999", "TIDELOG_COMMAND_ADDR"),
        ("127.0.0.1:4999", "tidelog.toml"),
        ("db.example", "DATABASE_URL"),
        ("r.example", "REDIS_URL"),
        ("mongo.example", "--mongodb-url"),
        ("tidelog-data", "default"),
    ] {
        let line = shown.stdout.lines().find(|line| line.contains(value));
        assert!(
            line.is_some_and(|line| line.contains(origin)),
            "no line with {value} and {origin}:\n{}",
            shown.stdout
        );
    }
    assert!(!shown.output.contains(PASSWORD), "{}", shown.output);
}

#[tokio::test]
async fn config_names_every_setting() {
    let shown = CommandLine::new(&["config"]).run().await.succeeded();
    for setting in tidelog::settings::SETTINGS {
        assert!(
            shown.stdout.contains(setting.key),
            "no {} in\n{}",
            setting.key,
            shown.stdout
        );
    }
}

#[tokio::test]
async fn an_unknown_key_of_the_file_is_refused_and_named() {
    let file = format!("databse_url = \"{}\"\n", mysql_url());
    let ended = CommandLine::new(&["config"])
        .with_file("tidelog.toml", &file)
        .run()
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    for part in ["tidelog.toml", "databse_url", "database_url"] {
        assert!(ended.output.contains(part), "no {part} in {}", ended.output);
    }
    assert!(!ended.output.contains(PASSWORD), "{}", ended.output);
}

#[tokio::test]
async fn a_broken_file_is_refused_and_not_quoted() {
    let file = format!("log = \"info\"\ndatabase_url = \"{}\n", mysql_url());
    let ended = CommandLine::new(&["config", "--config", "own.toml"])
        .with_file("own.toml", &file)
        .run()
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    assert!(
        ended.output.contains("own.toml") && ended.output.contains("line 2"),
        "{}",
        ended.output
    );
    assert!(!ended.output.contains(PASSWORD), "{}", ended.output);
}

#[tokio::test]
async fn a_value_of_the_wrong_kind_is_refused_with_its_origin() {
    let postgres = format!("postgres://app:{PASSWORD}@db.example/app");
    for (name, value, parts) in [
        (
            "DATABASE_URL",
            postgres.as_str(),
            ["DATABASE_URL", "mysql://"],
        ),
        ("MONGODB_URL", &mysql_url(), ["MONGODB_URL", "mongodb://"]),
        (
            "TIDELOG_BUS_URL",
            "127.0.0.1:6379",
            ["TIDELOG_BUS_URL", "redis://"],
        ),
        ("TIDELOG_ROLE", "writer", ["TIDELOG_ROLE", "eventbus"]),
        (
            "TIDELOG_PARTITIONS",
            "0",
            ["TIDELOG_PARTITIONS", "1 to 1024"],
        ),
        (
            "TIDELOG_COMMAND_ADDR",
            "3000",
            ["TIDELOG_COMMAND_ADDR", "127.0.0.1:3000"],
        ),
        (
            "TIDELOG_WAIT_FOR_BACKENDS",
            "soon",
            ["TIDELOG_WAIT_FOR_BACKENDS", "30s"],
        ),
    ] {
        let ended = CommandLine::new(&["serve"])
            .with([(name, value)])
            .run()
            .await;
        assert_eq!(ended.code, Some(2), "{name}: {}", ended.output);
        for part in parts {
            assert!(ended.output.contains(part), "no {part} in {}", ended.output);
        }
        assert!(!ended.output.contains(PASSWORD), "{}", ended.output);
    }
}

#[tokio::test]
async fn a_setting_that_is_needed_and_missing_is_named() {
    for (role, setting) in [
        ("command", "DATABASE_URL"),
        ("eventbus", "DATABASE_URL"),
        ("query", "MONGODB_URL"),
    ] {
        let ended = CommandLine::new(&["serve", "--role", role]).run().await;
        assert!(
            ended.code.is_some_and(|code| code != 0),
            "{role}: {}",
            ended.output
        );
        assert!(
            ended.output.contains(setting),
            "{role}: no {setting} in {}",
            ended.output
        );
    }
}

#[tokio::test]
async fn help_names_every_setting_and_an_unknown_flag_is_refused() {
    let help = CommandLine::new(&["serve", "--help"])
        .run()
        .await
        .succeeded();
    for setting in tidelog::settings::SETTINGS {
        assert!(
            help.stdout.contains(&format!("--{}", setting.flag())),
            "no --{}",
            setting.flag()
        );
        assert!(
            help.stdout.contains(setting.env[0]),
            "no {}",
            setting.env[0]
        );
    }
    let ended = CommandLine::new(&["serve", "--nonsense"]).run().await;
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    assert!(
        CommandLine::new(&["replay"])
            .run()
            .await
            .output
            .contains("<view>")
    );
}
