//! Events as they come.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tidelog_test_support::{Process, Signal};

use super::{Ground, write};
use crate::waiting::eventually;

/// The streams of the events that were shown so far.
fn seen(process: &Process) -> Vec<String> {
    let lines = process.stdout();
    let event = |line: &String| -> Value { serde_json::from_str(line).unwrap() };
    let events = lines.iter().map(event);
    events
        .map(|event| event["subject"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn events_are_followed_as_they_come_until_ctrl_c() {
    for ground in Ground::both().await {
        let commands = &ground.site.commands;
        write(commands, "before", "A", "c").await;
        let command = ground.command(&["events", "--follow", "--json", "--type", "post.created"]);
        let (mut process, _home) = command.start();
        // It has begun when it shows something.
        let written = AtomicUsize::new(0);
        eventually("the first event to be shown", async || {
            let number = written.fetch_add(1, Ordering::Relaxed);
            write(commands, &format!("first-{number}"), "A", "c").await;
            match seen(&process).is_empty() {
                false => Ok(()),
                true => Err(process.output()),
            }
        })
        .await;
        for number in 0..20 {
            write(commands, &format!("then-{number}"), "A", "c").await;
        }
        eventually("all events to be shown", async || {
            let seen = seen(&process);
            let all = (0..20).all(|number| seen.contains(&format!("post/then-{number}")));
            all.then_some(()).ok_or_else(|| process.output())
        })
        .await;
        process.signal(Signal::Int);
        assert_eq!(process.wait().await.code(), Some(0), "{}", process.output());
        let seen = seen(&process);
        let each: BTreeSet<_> = seen.iter().collect();
        assert_eq!(each.len(), seen.len(), "one came twice: {seen:?}");
        assert!(
            !seen.iter().any(|stream| stream == "post/before"),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn a_follower_of_a_dev_that_is_started_again_goes_on() {
    let mut ground = Ground::dev().await;
    let commands = ground.site.commands.clone();
    write(&commands, "old", "A", "c").await;
    let command = ground.command(&["events", "--follow", "--json", "--since", "1h"]);
    let (mut process, _home) = command.start();
    let shows = async |process: &Process, stream: &str| {
        eventually("the event to be shown", async || {
            let is_there = seen(process).iter().any(|own| own == stream);
            is_there.then_some(()).ok_or_else(|| process.output())
        })
        .await;
    };
    shows(&process, "post/old").await;
    ground.site.services[0].stop(Signal::Term).await;
    eventually("it to say so", async || {
        let mut lines = process.stderr().into_iter();
        let told = lines.any(|line| line.contains("trying again"));
        told.then_some(()).ok_or_else(|| process.output())
    })
    .await;
    ground.site.services[0].restart().await;
    write(&commands, "new", "A", "c").await;
    shows(&process, "post/new").await;
    process.signal(Signal::Int);
    assert_eq!(process.wait().await.code(), Some(0));
    assert_eq!(seen(&process), ["post/old", "post/new"]);
}
