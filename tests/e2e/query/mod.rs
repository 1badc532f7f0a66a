//! The query language over HTTP, on MongoDB and on the embedded file. `docs/query.md` has it for readers.

mod compression;
mod cors;
mod examples;
mod filters;
mod history;
mod indexes;
mod injection;
mod lists;
mod live;
mod shown;
mod targets;
mod waiters;
