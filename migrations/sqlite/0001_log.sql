-- The log. A statement here must be safe to run again, and a released file is never edited.

-- What the log is: one row.
CREATE TABLE IF NOT EXISTS log_meta (
    only_row    INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    history     BLOB    NOT NULL, -- changes when positions were issued again: a restore
    partitions  INTEGER NOT NULL, -- fixed for good
    hash        TEXT    NOT NULL, -- how streams are spread over partitions; fixed for good
    created_at  INTEGER NOT NULL  -- microseconds since 1970, UTC
) STRICT;

-- Where each partition ends: locked by every append, so that positions are dense and in the order of commits.
CREATE TABLE IF NOT EXISTS log_head (
    partition_no     INTEGER NOT NULL PRIMARY KEY,
    next_position    INTEGER NOT NULL,
    last_recorded_at INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT;

-- The events. Payload and metadata are the exact bytes of their JSON.
CREATE TABLE IF NOT EXISTS events (
    partition_no   INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    stream         TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    event_id       BLOB    NOT NULL, -- a UUID
    event_type     TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    payload        BLOB    NOT NULL,
    metadata       BLOB    NOT NULL,
    recorded_at    INTEGER NOT NULL, -- microseconds since 1970, UTC: datetime(recorded_at / 1000000, 'unixepoch')
    PRIMARY KEY (partition_no, position),
    CONSTRAINT stream_version UNIQUE (stream, version)
) STRICT, WITHOUT ROWID;
