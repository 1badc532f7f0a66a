//! Start-up: each server is asked who it is, and what is wrong is said with the setting's name, never with a password.

use sqlx::{AssertSqlSafe, Executor};
use tidelog_test_support::grants::administrator;
use tidelog_test_support::{
    Process, Server, Signal, free_port, fresh_mongodb_database, fresh_mysql_database, shared,
    unique_name,
};
use tokio::net::TcpListener;

use crate::log::{connect, read};
use crate::services::{Backends, CommandLine, Ended, Role, Service, Site, free_address};

/// A password that would be noticed wherever it is printed.
const PASSWORD: &str = "Sesame-7311";

/// Runs a role that must not start.
async fn fails(role: &str, settings: &[(&str, &str)]) -> Ended {
    let addresses = [free_address(), free_address(), free_address()];
    let [command, query, admin] = addresses.each_ref().map(String::as_str);
    let line = CommandLine::new(&["serve", "--role", role])
        .with([
            ("TIDELOG_COMMAND_ADDR", command),
            ("TIDELOG_QUERY_ADDR", query),
            ("TIDELOG_ADMIN_ADDR", admin),
        ])
        .with(settings.iter().copied());
    let ended = line.run().await;
    // It failed, or something is not there now.
    assert!(matches!(ended.code, Some(1 | 3)), "{}", ended.output);
    assert!(
        !ended.output.contains(PASSWORD),
        "a password is shown:\n{}",
        ended.output
    );
    ended
}

fn assert_says(ended: &Ended, parts: &[&str]) {
    for part in parts {
        assert!(
            ended.output.contains(part),
            "no {part:?} in\n{}",
            ended.output
        );
    }
}

/// A kind of server: its setting, the URL's scheme and what it is called.
struct Kind {
    setting: &'static str,
    role: &'static str,
    scheme: &'static str,
    name: &'static str,
    server: &'static Server,
}

async fn kinds() -> [Kind; 3] {
    let kind = |setting, role, scheme, name, server| Kind {
        setting,
        role,
        scheme,
        name,
        server,
    };
    [
        kind(
            "DATABASE_URL",
            "command",
            "mysql",
            "a MySQL or MariaDB server",
            shared::mysql().await,
        ),
        kind(
            "TIDELOG_BUS_URL",
            "eventbus",
            "redis",
            "a Redis server",
            shared::redis().await,
        ),
        kind(
            "MONGODB_URL",
            "query",
            "mongodb",
            "a MongoDB server",
            shared::mongodb().await,
        ),
    ]
}

impl Kind {
    /// A URL of this kind, with a password, that leads to `port`.
    fn url(&self, port: u16) -> String {
        let database = if self.scheme == "redis" {
            "0"
        } else {
            "tidelog"
        };
        format!(
            "{}://app:{PASSWORD}@127.0.0.1:{port}/{database}",
            self.scheme
        )
    }

    /// What this kind's role needs, but with `url` for the kind itself.
    async fn settings<'a>(&self, backends: &'a Backends, url: &'a str) -> Vec<(&'a str, &'a str)> {
        let setting = self.setting;
        backends
            .settings()
            .into_iter()
            .map(|(name, value)| (name, if name == setting { url } else { value }))
            .collect()
    }
}

#[tokio::test]
async fn a_url_that_points_at_another_kind_of_server_says_what_was_found() {
    let backends = Backends::fresh().await;
    for wanted in kinds().await {
        for found in kinds()
            .await
            .into_iter()
            .filter(|found| found.setting != wanted.setting)
        {
            let url = wanted.url(found.server.port());
            let ended = fails(wanted.role, &wanted.settings(&backends, &url).await).await;
            assert_says(
                &ended,
                &[
                    wanted.setting,
                    &format!("expected {}", wanted.name),
                    &format!("found {}", found.name),
                ],
            );
        }
    }
}

#[tokio::test]
async fn a_url_that_points_at_an_http_server_says_so() {
    let backends = Backends::fresh().await;
    let web = Service::start(Role::Command, &backends).await;
    let port = web
        .commands()
        .address()
        .rsplit_once(':')
        .unwrap()
        .1
        .parse()
        .unwrap();
    for wanted in kinds().await {
        let url = wanted.url(port);
        let ended = fails(wanted.role, &wanted.settings(&backends, &url).await).await;
        assert_says(
            &ended,
            &[
                wanted.setting,
                &format!("expected {}", wanted.name),
                "an HTTP server",
            ],
        );
    }
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_said_to_be_that() {
    let backends = Backends::fresh().await;
    for wanted in kinds().await {
        let url = wanted.url(free_port());
        let ended = fails(wanted.role, &wanted.settings(&backends, &url).await).await;
        assert_says(
            &ended,
            &[
                wanted.setting,
                wanted.name,
                "refused",
                "--wait-for-backends",
            ],
        );
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_is_said_to_be_that() {
    let backends = Backends::fresh().await;
    for wanted in kinds().await {
        let url = wanted.url(1).replace("127.0.0.1", "no-such-host.invalid");
        let mut settings = wanted.settings(&backends, &url).await;
        settings.push(("TIDELOG_INSECURE_BACKENDS", "mysql,redis,mongodb"));
        let ended = fails(wanted.role, &settings).await;
        assert_says(
            &ended,
            &[wanted.setting, wanted.name, "no-such-host.invalid"],
        );
    }
}

#[tokio::test]
async fn a_listener_that_never_answers_does_not_hold_the_start() {
    let backends = Backends::fresh().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    for wanted in kinds().await {
        let url = wanted.url(port);
        let ended = fails(wanted.role, &wanted.settings(&backends, &url).await).await;
        assert_says(&ended, &[wanted.setting, wanted.name, "does not answer"]);
    }
}

/// MySQL and Redis get a user with another password; MongoDB has no users and refuses all.
#[tokio::test]
async fn a_wrong_password_is_said_to_be_refused_and_not_shown() {
    let backends = Backends::fresh().await;
    let user = unique_name().replace('_', "");
    // Not taken for a number, whatever its digits are.
    let user = format!("u{}", &user[user.len() - 15..]);
    let mut sql = connect(&backends.database_url).await;
    let create = format!("CREATE USER {user} IDENTIFIED BY 'right'; GRANT ALL ON *.* TO {user}");
    for statement in create.split("; ") {
        sql.execute(AssertSqlSafe(statement))
            .await
            .expect("a user is made");
    }
    let mut redis = redis::Client::open(backends.bus_url.as_str())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let rules = ["SETUSER", &user, "on", ">right", "~*", "+@all"];
    redis::cmd("ACL")
        .arg(&rules)
        .query_async::<()>(&mut redis)
        .await
        .expect("a user is made");
    for wanted in kinds().await {
        let url = wanted
            .url(wanted.server.port())
            .replace("app:", &format!("{user}:"));
        let ended = fails(wanted.role, &wanted.settings(&backends, &url).await).await;
        let found = format!("found {} that says", wanted.name);
        assert_says(&ended, &[wanted.setting, &found]);
    }
    redis::cmd("ACL")
        .arg(&["DELUSER", &user])
        .query_async::<()>(&mut redis)
        .await
        .expect("the user is removed");
    sql.execute(AssertSqlSafe(format!("DROP USER {user}")))
        .await
        .expect("the user is removed");
}

#[tokio::test]
async fn an_unknown_database_is_named() {
    let url = format!(
        "mysql://root@127.0.0.1:{}/no_such_database",
        shared::mysql().await.port()
    );
    let ended = fails("command", &[("DATABASE_URL", &url)]).await;
    assert_says(&ended, &["DATABASE_URL", "no_such_database"]);
}

#[tokio::test]
async fn the_command_role_starts_and_serves_with_redis_and_mongodb_down() {
    let mut backends = Backends::fresh().await;
    backends.bus_url = format!("redis://127.0.0.1:{}", free_port());
    backends.mongodb_url = format!("mongodb://127.0.0.1:{}/x", free_port());
    let service = Service::start(Role::Command, &backends).await;
    let post = serde_json::json!({"title": "A", "content": "", "author_name": "Ann"});
    service.commands().post("/post", &post).await.data(201);
    assert_eq!(read(&backends.database_url).await.len(), 1);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_setting_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (setting, flag) in [
        ("TIDELOG_COMMAND_ADDR", "--command-addr"),
        ("TIDELOG_QUERY_ADDR", "--query-addr"),
        ("TIDELOG_ADMIN_ADDR", "--admin-addr"),
    ] {
        let addresses = [
            "TIDELOG_COMMAND_ADDR",
            "TIDELOG_QUERY_ADDR",
            "TIDELOG_ADMIN_ADDR",
        ]
        .map(|name| {
            (
                name,
                if name == setting {
                    taken.clone()
                } else {
                    free_address()
                },
            )
        });
        let line = CommandLine::new(&["dev"]).with(
            addresses
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        let ended = line.run().await;
        assert_eq!(ended.code, Some(1), "{}", ended.output);
        assert_says(&ended, &[&taken, "taken", setting, flag]);
    }
}

#[tokio::test]
async fn several_migrations_at_once_make_one_log() {
    migrate_at_once(shared::mysql().await).await;
}

#[tokio::test]
async fn several_migrations_at_once_make_one_log_on_mariadb() {
    migrate_at_once(shared::mariadb().await).await;
}

async fn migrate_at_once(server: &Server) {
    let url = fresh_mysql_database(server).await;
    let migrate = || {
        CommandLine::new(&["migrate"])
            .with([("DATABASE_URL", url.as_str())])
            .start()
    };
    let mut running: [(Process, _); 4] = std::array::from_fn(|_| migrate());
    for (process, _) in &mut running {
        let status = process.wait().await;
        assert!(status.success(), "{}", process.output());
    }
    assert_eq!(read(&url).await, []);
    CommandLine::new(&["migrate"])
        .with([("DATABASE_URL", url.as_str())])
        .run()
        .await
        .succeeded();
}

#[tokio::test]
async fn another_number_of_partitions_than_the_logs_is_refused() {
    let backends = Backends::without_a_log().await;
    let migrate = CommandLine::new(&["migrate", "--partitions", "4"]).with(backends.settings());
    migrate.run().await.succeeded();
    let mut settings = backends.settings().to_vec();
    settings.push(("TIDELOG_PARTITIONS", "8"));
    let ended = fails("command", &settings).await;
    assert_says(&ended, &["partitions", "4", "8"]);
    settings[3].1 = "4";
    let service = Service::start_with(Role::Command, &settings).await;
    let post = serde_json::json!({"title": "A", "content": "", "author_name": "Ann"});
    service.commands().post("/post", &post).await.data(201);
}

#[tokio::test]
async fn a_password_that_is_right_is_never_shown() {
    let backends = Backends::fresh().await;
    let user = unique_name().replace('_', "");
    // Not taken for a number, whatever its digits are.
    let user = format!("u{}", &user[user.len() - 15..]);
    let mut sql = connect(&backends.database_url).await;
    for statement in [
        format!("CREATE USER {user} IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT ALL ON *.* TO {user}"),
    ] {
        sql.execute(AssertSqlSafe(statement))
            .await
            .expect("a user is made");
    }
    let url = administrator(&backends.database_url);
    let url = url.replace("root@", &format!("{user}:{PASSWORD}@"));
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("TIDELOG_BUS_URL", &backends.bus_url),
        ("TIDELOG_LOG", "debug"),
    ];
    let mut service = Service::start_with(Role::Command, &settings).await;
    let post = serde_json::json!({"title": "A", "content": "Sesame-7312", "author_name": "Ann"});
    service.commands().post("/post", &post).await.data(201);
    assert_eq!(service.stop(Signal::Term).await, Some(0));
    let output = service.process().output();
    assert!(!output.contains(PASSWORD), "a password is shown:\n{output}");
    assert!(
        !output.contains("Sesame-7312"),
        "a payload is shown:\n{output}"
    );
    sql.execute(AssertSqlSafe(format!("DROP USER {user}")))
        .await
        .expect("the user is removed");
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_with_servers_that_are_right() {
    let backends = Backends::fresh().await;
    let site = Site::all(&backends).await;
    let checked = CommandLine::new(&["doctor"])
        .with(backends.settings())
        .run()
        .await
        .succeeded();
    for word in ["MySQL", "Redis", "MongoDB"] {
        assert!(
            checked.stdout.contains(word),
            "nothing is said of {word}:\n{}",
            checked.output
        );
    }
    drop(site);
    let wrong = fresh_mongodb_database(shared::mongodb().await).replace("mongodb://", "mysql://");
    let ended = CommandLine::new(&["doctor"])
        .with([("DATABASE_URL", wrong.as_str())])
        .run()
        .await;
    assert_ne!(ended.code, Some(0), "{}", ended.output);
}
