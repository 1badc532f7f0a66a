-- Subscriptions. A statement here must be safe to run again, and a released file is never edited.

-- How far each reaction is, who works on it, and what it has set aside: beside the log, so that they are restored together.
CREATE TABLE IF NOT EXISTS subscriptions (
    subscription TEXT    NOT NULL,
    partition_no INTEGER NOT NULL,
    revision     INTEGER NOT NULL, -- goes up by one at each change: a record changes only at the revision that was read
    record       BLOB    NOT NULL, -- JSON
    PRIMARY KEY (subscription, partition_no)
) STRICT;
