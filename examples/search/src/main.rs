//! A notebook whose pages are found by their words.
//!
//! ```text
//! cargo run --manifest-path examples/search/Cargo.toml -- dev
//! curl localhost:3000/note -d '{"title": "Shopping", "text": "milk and honey"}' -H 'content-type: application/json'
//! curl 'localhost:3001/search?q=honey'
//! curl localhost:3001/pages
//! curl -X POST localhost:9000/admin/api/views/page/replay
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use tidelog_search::{TantivyReadStore, notebook};

/// Where the index is, unless `NOTEBOOK_INDEX` says otherwise.
const DIRECTORY: &str = "tidelog-data/index";

fn main() -> ExitCode {
    let directory = std::env::var("NOTEBOOK_INDEX").unwrap_or_else(|_| DIRECTORY.to_owned());
    notebook(Arc::new(TantivyReadStore::at(directory))).run()
}
