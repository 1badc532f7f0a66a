-- Snapshots. A statement here must be safe to run again, and a released file is never edited.

-- States of streams, so that the events before them need not be read. A cache: it may be emptied at any time.
CREATE TABLE IF NOT EXISTS snapshots (
    stream      TEXT    NOT NULL PRIMARY KEY,
    version     INTEGER NOT NULL, -- of the last event in the state
    event_id    BLOB    NOT NULL, -- of that event, a UUID: the snapshot counts only while the log has it
    history     BLOB    NOT NULL, -- of the log when it was taken: it counts in no other
    fingerprint TEXT    NOT NULL, -- of what the state depends on: with another one it is old
    state       BLOB    NOT NULL  -- JSON
) STRICT;
