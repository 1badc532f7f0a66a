//! The program's processes.
//!
//! A process runs this very test binary, at the test [`the_program`], which is the program when the environment says so: so it is
//! built together with what it is needed for.

use std::collections::BTreeMap;
use std::io::Write;

use tidelog::settings::{Layers, Settings};
use tidelog_domain::causes;
use tidelog_test_support::{Process, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::domain::app;
use crate::client::Client;

/// Where the reaction writes what it sees. Without it the test below is none.
pub(super) const SEEN: &str = "TIDELOG_CHAOS_SEEN";

/// What the program prints when it is ready.
const READY: &str = "the program is ready: ";

#[test]
#[ignore = "it is the program that the tests beside it run, as processes"]
fn the_program() {
    let Ok(seen) = std::env::var(SEEN) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("TIDELOG_LOG").unwrap_or_default())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&seen));
}

async fn run(seen: &str) {
    let layers = Layers::gather(&BTreeMap::new(), |name| std::env::var(name).ok(), None).unwrap();
    let settings = Settings::from_layers(&layers).unwrap();
    let mut term = signal(SignalKind::terminate()).unwrap();
    let running = match app(seen).start(settings).await {
        Ok(running) => running,
        Err(error) => panic!("the program cannot start: {}", causes(&error)),
    };
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{READY}{}",
        running.command_addr().unwrap_or("no commands")
    )
    .unwrap();
    tokio::select! {
        _ = term.recv() => {}
        () = running.broken() => panic!("a task of the program has panicked"),
    }
    assert!(running.stop().await, "not all was finished in time");
}

/// One process of the program. It is killed when this is dropped.
pub(crate) struct Program {
    process: Process,
}

impl Program {
    /// Starts a process with these variables in its environment.
    pub(super) fn launch(variables: &[(&str, &str)]) -> Self {
        let this = std::env::current_exe().unwrap();
        let test = concat!(module_path!(), "::the_program");
        let test = test.split_once("::").unwrap().1;
        let mut command = Process::command(this);
        command.args([
            "--ignored",
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
        ]);
        command.envs(variables.iter().copied());
        Self {
            process: Process::start(command),
        }
    }

    /// Waits until it is ready, and gives a client of its command service, if it has one.
    pub(crate) async fn ready(&self) -> Client {
        let line = self.process.wait_for_line(READY).await;
        Client::new(line.split_once(READY).unwrap().1)
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(mut self) {
        self.assert_runs();
        self.process.kill();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has ended, after it was asked to.
    pub(crate) async fn ended(mut self) {
        let status = self.process.wait().await;
        assert!(status.success(), "{status}:\n{}", self.output());
    }

    /// Checks that it has not ended by itself.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.process.try_wait() {
            panic!("a process ended by itself ({status}):\n{}", self.output());
        }
    }

    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}
