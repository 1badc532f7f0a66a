-- The log. A statement here must be safe to run again (MySQL commits each one by itself, so that a migration may be cut
-- off in the middle), and a released file is never edited.
--
-- Names are VARBINARY: a collation would make 'Ann', 'ann' and 'Ann ' one stream. To read them:
--   SELECT partition_no, position, CONVERT(stream USING utf8mb4), version, CONVERT(event_type USING utf8mb4),
--          CONVERT(payload USING utf8mb4), recorded_at FROM events WHERE partition_no = 0 ORDER BY position LIMIT 10;

-- What the log is: one row.
CREATE TABLE IF NOT EXISTS log_meta (
    only_row    TINYINT UNSIGNED  NOT NULL,
    history     BINARY(16)        NOT NULL COMMENT 'a UUID; changes when positions were issued again: a restore, a stale replica',
    partitions  SMALLINT UNSIGNED NOT NULL COMMENT 'fixed for good',
    hash        VARBINARY(32)     NOT NULL COMMENT 'how streams are spread over partitions; fixed for good',
    created_at  DATETIME(6)       NOT NULL COMMENT 'UTC',
    PRIMARY KEY (only_row)
) ENGINE = InnoDB;

-- Where each partition ends: locked by every append, so that positions are dense and in the order of commits.
CREATE TABLE IF NOT EXISTS log_head (
    partition_no     SMALLINT UNSIGNED NOT NULL,
    next_position    BIGINT UNSIGNED   NOT NULL,
    last_recorded_at DATETIME(6)       NOT NULL COMMENT 'UTC',
    PRIMARY KEY (partition_no)
) ENGINE = InnoDB;

-- The events. Payload and metadata are the exact bytes of their JSON. No AUTO_INCREMENT: it hands out ids at the INSERT, which
-- become visible at the COMMIT, in another order.
CREATE TABLE IF NOT EXISTS events (
    partition_no   SMALLINT UNSIGNED NOT NULL,
    position       BIGINT UNSIGNED   NOT NULL,
    stream         VARBINARY(200)    NOT NULL,
    version        BIGINT UNSIGNED   NOT NULL,
    event_id       BINARY(16)        NOT NULL COMMENT 'a UUID',
    event_type     VARBINARY(128)    NOT NULL,
    schema_version INT UNSIGNED      NOT NULL,
    payload        MEDIUMBLOB        NOT NULL,
    metadata       MEDIUMBLOB        NOT NULL,
    recorded_at    DATETIME(6)       NOT NULL COMMENT 'UTC',
    PRIMARY KEY (partition_no, position),
    UNIQUE KEY stream_version (stream, version)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
