-- Count changes of the tables that people write to, in MySQL and MariaDB. The program runs this file itself. All of it
-- can be run again.
--
-- Whoever changes a table holds the lock of its row in mailfail2ban_versions from then until the transaction ends, so
-- the order of versions is the order of commits. TRUNCATE fires no trigger, so use DELETE.
--
-- A server that writes a binary log, as MySQL 8.0 does unless told otherwise, lets only administrators create triggers
-- unless log_bin_trust_function_creators is on.

DROP TRIGGER IF EXISTS mailfail2ban_patterns_insert;
CREATE TRIGGER mailfail2ban_patterns_insert AFTER INSERT ON patterns FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'patterns';

DROP TRIGGER IF EXISTS mailfail2ban_patterns_update;
CREATE TRIGGER mailfail2ban_patterns_update AFTER UPDATE ON patterns FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'patterns';

DROP TRIGGER IF EXISTS mailfail2ban_patterns_delete;
CREATE TRIGGER mailfail2ban_patterns_delete AFTER DELETE ON patterns FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'patterns';

DROP TRIGGER IF EXISTS mailfail2ban_ban_config_insert;
CREATE TRIGGER mailfail2ban_ban_config_insert AFTER INSERT ON ban_config FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'ban_config';

DROP TRIGGER IF EXISTS mailfail2ban_ban_config_update;
CREATE TRIGGER mailfail2ban_ban_config_update AFTER UPDATE ON ban_config FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'ban_config';

DROP TRIGGER IF EXISTS mailfail2ban_ban_config_delete;
CREATE TRIGGER mailfail2ban_ban_config_delete AFTER DELETE ON ban_config FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'ban_config';

DROP TRIGGER IF EXISTS mailfail2ban_blacklist_insert;
CREATE TRIGGER mailfail2ban_blacklist_insert AFTER INSERT ON blacklist FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'blacklist';

DROP TRIGGER IF EXISTS mailfail2ban_blacklist_update;
CREATE TRIGGER mailfail2ban_blacklist_update AFTER UPDATE ON blacklist FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'blacklist';

DROP TRIGGER IF EXISTS mailfail2ban_blacklist_delete;
CREATE TRIGGER mailfail2ban_blacklist_delete AFTER DELETE ON blacklist FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'blacklist';

DROP TRIGGER IF EXISTS mailfail2ban_whitelist_insert;
CREATE TRIGGER mailfail2ban_whitelist_insert AFTER INSERT ON whitelist FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'whitelist';

DROP TRIGGER IF EXISTS mailfail2ban_whitelist_update;
CREATE TRIGGER mailfail2ban_whitelist_update AFTER UPDATE ON whitelist FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'whitelist';

DROP TRIGGER IF EXISTS mailfail2ban_whitelist_delete;
CREATE TRIGGER mailfail2ban_whitelist_delete AFTER DELETE ON whitelist FOR EACH ROW
UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'whitelist';
