//! A program under test is seen, signalled and ended.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

use std::os::unix::process::ExitStatusExt;

use tidelog_test_support::{Process, Signal, free_port, unique_name};

fn shell(script: &str) -> Process {
    let mut command = Process::command("sh");
    command.args(["-c", script]);
    Process::start(command)
}

#[tokio::test]
async fn the_lines_of_both_streams_are_captured_with_the_exit_status() {
    let mut process = shell("echo one; echo two >&2; printf three; exit 7");
    assert_eq!(process.wait_for_line("wo").await, "two");
    assert_eq!(process.wait().await.code(), Some(7));
    assert_eq!(process.stdout(), ["one", "three"]);
    assert_eq!(process.stderr(), ["two"]);
}

#[tokio::test]
async fn a_line_that_never_comes_fails_with_the_whole_output() {
    let waiting = tokio::spawn(async { shell("echo something else").wait_for_line("ready").await });
    let message = waiting
        .await
        .unwrap_err()
        .into_panic()
        .downcast::<String>()
        .unwrap();
    assert!(message.contains("something else"), "{message}");
}

#[tokio::test]
async fn a_program_gets_signals_and_can_be_killed_while_stopped() {
    let mut polite =
        shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    polite.wait_for_line("ready").await;
    polite.signal(Signal::Stop);
    polite.signal(Signal::Cont);
    polite.signal(Signal::Term);
    assert!(polite.wait().await.success());
    assert_eq!(polite.stdout(), ["ready", "bye"]);

    let mut stopped = shell("echo ready; exec sleep 3600");
    stopped.wait_for_line("ready").await;
    assert_eq!(stopped.try_wait(), None);
    stopped.signal(Signal::Stop);
    assert_eq!(stopped.kill().signal(), Some(9));
}

#[tokio::test]
async fn a_program_sees_none_of_the_settings_of_the_test_process() {
    let mut process = shell("env");
    process.wait().await;
    let names: Vec<_> = process
        .stdout()
        .iter()
        .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
        .collect();
    assert!(names.contains(&"PATH".to_owned()));
    assert!(
        !names.iter().any(|name| name.starts_with("CARGO")),
        "{names:?}"
    );
}

#[test]
fn ports_and_names_are_not_given_twice() {
    assert_ne!(free_port(), free_port());
    let name = unique_name();
    assert_ne!(name, unique_name());
    assert!(
        name.len() <= 40
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    );
}
