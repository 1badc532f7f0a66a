-- Subscriptions. A statement here must be safe to run again (MySQL commits each one by itself, so that a migration may be cut
-- off in the middle), and a released file is never edited.

-- How far each reaction is, who works on it, and what it has set aside: beside the log, so that they are restored together.
CREATE TABLE IF NOT EXISTS subscriptions (
    subscription VARBINARY(200)    NOT NULL,
    partition_no SMALLINT UNSIGNED NOT NULL,
    revision     BIGINT UNSIGNED   NOT NULL COMMENT 'goes up by one at each change: a record changes only at the revision that was read',
    record       MEDIUMBLOB        NOT NULL COMMENT 'JSON',
    PRIMARY KEY (subscription, partition_no)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
