-- Snapshots. A statement here must be safe to run again (MySQL commits each one by itself, so that a migration may be cut
-- off in the middle), and a released file is never edited.

-- States of streams, so that the events before them need not be read. A cache: it may be emptied at any time.
CREATE TABLE IF NOT EXISTS snapshots (
    stream      VARBINARY(200)  NOT NULL,
    version     BIGINT UNSIGNED NOT NULL COMMENT 'of the last event in the state',
    event_id    BINARY(16)      NOT NULL COMMENT 'of that event, a UUID: the snapshot counts only while the log has it',
    history     BINARY(16)      NOT NULL COMMENT 'of the log when it was taken: it counts in no other',
    fingerprint VARBINARY(64)   NOT NULL COMMENT 'of what the state depends on: with another one it is old',
    state       MEDIUMBLOB      NOT NULL COMMENT 'JSON',
    PRIMARY KEY (stream)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
