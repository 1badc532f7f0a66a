//! Users of MySQL and MariaDB that have the rights of `deploy/mysql/` and no others.
//!
//! A program under test is given the URL of such a user; a test that looks at the database past the program, or spoils it, goes by
//! [`administrator`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use url::Url;

/// What makes the users, before the first migration.
const USERS: &str = include_str!("../../../deploy/mysql/users.sql");

/// What gives them their rights, after it.
const GRANTS: &str = include_str!("../../../deploy/mysql/grants.sql");

/// Of each user that was made here, the URL of the administrator who made it.
static ADMINISTRATORS: Mutex<Option<HashMap<String, Url>>> = Mutex::new(None);

/// The users of one database, by the URLs that name it.
#[derive(Clone, Debug)]
pub struct SqlUsers {
    /// The administrator's.
    pub administrator: String,
    /// Of the user who migrates.
    pub migrate: String,
    /// Of the user of services.
    pub service: String,
    /// Of the user who only reads.
    pub read: String,
}

impl SqlUsers {
    /// Makes the users of the database that `administrator` names, as `deploy/mysql/users.sql` does. Panics when the server refuses.
    pub async fn of(administrator: &str) -> Self {
        let url = parsed(administrator);
        let database = database(&url);
        let user = |suffix: &str| {
            let user = format!("{database}{suffix}");
            assert!(
                user.len() <= 32,
                "MySQL takes no user's name as long as {user}"
            );
            let mut own = url.clone();
            let set = own
                .set_username(&user)
                .and_then(|()| own.set_password(None));
            assert!(set.is_ok(), "no user can be put into {administrator}");
            known().get_or_insert_default().insert(user, url.clone());
            own.to_string()
        };
        let users = Self {
            administrator: administrator.to_owned(),
            migrate: user("_m"),
            service: user("_s"),
            read: user("_r"),
        };
        run(administrator, USERS).await;
        users
    }

    /// Gives the users their rights on the tables that a migration made, as `deploy/mysql/grants.sql` does. Panics when the server
    /// refuses.
    pub async fn grant(&self) {
        run(&self.administrator, GRANTS).await;
    }
}

/// The same database by its administrator, where `url` is that of a user who was made here; else `url` itself. Host and port are left
/// as they are.
#[must_use]
pub fn administrator(url: &str) -> String {
    let mut own = parsed(url);
    let known = known();
    let Some(administrator) = known.as_ref().and_then(|all| all.get(own.username())) else {
        return url.to_owned();
    };
    let set = own.set_username(administrator.username());
    let set = set.and_then(|()| own.set_password(administrator.password()));
    assert!(set.is_ok(), "no user can be put into {url}");
    own.into()
}

/// Runs the statements of a file in `deploy/mysql/` on the database that `administrator` names, with that database's users.
async fn run(administrator: &str, file: &str) {
    let database = database(&parsed(administrator));
    let done = async {
        let mut connection = MySqlConnection::connect(administrator).await?;
        for statement in statements(file, &database) {
            connection.execute(AssertSqlSafe(statement)).await?;
        }
        connection.close().await
    };
    if let Err(error) = done.await {
        panic!("cannot give rights on {database}: {error}");
    }
}

/// The statements of `file`, with the names of `database` and its users.
fn statements(file: &str, database: &str) -> Vec<String> {
    let lines = file.lines().filter(|line| !line.starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let own = |statement: &str| {
        let statement = statement.trim();
        let statement = statement.replace("`tidelog`", &format!("`{database}`"));
        let statement = statement.replace("'tidelog_migrate'", &format!("'{database}_m'"));
        let statement = statement.replace("'tidelog_read'", &format!("'{database}_r'"));
        let statement = statement.replace("'tidelog'", &format!("'{database}_s'"));
        // Without one: on a connection that is not encrypted, as through a proxy that has to read it, the driver sends none.
        statement.replace("'PASSWORD'", "''")
    };
    let all = text.split(';').map(own);
    all.filter(|statement| !statement.is_empty()).collect()
}

fn parsed(url: &str) -> Url {
    Url::parse(url).unwrap_or_else(|error| panic!("not a database's URL: {error}"))
}

fn database(url: &Url) -> String {
    url.path().trim_start_matches('/').to_owned()
}

fn known() -> MutexGuard<'static, Option<HashMap<String, Url>>> {
    ADMINISTRATORS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
