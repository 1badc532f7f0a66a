//! How started processes end: by a signal, or with the test process.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A process that is asked to end is given this long; one that needs more has hung.
const END_BOUND: Duration = Duration::from_secs(120);

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// What a [`Guard`] runs: it keeps the last line that it was sent, and when its input ends, because the test process
/// closed it or is no more, it kills the process of that number and removes the directory.
const GUARD: &str = r#"
process=
while read -r line; do process=$line; done
[ -z "$process" ] || kill -KILL "$process"
tries=0
until [ -z "$1" ] || rm -rf -- "$1" || [ "$tries" -ge 100 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

/// A signal that a test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks the process to end.
    Term,
    /// Interrupts it, as Ctrl-C does.
    Int,
    /// Stops it where it is, until [`Signal::Cont`]: its connections stay open and silent.
    Stop,
    /// Lets it go on.
    Cont,
}

impl Signal {
    /// Sends this signal to a child that has not been waited for, so that its number cannot be another's.
    pub(crate) fn send_to(self, child: &Child) {
        let name = match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        };
        let sent = Command::new("sh")
            .args([
                "-c",
                r#"kill -s "$1" "$2""#,
                "sh",
                name,
                &child.id().to_string(),
            ])
            .status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "SIG{name} could not be sent to process {}",
            child.id()
        );
    }
}

/// Sees to it that a child, and a directory, do not outlive the test process.
///
/// It is a small process of its own, which notices the end of its input; so it works after a SIGKILL too, and needs
/// nothing from the kernel that depends on which *thread* started the child.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
}

impl Guard {
    /// Starts a guard that will remove `directory`.
    pub(crate) fn new(directory: Option<&Path>) -> Self {
        let process = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal is for the tests; the guard cleans up after them.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start the guard `sh`: {error}"));
        Self { process }
    }

    /// Starts `command` in a process group of its own and guards it, in place of what was guarded before.
    pub(crate) fn spawn(&mut self, command: &mut Command) -> Child {
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        self.tell(&child.id().to_string());
        child
    }

    /// Kills `child`, waits for it, and guards it no longer.
    pub(crate) fn kill(&mut self, child: &mut Child) -> ExitStatus {
        // It fails only for a child that has been waited for already.
        drop(child.kill());
        let status = child
            .wait()
            .unwrap_or_else(|error| panic!("cannot wait for process {}: {error}", child.id()));
        self.tell("");
        status
    }

    /// Waits until `child` has ended by itself, and guards it no longer. Panics when it takes longer than two minutes.
    pub(crate) async fn wait(&mut self, child: &mut Child) -> ExitStatus {
        let ended = tokio::time::timeout(END_BOUND, async {
            loop {
                match child.try_wait() {
                    Ok(Some(status)) => return status,
                    Ok(None) => tokio::time::sleep(POLL).await,
                    Err(error) => panic!("cannot wait for process {}: {error}", child.id()),
                }
            }
        });
        let status = ended
            .await
            .unwrap_or_else(|_| panic!("process did not end within {END_BOUND:?}"));
        self.tell("");
        status
    }

    fn tell(&mut self, line: &str) {
        let told = self
            .process
            .stdin
            .as_mut()
            .map(|input| writeln!(input, "{line}"));
        assert!(
            matches!(told, Some(Ok(()))),
            "the guard has ended before the test"
        );
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}
