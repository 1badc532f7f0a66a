//! Whether what is said to a server stays between the two: it is on this machine, or it is spoken to over TLS and shows who it is.

use std::net::IpAddr;

use super::BackendError;
use crate::settings::{Backend, InvalidSettings, Settings, flag, shown_url, variable};

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On this machine.
    Local,
    /// Over TLS, to a server that shows a certificate that is trusted.
    Verified,
    /// In the clear, or to whoever answers.
    Unverified,
}

/// Checks how the server at `url` is spoken to, which the setting `key` names: on this machine, over verified TLS, or otherwise because the
/// settings say that this is fine. Returns what there is to warn of.
///
/// # Errors
///
/// [`InvalidSettings::Unusable`] with what to do.
pub(crate) fn verified(
    backend: Backend,
    key: &'static str,
    url: &str,
    settings: &Settings,
) -> Result<Option<String>, BackendError> {
    if way(backend, url) != Way::Unverified {
        return Ok(None);
    }
    let excuse = "insecure_backends";
    if settings.insecure_backends.has(backend) {
        return Ok(Some(format!(
            "{} is {}: what is said to it can be read and changed on the way, as {} allows it",
            variable(key),
            shown_url(url),
            variable(excuse)
        )));
    }
    let reason = format!(
        "the server is beyond this machine, and what is said to it could be read and changed on the way: {}; or, where the network between \
         is trusted, name {backend} in {} (--{})",
        advice(backend),
        variable(excuse),
        flag(excuse)
    );
    Err(BackendError::Settings(InvalidSettings::Unusable {
        key,
        env: variable(key),
        found: shown_url(url),
        reason,
    }))
}

/// What makes a server's URL one of verified TLS.
const fn advice(backend: Backend) -> &'static str {
    match backend {
        Backend::MySql => {
            "use ssl-mode=verify_identity, with ssl-ca=FILE for an authority of your own"
        }
        Backend::Redis => {
            "use rediss:// (or rediss+cluster://), with ssl_ca_certs=FILE for an authority of your own"
        }
        Backend::Nats => "use nats+tls://, with ssl_ca_certs=FILE for an authority of your own",
        Backend::Kafka => {
            "this program does not speak TLS to Kafka: reach it through a proxy on this machine that does"
        }
        Backend::MongoDb => {
            "use tls=true, with tlsCAFile=FILE for an authority of your own, and without what allows invalid certificates"
        }
    }
}

/// How the server at `url` is spoken to. What cannot be read for sure is taken for the worst.
fn way(backend: Backend, url: &str) -> Way {
    let Some(parts) = Parts::of(url) else {
        return Way::Unverified;
    };
    let is_local = parts.hosts.iter().all(|host| is_here(host));
    let verified = match backend {
        // The scheme alone asks the name service where the servers are.
        Backend::MongoDb if parts.scheme != "mongodb+srv" && is_local => return Way::Local,
        Backend::MongoDb => mongodb_is_verified(&parts),
        Backend::MySql if is_local || parts.socket => return Way::Local,
        // Without a mode it is that which makes sure. `verify_ca` takes a certificate for any name, of any public authority.
        Backend::MySql => {
            !parts.has_any(&["ssl-mode", "sslmode"], |mode| mode != "verify_identity")
        }
        Backend::Redis | Backend::Nats | Backend::Kafka if is_local => return Way::Local,
        Backend::Redis => parts.scheme.starts_with("rediss") && parts.fragment.is_empty(),
        Backend::Nats => ["nats+tls", "tls"].contains(&parts.scheme),
        Backend::Kafka => false,
    };
    if verified {
        Way::Verified
    } else {
        Way::Unverified
    }
}

fn mongodb_is_verified(parts: &Parts<'_>) -> bool {
    const ALLOWED: [&str; 3] = [
        "tlsinsecure",
        "tlsallowinvalidcertificates",
        "tlsallowinvalidhostnames",
    ];
    let is_tls = parts.scheme == "mongodb+srv" || parts.has_any(&["tls", "ssl"], |on| on == "true");
    is_tls
        && !parts.has_any(&["tls", "ssl"], |on| on != "true")
        && !parts.has_any(&ALLOWED, |allowed| allowed != "false")
}

/// Whether a host is this machine: its loopback, or a socket among its files.
fn is_here(host: &str) -> bool {
    // A host that is not named is the driver's own default, this machine.
    let is_socket = host.to_ascii_lowercase().starts_with("%2f");
    host.is_empty()
        || is_socket
        || host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// What of a URL says how its server is spoken to.
struct Parts<'a> {
    scheme: &'a str,
    /// Without ports and brackets.
    hosts: Vec<&'a str>,
    /// The names and values, in lower case.
    parameters: Vec<(String, String)>,
    fragment: &'a str,
    /// Whether it has the parameter `socket`, as the driver for MySQL reads it: its name to the letter, and a path.
    socket: bool,
}

impl<'a> Parts<'a> {
    /// Reads a URL, which may have several hosts.
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A user's name or password that is not written as it should be: two readers may find two hosts in it.
        if path.contains('@') || query.contains('@') || fragment.contains('@') {
            return None;
        }
        let hosts = authority
            .rsplit_once('@')
            .map_or(authority, |(_, hosts)| hosts);
        let parameters = url::form_urlencoded::parse(query.as_bytes());
        let mut sockets = parameters.filter(|(name, _)| name == "socket").peekable();
        let socket = sockets.peek().is_some() && sockets.all(|(_, path)| path.starts_with('/'));
        Some(Self {
            scheme,
            hosts: hosts.split(',').map(without_port).collect(),
            parameters: parameters
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_ascii_lowercase()))
                .collect(),
            fragment,
            socket,
        })
    }

    /// Whether one of these parameters has a value that is such.
    fn has_any(&self, names: &[&str], is_such: impl Fn(&str) -> bool) -> bool {
        let mut all = self.parameters.iter();
        all.any(|(name, value)| names.contains(&name.as_str()) && is_such(value))
    }
}

fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::InsecureBackends;

    fn assert_ways(backend: Backend, ways: &[(&str, Way)]) {
        for (url, expected) in ways {
            assert_eq!(way(backend, url), *expected, "{url}");
        }
    }

    #[test]
    fn a_mysql_elsewhere_is_verified_unless_its_url_says_otherwise() {
        assert_ways(
            Backend::MySql,
            &[
                ("mysql://root@127.0.0.1:3306/log", Way::Local),
                ("mysql://root@127.8.0.1/log?ssl-mode=disabled", Way::Local),
                ("mysql://root@[::1]:3306/log", Way::Local),
                ("mysql://root@localhost/log", Way::Local),
                ("mysql://root@/log", Way::Local),
                ("mysql://root@db/log?socket=/run/mysqld.sock", Way::Local),
                ("mysql://root@db.example/log", Way::Verified),
                (
                    "mysql://root@db/log?ssl-mode=VERIFY_IDENTITY",
                    Way::Verified,
                ),
                (
                    "mysql://root@db/log?sslmode=verify_ca&ssl-ca=/ca.pem",
                    Way::Unverified,
                ),
                (
                    "mysql://root@db/log?SOCKET=/run/s&ssl-mode=disabled",
                    Way::Unverified,
                ),
                (
                    "mysql://root@db/log?socket=&ssl-mode=disabled",
                    Way::Unverified,
                ),
                ("mysql://root@db/log?ssl-mode=required", Way::Unverified),
                ("mysql://root@db/log?ssl-mode=preferred", Way::Unverified),
                (
                    "mysql://root@db/log?ssl-mode=verify_identity&ssl-mode=disabled",
                    Way::Unverified,
                ),
                (
                    "mysql://root:p@ss@db/log?ssl%2Dmode=disabled",
                    Way::Unverified,
                ),
                (
                    "mysql://root@db/@127.0.0.1/log?ssl-mode=disabled",
                    Way::Unverified,
                ),
                ("mysql://root:a/b@127.0.0.1/log", Way::Unverified),
                (
                    "mysql://root@localhost.example/log?ssl-mode=disabled",
                    Way::Unverified,
                ),
                (
                    "mysql://root@10.0.0.1/log?ssl-mode=disabled",
                    Way::Unverified,
                ),
            ],
        );
    }

    #[test]
    fn a_redis_elsewhere_is_verified_over_tls_alone() {
        assert_ways(
            Backend::Redis,
            &[
                ("redis://127.0.0.1:6379", Way::Local),
                ("redis://:secret@[::1]:1/0", Way::Local),
                ("redis+cluster://localhost:1,127.0.0.1:2", Way::Local),
                ("rediss://cache.example", Way::Verified),
                (
                    "rediss+cluster://u:p@a:1,b:2/?ssl_ca_certs=/ca.pem",
                    Way::Verified,
                ),
                ("redis://cache.example", Way::Unverified),
                ("redis+cluster://127.0.0.1:1,b:2", Way::Unverified),
                ("rediss://cache.example/#insecure", Way::Unverified),
                ("redis://127.0.0.1@cache.example", Way::Unverified),
                ("cache.example:6379", Way::Unverified),
            ],
        );
    }

    #[test]
    fn a_nats_elsewhere_is_verified_over_tls_alone() {
        assert_ways(
            Backend::Nats,
            &[
                ("nats://127.0.0.1:4222", Way::Local),
                ("nats://token@[::1],localhost/?replicas=3", Way::Local),
                ("nats+tls://bus.example", Way::Verified),
                ("tls://u:p@a:1,b:2/?ssl_ca_certs=/ca.pem", Way::Verified),
                ("nats://bus.example", Way::Unverified),
                ("nats://127.0.0.1,bus.example", Way::Unverified),
                ("nats://127.0.0.1@bus.example", Way::Unverified),
            ],
        );
    }

    #[test]
    fn a_kafka_elsewhere_is_never_verified() {
        assert_ways(
            Backend::Kafka,
            &[
                ("kafka://127.0.0.1:9092,localhost:9093", Way::Local),
                ("kafka://u:p@[::1]:1", Way::Local),
                ("kafka://bus.example:9092", Way::Unverified),
                ("kafka://127.0.0.1,bus.example", Way::Unverified),
            ],
        );
    }

    #[test]
    fn a_mongodb_elsewhere_is_verified_with_tls_and_without_what_weakens_it() {
        assert_ways(
            Backend::MongoDb,
            &[
                ("mongodb://127.0.0.1:27017/db", Way::Local),
                (
                    "mongodb://u:p@localhost:1,[::1]:2/db?replicaSet=rs",
                    Way::Local,
                ),
                ("mongodb://%2Ftmp%2Fmongodb-27017.sock/db", Way::Local),
                ("mongodb://db.example/db?tls=true", Way::Verified),
                ("mongodb://a,b/db?ssl=true&tlsCAFile=/ca.pem", Way::Verified),
                ("mongodb://a/db?tls=true&tlsInsecure=false", Way::Verified),
                ("mongodb+srv://cluster.example/db", Way::Verified),
                ("mongodb://db.example/db", Way::Unverified),
                ("mongodb://127.0.0.1,db.example/db", Way::Unverified),
                ("mongodb://db.example/db?tls=false", Way::Unverified),
                (
                    "mongodb://db.example/db?tls=true&ssl=false",
                    Way::Unverified,
                ),
                ("mongodb://db/db?tls=true&tlsInsecure=true", Way::Unverified),
                (
                    "mongodb://db/db?tls=true&TLSAllowInvalidCertificates=true",
                    Way::Unverified,
                ),
                (
                    "mongodb://db/db?tls=true&tlsAllowInvalidHostnames=true",
                    Way::Unverified,
                ),
                (
                    "mongodb+srv://cluster.example/db?tls=false",
                    Way::Unverified,
                ),
                ("mongodb+srv://localhost/db?tls=false", Way::Unverified),
            ],
        );
    }

    #[test]
    fn what_is_not_verified_is_refused_unless_it_is_allowed_by_name() {
        let url = "redis://app:hunter2@cache.example";
        let allowing = |text| Settings {
            insecure_backends: InsecureBackends::parse(text).unwrap(),
            ..Settings::default()
        };
        for text in ["", "mysql,mongodb"] {
            let refused = verified(Backend::Redis, "bus_url", url, &allowing(text));
            let error = refused.unwrap_err().to_string();
            for part in ["TIDELOG_BUS_URL", "rediss://", "TIDELOG_INSECURE_BACKENDS"] {
                assert!(error.contains(part), "{error}");
            }
            assert!(!error.contains("hunter2"), "{error}");
        }
        let warning = verified(Backend::Redis, "bus_url", url, &allowing("redis")).unwrap();
        let warning = warning.unwrap();
        assert!(
            warning.contains("cache.example") && !warning.contains("hunter2"),
            "{warning}"
        );
        let fine = verified(
            Backend::Redis,
            "bus_url",
            "rediss://cache",
            &allowing("redis"),
        );
        assert_eq!(fine.unwrap(), None);
    }
}
