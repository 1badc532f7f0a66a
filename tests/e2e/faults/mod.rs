//! What breaks: servers and services that are killed, stopped, emptied or put back in the middle of writes.
//!
//! Each test kills what it has started itself. What it does not hurt, it shares.

mod answers;
mod disconnects;
mod graceful_stop;
mod heads;
mod restore;
mod servers;
mod services;
mod waiting_for_backends;

use crate::load::Load;
use crate::log::read;
use crate::services::{Backends, Site};
use crate::view::View;

/// How many writes a fault happens in the middle of.
const WRITES: usize = 500;

/// When it happens.
const MIDDLE: usize = 150;

/// How many more writes are acknowledged before what was broken is there again, where commands do not need it.
const MEANWHILE: usize = 100;

/// Waits for the rest of the writes, and checks the log and the view.
async fn nothing_is_lost(load: Load, backends: &Backends) {
    let outcome = load.finish().await;
    assert_eq!(outcome.count(), WRITES);
    outcome.assert_in(&read(&backends.database_url).await);
    View::on(backends).await.equals_the_fold("post").await;
}

/// Checks that a read with a write's token still sees the write at once.
async fn reads_see_writes(site: &Site) {
    let post =
        serde_json::json!({"id": "at-last", "title": "A", "content": "-", "author_name": "Ann"});
    let created = site.commands.post("/post", &post).await;
    created.data(201);
    site.queries
        .get_after("/post/at-last", created.token())
        .await
        .data(200);
}
