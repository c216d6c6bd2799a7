-- Tables of mailfail2ban in SQLite. The program runs this file itself, once, in one transaction.
--
--   patterns, ban_config, blacklist, whitelist   yours: change them with sqlite3, and the program follows
--   bans                                         written by the program: who was banned, until when
--   audit                                        written by the program: what operators did
--   mailfail2ban_versions                        how often each table has changed, for the program to see that it has
--   mailfail2ban_meta                            what the program must remember about this database
--
-- Times are UTC: YYYY-MM-DD HH:MM:SS, in bans and audit with milliseconds.
--
-- A faulty row is not refused here: the program leaves it out, says which one it is, and works with the others.

-- What a failed login looks like in the log.
CREATE TABLE patterns (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    regex       TEXT NOT NULL,
    -- The group of the regex that catches the address of the client.
    ip_group    INTEGER DEFAULT 1,
    -- 1 to 6.
    severity    INTEGER NOT NULL DEFAULT 1,
    description TEXT,
    enabled     BOOLEAN NOT NULL DEFAULT TRUE,
    created_at  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at  TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- Names of the programs whose messages are looked at, separated by commas. None: all of them.
    program     TEXT,
    -- How many failures one match counts.
    weight      INTEGER NOT NULL DEFAULT 1,
    -- Messages that it must match, one a line.
    examples    TEXT
);

-- When a client is banned, and for how long. The row with the name default is the one in use.
CREATE TABLE ban_config (
    id                       INTEGER PRIMARY KEY,
    name                     TEXT NOT NULL UNIQUE,
    initial_ban_time_seconds INTEGER NOT NULL DEFAULT 300,
    max_ban_time_seconds     INTEGER NOT NULL DEFAULT 86400,
    escalation_factor        REAL NOT NULL DEFAULT 2.0,
    max_attempts             INTEGER NOT NULL DEFAULT 5,
    time_window_seconds      INTEGER NOT NULL DEFAULT 600,
    cleanup_interval_seconds INTEGER NOT NULL DEFAULT 60,
    max_memory_ttl_seconds   INTEGER NOT NULL DEFAULT 259200,
    enabled                  BOOLEAN NOT NULL DEFAULT TRUE,
    created_at               TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at               TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Addresses and networks that are denied for good.
CREATE TABLE blacklist (
    id         INTEGER PRIMARY KEY,
    ip_address TEXT NOT NULL UNIQUE,
    reason     TEXT,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_by TEXT NOT NULL DEFAULT 'system',
    enabled    BOOLEAN NOT NULL DEFAULT TRUE,
    updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Addresses and networks that are never counted and never denied.
CREATE TABLE whitelist (
    id         INTEGER PRIMARY KEY,
    ip_address TEXT NOT NULL UNIQUE,
    reason     TEXT,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_by TEXT NOT NULL DEFAULT 'system',
    enabled    BOOLEAN NOT NULL DEFAULT TRUE,
    updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Decisions, of all nodes. Only the program writes here.
CREATE TABLE bans (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Rises with every row that is written or changed, over all nodes.
    seq           INTEGER NOT NULL,
    -- Who decided, in which of its runs, and as which decision of that run.
    node          TEXT NOT NULL,
    run           INTEGER NOT NULL,
    serial        INTEGER NOT NULL,
    ip_address    TEXT NOT NULL,
    pattern       TEXT NOT NULL,
    severity      INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    offences      INTEGER NOT NULL,
    -- What an operator gave as the reason, and who it was.
    reason        TEXT,
    created_by    TEXT,
    banned_at     TEXT NOT NULL,
    expires_at    TEXT NOT NULL,
    lifted_at     TEXT,
    lifted_reason TEXT,
    lifted_by     TEXT,
    UNIQUE (node, run, serial)
);
CREATE INDEX bans_seq ON bans (seq);
CREATE INDEX bans_ip_address ON bans (ip_address);
CREATE INDEX bans_expires_at ON bans (expires_at);

-- What operators did, on all nodes. Only the program writes here.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    -- On which node, in which of its runs, and as which entry of that run.
    node    TEXT NOT NULL,
    run     INTEGER NOT NULL,
    serial  INTEGER NOT NULL,
    at      TEXT NOT NULL,
    -- Who, through which door (api, socket), and from which address.
    who     TEXT NOT NULL,
    channel TEXT NOT NULL,
    peer    TEXT,
    -- What, to whom, and what came of it.
    action  TEXT NOT NULL,
    target  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE (node, run, serial)
);

CREATE TABLE mailfail2ban_versions (
    name    TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL DEFAULT 0
);
INSERT INTO mailfail2ban_versions (name)
VALUES ('patterns'), ('ban_config'), ('blacklist'), ('whitelist'), ('bans');

CREATE TABLE mailfail2ban_meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- Count changes. A row whose updated_at is set by the triggers below counts twice, which does no harm.
CREATE TRIGGER mailfail2ban_patterns_insert AFTER INSERT ON patterns
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'patterns';
END;

CREATE TRIGGER mailfail2ban_patterns_update AFTER UPDATE ON patterns
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'patterns';
END;

CREATE TRIGGER mailfail2ban_patterns_delete AFTER DELETE ON patterns
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'patterns';
END;

CREATE TRIGGER mailfail2ban_ban_config_insert AFTER INSERT ON ban_config
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'ban_config';
END;

CREATE TRIGGER mailfail2ban_ban_config_update AFTER UPDATE ON ban_config
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'ban_config';
END;

CREATE TRIGGER mailfail2ban_ban_config_delete AFTER DELETE ON ban_config
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'ban_config';
END;

CREATE TRIGGER mailfail2ban_blacklist_insert AFTER INSERT ON blacklist
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'blacklist';
END;

CREATE TRIGGER mailfail2ban_blacklist_update AFTER UPDATE ON blacklist
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'blacklist';
END;

CREATE TRIGGER mailfail2ban_blacklist_delete AFTER DELETE ON blacklist
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'blacklist';
END;

CREATE TRIGGER mailfail2ban_whitelist_insert AFTER INSERT ON whitelist
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'whitelist';
END;

CREATE TRIGGER mailfail2ban_whitelist_update AFTER UPDATE ON whitelist
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'whitelist';
END;

CREATE TRIGGER mailfail2ban_whitelist_delete AFTER DELETE ON whitelist
BEGIN
    UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'whitelist';
END;

-- An update that says nothing about updated_at means now. The second condition ends the recursion where somebody has
-- switched it on (PRAGMA recursive_triggers).
CREATE TRIGGER mailfail2ban_patterns_touch AFTER UPDATE ON patterns
WHEN NEW.updated_at IS OLD.updated_at AND NEW.updated_at IS NOT CURRENT_TIMESTAMP
BEGIN
    UPDATE patterns SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id;
END;

CREATE TRIGGER mailfail2ban_ban_config_touch AFTER UPDATE ON ban_config
WHEN NEW.updated_at IS OLD.updated_at AND NEW.updated_at IS NOT CURRENT_TIMESTAMP
BEGIN
    UPDATE ban_config SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id;
END;

CREATE TRIGGER mailfail2ban_blacklist_touch AFTER UPDATE ON blacklist
WHEN NEW.updated_at IS OLD.updated_at AND NEW.updated_at IS NOT CURRENT_TIMESTAMP
BEGIN
    UPDATE blacklist SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id;
END;

CREATE TRIGGER mailfail2ban_whitelist_touch AFTER UPDATE ON whitelist
WHEN NEW.updated_at IS OLD.updated_at AND NEW.updated_at IS NOT CURRENT_TIMESTAMP
BEGIN
    UPDATE whitelist SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id;
END;
