//! The feed: the log of a program over HTTP, for other programs that follow its events.
//!
//! `command` serves it; here are its cursor, and the log reader that follows it (the feature `feed-client`).

mod address;
mod cursor;
#[cfg(feature = "feed-client")]
mod reader;

pub use address::{FeedUrl, InvalidFeedUrl};
pub use cursor::FeedCursor;
#[cfg(feature = "feed-client")]
pub use reader::{FeedAccess, FeedLogReader};
