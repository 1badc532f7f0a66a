//! Settings with types.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidelog_domain::Partitions;
use tidelog_http::{CorsOrigins, RateLimit};

use super::admin_tokens::{AdminSecret, AdminTokens};
use super::auth::AuthSettings;
use super::insecure_backends::InsecureBackends;
use super::known::Setting;
use super::sources::{InvalidSettings, Layers, Origin, shown};

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The command service: HTTP writes, the appender, the relay.
    Command,
    /// The subscriptions, and a polling relay as a backstop.
    EventBus,
    /// The query service: HTTP reads.
    Query,
    /// The command service's HTTP, without a log: workers elsewhere run its commands.
    Gateway,
    /// The command service, the subscriptions and the query service in one process.
    All,
}

impl Role {
    /// The name, as it is set.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::EventBus => "eventbus",
            Self::Query => "query",
            Self::Gateway => "gateway",
            Self::All => "all",
        }
    }

    /// Whether a process of this role runs `part`.
    #[must_use]
    pub fn runs(self, part: Self) -> bool {
        self == part || self == Self::All && part != Self::Gateway
    }

    /// The admin listener's address when nobody says.
    const fn admin_addr(self) -> &'static str {
        match self {
            Self::Command | Self::Gateway => "127.0.0.1:3001",
            Self::Query => "127.0.0.1:4001",
            Self::EventBus | Self::All => "127.0.0.1:5050",
        }
    }
}

/// How a process logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// Lines for programs: one JSON object each.
    Json,
}

/// Which part of the traces that begin in a process is exported: from 0, none, to 1, all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSample(f64);

impl TraceSample {
    /// All of them.
    pub const ALL: Self = Self(1.0);

    /// The part `part`; `None` when it is not from 0 to 1.
    #[must_use]
    pub fn new(part: f64) -> Option<Self> {
        (0.0..=1.0).contains(&part).then_some(Self(part))
    }

    /// From 0 to 1.
    #[must_use]
    pub const fn part(self) -> f64 {
        self.0
    }
}

/// It is a number, always.
impl Eq for TraceSample {}

/// What stands for a database in `database_url` where there is none.
pub(crate) const IN_MEMORY: &str = "memory:";

/// The settings of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it runs.
    pub role: Role,
    /// The log's database.
    pub database_url: Option<String>,
    /// The event bus; `None`: inside the process.
    pub bus_url: Option<String>,
    /// How many events of each partition the bus on Redis or NATS keeps, about.
    pub bus_keep_events: u32,
    /// How many bytes of Redis' memory, or of NATS' or Kafka's disks, the events on the bus may take, all partitions together, about.
    pub bus_keep_bytes: u64,
    /// The read models' store; `None`: the log's SQLite file.
    pub mongodb_url: Option<String>,
    /// Which servers beyond this machine may be spoken to without verified TLS.
    pub insecure_backends: InsecureBackends,
    /// Where the command service listens.
    pub command_addr: String,
    /// Where the query service listens.
    pub query_addr: String,
    /// Where health and administration listen.
    pub admin_addr: String,
    /// Who may use the administration.
    pub admin_tokens: AdminTokens,
    /// What the command line shows to a running process.
    pub admin_token: Option<AdminSecret>,
    /// Who may use the services, and for what.
    pub auth: AuthSettings,
    /// Whose commands this process takes from gateways: aggregates, and commands over several; `*` stands for all.
    pub aggregates: Vec<String>,
    /// How long a gateway waits for the answer of a worker.
    pub gateway_timeout: Duration,
    /// The query service's address as clients see it.
    pub query_url: Option<String>,
    /// Which pages of other origins a browser lets use the command service and the query service. Never the admin listener.
    pub cors_origins: CorsOrigins,
    /// The certificate of all listeners, in a PEM file; `tls_key` goes with it.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in a PEM file.
    pub tls_key: Option<PathBuf>,
    /// Whose certificates are trusted beside the public ones, in a PEM file.
    pub tls_ca: Option<PathBuf>,
    /// The most connections of each listener at a time.
    pub max_connections: u32,
    /// The most requests that each service handles at a time.
    pub max_requests: u32,
    /// The most bytes that the bodies of the requests have together that a service handles.
    pub max_body_bytes_in_flight: u64,
    /// How many requests each client may send to each service.
    pub rate_limit: Option<RateLimit>,
    /// Where `dev` keeps its file.
    pub data_dir: PathBuf,
    /// A directory of entities.
    pub entities: Option<PathBuf>,
    /// How many partitions a new log gets.
    pub partitions: Partitions,
    /// How long start-up keeps trying.
    pub wait_for_backends: Duration,
    /// How long a stop waits for work in flight.
    pub shutdown_grace: Duration,
    /// How often the feed of another program is asked for news while it is quiet.
    pub follow_interval: Duration,
    /// A file with the token that feeds of other programs are shown.
    pub follow_token_file: Option<PathBuf>,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where traces are exported to.
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that begin here is exported.
    pub trace_sample: TraceSample,
}

impl Default for Settings {
    /// What each setting is when nobody says, whatever the environment has. A log has to be named yet: see
    /// [`Settings::on_file`] and [`Settings::in_memory`].
    fn default() -> Self {
        let text = |key| {
            let default = Setting::find(key).and_then(|setting| setting.default);
            default.unwrap_or_default().to_owned()
        };
        Self {
            role: Role::All,
            database_url: None,
            bus_url: None,
            bus_keep_events: 100_000,
            bus_keep_bytes: 512 * 1024 * 1024,
            mongodb_url: None,
            insecure_backends: InsecureBackends::default(),
            command_addr: text("command_addr"),
            query_addr: text("query_addr"),
            admin_addr: Role::All.admin_addr().to_owned(),
            admin_tokens: AdminTokens::default(),
            admin_token: None,
            auth: AuthSettings::default(),
            aggregates: Vec::new(),
            gateway_timeout: Duration::from_secs(20),
            query_url: None,
            cors_origins: CorsOrigins::none(),
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            max_connections: 4096,
            max_requests: 512,
            max_body_bytes_in_flight: 64 * 1024 * 1024,
            rate_limit: None,
            data_dir: text("data_dir").into(),
            entities: None,
            partitions: Partitions::DEFAULT,
            wait_for_backends: Duration::ZERO,
            shutdown_grace: Duration::from_secs(10),
            follow_interval: Duration::from_millis(200),
            follow_token_file: None,
            log: text("log"),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            trace_sample: TraceSample::ALL,
        }
    }
}

impl Settings {
    /// Everything in one process, the log and the read models in the SQLite file `path`, which is made where it is
    /// missing.
    #[must_use]
    pub fn on_file(path: impl AsRef<Path>) -> Self {
        Self {
            database_url: Some(format!("sqlite://{}", path.as_ref().display())),
            ..Self::default()
        }
    }

    /// Everything in one process and in its memory, gone with it: for tests, and for trying things out.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            database_url: Some(IN_MEMORY.to_owned()),
            ..Self::default()
        }
    }

    /// How the feeds of other programs are reached.
    #[cfg(feature = "feed-client")]
    pub(crate) fn feed_access(&self) -> tidelog_eventbus::FeedAccess {
        tidelog_eventbus::FeedAccess {
            ca: self.tls_ca.clone(),
            token_file: self.follow_token_file.clone(),
        }
    }

    /// Reads the texts.
    ///
    /// # Errors
    ///
    /// [`InvalidSettings::Value`] for the first that is not of its kind.
    pub fn from_layers(layers: &Layers) -> Result<Self, InvalidSettings> {
        let text = |key| layers.get(key).map(|(value, _)| value.to_owned());
        let path = |key| text(key).map(PathBuf::from);
        let role = parsed(
            layers,
            "role",
            "one of command, eventbus, query, gateway and all",
            role,
        )?;
        Ok(Self {
            role,
            database_url: url(layers, "database_url", &["mysql", "sqlite"])?,
            bus_url: url(
                layers,
                "bus_url",
                &[
                    "redis",
                    "rediss",
                    "redis+cluster",
                    "rediss+cluster",
                    "nats",
                    "nats+tls",
                    "tls",
                    "kafka",
                ],
            )?,
            bus_keep_events: parsed(
                layers,
                "bus_keep_events",
                "a whole number from 1 to 4294967295",
                |text| text.parse().ok().filter(|events| *events > 0),
            )?,
            bus_keep_bytes: parsed(layers, "bus_keep_bytes", BYTES, bytes)?,
            mongodb_url: url(layers, "mongodb_url", &["mongodb", "mongodb+srv"])?,
            insecure_backends: parsed(
                layers,
                "insecure_backends",
                BACKENDS,
                InsecureBackends::parse,
            )?,
            command_addr: parsed(layers, "command_addr", ADDRESS, address)?,
            query_addr: parsed(layers, "query_addr", ADDRESS, address)?,
            admin_addr: match layers.get("admin_addr") {
                Some(_) => parsed(layers, "admin_addr", ADDRESS, address)?,
                None => role.admin_addr().to_owned(),
            },
            admin_tokens: match layers.get("admin_tokens") {
                Some(_) => parsed(layers, "admin_tokens", TOKENS, AdminTokens::parse)?,
                None => AdminTokens::default(),
            },
            admin_token: match layers.get("admin_token") {
                Some(_) => Some(parsed(layers, "admin_token", SECRET, AdminSecret::parse)?),
                None => None,
            },
            auth: AuthSettings::from_layers(layers)?,
            aggregates: text("aggregates").map_or_else(Vec::new, |text| names(&text)),
            gateway_timeout: parsed(layers, "gateway_timeout", DURATION, |text| {
                duration(text).filter(|wait| !wait.is_zero())
            })?,
            query_url: text("query_url"),
            cors_origins: parsed(layers, "cors_origins", ORIGINS, CorsOrigins::parse)?,
            tls_cert: path("tls_cert"),
            tls_key: path("tls_key"),
            tls_ca: path("tls_ca"),
            max_connections: parsed(layers, "max_connections", COUNT, count)?,
            max_requests: parsed(layers, "max_requests", COUNT, count)?,
            max_body_bytes_in_flight: parsed(layers, "max_body_bytes_in_flight", BYTES, bytes)?,
            rate_limit: match layers.get("rate_limit") {
                Some(_) => Some(parsed(layers, "rate_limit", RATE, RateLimit::parse)?),
                None => None,
            },
            data_dir: text("data_dir").unwrap_or_default().into(),
            entities: text("entities").map(PathBuf::from),
            partitions: parsed(
                layers,
                "partitions",
                "a whole number from 1 to 1024",
                |text| Partitions::new(text.parse().ok()?),
            )?,
            wait_for_backends: parsed(layers, "wait_for_backends", DURATION, duration)?,
            shutdown_grace: parsed(layers, "shutdown_grace", DURATION, duration)?,
            follow_interval: parsed(layers, "follow_interval", DURATION, duration)?,
            follow_token_file: path("follow_token_file"),
            log: text("log").unwrap_or_default(),
            log_format: parsed(layers, "log_format", "text or json", log_format)?,
            otlp_endpoint: otlp_endpoint(layers)?,
            trace_sample: parsed(layers, "trace_sample", FRACTION, |text| {
                TraceSample::new(text.parse().ok()?)
            })?,
        })
    }
}

const BACKENDS: &str = "a list of mysql, redis, nats, kafka and mongodb, separated by commas";
const COUNT: &str = "a whole number from 1 to 1000000";
const RATE: &str = "a number of requests in a second or minute, such as 100/s or 6000/m, and maybe how many at once: 100/s:200";
const ADDRESS: &str = "an address to listen on, such as 127.0.0.1:3000";
const ORIGINS: &str =
    "*, or origins as browsers write them, such as https://shop.example,http://localhost:8080";
const SECRET: &str = "the secret of a token alone: 16 to 256 characters without blanks";
const TOKENS: &str = "name:read:secret or name:operate:secret, separated by commas, with names of a-z A-Z 0-9 . _ @ - and \
                      secrets of 16 to 256 printable characters without commas and blanks";
const DURATION: &str = "a span of time, such as 500ms, 30s or 2m";
const FRACTION: &str = "a number from 0 to 1, such as 0.25";
const BYTES: &str = "a number of bytes above 0, such as 512MiB, 2GiB or 65536";

/// The names in a list with commas.
fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim);
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Reads the value of `key` with `read`.
pub(super) fn parsed<T>(
    layers: &Layers,
    key: &'static str,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, InvalidSettings> {
    let (value, origin) = layers.get(key).unwrap_or(("", &Origin::Default));
    read(value).ok_or_else(|| invalid(key, value, origin, expected.to_owned()))
}

/// Reads a URL whose scheme is one of `schemes`.
fn url(
    layers: &Layers,
    key: &'static str,
    schemes: &[&str],
) -> Result<Option<String>, InvalidSettings> {
    let Some((value, origin)) = layers.get(key) else {
        return Ok(None);
    };
    let scheme = value.split_once(':').map_or("", |(scheme, _)| scheme);
    if schemes.contains(&scheme) {
        return Ok(Some(value.to_owned()));
    }
    let expected = format!("a URL that begins with {}://", schemes.join(":// or "));
    Err(invalid(key, value, origin, expected))
}

/// Reads where traces are exported to. A password has no place there: what a collector wants for signing in, it wants in a header.
fn otlp_endpoint(layers: &Layers) -> Result<Option<String>, InvalidSettings> {
    const KEY: &str = "otlp_endpoint";
    let endpoint = url(layers, KEY, &["http", "https"])?;
    let has_host = |text: &str| {
        url::Url::parse(text).is_ok_and(|url| url.username().is_empty() && url.password().is_none())
    };
    match (&endpoint, layers.get(KEY)) {
        (Some(text), Some((value, origin))) if !has_host(text) => {
            let expected = "a URL with a host and without a password (headers are set by OTEL_EXPORTER_OTLP_HEADERS)";
            Err(invalid(KEY, value, origin, expected.to_owned()))
        }
        _ => Ok(endpoint),
    }
}

/// The value of `key` is not what it should be.
fn invalid(key: &'static str, value: &str, origin: &Origin, expected: String) -> InvalidSettings {
    let found = Setting::find(key).map_or_else(String::new, |setting| shown(setting.kind, value));
    InvalidSettings::Value {
        key,
        origin: origin.clone(),
        expected,
        found,
    }
}

/// Reads a role.
fn role(text: &str) -> Option<Role> {
    use Role::{All, Command, EventBus, Gateway, Query};
    [Command, EventBus, Query, Gateway, All]
        .into_iter()
        .find(|role| role.name() == text)
}

/// Reads how to log.
fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

/// Reads `host:port`.
fn address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>()
        .ok()
        .filter(|_| !host.is_empty())
        .map(|_| text.to_owned())
}

/// Reads a number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// Reads how many there may be of something.
fn count(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|count| (1..=1_000_000).contains(count))
}

/// Reads a number of bytes and its unit.
fn bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(unit)?;
    Some(bytes).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(flags: &[(&'static str, &str)]) -> Result<Settings, InvalidSettings> {
        let flags: BTreeMap<_, _> = flags
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect();
        Settings::from_layers(&Layers::gather(&flags, |_| None, None)?)
    }

    #[test]
    fn the_admin_listener_follows_the_role() {
        let at = |role| settings(&[("role", role)]).unwrap().admin_addr;
        assert_eq!(
            [at("command"), at("query"), at("eventbus"), at("all")],
            [
                "127.0.0.1:3001",
                "127.0.0.1:4001",
                "127.0.0.1:5050",
                "127.0.0.1:5050"
            ]
        );
        let told = settings(&[("role", "query"), ("admin_addr", "0.0.0.0:1")]).unwrap();
        assert_eq!(told.admin_addr, "0.0.0.0:1");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_where_it_came_from() {
        for (key, value, part) in [
            (
                "role",
                "writer",
                "command, eventbus, query, gateway and all",
            ),
            ("gateway_timeout", "0s", "30s"),
            (
                "database_url",
                "postgres://u:hunter2@h/d",
                "mysql:// or sqlite://",
            ),
            ("bus_url", "127.0.0.1:6379", "redis:// or rediss://"),
            ("command_addr", "3000", "127.0.0.1:3000"),
            ("cors_origins", "shop.example", "https://shop.example"),
            ("admin_tokens", "ann:operate:hunter2", "16 to 256"),
            ("partitions", "0", "1 to 1024"),
            (
                "insecure_backends",
                "mysql,postgres",
                "mysql, redis, nats, kafka and mongodb",
            ),
            ("max_connections", "0", "1 to 1000000"),
            ("max_requests", "many", "1 to 1000000"),
            ("max_body_bytes_in_flight", "0", "512MiB"),
            ("rate_limit", "100", "100/s"),
            ("wait_for_backends", "30", "30s"),
            ("bus_keep_events", "0", "1 to"),
            ("bus_keep_bytes", "1GB", "2GiB"),
            ("log_format", "yaml", "text or json"),
            ("otlp_endpoint", "grpc://h:4317", "http:// or https://"),
            (
                "otlp_endpoint",
                "http://u:hunter2@h",
                "OTEL_EXPORTER_OTLP_HEADERS",
            ),
            ("trace_sample", "1.5", "0 to 1"),
            ("trace_sample", "nan", "0 to 1"),
        ] {
            let error = settings(&[(key, value)]).unwrap_err().to_string();
            assert!(
                error.contains(key) && error.contains("flag --") && error.contains(part),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_default_is_what_the_table_says() {
        assert_eq!(Settings::default(), settings(&[]).unwrap());
    }

    #[test]
    fn a_part_of_the_traces_is_a_number_from_0_to_1() {
        let sample = |text| settings(&[("trace_sample", text)]).unwrap().trace_sample;
        assert_eq!(sample("0.25"), TraceSample::new(0.25).unwrap());
        assert_eq!([sample("0").part(), sample("1").part()], [0.0, 1.0]);
        assert_eq!(TraceSample::new(f64::NAN), None);
    }

    #[test]
    fn no_page_of_another_origin_may_use_the_services_unless_said() {
        let origins = |flags| settings(flags).unwrap().cors_origins;
        assert_eq!(origins(&[]), CorsOrigins::none());
        assert_eq!(origins(&[("cors_origins", "*")]), CorsOrigins::any());
    }

    #[test]
    fn bytes_may_have_a_unit() {
        assert_eq!(bytes("65536"), Some(65_536));
        assert_eq!(bytes("512MiB"), Some(536_870_912));
        assert_eq!(bytes("2GiB"), Some(2_147_483_648));
        assert_eq!(
            [
                bytes("0"),
                bytes("MiB"),
                bytes("1.5GiB"),
                bytes("99999999999GiB")
            ],
            [None; 4]
        );
    }

    #[test]
    fn spans_of_time_have_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(
            [duration("2h"), duration("s"), duration(""), duration("-1s")],
            [None; 4]
        );
    }
}
