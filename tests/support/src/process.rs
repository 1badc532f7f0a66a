//! A program under test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::Signal;
use crate::ending::Guard;

/// A line that a program does not print by then will not come.
const LINE_BOUND: Duration = Duration::from_secs(300);

/// What a program may see of the test process's environment: where to find programs and libraries, and what to log.
const ENVIRONMENT: [&str; 6] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// A program that runs as a child of the test, with its output captured line by line.
///
/// It is killed when this value is dropped or the test process ends, however that happens.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Guard,
    captured: watch::Receiver<Captured>,
}

#[derive(Debug, Default)]
struct Captured {
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// How many of the two streams have ended.
    ended: usize,
}

impl Captured {
    fn find(&self, text: &str) -> Option<&String> {
        self.stdout
            .iter()
            .chain(&self.stderr)
            .find(|line| line.contains(text))
    }
}

impl Process {
    /// A command that runs `program` without the settings that the environment of the tests may hold.
    #[must_use]
    pub fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(
            ENVIRONMENT
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command
    }

    /// Starts `command`, with no input. Panics when there is no such program.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut guard = Guard::new(None);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = guard.spawn(&mut command);
        let (captured, receiver) = watch::channel(Captured::default());
        let captured = Arc::new(captured);
        if let Some(stdout) = child.stdout.take() {
            capture(stdout, Arc::clone(&captured), |captured| {
                &mut captured.stdout
            });
        }
        if let Some(stderr) = child.stderr.take() {
            capture(stderr, captured, |captured| &mut captured.stderr);
        }
        Self {
            child,
            guard,
            captured: receiver,
        }
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line, on standard output or standard error, that contains `text`, from the start of the program on, and
    /// returns it. Panics with the whole output when the program ends without it or five minutes pass.
    pub async fn wait_for_line(&self, text: &str) -> String {
        let mut captured = self.captured.clone();
        let found =
            captured.wait_for(|captured| captured.find(text).is_some() || captured.ended == 2);
        let line = match timeout(LINE_BOUND, found).await {
            Ok(Ok(captured)) => captured.find(text).cloned(),
            Ok(Err(_)) | Err(_) => None,
        };
        line.unwrap_or_else(|| {
            panic!(
                "process {} printed no line with {text:?}:\n{}",
                self.id(),
                self.output()
            )
        })
    }

    /// The lines printed to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.captured.borrow().stdout.clone()
    }

    /// The lines printed to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.captured.borrow().stderr.clone()
    }

    /// All that was printed so far, standard output first.
    #[must_use]
    pub fn output(&self) -> String {
        [self.stdout(), self.stderr()].concat().join("\n")
    }

    /// Sends a signal. Panics when the process has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        signal.send_to(&self.child);
    }

    /// Kills the process (SIGKILL), stopped or not, and waits until it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.guard.kill(&mut self.child)
    }

    /// How the process has ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("cannot wait for process {}: {error}", self.child.id()))
    }

    /// Waits until the process has ended by itself and its output is complete. Panics with the output when that takes
    /// longer than five minutes.
    pub async fn wait(&mut self) -> ExitStatus {
        let mut captured = self.captured.clone();
        let ended = timeout(
            LINE_BOUND,
            captured.wait_for(|captured| captured.ended == 2),
        )
        .await
        .is_ok();
        assert!(
            ended,
            "process {} did not end:\n{}",
            self.id(),
            self.output()
        );
        self.guard.wait(&mut self.child).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.guard.kill(&mut self.child);
    }
}

/// The memory that the process of this number has in use (its resident set, as `/proc` says), in KiB.
#[must_use]
pub fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.unwrap_or_else(|error| panic!("process {process}: {error}"));
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let size = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    size.unwrap_or_else(|| panic!("process {process} has no size:\n{status}"))
}

/// Reads a stream of the program, line by line, until it ends, on a thread of its own.
fn capture(
    stream: impl Read + Send + 'static,
    captured: Arc<watch::Sender<Captured>>,
    lines: fn(&mut Captured) -> &mut Vec<String>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            captured.send_modify(|captured| lines(captured).push(line));
        }
        captured.send_modify(|captured| captured.ended += 1);
    });
}
