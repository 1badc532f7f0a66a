//! What shells complete.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::services::CommandLine;

/// Gives `script` to a bash, and what that prints.
fn bash(arguments: &[&str], script: &str) -> String {
    let mut bash = Command::new("bash");
    let bash = bash
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut bash = bash.spawn().expect("bash");
    let mut stdin = bash.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    let output = bash.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn bash_completes_commands_and_flags() {
    // Settings that are wrong are no concern of it.
    let wrong = [("TIDELOG_PARTITIONS", "none")];
    let script = CommandLine::new(&["completions", "bash"])
        .with(wrong)
        .run()
        .await;
    let script = script.succeeded().stdout;
    bash(&["-n"], &script);
    let complete = |words: &str, at: usize| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={at}\n_tidelog tidelog \"${{COMP_WORDS[{at}]}}\" \"\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        bash(&[], &ask)
    };
    assert_eq!(complete("tidelog eve", 1).trim(), "events");
    let flags = complete("tidelog events --foll", 2);
    assert!(flags.lines().any(|flag| flag == "--follow"), "{flags}");
}

#[tokio::test]
async fn other_shells_have_theirs() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = CommandLine::new(&["completions", shell])
            .run()
            .await
            .succeeded();
        assert!(script.stdout.contains("subscriptions"), "{shell}");
    }
    let refused = CommandLine::new(&["completions", "cmd"]).run().await;
    assert_eq!(refused.code, Some(2), "{}", refused.output);
}
