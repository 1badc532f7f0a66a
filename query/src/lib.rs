//! tidelog's read side: projecting, read stores and their adapters, replay, queries, HTTP.
