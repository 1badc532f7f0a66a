-- The users of the log's database: run once by an administrator of MySQL or MariaDB, before `tidelog migrate`.
--
-- Put in passwords for PASSWORD, the database for `tidelog` (with a \ before each _ of its name where a whole database is meant), and the
-- network that they come from for '%'. After the migration comes grants.sql: rights on a table can only be given where there is one.

-- Services: `serve`. Their rights are in grants.sql.
CREATE USER IF NOT EXISTS 'tidelog'@'%' IDENTIFIED BY 'PASSWORD';

-- People, and services that only answer queries: `serve --role query`. Their rights are in grants.sql.
CREATE USER IF NOT EXISTS 'tidelog_read'@'%' IDENTIFIED BY 'PASSWORD';

-- Who deploys: `tidelog migrate`, and `tidelog doctor --new-history` after a restore. It makes tables and columns, and says what the log
-- is. It is given no UPDATE or DELETE on events either; but who may ALTER a table is to be trusted with it.
CREATE USER IF NOT EXISTS 'tidelog_migrate'@'%' IDENTIFIED BY 'PASSWORD';
GRANT CREATE, ALTER, INDEX, SELECT, INSERT ON `tidelog`.* TO 'tidelog_migrate'@'%';
-- With CREATE, so that the right can be given before the table is there.
GRANT CREATE, UPDATE, DELETE ON `tidelog`.`log_migrations` TO 'tidelog_migrate'@'%';
GRANT CREATE, UPDATE ON `tidelog`.`log_meta` TO 'tidelog_migrate'@'%';
GRANT CREATE, UPDATE ON `tidelog`.`log_head` TO 'tidelog_migrate'@'%';
