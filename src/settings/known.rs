//! The one table of all settings: flags, environment variables, file keys, help and documentation come from it.

/// A setting that the program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key in `tidelog.toml`; as a flag, with `-` for `_`.
    pub key: &'static str,
    /// Its environment variables; the first is the one to use, the others are aliases.
    pub env: &'static [&'static str],
    /// What its value is.
    pub kind: Kind,
    /// What it is when nobody says.
    pub default: Option<&'static str>,
    /// What it means, with units.
    pub help: &'static str,
}

/// What a setting's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A URL that may have a password in it, which is never shown.
    SecretUrl,
    /// Something that is never shown.
    Secret,
    /// An address to listen on, `host:port`.
    Address,
    /// A directory or file.
    Path,
    /// A span of time: `30s`, `500ms`, `2m`.
    Duration,
    /// A whole number.
    Number,
    /// A number from 0 to 1: `0.25`.
    Fraction,
    /// A number of bytes: `512MiB`, `2GiB`, `65536`.
    Bytes,
    /// Whether something is so: `true` or `false`. As a flag it needs no value.
    Flag,
    /// One word, or free text.
    Text,
}

impl Setting {
    /// The flag, without its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        flag(self.key)
    }

    /// The setting of this key.
    #[must_use]
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

/// The environment variable that sets `key`.
pub(crate) fn variable(key: &'static str) -> &'static str {
    let setting = Setting::find(key);
    setting
        .and_then(|setting| setting.env.first().copied())
        .unwrap_or(key)
}

/// The flag that sets `key`, without its dashes.
pub(crate) fn flag(key: &str) -> String {
    key.replace('_', "-")
}

/// A row of the table.
const fn setting(
    key: &'static str,
    env: &'static [&'static str],
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        kind,
        default,
        help,
    }
}

/// All settings.
pub const SETTINGS: &[Setting] = &[
    setting(
        "role",
        &["TIDELOG_ROLE"],
        Kind::Text,
        Some("all"),
        "What `serve` runs: command, eventbus, query, or all of them in one process; or gateway, which sends commands to workers",
    ),
    setting(
        "database_url",
        &["DATABASE_URL"],
        Kind::SecretUrl,
        None,
        "The log's database: mysql://user:password@host:port/database or sqlite:///path/to/file",
    ),
    setting(
        "bus_url",
        &["TIDELOG_BUS_URL", "REDIS_URL"],
        Kind::SecretUrl,
        None,
        "The event bus: redis://host:port or redis+cluster://host1:port,host2:port, nats://host:port or kafka://host:port (with the features of these names); without it (and with SQLite) the bus is inside the process",
    ),
    setting(
        "bus_keep_events",
        &["TIDELOG_BUS_KEEP_EVENTS"],
        Kind::Number,
        Some("100000"),
        "How many events of each partition the bus on Redis or NATS keeps, about (1 to 4294967295); older ones are read from the log",
    ),
    setting(
        "bus_keep_bytes",
        &["TIDELOG_BUS_KEEP_BYTES"],
        Kind::Bytes,
        Some("512MiB"),
        "How much of Redis' memory, or of NATS' or Kafka's disks, the events on the bus may take, all partitions together, about; above it fewer events are kept",
    ),
    setting(
        "mongodb_url",
        &["MONGODB_URL"],
        Kind::SecretUrl,
        None,
        "The read models' store: mongodb://host:port/database; without it (and with SQLite) they live in the same file",
    ),
    setting(
        "insecure_backends",
        &["TIDELOG_INSECURE_BACKENDS"],
        Kind::Text,
        None,
        "Which servers beyond this machine may be spoken to without verified TLS: mysql, redis, nats, kafka, mongodb, separated by commas; none unless said",
    ),
    setting(
        "command_addr",
        &["TIDELOG_COMMAND_ADDR"],
        Kind::Address,
        Some("127.0.0.1:3000"),
        "Where the command service listens",
    ),
    setting(
        "query_addr",
        &["TIDELOG_QUERY_ADDR"],
        Kind::Address,
        Some("127.0.0.1:4000"),
        "Where the query service listens",
    ),
    setting(
        "admin_addr",
        &["TIDELOG_ADMIN_ADDR"],
        Kind::Address,
        None,
        "Where health and administration listen; by default 127.0.0.1 at port 3001 (command), 4001 (query) or 5050; the command line asks a process there, also at https://host:port",
    ),
    setting(
        "admin_tokens",
        &["TIDELOG_ADMIN_TOKENS"],
        Kind::Secret,
        None,
        "Who may use the administration: name:read:secret or name:operate:secret, separated by commas; secrets of 16 to 256 characters",
    ),
    setting(
        "admin_token",
        &["TIDELOG_ADMIN_TOKEN"],
        Kind::Secret,
        None,
        "The secret that the command line shows to a running process: of one of the admin_tokens of that process",
    ),
    // Who may use the services.
    setting(
        "auth_jwks",
        &["TIDELOG_AUTH_JWKS"],
        Kind::Text,
        None,
        "The keys that the tokens of callers are signed with, a JSON Web Key Set: an https:// URL (http:// on this machine), or a file",
    ),
    setting(
        "auth_secret",
        &["TIDELOG_AUTH_SECRET"],
        Kind::Secret,
        None,
        "In place of auth_jwks, for development: a secret of 32 bytes or more that tokens are signed with (HS256)",
    ),
    setting(
        "auth_issuer",
        &["TIDELOG_AUTH_ISSUER"],
        Kind::Text,
        None,
        "Who issues the tokens: their claim iss, to the letter",
    ),
    setting(
        "auth_audience",
        &["TIDELOG_AUTH_AUDIENCE"],
        Kind::Text,
        None,
        "For whom the tokens are: one of their claim aud, to the letter",
    ),
    setting(
        "auth_roles_claim",
        &["TIDELOG_AUTH_ROLES_CLAIM"],
        Kind::Text,
        Some("roles"),
        "The claim that has a caller's roles: a list, or a text with blanks; with dots for one within another, such as realm_access.roles",
    ),
    setting(
        "auth_tenant_claim",
        &["TIDELOG_AUTH_TENANT_CLAIM"],
        Kind::Text,
        None,
        "The claim that says for which tenant a caller asks; where it is set, a token without it is refused",
    ),
    setting(
        "roles",
        &["TIDELOG_ROLES"],
        Kind::Text,
        None,
        "Which roles may do what, before what the program declares: account/deposit=teller|manager, account/*=manager, view/statement=auditor, feed=follower, admin/read=ops, admin/operate=ops-lead",
    ),
    setting(
        "insecure_no_auth",
        &["TIDELOG_INSECURE_NO_AUTH"],
        Kind::Flag,
        Some("false"),
        "Listen beyond this machine though nobody signs in: whoever reaches the listeners may do everything",
    ),
    setting(
        "aggregates",
        &["TIDELOG_AGGREGATES"],
        Kind::Text,
        None,
        "Whose commands a process of the role command or all takes from gateways: names of aggregates, and of commands over several, separated by commas, or * for all; none unless said",
    ),
    setting(
        "gateway_timeout",
        &["TIDELOG_GATEWAY_TIMEOUT"],
        Kind::Duration,
        Some("20s"),
        "How long a gateway waits for the answer of a worker; no worker begins with a command that is older",
    ),
    setting(
        "query_url",
        &["TIDELOG_QUERY_URL"],
        Kind::Text,
        None,
        "The query service's address as clients see it, for the Location header of what was created; a gateway passes queries of its WebSockets on to it",
    ),
    setting(
        "cors_origins",
        &["TIDELOG_CORS_ORIGINS"],
        Kind::Text,
        None,
        "Whose pages a browser lets use both services: origins such as https://shop.example, separated by commas, or * for all; none unless said",
    ),
    setting(
        "tls_cert",
        &["TIDELOG_TLS_CERT"],
        Kind::Path,
        None,
        "The certificate of all listeners, those above it after it, in a PEM file: with tls_key they speak HTTPS alone; read again when it changes",
    ),
    setting(
        "tls_key",
        &["TIDELOG_TLS_KEY"],
        Kind::Path,
        None,
        "The private key of tls_cert, in a PEM file",
    ),
    setting(
        "tls_ca",
        &["TIDELOG_TLS_CA"],
        Kind::Path,
        None,
        "Whose certificates the program trusts as a client of other processes (the feeds that it follows, an admin address), beside the public ones, in a PEM file",
    ),
    setting(
        "max_connections",
        &["TIDELOG_MAX_CONNECTIONS"],
        Kind::Number,
        Some("4096"),
        "How many connections each listener has at a time (1 to 1000000); further ones wait",
    ),
    setting(
        "max_requests",
        &["TIDELOG_MAX_REQUESTS"],
        Kind::Number,
        Some("512"),
        "How many requests the command service and the query service each handle at a time (1 to 1000000); further ones are answered with 503",
    ),
    setting(
        "max_body_bytes_in_flight",
        &["TIDELOG_MAX_BODY_BYTES_IN_FLIGHT"],
        Kind::Bytes,
        Some("64MiB"),
        "How many bytes the bodies of all requests that a service handles have together; beyond, requests are answered with 503",
    ),
    setting(
        "rate_limit",
        &["TIDELOG_RATE_LIMIT"],
        Kind::Text,
        None,
        "How many requests each client may send to each service: 100/s or 6000/m, and 100/s:200 where 200 may come at once; beyond, they are answered with 429; no limit unless said",
    ),
    setting(
        "data_dir",
        &["TIDELOG_DATA_DIR"],
        Kind::Path,
        Some("tidelog-data"),
        "Where `dev` keeps its one SQLite file",
    ),
    setting(
        "entities",
        &["TIDELOG_ENTITIES"],
        Kind::Path,
        None,
        "A directory of entities, one <name>.schema.json each",
    ),
    setting(
        "partitions",
        &["TIDELOG_PARTITIONS"],
        Kind::Number,
        Some("16"),
        "How many partitions a new log gets (1 to 1024); fixed once the log is made",
    ),
    setting(
        "wait_for_backends",
        &["TIDELOG_WAIT_FOR_BACKENDS"],
        Kind::Duration,
        Some("0s"),
        "How long start-up keeps trying servers that do not answer yet",
    ),
    setting(
        "shutdown_grace",
        &["TIDELOG_SHUTDOWN_GRACE"],
        Kind::Duration,
        Some("10s"),
        "How long a stop waits for work in flight before it gives up",
    ),
    setting(
        "follow_interval",
        &["TIDELOG_FOLLOW_INTERVAL"],
        Kind::Duration,
        Some("200ms"),
        "How often the feed of another program that is followed is asked for news while it is quiet",
    ),
    setting(
        "follow_token_file",
        &["TIDELOG_FOLLOW_TOKEN_FILE"],
        Kind::Path,
        None,
        "A file with the token that feeds of other programs are shown (Authorization: Bearer), read anew for each request",
    ),
    setting(
        "log",
        &["TIDELOG_LOG"],
        Kind::Text,
        Some("info"),
        "What is logged: a level, or tracing directives such as tidelog=debug,info",
    ),
    setting(
        "log_format",
        &["TIDELOG_LOG_FORMAT"],
        Kind::Text,
        Some("text"),
        "How it is logged: text, or json, one object a line",
    ),
    setting(
        "otlp_endpoint",
        &["TIDELOG_OTLP_ENDPOINT"],
        Kind::SecretUrl,
        None,
        "Where traces are exported to by OTLP over HTTP: http://host:4318; none are unless said (needs the feature `otlp`)",
    ),
    setting(
        "trace_sample",
        &["TIDELOG_TRACE_SAMPLE"],
        Kind::Fraction,
        Some("1"),
        "Which part of the traces that begin here is exported, from 0 to 1; one that a client began is if the client says so",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_settings_share_a_key_or_a_variable() {
        let mut names: Vec<&str> = SETTINGS.iter().map(|s| s.key).collect();
        names.extend(SETTINGS.iter().flat_map(|s| s.env));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
