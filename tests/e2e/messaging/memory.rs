//! What a process has grown by whose sends all timed out: nothing.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tidelog::messaging::{
    HandlerError, MessageContext, MessageId, MessageOptions, Messaging, SendError,
};
use tidelog_test_support::{Engine, Process, resident_kib, unique_name};

use super::{ECHO, eventually, shared_of, stored_of};

/// Which engine the process that is looked at sends by, and what its app is called.
const ENGINE: &str = "TIDELOG_TEST_MEMORY_ENGINE";
const APP: &str = "TIDELOG_TEST_MEMORY_APP";

/// What it says of itself at the end of a round.
const RESIDENT: &str = "KiB resident after round";

/// How many sends time out in a round.
const SENDS: u32 = 10_000;

/// How many of them are under way at a time.
const AT_ONCE: usize = 500;

/// The rounds after the first two, in which allocators, buffers and maps become as large as they get.
const ROUNDS: u32 = 2;

/// How long an id is: as long as one may be, so that one that is kept is seen.
const ID_BYTES: usize = 128;

/// The most that the process may grow by in these rounds, in KiB. What waits for a reply is its id of 128 bytes, a place of 48 bytes or more in a
/// map, and a channel of more than 64: were each of 20,000 sends to leave that behind, it would be 4,600 KiB at least (and more than 20,000 with
/// its message of 1,000 bytes).
const MAX_GROWTH_KIB: u64 = 2_000;

on_each_server!(a_process_is_as_large_as_before_after_ten_thousand_sends_that_timed_out);

async fn a_process_is_as_large_as_before_after_ten_thousand_sends_that_timed_out(engine: Engine) {
    let (server, app) = (shared_of(engine).await, unique_name());
    // There is a group, and nobody of it is there.
    let messaging = Messaging::connect(server.url(), &app).unwrap();
    let worker = messaging.worker("g");
    let worker = worker.handle(&ECHO, |value, _: MessageContext| async move {
        Ok::<_, HandlerError>(value)
    });
    worker.start().await.unwrap().stop().await;

    // It has the server of this process.
    let url = match engine {
        Engine::Redis => "TIDELOG_TEST_REDIS_URL",
        _ => "TIDELOG_TEST_NATS_URL",
    };
    let mut command = Process::command(std::env::current_exe().unwrap());
    command
        .args(["--exact", "messaging::memory::the_process_that_only_sends"])
        .arg("--nocapture")
        .envs([("TIDELOG_TEST_SERVERS", "env"), (url, server.url())])
        .envs([(ENGINE, &*format!("{engine:?}")), (APP, &app)]);
    let mut process = Process::start(command);
    let (status, output) = (process.wait().await, process.output());
    assert!(status.success(), "{output}");
    assert!(
        output.contains(&format!("{RESIDENT} {}", ROUNDS + 1)),
        "{output}"
    );
}

/// Not a test by itself: the process that is looked at.
#[tokio::test]
async fn the_process_that_only_sends() {
    let variable = |name| std::env::var(name).ok();
    let (Some(engine), Some(app)) = (variable(ENGINE), variable(APP)) else {
        return;
    };
    let engine = match &*engine {
        "Redis" => Engine::Redis,
        _ => Engine::Nats,
    };
    let server = shared_of(engine).await;
    let messaging = Messaging::connect(server.url(), &app).unwrap();
    let mut sizes = Vec::new();
    for round in 0..ROUNDS + 2 {
        let sends = (0..SENDS).map(|number| times_out(&messaging, round, number));
        futures_util::stream::iter(sends)
            .buffer_unordered(AT_ONCE)
            .for_each(async |()| {})
            .await;
        eventually("all is taken back", async || {
            stored_of(server, &app, &ECHO.channel()).await == 0
        })
        .await;
        let size = resident_kib(std::process::id());
        sizes.push(size);
        eprintln!("{size} {RESIDENT} {round}");
    }
    let grown = sizes[sizes.len() - 1].saturating_sub(sizes[1]);
    assert!(grown <= MAX_GROWTH_KIB, "{grown} KiB more: {sizes:?}");
    messaging.close().await;
}

async fn times_out(messaging: &Messaging, round: u32, number: u32) {
    let id = format!("{round}-{number}-{:x<ID_BYTES$}", "");
    let options = MessageOptions::default()
        .id(MessageId::new(&id[..ID_BYTES]).unwrap())
        .timeout(Duration::from_millis(100));
    let payload = json!("x".repeat(1_000));
    let sent = messaging.send_with(&ECHO, &payload, options).await;
    assert!(matches!(sent, Err(SendError::TimedOut { .. })), "{sent:?}");
}
