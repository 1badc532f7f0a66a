-- What services may do in the log's database, and nothing else: run by an administrator of MySQL or MariaDB after each `tidelog migrate`.
-- The users are made by users.sql; put in the same names.
--
-- No statement of tidelog changes or deletes an event, and no right here lets one do so. The tests run on these rights.

-- Services: `serve`, in any role.
GRANT SELECT, INSERT ON `tidelog`.`events` TO 'tidelog'@'%';
GRANT SELECT ON `tidelog`.`log_meta` TO 'tidelog'@'%';
-- Also for the lock that orders the appends (SELECT ... FOR UPDATE).
GRANT SELECT, UPDATE ON `tidelog`.`log_head` TO 'tidelog'@'%';
-- Old keys are swept.
GRANT SELECT, INSERT, DELETE ON `tidelog`.`idempotency_keys` TO 'tidelog'@'%';
GRANT SELECT, INSERT, UPDATE ON `tidelog`.`snapshots` TO 'tidelog'@'%';
GRANT SELECT, INSERT, UPDATE ON `tidelog`.`subscriptions` TO 'tidelog'@'%';
GRANT SELECT ON `tidelog`.`log_migrations` TO 'tidelog'@'%';

-- People, and services that only answer queries: `serve --role query`, whose questions about the past read the log. (On MariaDB who may
-- read a row may lock it too, by SELECT ... FOR UPDATE, and so hold up who appends for as long as that lasts. MySQL lets nobody do so with
-- SELECT alone.)
GRANT SELECT ON `tidelog`.`events` TO 'tidelog_read'@'%';
GRANT SELECT ON `tidelog`.`log_meta` TO 'tidelog_read'@'%';
GRANT SELECT ON `tidelog`.`log_head` TO 'tidelog_read'@'%';
GRANT SELECT ON `tidelog`.`snapshots` TO 'tidelog_read'@'%';
GRANT SELECT ON `tidelog`.`subscriptions` TO 'tidelog_read'@'%';
GRANT SELECT ON `tidelog`.`log_migrations` TO 'tidelog_read'@'%';
