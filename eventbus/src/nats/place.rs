//! Where a NATS is, and who we are there, as its URL says.

use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use url::Url;

use super::InvalidNatsBus;

/// How long a connection to one server may take, TLS and password included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a server is asked whether it is there: one that hangs is given up after the second time that it does not say so.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How many servers may keep a stream, as NATS has it.
const MAX_REPLICAS: usize = 5;

/// Where a NATS is, and how it is reached.
pub(crate) struct Place {
    /// The servers that are asked first. There is one at least.
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) options: ConnectOptions,
    /// How many servers keep each stream.
    pub(crate) replicas: usize,
}

impl Place {
    /// Reads `nats://` and `nats+tls://` (or `tls://`), for one server or several ones, separated by commas.
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidNatsBus> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidNatsBus::Url)?;
        let is_tls = match scheme {
            "nats" => false,
            "nats+tls" | "tls" => true,
            _ => return Err(InvalidNatsBus::Url),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(end).ok_or(InvalidNatsBus::Url)?;
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        // What is around the hosts is the same for all of them.
        let whole = Url::parse(&format!("nats://{user}host{tail}"));
        let whole = whole.map_err(|_| InvalidNatsBus::Url)?;
        if !matches!(whole.path(), "" | "/") || whole.fragment().is_some() {
            return Err(InvalidNatsBus::Url);
        }
        let servers: Option<Vec<_>> = hosts.split(',').map(server).collect();
        let servers = servers.ok_or(InvalidNatsBus::Url)?;
        let options = ConnectOptions::new()
            .name("tidelog")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(RESPONSE_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            // Each is tried once: what is lost is then made anew by who needs it.
            .max_reconnects(servers.len())
            .reconnect_delay_callback(|_| Duration::ZERO)
            .require_tls(is_tls);
        Ok(Self {
            servers,
            options: with_tls(with_login(options, &whole)?, &whole)?,
            replicas: replicas(&whole)?,
        })
    }
}

/// The address of one server, without who we are there.
fn server(host: &str) -> Option<ServerAddr> {
    // An address without its port gets that of NATS.
    let address: ServerAddr = format!("nats://{host}").parse().ok()?;
    (!address.host().is_empty() && !address.has_user_pass()).then_some(address)
}

fn with_login(options: ConnectOptions, url: &Url) -> Result<ConnectOptions, InvalidNatsBus> {
    let credentials = parameter(url, "creds");
    match (url.username(), url.password(), credentials) {
        ("", None, None) => Ok(options),
        ("", None, Some(path)) => {
            let file = |source| InvalidNatsBus::File {
                parameter: "creds",
                source,
            };
            let credentials = std::fs::read_to_string(path).map_err(file)?;
            options.credentials(&credentials).map_err(file)
        }
        (token, None, None) => Ok(options.token(text(token))),
        (user, Some(password), None) => Ok(options.user_and_password(text(user), text(password))),
        (_, _, Some(_)) => Err(InvalidNatsBus::TwoLogins),
    }
}

fn with_tls(options: ConnectOptions, url: &Url) -> Result<ConnectOptions, InvalidNatsBus> {
    let file = |parameter: &'static str| {
        let path = self::parameter(url, parameter);
        // That it can be read is better known now than at some connection.
        let looked = path.map(|path| std::fs::read(&path).map(|_| path.into()));
        looked
            .transpose()
            .map_err(|source| InvalidNatsBus::File { parameter, source })
    };
    let options = match file("ssl_ca_certs")? {
        Some(authorities) => options.add_root_certificates(authorities),
        None => options,
    };
    match (file("ssl_certfile")?, file("ssl_keyfile")?) {
        (None, None) => Ok(options),
        (Some(certificate), Some(key)) => Ok(options.add_client_certificate(certificate, key)),
        _ => Err(InvalidNatsBus::TlsPair),
    }
}

fn replicas(url: &Url) -> Result<usize, InvalidNatsBus> {
    let Some(text) = parameter(url, "replicas") else {
        return Ok(1);
    };
    let replicas = text.parse().ok();
    replicas
        .filter(|replicas| (1..=MAX_REPLICAS).contains(replicas))
        .ok_or(InvalidNatsBus::Replicas)
}

/// What a user's name or password is, which a URL has with escapes.
fn text(encoded: &str) -> String {
    // To the reader of forms, these three would be more than themselves.
    let escaped = encoded
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    let decoded = url::form_urlencoded::parse(escaped.as_bytes()).next();
    decoded.map_or_else(String::new, |(text, _)| text.into_owned())
}

/// The value of a parameter of the URL.
fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut all = url.query_pairs();
    all.find(|(own, _)| own == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Vec<(String, u16)> {
        let place = Place::parse(url).ok().unwrap();
        let servers = place.servers.iter();
        servers
            .map(|own| (own.host().to_owned(), own.port()))
            .collect()
    }

    #[test]
    fn one_server_or_several_are_named() {
        let node = |host: &str, port| (host.to_owned(), port);
        assert_eq!(servers("nats://h"), [node("h", 4222)]);
        assert_eq!(
            servers("nats+tls://ann:p%40ss@a:1,b,[::1]:3/?replicas=3"),
            [node("a", 1), node("b", 4222), node("::1", 3)]
        );
        assert_eq!(servers("tls://token@h:1"), [node("h", 1)]);
    }

    #[test]
    fn escapes_in_a_password_are_read() {
        for (encoded, expected) in [("p%40ss", "p@ss"), ("a+b=c&d%25", "a+b=c&d%"), ("", "")] {
            assert_eq!(text(encoded), expected);
        }
    }

    #[test]
    fn how_many_servers_keep_a_stream_is_told() {
        let replicas = |url| Place::parse(url).ok().map(|place| place.replicas);
        assert_eq!(replicas("nats://h"), Some(1));
        assert_eq!(replicas("nats://h?replicas=3"), Some(3));
        assert_eq!(replicas("nats://h?replicas=0"), None);
        assert_eq!(replicas("nats://h?replicas=6"), None);
    }

    #[test]
    fn what_cannot_be_is_refused_without_showing_it() {
        for url in [
            "redis://ann:hunter2@a",
            "nats://ann:hunter2@",
            "nats://ann:hunter2@a,,b",
            "nats://ann:hunter2@a/path",
            "nats://ann:hunter2@a?replicas=many",
            "nats://ann:hunter2@a?creds=/no/such/file",
            "nats://ann:hunter2@a?creds=/dev/null",
            "nats://a?creds=/dev/null",
            "nats+tls://ann:hunter2@a?ssl_ca_certs=/no/such/file",
            "nats+tls://ann:hunter2@a?ssl_certfile=/dev/null",
            "ann:hunter2@a",
        ] {
            let Err(error) = Place::parse(url) else {
                panic!("{url} was taken");
            };
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
