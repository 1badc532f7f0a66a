//! tidelog's write side: the event store and its adapters, group commit, command handling, HTTP.
