//! Where the three databases differ in SQL. Everything is read as text, so that no value of a type that nobody expected
//! stops the reading of all others.

use crate::config::DatabaseDriver;

/// Which SQL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

impl From<DatabaseDriver> for Dialect {
    fn from(driver: DatabaseDriver) -> Dialect {
        match driver {
            DatabaseDriver::Sqlite3 => Dialect::Sqlite,
            DatabaseDriver::Postgres => Dialect::Postgres,
            DatabaseDriver::Mysql => Dialect::MySql,
        }
    }
}

impl Dialect {
    /// A statement written with `?` for its values, as this database wants it. No text in it has a question mark.
    pub fn statement(self, sql: &str) -> String {
        if self != Dialect::Postgres {
            return sql.to_owned();
        }
        let mut parts = sql.split('?');
        let mut statement = parts.next().unwrap_or_default().to_owned();
        for (index, part) in parts.enumerate() {
            statement.push_str(&format!("${}{part}", index + 1));
        }
        statement
    }

    /// A column or expression as text.
    pub fn text(self, expression: &str) -> String {
        match self {
            // As bytes: SQLite takes for a text what is no UTF-8, and reading that would end the reading of everything.
            Dialect::Sqlite => format!("CAST(CAST({expression} AS TEXT) AS BLOB)"),
            Dialect::Postgres => format!("CAST({expression} AS TEXT)"),
            Dialect::MySql => format!("CAST({expression} AS CHAR)"),
        }
    }

    /// What a new connection is told first: to wait for nobody's lock for long, so that reading goes on when another node
    /// hangs in the middle of writing; and to be given up when this node does.
    pub fn session(self) -> &'static [&'static str] {
        match self {
            // Readers and a writer do not wait for each other then. A database that cannot be written stays as it is.
            Dialect::Sqlite => &["PRAGMA journal_mode = WAL"],
            Dialect::Postgres => &[
                "SET lock_timeout = '2s'",
                "SET idle_in_transaction_session_timeout = '30s'",
                "SET tcp_user_timeout = '15s'",
            ],
            Dialect::MySql => &[
                "SET SESSION group_concat_max_len = 4194304",
                "SET SESSION innodb_lock_wait_timeout = 2, SESSION wait_timeout = 60",
                // Of MariaDB alone.
                "SET SESSION idle_transaction_timeout = 30",
            ],
        }
    }

    /// Begins a transaction that sees the database as it is now, whatever others do meanwhile.
    pub fn begin_snapshot(self) -> &'static [&'static str] {
        match self {
            Dialect::Sqlite => &["BEGIN"],
            Dialect::Postgres => &["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"],
            Dialect::MySql => &[
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            ],
        }
    }

    /// Begins a transaction that writes.
    pub fn begin_write(self) -> &'static str {
        match self {
            // Takes the lock now: a transaction that read first and finds that another wrote cannot go on.
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            // Whoever counts up waits for who counted before, and then sees what that was.
            Dialect::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Dialect::MySql => "START TRANSACTION",
        }
    }

    /// Whether a row is switched on. SQLite keeps whatever is written there.
    pub fn is_enabled(self) -> &'static str {
        match self {
            Dialect::Sqlite => "lower(CAST(enabled AS TEXT)) IN ('1', 't', 'true', 'y', 'yes', 'on')",
            Dialect::Postgres | Dialect::MySql => "enabled",
        }
    }

    /// Reads a piece of a list: how many rows it has, its last id, and its addresses, one a line. Takes the id after which
    /// it begins and how many rows it has at most.
    pub fn list_piece(self, table: &str) -> String {
        let address = match self {
            // An address with a line end in it would be two.
            Dialect::Sqlite => "replace(COALESCE(CAST(ip_address AS TEXT), ''), char(10), ' ')".to_owned(),
            Dialect::Postgres => "replace(COALESCE(CAST(ip_address AS TEXT), ''), chr(10), ' ')".to_owned(),
            // Not a backslash and an n, which some modes of SQL take for two characters.
            Dialect::MySql => "REPLACE(COALESCE(ip_address, ''), CHAR(10), ' ')".to_owned(),
        };
        let gathered = match self {
            Dialect::Sqlite => "CAST(group_concat(address, char(10)) AS BLOB)",
            Dialect::Postgres => "string_agg(address, chr(10))",
            Dialect::MySql => "GROUP_CONCAT(address SEPARATOR 0x0A)",
        };
        let (count, last, enabled) = (self.text("COUNT(*)"), self.text("MAX(id)"), self.is_enabled());
        self.statement(&format!(
            "SELECT {count}, {last}, {gathered} FROM (SELECT id, {address} AS address FROM {table} WHERE {enabled} AND id > ? \
             ORDER BY id LIMIT ?) AS piece"
        ))
    }

    /// Looks through the next rows of a list, newest first: the last id, and the ids and addresses of those with a text, one a
    /// line. Takes that text three times, if it is searched for, the id below which it begins, and how many rows it looks at.
    pub fn look_through(self, table: &str, search: bool) -> String {
        let line = match self {
            Dialect::Sqlite => {
                "CAST(id AS TEXT) || ' ' || replace(COALESCE(CAST(ip_address AS TEXT), ''), char(10), ' ')"
            }
            Dialect::Postgres => {
                "CAST(id AS TEXT) || ' ' || replace(COALESCE(CAST(ip_address AS TEXT), ''), chr(10), ' ')"
            }
            Dialect::MySql => "CONCAT(id, ' ', REPLACE(COALESCE(ip_address, ''), CHAR(10), ' '))",
        };
        let gathered = match self {
            Dialect::Sqlite => "CAST(group_concat(line, char(10)) AS BLOB)",
            Dialect::Postgres => "string_agg(line, chr(10))",
            Dialect::MySql => "GROUP_CONCAT(line SEPARATOR 0x0A)",
        };
        let line = match search {
            false => line.to_owned(),
            true => {
                let found = ["ip_address", "reason", "created_by"].map(|c| format!("lower({c}) LIKE ? ESCAPE '!'"));
                format!("CASE WHEN {} THEN {line} END", found.join(" OR "))
            }
        };
        let last = self.text("MIN(id)");
        self.statement(&format!(
            "SELECT {last}, {gathered} FROM (SELECT id, {line} AS line FROM {table} WHERE id < ? ORDER BY id DESC LIMIT ?) \
             AS piece"
        ))
    }

    /// A column's time of day in milliseconds since 1970, as far as the database knows it.
    pub fn millis_of(self, column: &str) -> String {
        let millis = match self {
            Dialect::Sqlite => format!("CAST(ROUND((julianday({column}) - 2440587.5) * 86400000) AS INTEGER)"),
            Dialect::Postgres => {
                format!("CASE WHEN isfinite({column}) THEN CAST(EXTRACT(EPOCH FROM {column}) * 1000 AS BIGINT) END")
            }
            Dialect::MySql => format!("CAST(UNIX_TIMESTAMP({column}) * 1000 AS SIGNED)"),
        };
        self.text(&millis)
    }

    /// The time of day that lies so many milliseconds (a value) after now, by the database's own clock.
    pub fn after_now(self) -> &'static str {
        match self {
            Dialect::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', ? / 1000.0))",
            Dialect::Postgres => "clock_timestamp() + CAST(? AS BIGINT) * INTERVAL '1 millisecond'",
            Dialect::MySql => "DATE_ADD(UTC_TIMESTAMP(3), INTERVAL ? * 1000 MICROSECOND)",
        }
    }

    /// How many milliseconds after now a column's time of day is, by the database's own clock.
    pub fn millis_from_now(self, column: &str) -> String {
        let millis = match self {
            Dialect::Sqlite => format!("CAST(ROUND((julianday({column}) - julianday('now')) * 86400000) AS INTEGER)"),
            // One row that says `infinity` would end the reading of all others.
            Dialect::Postgres => format!(
                "CASE WHEN isfinite({column}) THEN CAST(EXTRACT(EPOCH FROM {column} - clock_timestamp()) * 1000 AS BIGINT) \
                 END"
            ),
            Dialect::MySql => format!("TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), {column}) DIV 1000"),
        };
        self.text(&millis)
    }

    /// Makes the row that is inserted replace the end of the one that is there, and its place in the order.
    pub fn or_lift(self) -> &'static str {
        match self {
            Dialect::Sqlite | Dialect::Postgres => {
                " ON CONFLICT (node, run, serial) DO UPDATE SET seq = excluded.seq, lifted_at = COALESCE(bans.lifted_at, \
                 excluded.lifted_at), lifted_reason = COALESCE(bans.lifted_reason, excluded.lifted_reason), lifted_by = \
                 COALESCE(bans.lifted_by, excluded.lifted_by)"
            }
            Dialect::MySql => {
                " ON DUPLICATE KEY UPDATE seq = VALUES(seq), lifted_at = COALESCE(lifted_at, VALUES(lifted_at)), \
                 lifted_reason = COALESCE(lifted_reason, VALUES(lifted_reason)), lifted_by = COALESCE(lifted_by, \
                 VALUES(lifted_by))"
            }
        }
    }

    /// Deletes bans that ended so many milliseconds ago or earlier, and were made then or earlier; so many rows at most.
    pub fn prune(self) -> String {
        let old = match self {
            Dialect::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now', printf('-%.3f seconds', ? / 1000.0))",
            Dialect::Postgres => "clock_timestamp() - CAST(? AS BIGINT) * INTERVAL '1 millisecond'",
            Dialect::MySql => "DATE_SUB(UTC_TIMESTAMP(3), INTERVAL ? * 1000 MICROSECOND)",
        };
        let which = format!("expires_at < {old} AND banned_at < {old}");
        self.statement(&match self {
            Dialect::MySql => format!("DELETE FROM bans WHERE {which} LIMIT ?"),
            _ => format!("DELETE FROM bans WHERE id IN (SELECT id FROM bans WHERE {which} LIMIT ?)"),
        })
    }

    /// The place of a column's value where it is inserted from text.
    pub fn value_of(self, column: &str) -> &'static str {
        let kind = match column {
            "escalation_factor" => "double",
            "enabled" => "bool",
            "name" | "regex" | "description" | "program" | "examples" | "kind" | "versions" | "refused_by" => {
                return "?";
            }
            _ => "integer",
        };
        match (self, kind) {
            (Dialect::Postgres, "double") => "CAST(? AS DOUBLE PRECISION)",
            (Dialect::Postgres, "bool") => "CAST(? AS BOOLEAN)",
            (Dialect::Postgres, _) => "CAST(? AS INTEGER)",
            (Dialect::Sqlite, "double") => "CAST(? AS REAL)",
            (Dialect::Sqlite, "integer") => "CAST(? AS INTEGER)",
            (_, "bool") => "? IN ('true', '1')",
            _ => "?",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_numbers_its_values() {
        assert_eq!(Dialect::Postgres.statement("a = ? AND b > ?"), "a = $1 AND b > $2");
        assert_eq!(Dialect::MySql.statement("a = ?"), "a = ?");
    }
}
