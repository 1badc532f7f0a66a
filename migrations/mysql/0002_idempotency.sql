-- Idempotency keys. A statement here must be safe to run again (MySQL commits each one by itself, so that a migration may be
-- cut off in the middle), and a released file is never edited.

-- What came of the commands that brought a key: written in the transaction of their events, and swept when it is old. Rows
-- are kept in the order of time, so that new ones come to one end and the sweep takes from the other.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    recorded_at DATETIME(6)      NOT NULL COMMENT 'UTC',
    scoped_key  BINARY(32)       NOT NULL COMMENT 'SHA-256 of the key and its scope',
    fingerprint BINARY(32)       NOT NULL COMMENT 'SHA-256 of the request',
    outcome     TINYINT UNSIGNED NOT NULL COMMENT '0: nothing was changed, 1: events were appended',
    streams     MEDIUMBLOB       NOT NULL COMMENT 'JSON: [[stream, version after the command], ...]',
    PRIMARY KEY (recorded_at, scoped_key),
    UNIQUE KEY idempotency_key (scoped_key)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
