-- Tables of mailfail2ban in MySQL and MariaDB. The program runs this file itself.
-- What it makes is not undone when the connection is cut halfway, so all of it can be run again.
--
--   patterns, ban_config, blacklist, whitelist   yours: change them with mysql, and every node follows
--   bans                                         written by the nodes: who was banned by which of them, until when
--   audit                                        written by the nodes: what operators did on which of them
--   mailfail2ban_versions                        how often each table has changed, for nodes to see that it has
--   mailfail2ban_meta                            what the nodes must remember about this database
--
-- Times in bans and audit are UTC. Names and addresses are compared byte by byte.
--
-- A faulty row is not refused here: the program leaves it out, says which one it is, and works with the others.

-- What a failed login looks like in the log.
CREATE TABLE IF NOT EXISTS patterns (
    id          BIGINT AUTO_INCREMENT PRIMARY KEY,
    name        VARCHAR(128) NOT NULL UNIQUE,
    regex       TEXT NOT NULL,
    -- The group of the regex that catches the address of the client.
    ip_group    INTEGER DEFAULT 1,
    -- 1 to 6.
    severity    INTEGER NOT NULL DEFAULT 1,
    description TEXT,
    enabled     BOOLEAN NOT NULL DEFAULT TRUE,
    created_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    -- Names of the programs whose messages are looked at, separated by commas. None: all of them.
    program     TEXT,
    -- How many failures one match counts.
    weight      INTEGER NOT NULL DEFAULT 1,
    -- Messages that it must match, one a line.
    examples    TEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- When a client is banned, and for how long. The row with the name default is the one in use.
CREATE TABLE IF NOT EXISTS ban_config (
    id                       BIGINT AUTO_INCREMENT PRIMARY KEY,
    name                     VARCHAR(128) NOT NULL UNIQUE,
    initial_ban_time_seconds INTEGER NOT NULL DEFAULT 300,
    max_ban_time_seconds     INTEGER NOT NULL DEFAULT 86400,
    escalation_factor        DOUBLE NOT NULL DEFAULT 2.0,
    max_attempts             INTEGER NOT NULL DEFAULT 5,
    time_window_seconds      INTEGER NOT NULL DEFAULT 600,
    cleanup_interval_seconds INTEGER NOT NULL DEFAULT 60,
    max_memory_ttl_seconds   INTEGER NOT NULL DEFAULT 259200,
    enabled                  BOOLEAN NOT NULL DEFAULT TRUE,
    created_at               TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at               TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Addresses and networks that are denied for good.
CREATE TABLE IF NOT EXISTS blacklist (
    id         BIGINT AUTO_INCREMENT PRIMARY KEY,
    ip_address VARCHAR(64) NOT NULL UNIQUE,
    reason     TEXT,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_by VARCHAR(128) NOT NULL DEFAULT 'system',
    enabled    BOOLEAN NOT NULL DEFAULT TRUE,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Addresses and networks that are never counted and never denied.
CREATE TABLE IF NOT EXISTS whitelist (
    id         BIGINT AUTO_INCREMENT PRIMARY KEY,
    ip_address VARCHAR(64) NOT NULL UNIQUE,
    reason     TEXT,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_by VARCHAR(128) NOT NULL DEFAULT 'system',
    enabled    BOOLEAN NOT NULL DEFAULT TRUE,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Decisions, of all nodes. Only the program writes here.
CREATE TABLE IF NOT EXISTS bans (
    id            BIGINT AUTO_INCREMENT PRIMARY KEY,
    -- Rises with every row that is written or changed, over all nodes.
    seq           BIGINT NOT NULL,
    -- Who decided, in which of its runs, and as which decision of that run.
    node          VARCHAR(128) NOT NULL,
    run           BIGINT NOT NULL,
    serial        BIGINT NOT NULL,
    ip_address    VARCHAR(64) NOT NULL,
    pattern       VARCHAR(128) NOT NULL,
    severity      INTEGER NOT NULL,
    failures      BIGINT NOT NULL,
    offences      BIGINT NOT NULL,
    -- What an operator gave as the reason, and who it was.
    reason        TEXT,
    created_by    VARCHAR(128),
    banned_at     DATETIME(3) NOT NULL,
    expires_at    DATETIME(3) NOT NULL,
    lifted_at     DATETIME(3),
    lifted_reason VARCHAR(32),
    lifted_by     VARCHAR(128),
    UNIQUE KEY bans_decision (node, run, serial),
    KEY bans_seq (seq),
    KEY bans_ip_address (ip_address),
    KEY bans_expires_at (expires_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- What operators did, on all nodes. Only the program writes here.
CREATE TABLE IF NOT EXISTS audit (
    id      BIGINT AUTO_INCREMENT PRIMARY KEY,
    -- On which node, in which of its runs, and as which entry of that run.
    node    VARCHAR(128) NOT NULL,
    run     BIGINT NOT NULL,
    serial  BIGINT NOT NULL,
    at      DATETIME(3) NOT NULL,
    -- Who, through which door (api, socket), and from which address.
    who     VARCHAR(128) NOT NULL,
    channel VARCHAR(32) NOT NULL,
    peer    VARCHAR(128),
    -- What, to whom, and what came of it.
    action  VARCHAR(64) NOT NULL,
    target  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE KEY audit_entry (node, run, serial)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS mailfail2ban_versions (
    name    VARCHAR(32) NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT IGNORE INTO mailfail2ban_versions (name)
VALUES ('patterns'), ('ban_config'), ('blacklist'), ('whitelist'), ('bans');

CREATE TABLE IF NOT EXISTS mailfail2ban_meta (
    name  VARCHAR(64) NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;
