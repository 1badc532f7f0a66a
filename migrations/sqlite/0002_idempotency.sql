-- Idempotency keys. A statement here must be safe to run again, and a released file is never edited.

-- What came of the commands that brought a key: written in the transaction of their events, and swept when it is old.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    scoped_key  BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the key and its scope
    fingerprint BLOB    NOT NULL, -- SHA-256 of the request
    outcome     INTEGER NOT NULL, -- 0: nothing was changed, 1: events were appended
    streams     BLOB    NOT NULL, -- JSON: [[stream, version after the command], ...]
    recorded_at INTEGER NOT NULL  -- microseconds since 1970, UTC
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (recorded_at);
