-- More about patterns, in MySQL and MariaDB. The program runs this file itself. All of it can be run again: the columns
-- are added in one statement, and only where they are missing.
--
--   kind        auth, abuse or probe: what its failures are
--   versions    which versions of the program write such lines, for people
--   refused_by  who refused the logins: patterns that say the same may tell of the same ones, which count once

SET @mailfail2ban_sql = IF(
    (SELECT COUNT(*) FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'patterns' AND column_name = 'kind') = 0,
    'ALTER TABLE patterns
        ADD COLUMN kind VARCHAR(16) NOT NULL DEFAULT ''auth'',
        ADD COLUMN versions TEXT,
        ADD COLUMN refused_by TEXT',
    'DO 0'
);
PREPARE mailfail2ban_statement FROM @mailfail2ban_sql;
EXECUTE mailfail2ban_statement;
DEALLOCATE PREPARE mailfail2ban_statement;
