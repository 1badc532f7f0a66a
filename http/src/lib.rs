//! What tidelog's HTTP services share: problem documents, limits, health, the server's life.
