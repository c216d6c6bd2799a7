-- The local state of one running mailfail2ban: what must survive a restart, a crash and an outage of the database.
-- Times are milliseconds since 1970, in UTC, as the clock of this machine says; when the clock is set, those of bans are
-- moved. Those of lists and audit are for people, and stay.

-- Names of nodes, because a million bans should not repeat them.
CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- One row for each ban: of this node, and those that it learned from other nodes. The newest row of a client tells
-- how many offences are remembered of it.
CREATE TABLE bans (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL REFERENCES nodes (id),
    -- Which start of that node, and the number of the decision in it.
    run INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    ip_address TEXT NOT NULL,
    pattern TEXT NOT NULL,
    severity INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    offences INTEGER NOT NULL,
    -- What an operator gave as the reason, and who it was.
    reason TEXT,
    created_by TEXT,
    banned_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    lifted_at INTEGER,
    lifted_reason TEXT,
    lifted_by TEXT,
    -- Counts up with what this node has to tell the others; NULL when there is nothing to tell.
    change INTEGER,
    UNIQUE (node, run, serial)
);
CREATE INDEX bans_by_address ON bans (ip_address);
CREATE INDEX bans_by_time ON bans (banned_at);
CREATE INDEX bans_to_tell ON bans (change) WHERE change IS NOT NULL;

-- The last good copy of the shared database: rows of patterns and ban_config as JSON objects, in their order.
CREATE TABLE copy_rows (
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    columns TEXT NOT NULL,
    PRIMARY KEY (name, position)
) WITHOUT ROWID;

-- And its lists.
CREATE TABLE copy_lists (
    name TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    PRIMARY KEY (name, ip_address)
) WITHOUT ROWID;

-- What operators put on the whitelist and the blacklist of this node alone: addresses and networks as this program writes
-- them. They count beside those of the file and of the shared database.
CREATE TABLE lists (
    -- The newest has the highest.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    reason TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (name, ip_address)
);
-- A page is a range of it: ids come with every index.
CREATE INDEX lists_by_name ON lists (name);

-- What operators did on this node: who, through which door, what, to whom, and what came of it. The newest are kept.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Which entry it is in all databases: this node's name then, its run, the entry's number in that run.
    node TEXT NOT NULL,
    run INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    channel TEXT NOT NULL,
    peer TEXT,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE (node, run, serial)
);

-- Single values: the name of this node, how often it was started, how clocks are tied, how far the others were told.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
