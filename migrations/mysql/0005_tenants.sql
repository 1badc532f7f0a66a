-- The name of a stream may begin with that of its tenant: `acme:post/7f3a`, 250 bytes at most. The columns grow in place, as long as they
-- have no more than 255 bytes: nothing is written anew.
ALTER TABLE events MODIFY stream VARBINARY(255) NOT NULL;
ALTER TABLE snapshots MODIFY stream VARBINARY(255) NOT NULL;
