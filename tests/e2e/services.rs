//! The program under test, as processes of its own.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tidelog_domain::Partitions;
use tidelog_test_support::{
    AUDIENCE, Engine, ISSUER, Process, Server, Signal, free_port, fresh_mongodb_database,
    fresh_mysql_database, shared,
};

use crate::client::{Client, send};
use crate::log::fresh_log;
use crate::waiting::eventually;

/// The stock binary.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tidelog");

/// The servers that services run on, as the services are told.
#[derive(Clone, Debug)]
pub(crate) struct Backends {
    pub(crate) database_url: String,
    pub(crate) bus_url: String,
    pub(crate) mongodb_url: String,
}

impl Backends {
    /// Databases of this test's own on the shared servers; a log that is made, and a user of it with a service's rights.
    pub(crate) async fn fresh() -> Self {
        Self::fresh_on(shared::mysql().await).await
    }

    /// The same with a log on `sql`.
    pub(crate) async fn fresh_on(sql: &Server) -> Self {
        Self {
            database_url: fresh_log(sql, Partitions::DEFAULT).await.service,
            bus_url: shared::redis().await.url().to_owned(),
            mongodb_url: fresh_mongodb_database(shared::mongodb().await),
        }
    }

    /// The same with a database that has no log yet, and a user who may make it.
    pub(crate) async fn without_a_log() -> Self {
        Self {
            database_url: fresh_mysql_database(shared::mysql().await).await,
            ..Self::fresh().await
        }
    }

    /// The same with a part of Redis of this test's own: all stock programs have one name there.
    pub(crate) async fn for_a_gateway() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number < 16, "Redis has 16 databases");
        let fresh = Self::fresh().await;
        Self {
            bus_url: format!("{}/{number}", fresh.bus_url.trim_end_matches('/')),
            ..fresh
        }
    }

    /// The same with a bus on a server of `engine` of this test's own, which goes with the returned value.
    pub(crate) async fn with_a_bus_of_its_own(engine: Engine) -> (Server, Self) {
        let server = Server::start(engine).await;
        let bus_url = server.url().to_owned();
        let backends = Self {
            bus_url,
            ..Self::fresh().await
        };
        (server, backends)
    }

    /// The settings that name them.
    pub(crate) fn settings(&self) -> [(&'static str, &str); 3] {
        [
            ("DATABASE_URL", &self.database_url),
            ("TIDELOG_BUS_URL", &self.bus_url),
            ("MONGODB_URL", &self.mongodb_url),
        ]
    }
}

/// What makes the command that runs a program with these arguments.
pub(crate) type Program = fn(&[&str]) -> Command;

/// The stock binary with these arguments.
fn stock(arguments: &[&str]) -> Command {
    let mut command = Process::command(PROGRAM);
    command.args(arguments);
    command
}

/// A command of the program's command line, in an empty directory of its own, without settings of the test's
/// environment.
pub(crate) struct CommandLine {
    command: Command,
    home: TempDir,
}

impl CommandLine {
    /// The program with these arguments.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::of(stock, arguments)
    }

    /// Another program with these arguments.
    pub(crate) fn of(program: Program, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut command = program(arguments);
        command.current_dir(home.path());
        Self { command, home }
    }

    /// The same with variables in its environment.
    pub(crate) fn with<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// The same with a file in its directory.
    pub(crate) fn with_file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.home.path().join(name), text).expect("a file");
        self
    }

    /// Runs it until it ends by itself.
    pub(crate) async fn run(self) -> Ended {
        let mut process = Process::start(self.command);
        let status = process.wait().await;
        Ended {
            code: status.code(),
            output: process.output(),
            stdout: process.stdout().join("\n"),
        }
    }

    /// Starts it. Its directory lives as long as the returned value.
    pub(crate) fn start(self) -> (Process, TempDir) {
        (Process::start(self.command), self.home)
    }
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// All its output.
    pub(crate) output: String,
    /// What it printed to standard output.
    pub(crate) stdout: String,
}

impl Ended {
    /// Checks that it did what it was asked.
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.output);
        self
    }
}

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `dev`: everything on one SQLite file.
    Dev,
    All,
    Command,
    EventBus,
    Query,
    Gateway,
}

/// One service: a process that can be killed and started again, at the same addresses and with the same settings.
pub(crate) struct Service {
    program: Program,
    pub(crate) role: Role,
    process: Process,
    settings: Vec<(String, String)>,
    command_addr: String,
    query_addr: String,
    admin_addr: String,
    home: TempDir,
}

impl Service {
    /// Starts a service on `backends` and waits until it is ready.
    pub(crate) async fn start(role: Role, backends: &Backends) -> Self {
        Self::start_with(role, &backends.settings()).await
    }

    /// Starts a service with these variables in its environment, in addition to its addresses, and waits until it is ready.
    pub(crate) async fn start_with(role: Role, settings: &[(&str, &str)]) -> Self {
        let mut service = Self::launch(role, settings);
        service.ready().await;
        service
    }

    /// A process with everything, whose commands come through the gateway that is given with it; each with these settings too.
    pub(crate) async fn gateway(backends: &Backends, more: &[(&str, &str)]) -> (Self, Self) {
        let mut settings = backends.settings().to_vec();
        settings.push(("TIDELOG_AGGREGATES", "*"));
        settings.extend(more);
        let all = Self::start_with(Role::All, &settings).await;
        let query_url = format!("http://{}", all.query_addr);
        let mut settings = vec![
            ("TIDELOG_BUS_URL", backends.bus_url.as_str()),
            ("TIDELOG_QUERY_URL", &query_url),
        ];
        settings.extend(more);
        let mut gateway = Self::start_with(Role::Gateway, &settings).await;
        gateway.query_addr.clone_from(&all.query_addr);
        (all, gateway)
    }

    /// Starts a service and does not wait.
    pub(crate) fn launch(role: Role, settings: &[(&str, &str)]) -> Self {
        Self::launch_of(stock, role, settings)
    }

    /// The same of another program than the stock binary.
    pub(crate) fn launch_of(program: Program, role: Role, settings: &[(&str, &str)]) -> Self {
        let [command_addr, query_addr, admin_addr] = std::array::from_fn(|_| free_address());
        let home = tempfile::tempdir().expect("a directory");
        let addresses = [
            ("TIDELOG_COMMAND_ADDR", &command_addr),
            ("TIDELOG_QUERY_ADDR", &query_addr),
            ("TIDELOG_ADMIN_ADDR", &admin_addr),
        ];
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = addresses
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).clone()))
            .chain(settings)
            .collect();
        let process = Process::start(command(program, role, &settings, &home));
        Self {
            program,
            role,
            process,
            settings,
            command_addr,
            query_addr,
            admin_addr,
            home,
        }
    }

    /// Waits until the service says that it is ready.
    pub(crate) async fn ready(&mut self) {
        let admin = self.admin();
        let health = eventually("a service to be ready", async || {
            let answer = send(admin.request(reqwest::Method::GET, "/health/ready")).await;
            match answer {
                Ok(answer) if answer.status == 200 => Ok(None),
                _ if self
                    .process
                    .stderr()
                    .iter()
                    .any(|line| line.starts_with("error: ")) =>
                {
                    Ok(Some("it failed"))
                }
                answer => Err(format!("{answer:?}\n{}", self.process.output())),
            }
        });
        if let Some(failed) = health.await {
            let status = self.process.wait().await;
            panic!(
                "{:?} {failed} ({status}):\n{}",
                self.role,
                self.process.output()
            );
        }
    }

    /// Kills the process (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the process again, after a kill that is done here if it still runs, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.process = Process::start(command(self.program, self.role, &self.settings, &self.home));
        self.ready().await;
    }

    /// Asks the process to end, and returns its exit status.
    pub(crate) async fn stop(&mut self, signal: Signal) -> Option<i32> {
        self.process.signal(signal);
        self.process.wait().await.code()
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// A client of its command service.
    pub(crate) fn commands(&self) -> Client {
        Client::new(&self.command_addr)
    }

    /// A client of its query service.
    pub(crate) fn queries(&self) -> Client {
        Client::new(&self.query_addr)
    }

    /// A client of its health listener.
    pub(crate) fn admin(&self) -> Client {
        Client::new(&self.admin_addr)
    }

    /// The URL of the log, as [`crate::log::read`] takes it.
    pub(crate) fn database_url(&self) -> String {
        let named = self
            .settings
            .iter()
            .find(|(name, _)| name == "DATABASE_URL" && self.role != Role::Dev);
        match named {
            Some((_, url)) => url.clone(),
            None => format!("sqlite://{}", self.data_file().display()),
        }
    }

    /// The one file of `dev`.
    pub(crate) fn data_file(&self) -> std::path::PathBuf {
        let data = self.home.path().join("tidelog-data");
        let files =
            std::fs::read_dir(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
        let mut files = files.map(|file| file.expect("a file").path());
        let file = files.find(|path| path.extension().is_some_and(|ending| ending == "db"));
        file.unwrap_or_else(|| panic!("no database in {}", data.display()))
    }

    /// The directory that the process runs in.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }
}

/// The services that together are one application.
pub(crate) struct Site {
    pub(crate) services: Vec<Service>,
    pub(crate) commands: Client,
    pub(crate) queries: Client,
}

impl Site {
    /// `dev`: one process on one file.
    pub(crate) async fn dev() -> Self {
        // A slow disk is no failure: each partition's record is a sync of the file when it is given back.
        let patience = ("TIDELOG_SHUTDOWN_GRACE", "90s");
        Self::of(vec![Service::start_with(Role::Dev, &[patience]).await])
    }

    /// `serve`: one process on servers.
    pub(crate) async fn all(backends: &Backends) -> Self {
        Self::of(vec![Service::start(Role::All, backends).await])
    }

    /// One process that runs everything, with these variables in its environment.
    pub(crate) async fn with(role: Role, settings: &[(&str, &str)]) -> Self {
        Self::of(vec![Service::start_with(role, settings).await])
    }

    /// Commands by way of a gateway, whose worker is the one process on servers.
    pub(crate) async fn through_a_gateway(backends: &Backends) -> Self {
        let (all, gateway) = Service::gateway(backends, &[]).await;
        Self {
            commands: gateway.commands(),
            ..Self::of(vec![all, gateway])
        }
    }

    /// `serve --role …`: each role its own process.
    pub(crate) async fn three(backends: &Backends) -> Self {
        let mut services = Vec::new();
        for role in [Role::Command, Role::EventBus, Role::Query] {
            services.push(Service::start(role, backends).await);
        }
        Self::of(services)
    }

    fn of(services: Vec<Service>) -> Self {
        let runs = |part| {
            let alone = |role| matches!(role, Role::Dev | Role::All);
            services
                .iter()
                .find(|service| service.role == part || alone(service.role))
                .expect("the role runs")
        };
        Self {
            commands: runs(Role::Command).commands(),
            queries: runs(Role::Query).queries(),
            services,
        }
    }

    /// The process that runs `role`.
    pub(crate) fn service(&mut self, role: Role) -> &mut Service {
        self.services
            .iter_mut()
            .find(|service| service.role == role)
            .expect("the role runs")
    }

    /// The URL of the log, as [`crate::log::read`] takes it.
    pub(crate) fn database_url(&self) -> String {
        self.services[0].database_url()
    }

    /// Stops and starts all services, in order.
    pub(crate) async fn restart(&mut self) {
        for service in &mut self.services {
            assert_eq!(
                service.stop(Signal::Term).await,
                Some(0),
                "{}",
                service.process().output()
            );
            service.restart().await;
        }
    }
}

/// The settings of a service that believes the issuer of these keys, and its word of whose tenant one is.
pub(crate) fn of_tenants(jwks: &str) -> [(&str, &str); 4] {
    [
        ("TIDELOG_AUTH_JWKS", jwks),
        ("TIDELOG_AUTH_ISSUER", ISSUER),
        ("TIDELOG_AUTH_AUDIENCE", AUDIENCE),
        ("TIDELOG_AUTH_TENANT_CLAIM", "tenant"),
    ]
}

/// An address on this machine that nothing listens on.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// What starts a service.
fn command(program: Program, role: Role, settings: &[(String, String)], home: &TempDir) -> Command {
    let mut command = match role {
        Role::Dev => program(&["dev"]),
        Role::All => program(&["serve"]),
        Role::Command => program(&["serve", "--role", "command"]),
        Role::EventBus => program(&["serve", "--role", "eventbus"]),
        Role::Query => program(&["serve", "--role", "query"]),
        Role::Gateway => program(&["serve", "--role", "gateway"]),
    };
    command
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .current_dir(home.path());
    command
}
