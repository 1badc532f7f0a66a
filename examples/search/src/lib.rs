//! A notebook whose pages are found by their words: a view in a full-text index.
//!
//! The notes are in the settings' log, and the view `note` in the settings' store; the view `page` is in a [`TantivyReadStore`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests fail loudly"))]

mod collection;
mod durable;
mod index;
mod route;
mod stored;

use std::sync::Arc;

use tidelog::prelude::*;

pub use collection::SearchError;
pub use index::TantivyReadStore;

/// A note, as it was written.
#[entity]
pub struct Note {
    #[schemars(length(min = 1, max = 200))]
    title: String,
    #[schemars(length(max = 100_000))]
    text: String,
}

/// What is found of a note.
#[view]
pub struct Page {
    title: String,
    text: String,
}

impl Projection for Page {
    const SINGLE_STREAM: bool = true;

    type Event = EntityEvent<Note>;

    fn keys(e: &Recorded<Self::Event>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(_: Option<Self>, _: &str, e: &Recorded<Self::Event>) -> Option<Self> {
        e.event.after().map(|note| Page {
            title: note.title.clone(),
            text: note.text.clone(),
        })
    }
}

/// The notebook, with its pages in `index`, and `GET /search?q=…` beside its other queries.
#[must_use]
pub fn notebook(index: Arc<TantivyReadStore>) -> App {
    App::new("notebook")
        .entity::<Note>()
        .projection_into::<Page>(index.clone())
        .query_routes(route::search(index))
}
