//! The administration as people use it: who may do what, the record of it, and the pages in a browser.

mod access;
mod audit;
pub(crate) mod browser;
mod faults;
mod states;

use serde_json::{Value, json};

use crate::client::{Answer, Client, must};
use reqwest::Method;

/// Who may act.
pub(crate) const ANN: &str = "ann-has-the-permission";
/// Who may read.
const WALL: &str = "wall-is-a-screen-0000";

/// What a process is told of them.
pub(crate) fn tokens() -> String {
    format!("ann:operate:{ANN},wall:read:{WALL}")
}

/// Each action: where it is POSTed, and with what body.
fn actions() -> [(&'static str, Value); 7] {
    [
        (
            "/admin/api/subscriptions/post/pause",
            json!({"reason": "a move"}),
        ),
        ("/admin/api/subscriptions/post/resume", json!({})),
        ("/admin/api/parked/post/retry", json!({"all": true})),
        (
            "/admin/api/parked/post/skip",
            json!({"sequence": "nobody", "reason": "a test"}),
        ),
        ("/admin/api/views/post/replay", json!({"compare": "full"})),
        ("/admin/api/views/post/rollback", json!({})),
        ("/admin/api/views/post/clean", json!({})),
    ]
}

/// POSTs `body`, with these headers.
async fn post(admin: &Client, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut request = admin.request(Method::POST, path).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    must(request).await
}

/// GETs, with these headers.
async fn get(admin: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = admin.request(Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    must(request).await
}

/// The header of a token.
pub(crate) fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

/// The record, newest first.
pub(crate) async fn record(admin: &Client, headers: &[(&str, &str)]) -> Vec<Value> {
    let page = get(admin, "/admin/api/audit?limit=200", headers)
        .await
        .data(200);
    page.as_array().unwrap().clone()
}
