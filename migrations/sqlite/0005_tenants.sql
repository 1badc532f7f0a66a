-- The name of a stream may begin with that of its tenant: `acme:post/7f3a`. Here a text has no bound, so nothing changes; the numbers stay those
-- of the other dialect.
SELECT 1;
