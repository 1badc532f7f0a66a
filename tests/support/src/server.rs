//! One real server, and what a test can do to it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::Signal;
use crate::ending::Guard;
use crate::engine::{self, Engine};
use crate::installation::{Installation, copy_directory};
use crate::network::free_port;

/// A server that does not answer by then has hung; most are ready within a second.
const READY_BOUND: Duration = Duration::from_secs(120);

/// One question whether a server is ready may take this long.
const QUESTION_BOUND: Duration = Duration::from_secs(10);

/// How often a starting server is asked.
const POLL: Duration = Duration::from_millis(10);

/// Another process can take a port between our choice and the server's use of it; then we choose again.
const PORT_TRIES: usize = 5;

/// What a server promises of what it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The engine's default: MySQL and MariaDB flush the log at each commit and sync the binary log; Redis keeps an
    /// append-only file; MongoDB journals; NATS writes to files. (Kafka's stand-in keeps all in memory, always.)
    #[default]
    Full,
    /// Nothing is kept over a crash, which is faster: MySQL and MariaDB flush once a second and write no binary log;
    /// Redis keeps all in memory. The others have no such mode.
    Relaxed,
}

/// How a server is started; the default is full durability and nothing added.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// What it promises of what it has acknowledged.
    pub durability: Durability,
    /// Arguments added to the server's command line, where the last of two that disagree wins.
    pub arguments: Vec<String>,
}

/// A real server on a port of this machine, with its data in a temporary directory.
///
/// It is killed, and its data removed, when this value is dropped or the test process ends, however that happens. Its
/// port stays the same over a restart and lies outside the range of outgoing connections, so nothing else takes it.
///
/// Every method panics with the server's log when the server does not do what it is asked to.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    url: String,
    port: u16,
    /// Nothing for a server that somebody else has started (`shared`, which gives no mutable access).
    own: Option<Own>,
}

/// The parts of a server that this process has started, in the order in which they go: the guard outlives the process.
#[derive(Debug)]
struct Own {
    options: ServerOptions,
    process: Option<Child>,
    directory: TempDir,
    guard: Guard,
}

/// A copy of a server's data at one time.
#[derive(Debug)]
pub struct Snapshot {
    directory: TempDir,
}

impl Server {
    /// Starts a server of `engine` with full durability and waits until it answers.
    pub async fn start(engine: Engine) -> Self {
        Self::start_with(engine, ServerOptions::default()).await
    }

    /// Starts a server of `engine` as `options` say and waits until it answers.
    pub async fn start_with(engine: Engine, options: ServerOptions) -> Self {
        let installation = Installation::get().await;
        let engine = engine.available(installation);
        let directory = temporary_directory();
        let guard = Guard::new(Some(directory.path()));
        engine
            .prepare(installation, &directory.path().join("data"))
            .await;
        let own = Own {
            options,
            process: None,
            directory,
            guard,
        };
        let mut server = Self {
            engine,
            url: String::new(),
            port: 0,
            own: Some(own),
        };
        for _ in 0..PORT_TRIES {
            server.port = free_port();
            server.url = engine.url(server.port);
            match server.launch().await {
                Ok(()) => return server,
                Err(log) if log.contains("ddress already in use") => {}
                Err(log) => panic!("{log}"),
            }
        }
        panic!("{engine:?} found {PORT_TRIES} ports taken");
    }

    /// A server that somebody else has started, at `url`.
    pub(crate) fn external(engine: Engine, url: String) -> Self {
        let port = url::Url::parse(&url)
            .ok()
            .and_then(|url| url.port())
            .unwrap_or_default();
        Self {
            engine,
            url,
            port,
            own: None,
        }
    }

    /// The engine that runs: [`Engine::MariaDb`] where it stands in for MySQL.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The URL that a program under test is given. MySQL's, MariaDB's and MongoDB's names the database `tidelog`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the server's data (`data`) and its log (`log`).
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.own().directory.path()
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The number of the server's process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.own().process.as_ref().map(Child::id)
    }

    /// Kills the server (SIGKILL), paused or not, and waits until it is gone.
    pub fn kill(&mut self) {
        let own = self.own_mut();
        if let Some(mut process) = own.process.take() {
            own.guard.kill(&mut process);
        }
    }

    /// Asks the server to end (SIGTERM) and waits until it has.
    pub async fn stop(&mut self) {
        let own = self.own_mut();
        if let Some(mut process) = own.process.take() {
            Signal::Term.send_to(&process);
            own.guard.wait(&mut process).await;
        }
    }

    /// Starts the server again, after a [`kill`](Self::kill) that is done here if it still runs, on the same data and
    /// the same port, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        if let Err(log) = self.launch().await {
            panic!("{log}");
        }
    }

    /// Stops the server where it is (SIGSTOP): its connections stay open and silent, and new ones are accepted by the
    /// kernel only.
    pub fn pause(&self) {
        self.signal(Signal::Stop);
    }

    /// Lets a paused server go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::Cont);
    }

    /// Has a MongoDB ask everybody who they are, which it does not otherwise; gives the URL of the one user there is, who may do
    /// everything. It is started again for that.
    pub async fn guard(&mut self) -> String {
        let key = self.dir().join("key");
        let written = fs::write(&key, "knowntoallmembers").and_then(|()| {
            let for_its_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&key, for_its_owner)
        });
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", key.display()));
        if let Err(error) = engine::make_root(self.port).await {
            panic!("cannot make a user of MongoDB: {error}");
        }
        // The members of a replica set ask each other too, by a key.
        let arguments = ["--auth".to_owned(), format!("--keyFile={}", key.display())];
        self.own_mut().options.arguments.extend(arguments);
        self.stop().await;
        self.restart().await;
        engine::url_of_root(self.port)
    }

    /// Copies the data. A running server is stopped for it, gracefully, and started again.
    pub async fn snapshot(&mut self) -> Snapshot {
        let running = self.process_id().is_some();
        self.stop().await;
        let directory = temporary_directory();
        copy_directory(&self.data_path(), &directory.path().join("data")).await;
        if running {
            self.restart().await;
        }
        Snapshot { directory }
    }

    /// Puts an older copy of the data back, as an operator does from a backup. A running server is killed for it and
    /// started again.
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        let running = self.process_id().is_some();
        self.kill();
        let data = self.data_path();
        fs::remove_dir_all(&data)
            .unwrap_or_else(|error| panic!("cannot remove {}: {error}", data.display()));
        copy_directory(&snapshot.directory.path().join("data"), &data).await;
        if running {
            self.restart().await;
        }
    }

    /// Starts the process and waits until it answers; fails with its log when it ends instead.
    async fn launch(&mut self) -> Result<(), String> {
        let installation = Installation::get().await;
        let data = self.data_path();
        for stale in ["mysql.sock", "mysql.sock.lock"] {
            // A killed MySQL leaves them behind, and refuses to start beside them; mostly they are not there.
            drop(fs::remove_file(data.join(stale)));
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log =
            log.unwrap_or_else(|error| panic!("cannot open the log of {:?}: {error}", self.engine));
        let (engine, port) = (self.engine, self.port);
        let own = self.own_mut();
        let mut command = engine.command(installation, &data, port, own.options.durability);
        command
            .args(&own.options.arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::from(clone(&log)))
            .stdout(log);
        own.process = Some(own.guard.spawn(&mut command));
        self.ready(&data).await
    }

    async fn ready(&mut self, data: &Path) -> Result<(), String> {
        let deadline = Instant::now() + READY_BOUND;
        let is_guarded = self
            .own()
            .options
            .arguments
            .iter()
            .any(|own| own == "--auth");
        loop {
            let ready = self.engine.is_ready(data, self.port, is_guarded);
            let answer = match timeout(QUESTION_BOUND, ready).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => "not ready yet".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let ended = self
                .own_mut()
                .process
                .as_mut()
                .is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                self.kill();
                let what = if ended {
                    "ended before it was ready"
                } else {
                    "was not ready in time"
                };
                return Err(format!(
                    "{:?} {what} ({answer}); its log:\n{}",
                    self.engine,
                    self.log()
                ));
            }
            sleep(POLL).await;
        }
    }

    fn signal(&self, signal: Signal) {
        match &self.own().process {
            Some(process) => signal.send_to(process),
            None => panic!("{:?} does not run", self.engine),
        }
    }

    fn data_path(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("log")
    }

    fn own(&self) -> &Own {
        self.own
            .as_ref()
            .unwrap_or_else(|| panic!("{} was started by somebody else", self.url))
    }

    fn own_mut(&mut self) -> &mut Own {
        self.own
            .as_mut()
            .unwrap_or_else(|| panic!("{} was started by somebody else", self.url))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            self.guard.kill(&mut process);
        }
    }
}

/// A temporary directory by its real path, as the servers will name it.
fn temporary_directory() -> TempDir {
    let parent = std::env::temp_dir();
    let parent = parent.canonicalize().unwrap_or(parent);
    tempfile::Builder::new()
        .prefix("tidelog-")
        .tempdir_in(&parent)
        .unwrap_or_else(|error| panic!("cannot make a directory in {}: {error}", parent.display()))
}

fn clone(file: &fs::File) -> fs::File {
    file.try_clone()
        .unwrap_or_else(|error| panic!("cannot open a log twice: {error}"))
}
