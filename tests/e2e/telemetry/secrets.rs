//! No secret and no payload is told to anybody who did not ask for it.
//!
//! A test plants a text in each place where one is, has everything go right and wrong, with all that can be logged, and looks for
//! the texts in all that was said.

use mongodb::bson::doc;
use serde_json::{Value, json};
use tidelog_test_support::{
    AUDIENCE, ISSUER, OtlpReceiver, Process, TcpProxy, fresh_mongodb_database,
    fresh_mysql_database, shared,
};

use crate::client::{Answer, must, send};
use crate::log::connect;
use crate::security::sign_in::by_secret;
use crate::services::{CommandLine, Role, Service};
use crate::waiting::eventually;

/// The texts that must not be found again.
struct Planted {
    /// The password of all three servers.
    password: String,
    /// A password that is wrong.
    wrong: String,
    /// What a collector wants in a header.
    header: String,
    /// The secret of somebody who may use the administration.
    token: String,
    /// What tokens are signed with.
    shared: String,
    /// What a client shows in the header `Authorization`, whether anybody asked for it or not.
    bearer: String,
    /// What else a client shows: a cookie.
    cookie: String,
    /// An idempotency key: who has it can ask what came of the command.
    key: String,
    /// What is in bodies, events and documents.
    payload: String,
}

impl Planted {
    fn new() -> Self {
        let unique = |what: &str| format!("{what}x{}", uuid::Uuid::new_v4().simple());
        Self {
            password: unique("password"),
            wrong: unique("wrong"),
            header: unique("header"),
            token: unique("token"),
            shared: unique("shared"),
            bearer: unique("bearer"),
            cookie: unique("cookie"),
            key: unique("key"),
            payload: unique("payload"),
        }
    }

    /// What a process is told of those who may use its administration.
    fn tokens(&self) -> String {
        format!("ann:operate:{}", self.token)
    }

    /// The texts that nobody is told, whatever they ask for.
    fn secrets(&self) -> [&str; 8] {
        let Self {
            password,
            wrong,
            header,
            token,
            shared,
            bearer,
            cookie,
            key,
            payload: _,
        } = self;
        [password, wrong, header, token, shared, bearer, cookie, key].map(String::as_str)
    }

    /// Makes sure that none of the texts is in `said`, which `who` said.
    fn not_in(&self, who: &str, said: &str) {
        self.no_secret_in(who, said);
        let found = said.lines().find(|line| line.contains(&self.payload));
        assert_eq!(found, None, "{who} tells a payload");
    }

    /// The same of what shows payloads to those who ask for them.
    fn no_secret_in(&self, who: &str, said: &str) {
        for secret in self.secrets() {
            let found = said.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{who} tells {secret}");
        }
    }

    /// The headers that a client shows.
    fn shown(&self) -> [(&'static str, String); 2] {
        [
            ("authorization", format!("Bearer {}", self.bearer)),
            ("cookie", format!("session={}", self.cookie)),
        ]
    }
}

/// The servers with a user each, whose password is planted, behind a network that can be cut.
struct Servers {
    log: TcpProxy,
    bus: TcpProxy,
    store: TcpProxy,
    /// The URLs, with the right password.
    urls: [(&'static str, String); 3],
}

impl Servers {
    async fn with(password: &str) -> Self {
        let (mysql, redis, mongodb) = (
            shared::mysql().await,
            shared::redis().await,
            shared::mongodb().await,
        );
        let user = format!("u{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
        let (log, bus, store) = (
            TcpProxy::start(mysql.port()).await,
            TcpProxy::start(redis.port()).await,
            TcpProxy::start(mongodb.port()).await,
        );

        let database = fresh_mysql_database(mysql).await;
        let name = database.rsplit('/').next().unwrap();
        let mut connection = connect(&database).await;
        for statement in [
            format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'"),
            format!("GRANT ALL ON {name}.* TO '{user}'@'%'"),
        ] {
            let statement = sqlx::AssertSqlSafe(statement);
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .unwrap();
        }

        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let rule = [
            "SETUSER",
            &user,
            "on",
            &format!(">{password}"),
            "~*",
            "&*",
            "+@all",
        ];
        let mut set = redis::cmd("ACL");
        let _: String = set.arg(&rule).query_async(&mut connection).await.unwrap();

        let documents = fresh_mongodb_database(mongodb);
        let client = mongodb::Client::with_uri_str(&documents).await.unwrap();
        let owned = client.default_database().unwrap();
        let role = doc! {"role": "dbOwner", "db": owned.name()};
        let create = doc! {"createUser": &user, "pwd": password, "roles": [role]};
        owned.run_command(create).await.unwrap();

        let as_user = |proxy: &TcpProxy, url: &str| {
            let mut url = url::Url::parse(&proxy.url(url)).unwrap();
            url.set_username(&user).unwrap();
            url.set_password(Some(password)).unwrap();
            url.to_string()
        };
        let urls = [
            ("DATABASE_URL", as_user(&log, &database)),
            ("TIDELOG_BUS_URL", as_user(&bus, redis.url())),
            ("MONGODB_URL", as_user(&store, &documents)),
        ];
        Self {
            log,
            bus,
            store,
            urls,
        }
    }

    /// The settings that name them.
    fn settings(&self) -> Vec<(&str, &str)> {
        self.urls
            .iter()
            .map(|(name, url)| (*name, url.as_str()))
            .collect()
    }

    /// Changes the payload of the one event of `stream` in the log.
    async fn tamper(&self, stream: &str, payload: &str) {
        let mut log = connect(&self.urls[0].1).await;
        let updated = sqlx::query("UPDATE events SET payload = ? WHERE stream = ?")
            .bind(payload)
            .bind(stream)
            .execute(&mut log)
            .await
            .unwrap();
        assert_eq!(updated.rows_affected(), 1);
    }
}

fn post(id: &str, content: &str) -> Value {
    json!({"id": id, "title": "A", "content": content, "author_name": "Ann"})
}

/// Asks the administration of a service, showing it a token.
async fn ask(service: &Service, path: &str, token: &str) -> Answer {
    let request = service.admin().request(reqwest::Method::GET, path);
    must(request.bearer_auth(token)).await
}

/// What a service says of itself to those who watch it.
const PAGES: [&str; 15] = [
    "/metrics",
    "/health/live",
    "/health/ready",
    "/admin",
    "/admin/subscriptions",
    "/admin/parked",
    "/admin/audit",
    "/admin/events",
    "/admin/streams",
    "/admin/api/subscriptions",
    "/admin/api/parked",
    "/admin/api/audit",
    "/admin/api/events",
    "/admin/api/streams",
    "/admin/api/views",
];

/// What shows payloads to those who ask for them.
const SHOWING: [&str; 4] = [
    "/admin/api/events?payload=true",
    "/admin/streams/post/fine",
    "/admin/api/streams/post/fine",
    "/admin/views/post",
];

async fn pages(service: &Service, paths: &[&str], token: &str) -> String {
    let mut pages = String::new();
    for path in paths {
        pages += &ask(service, path, token).await.body;
        pages.push('\n');
    }
    pages
}

/// Shows the services what a client may show, where it is asked for and where it is not, rightly and wrongly; gives what they say.
async fn shown_to(services: [&Service; 3], planted: &Planted) -> String {
    let [command, eventbus, query] = services;
    let mut said = String::new();
    let (commands, queries) = (command.commands(), query.queries());
    let bodies = [post("shown", "c"), json!({"title": 1})];
    for body in &bodies {
        // The second time it is a replay, or another request with the same key.
        for _ in 0..2 {
            let mut request = commands.request(reqwest::Method::POST, "/post").json(body);
            request = request.header("idempotency-key", format!("\"{}\"", planted.key));
            for (name, value) in planted.shown() {
                request = request.header(name, value);
            }
            said += &format!("{:?}\n", must(request).await);
        }
    }
    for path in [
        "/post/shown",
        "/posts",
        "/posts?nothing=1",
        "/nowhere/at/all/of/it",
    ] {
        let mut request = queries.request(reqwest::Method::GET, path);
        for (name, value) in planted.shown() {
            request = request.header(name, value);
        }
        said += &format!("{:?}\n", must(request).await);
    }
    // Where it does not belong, and is sent all the same.
    for address in [
        format!("/posts?access_token={}", planted.bearer),
        format!("/post/{}", planted.bearer),
    ] {
        // An address that is not understood is told to who sent it, and to nobody else.
        let _ = queries.get(&address).await;
    }
    let wrong = ask(eventbus, "/admin/api/events", &planted.bearer).await;
    wrong.problem(401, "unauthenticated");
    said += &format!("{wrong:?}\n");
    said
}

/// Fails to sign in, and does, and acts; gives what is said about it, the cookie aside.
async fn sign_in(service: &Service, planted: &Planted) -> String {
    let admin = service.admin();
    let mut said = String::new();
    for (token, status) in [(&planted.wrong, 401), (&planted.token, 200)] {
        let form = admin.request(reqwest::Method::POST, "/admin/sign-in");
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        let answer = must(form.body(format!("token={token}"))).await;
        assert_eq!(answer.status, status, "{answer:?}");
        said += &answer.body;
    }
    let refused = ask(service, "/admin/api/subscriptions", &planted.wrong).await;
    refused.problem(401, "unauthenticated");
    let pause = "/admin/api/subscriptions/nobody/pause";
    let pause = admin.request(reqwest::Method::POST, pause);
    let pause = pause.bearer_auth(&planted.token);
    let paused = must(pause.json(&json!({"reason": "a move"}))).await;
    paused.problem(404, "not-found");
    said + &refused.body + &paused.body
}

/// Cuts the network to one server until the service says so, and asks the services for things meanwhile.
async fn cut(
    proxy: &TcpProxy,
    backend: &str,
    told_by: &Service,
    services: [&Service; 2],
    secret: &str,
) {
    proxy.cut();
    let admin = told_by.admin();
    eventually("the cut to be told", async || {
        let ready = admin.get("/health/ready").await.json();
        let state = ready["backends"][backend]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let is_down = state.starts_with("down since ");
        is_down.then_some(()).ok_or(ready.to_string())
    })
    .await;
    let [command, query] = services;
    let written = command.commands().request(reqwest::Method::POST, "/post");
    let _ = send(written.json(&post(
        &format!("while-{}", backend.replace(' ', "-")),
        secret,
    )))
    .await;
    let _ = query
        .queries()
        .get(&format!("/post?content={secret}"))
        .await;
    proxy.pass();
    eventually("the server to be back", async || {
        let ready = admin.get("/health/ready").await.json();
        (ready["backends"][backend] == "up")
            .then_some(())
            .ok_or(ready.to_string())
    })
    .await;
}

/// Requests that are turned down, each with the secret in it.
async fn turned_down(command: &Service, query: &Service, secret: &str) {
    let commands = command.commands();
    let wrong_type = json!({"id": "w", "title": {secret: 1}, "content": "", "author_name": "Ann"});
    assert_eq!(commands.post("/post", &wrong_type).await.status, 422);
    let unknown = json!({"title": "A", "content": "", "author_name": "Ann", secret: secret});
    assert_eq!(commands.post("/post", &unknown).await.status, 422);
    let no_json = commands
        .request(reqwest::Method::POST, "/post")
        .header("content-type", "application/json");
    assert_eq!(
        send(no_json.body(format!("{{\"{secret}")))
            .await
            .unwrap()
            .status,
        400
    );
    assert_eq!(
        query
            .queries()
            .get(&format!("/posts?created_at[gte]={secret}"))
            .await
            .status,
        400
    );
}

/// Runs the command line, and gives all that it says.
async fn command_lines(servers: &Servers, planted: &Planted) -> String {
    let mut said = String::new();
    for arguments in [
        &["config"][..],
        &["config", "--json"],
        &["audit"],
        &["doctor"],
        &["migrate"],
        &["subscriptions"],
        &["subscriptions", "--json", "--by-partition"],
        &["parked"],
        &["parked", "--json"],
        &["parked", "show", "post", "broken"],
        &["parked", "show", "post", "broken", "--json"],
        &["parked", "retry", "post", "broken"],
        &["views"],
        &["replay", "post", "--document", "fine"],
        &["replay", "post", "--compare", "full"],
    ] {
        let tokens = planted.tokens();
        let command = CommandLine::new(arguments).with(servers.settings());
        let command = command.with([
            ("TIDELOG_LOG", "trace"),
            ("TIDELOG_ADMIN_TOKENS", &tokens),
            ("TIDELOG_ADMIN_TOKEN", &planted.token),
        ]);
        let ended = command.run().await;
        said += &format!("$ {arguments:?} ({:?})\n{}\n", ended.code, ended.output);
    }
    // Servers that refuse the password, one after the other.
    for wrong in 0..3 {
        let mut urls = servers.urls.clone();
        urls[wrong].1 = urls[wrong].1.replace(&planted.password, &planted.wrong);
        let urls = urls.iter().map(|(name, url)| (*name, url.as_str()));
        let ended = CommandLine::new(&["doctor"]).with(urls).run().await;
        assert_ne!(ended.code, Some(0), "{}", ended.output);
        said += &ended.output;
    }
    // Settings that make no sense.
    for file in [
        format!("database_url = \"mysql://u:{}@h/d", planted.password),
        format!("database_url = \"postgres://u:{}@h/d\"", planted.password),
        format!("otlp_endpoint = \"http://u:{}@h\"", planted.header),
        format!("admin_tokens = \"ann:all:{}\"", planted.token),
        format!("admin_token = \"{} \"", planted.token),
    ] {
        let ended = CommandLine::new(&["serve"]).with_file("tidelog.toml", &file);
        let ended = ended.run().await;
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        said += &ended.output;
    }
    said
}

/// Makes sure that each line of a log is an object for programs.
fn assert_is_json(process: &Process) {
    for line in process.stderr() {
        let object: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(object[field].is_string(), "no {field} in {line}");
        }
    }
}

/// Makes sure that what was logged in a request, a line with `text`, tells which one it was.
fn assert_names_the_request(process: &Process, text: &str) {
    let lines = process.stderr();
    let line = lines.iter().find(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("no line with {text}:\n{}", process.output()));
    let object: Value = serde_json::from_str(line).unwrap();
    let request = &object["spans"][0];
    assert_eq!(request["name"], "request", "{line}");
    for field in ["correlation_id", "trace_id"] {
        assert!(
            request[field].as_str().is_some_and(|id| id.len() >= 32),
            "no {field} in {line}"
        );
    }
}

async fn nothing_is_told(format: &str) {
    let planted = Planted::new();
    let collector = OtlpReceiver::start().await;
    let servers = Servers::with(&planted.password).await;
    let headers = format!("x-api-key={}", planted.header);
    let tokens = planted.tokens();
    let mut settings = servers.settings();
    settings.extend([
        ("TIDELOG_LOG", "trace"),
        ("TIDELOG_LOG_FORMAT", format),
        ("TIDELOG_ADMIN_TOKENS", &tokens),
        // Every other setting of the kind that is never shown belongs here too, with a text in `Planted`; `auth_secret` is in `signed_in`.
        ("TIDELOG_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]);
    let writer = Service::start_with(Role::Command, &settings).await;
    let secret = &planted.payload;
    for id in ["fine", "broken"] {
        writer
            .commands()
            .post("/post", &post(id, secret))
            .await
            .data(201);
    }
    servers
        .tamper("post/broken", &json!(secret).to_string())
        .await;
    // It has not read the broken one before.
    let command = Service::start_with(Role::Command, &settings).await;
    let eventbus = Service::start_with(Role::EventBus, &settings).await;
    let query = Service::start_with(Role::Query, &settings).await;
    eventually("the broken one to be parked", async || {
        let parked = ask(&eventbus, "/admin/api/parked", &planted.token);
        let parked = parked.await.json();
        let state = parked["data"][0]["state"].clone();
        (state == "parked").then_some(()).ok_or(parked.to_string())
    })
    .await;
    // A command to the broken one, which cannot be read.
    let patched = command
        .commands()
        .patch("/post/broken", &json!({"title": "B"}))
        .await;
    assert_eq!(patched.status, 500, "{patched:?}");
    planted.not_in("a problem document", &patched.body);
    turned_down(&command, &query, secret).await;
    let answers = shown_to([&command, &eventbus, &query], &planted).await;
    planted.no_secret_in("an answer", &answers);
    cut(&servers.log, "log", &command, [&command, &query], secret).await;
    cut(&servers.bus, "bus", &eventbus, [&command, &query], secret).await;
    cut(
        &servers.store,
        "read store",
        &query,
        [&command, &query],
        secret,
    )
    .await;
    planted.not_in("the command line", &command_lines(&servers, &planted).await);
    planted.not_in("a sign-in", &sign_in(&eventbus, &planted).await);

    for service in [&writer, &command, &eventbus, &query] {
        let told = pages(service, &PAGES, &planted.token).await;
        planted.not_in("a page", &told);
        let shown = pages(service, &SHOWING, &planted.token).await;
        planted.no_secret_in("a page of events", &shown);
    }
    // That nothing is found says something: what is there to be found is.
    let shown = pages(&eventbus, &SHOWING, &planted.token).await;
    assert!(shown.contains(secret), "{shown}");
    let dev = in_dev(format, &planted).await;
    let signed = signed_in(format, &planted).await;
    for service in [&writer, &command, &eventbus, &query, &dev, &signed] {
        if format == "json" {
            assert_is_json(service.process());
        }
        planted.not_in("a log", &service.process().output());
    }
    // What went wrong was logged, so that not finding anything says something.
    for (service, told) in [(&eventbus, "is parked until"), (&command, "cannot be read")] {
        let output = service.process().output();
        assert!(output.contains(told), "{output}");
    }
    if format == "json" {
        assert_names_the_request(command.process(), "a command could not");
    }
    eventually("traces to come", async || {
        let spans = collector.spans().len();
        (spans > 10).then_some(()).ok_or(spans.to_string())
    })
    .await;
    planted.not_in("a trace", &collector.text());
    let sent = collector
        .headers()
        .into_iter()
        .any(|header| header.contains(&planted.header));
    assert!(sent, "the collector was not told its key");
}

/// The program on one file, with the secret in a document.
async fn in_dev(format: &str, planted: &Planted) -> Service {
    let (secret, tokens) = (&planted.payload, planted.tokens());
    let settings = [
        ("TIDELOG_LOG", "trace"),
        ("TIDELOG_LOG_FORMAT", format),
        ("TIDELOG_ADMIN_TOKENS", &tokens),
    ];
    let service = Service::start_with(Role::Dev, &settings).await;
    let written = service
        .commands()
        .post("/post", &post("fine", secret))
        .await;
    written.data(201);
    let read = service
        .queries()
        .get_after("/post/fine", written.token())
        .await;
    assert_eq!(read.data(200)["content"], **secret);
    planted.not_in("a sign-in", &sign_in(&service, planted).await);
    // The command line beside it shows the token, the wrong one first.
    let data = service.home().join("tidelog-data");
    for (token, code) in [(&planted.wrong, 6), (&planted.token, 0)] {
        let command = CommandLine::new(&["subscriptions"]).with([
            ("TIDELOG_DATA_DIR", data.to_str().unwrap()),
            ("TIDELOG_ADMIN_ADDR", service.admin().address()),
            ("TIDELOG_ADMIN_TOKEN", token),
            ("TIDELOG_LOG", "trace"),
        ]);
        let ended = command.run().await;
        assert_eq!(ended.code, Some(code), "{}", ended.output);
        planted.not_in("the command line", &ended.output);
    }
    service
}

/// The program where tokens are signed with a secret, asked with tokens that are right and wrong, and without one.
async fn signed_in(format: &str, planted: &Planted) -> Service {
    let settings = [
        ("TIDELOG_LOG", "trace"),
        ("TIDELOG_LOG_FORMAT", format),
        ("TIDELOG_AUTH_SECRET", &planted.shared),
        ("TIDELOG_AUTH_ISSUER", ISSUER),
        ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
    ];
    let service = Service::start_with(Role::Dev, &settings).await;
    let token = by_secret(planted.shared.as_bytes(), &json!({"alg": "HS256"}));
    let (_, signature) = token.rsplit_once('.').unwrap();
    let wrong = token.replace(signature, &planted.bearer);
    let (mut said, mut statuses) = (String::new(), Vec::new());
    for client in [service.commands(), service.queries(), service.admin()] {
        for shown in [Some(&token), Some(&wrong), Some(&planted.shared), None] {
            let path = if client.address() == service.admin().address() {
                "/admin/api/views"
            } else {
                "/posts"
            };
            let mut request = client.request(reqwest::Method::GET, path);
            if let Some(shown) = shown {
                request = request.bearer_auth(shown);
            }
            let answer = must(request).await;
            statuses.push(answer.status);
            said += &format!("{answer:?}\n");
        }
    }
    assert_eq!(statuses[4..8], [200, 401, 401, 401], "{said}");
    let config = CommandLine::new(&["config"]).with(settings).run().await;
    let weak = [("TIDELOG_AUTH_SECRET", &planted.shared[..20])];
    let refused = CommandLine::new(&["dev"])
        .with(settings)
        .with(weak)
        .run()
        .await;
    assert_ne!(refused.code, Some(0), "{}", refused.output);
    said += &config.succeeded().output;
    said += &refused.output;
    said += &pages(&service, &PAGES, &token).await;
    for text in [signature, &planted.shared[..20]] {
        let told = [said.as_str(), &service.process().output()].concat();
        assert!(!told.contains(text), "{text} is told");
    }
    planted.not_in("who signs in", &said);
    service
}

/// Nothing is told by what cannot fail.
#[test]
fn whatever_is_planted_is_noticed_where_it_is_told() {
    let planted = Planted::new();
    planted.not_in("nobody", "all is well\nand nothing told");
    let all = planted
        .secrets()
        .into_iter()
        .chain([planted.payload.as_str()]);
    for text in all {
        let said = format!("first\n{{\"detail\": \"...{text}...\"}}\nlast");
        let noticed = std::panic::catch_unwind(|| planted.not_in("somebody", &said));
        assert!(noticed.is_err(), "{text} is not noticed");
    }
}

#[tokio::test]
async fn no_secret_and_no_payload_is_in_a_log_a_page_or_a_trace() {
    nothing_is_told("text").await;
}

#[tokio::test]
async fn no_secret_and_no_payload_is_in_a_log_for_programs() {
    nothing_is_told("json").await;
}
