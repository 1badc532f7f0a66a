//! How a log on MySQL or MariaDB is opened.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use tidelog_domain::Partitions;

use crate::store::OpenError;

/// How a log on MySQL or MariaDB is opened.
#[derive(Clone, Debug)]
pub struct MySqlOptions {
    pub(super) address: Address,
    /// How many partitions the log has: fixed when it is made.
    pub partitions: Partitions,
    /// How many batches are appended at once, by a connection each; 2 by default. While one waits for its fsync the other
    /// fills; more are slower again.
    pub lanes: usize,
    /// How many connections read at once, 8 by default.
    pub read_connections: u32,
    /// How long a connection may take to be made, 3 s by default.
    pub connect_timeout: Duration,
    /// For how long it is looked for a commit whose answer was lost, 10 s by default.
    pub in_doubt_timeout: Duration,
    /// Of how many streams the versions are remembered, 100,000 by default.
    pub known_streams: u64,
}

/// Where the database is and how to get in. Never printed: it may hold a password.
#[derive(Clone)]
pub(super) struct Address(pub(super) MySqlConnectOptions);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.get_host(), self.0.get_port())
    }
}

impl MySqlOptions {
    /// The log in the database that `url` names (`mysql://user:password@host:port/database`), with the default of everything else.
    ///
    /// `?ssl-mode=` says how the connection is secured: `disabled`, `preferred`, `required`, `verify_ca` (any name) or `verify_identity`.
    /// Without it, it is `preferred` on this machine and `verify_identity` elsewhere: anything less talks to whoever answers.
    ///
    /// # Errors
    ///
    /// [`OpenError::Url`]; the URL is not repeated in it.
    pub fn from_url(url: &str) -> Result<Self, OpenError> {
        let refuse = |reason: &str| OpenError::Url {
            reason: reason.to_owned(),
        };
        if !(url.starts_with("mysql://") || url.starts_with("mariadb://")) {
            return Err(refuse("it must begin with mysql://"));
        }
        let address = MySqlConnectOptions::from_str(url).map_err(|error| match error {
            sqlx::Error::Configuration(why) => refuse(&why.to_string()),
            _ => refuse("it is not a URL"),
        })?;
        if address.get_database().is_none_or(str::is_empty) {
            return Err(refuse("it names no database: mysql://user@host/database"));
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let says_how = query
            .split('&')
            .any(|pair| pair.starts_with("ssl-mode=") || pair.starts_with("sslmode="));
        let address = if says_how || is_local(&address) {
            address
        } else {
            address.ssl_mode(MySqlSslMode::VerifyIdentity)
        };
        Ok(Self {
            address: Address(plain(address)),
            partitions: Partitions::DEFAULT,
            lanes: 2,
            read_connections: 8,
            connect_timeout: Duration::from_secs(3),
            in_doubt_timeout: Duration::from_secs(10),
            known_streams: 100_000,
        })
    }
}

/// Without what the driver would set, and print, by itself: a session is set up by one script of ours, and statements hold payloads.
fn plain(address: MySqlConnectOptions) -> MySqlConnectOptions {
    // A URL writes an IPv6 address in brackets, which no resolver takes.
    let host = address.get_host().trim_matches(['[', ']']).to_owned();
    address
        .host(&host)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .disable_statement_logging()
}

/// Whether the server is on this machine.
fn is_local(address: &MySqlConnectOptions) -> bool {
    let host = address.get_host().trim_matches(['[', ']']);
    address.get_socket().is_some()
        || host == "localhost"
        || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssl_mode(url: &str) -> String {
        let options = MySqlOptions::from_url(url).unwrap();
        format!("{:?}", options.address.0.get_ssl_mode())
    }

    #[test]
    fn a_server_elsewhere_must_show_who_it_is() {
        assert_eq!(ssl_mode("mysql://root@127.0.0.1:3306/log"), "Preferred");
        assert_eq!(ssl_mode("mysql://root@[::1]/log"), "Preferred");
        assert_eq!(ssl_mode("mysql://root@localhost/log"), "Preferred");
        assert_eq!(ssl_mode("mysql://root@db.example/log"), "VerifyIdentity");
        assert_eq!(
            ssl_mode("mysql://root@db.example/log?charset=utf8mb4&ssl-mode=required"),
            "Required"
        );
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        for url in [
            "redis://:hunter2@host",
            "mysql://root:hunter2@host:99999/log",
            "mysql://root:hunter2@host",
            "mysql://root:hunter2@host/",
            "mysql://root:hunter2@host/log?ssl-mode=some",
        ] {
            let refused = MySqlOptions::from_url(url).unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn options_do_not_print_the_password() {
        let options = MySqlOptions::from_url("mysql://root:hunter2@localhost/log").unwrap();
        let printed = format!("{options:?}");
        assert!(printed.contains("localhost:3306") && !printed.contains("hunter2"));
    }
}
