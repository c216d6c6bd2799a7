//! What operators order and ask of a running server: `status`, `ban`, `unban`, `list`, `explain` and the others.

use super::print;
use super::remote::{Remote, RemoteFault, who_types, with_query};
use super::table::Table;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A table for people
    #[default]
    Table,
    /// JSON, as the API gives it
    Json,
}

/// How much of a list is printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Extent {
    /// How many
    #[arg(long, default_value_t = 50, value_name = "COUNT", conflicts_with = "all", value_parser = at_least_one)]
    limit: usize,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Options of all commands for a running server.
#[derive(Args, Debug)]
pub struct Reach {
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Form::Table, global = true)]
    format: Form,
    /// The control socket; else the one in the configuration's runtime.state_dir
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Operate {
    /// Say how the running server is doing
    Status {
        #[command(flatten)]
        reach: Reach,
    },
    /// Ban addresses or networks
    Ban {
        /// Addresses and networks, such as 192.0.2.7 or 2001:db8::/48
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// For how long, such as 30m, 1h or 7d; else as long as the next step of the escalation
        #[arg(long = "for", value_name = "DURATION", conflicts_with = "permanent")]
        duration: Option<String>,
        /// For good: put it on the blacklist
        #[arg(long)]
        permanent: bool,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Also a network that is a large part of the internet
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// End bans, and remove entries from the blacklist
    Unban {
        /// Addresses and networks; of a network, all bans inside of it
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        reach: Reach,
    },
    /// List the bans in force
    List {
        /// Only bans that hold this address, or that lie inside of this network
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<String>,
        /// Only bans by this pattern
        #[arg(long, value_name = "NAME")]
        pattern: Option<String>,
        /// Only bans whose address contains this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// By what to sort
        #[arg(long, default_value = "banned_at", value_parser = ["banned_at", "expires_at", "ip_address", "offences", "severity"])]
        sort: String,
        /// In which order
        #[arg(long, default_value = "desc", value_parser = ["asc", "desc"])]
        order: String,
        #[command(flatten)]
        extent: Extent,
        #[command(flatten)]
        reach: Reach,
    },
    /// Say why an address is denied, or why it is not
    ///
    /// The exit status is 0 if it is let in, and 3 if it is denied.
    Explain {
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Addresses and networks that are never denied
    Whitelist {
        #[command(subcommand)]
        change: ListCommand,
    },
    /// Addresses and networks that are denied for good
    Blacklist {
        #[command(subcommand)]
        change: ListCommand,
    },
    /// End all temporary bans
    Purge {
        /// Yes, all of them
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Have the server read its configuration again, and say what is wrong with it
    Reload {
        #[command(flatten)]
        reach: Reach,
    },
    /// Print what happens, as it happens
    Events {
        #[command(flatten)]
        reach: Reach,
    },
    /// Say who changed what
    Audit {
        /// Only changes that contain this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        #[command(flatten)]
        extent: Extent,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Subcommand, Debug)]
pub enum ListCommand {
    /// Print the entries
    List {
        /// Only entries that contain this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        #[command(flatten)]
        extent: Extent,
        #[command(flatten)]
        reach: Reach,
    },
    /// Add entries
    Add {
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Also a network that is a large part of the internet
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove entries
    Remove {
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        #[command(flatten)]
        reach: Reach,
    },
}

/// The client that was asked about is denied.
pub const EXIT_DENIED: u8 = 3;

/// Entries on one page of a list that is asked for as a whole.
const PAGE: usize = 1_000;

impl Operate {
    /// Does it. Returns the exit status.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or refuses. Of several addresses the others are done all the same.
    pub fn run(self, config: Option<&Path>) -> Result<u8, RemoteFault> {
        match self {
            Operate::Status { reach } => {
                let answer = reach.remote(config)?.ask("GET", "/api/status", None)?;
                reach.show(&answer, status);
            }
            Operate::Ban { addresses, duration, permanent, reason, force, reach } => {
                let extra = json!({"duration": duration, "permanent": permanent, "reason": reason, "force": force});
                return reach.each(config, "POST", "/api/ban", &addresses, &extra);
            }
            Operate::Unban { addresses, reason, reach } => {
                return reach.each(config, "POST", "/api/unban", &addresses, &json!({"reason": reason}));
            }
            Operate::List { ip, pattern, search, sort, order, extent, reach } => {
                let query = vec![
                    ("ip", ip),
                    ("pattern", pattern),
                    ("search", search),
                    ("sort", Some(sort)),
                    ("order", Some(order)),
                ];
                reach.pages(config, "/api/temp-bans", "temp_bans", query, extent, &BANS)?;
            }
            Operate::Explain { address, reach } => {
                let path = with_query("/api/explain", &[("ip", Some(address))]);
                let answer = reach.remote(config)?.ask("GET", &path, None)?;
                reach.show(&answer, explanation);
                let denied = matches!(text(&answer, "verdict").as_str(), "banned" | "blacklisted");
                return Ok(if denied { EXIT_DENIED } else { 0 });
            }
            Operate::Whitelist { change } => return change.run(config, "/api/whitelist", "whitelist"),
            Operate::Blacklist { change } => return change.run(config, "/api/blacklist", "blacklist"),
            Operate::Purge { reach, .. } => {
                let answer = reach.remote(config)?.ask("POST", "/api/purge-bans", Some(&by()))?;
                reach.show(&answer, message);
            }
            Operate::Reload { reach } => {
                let answer = reach.remote(config)?.ask("POST", "/api/reload", Some(&by()))?;
                reach.show(&answer, message);
            }
            Operate::Events { reach } => {
                let mut out = std::io::stdout();
                reach.remote(config)?.listen(|name, data| {
                    let line = match reach.format {
                        Form::Json => format!("{{\"event\":{},\"data\":{data}}}\n", json!(name)),
                        Form::Table if name == "sample" => return true,
                        Form::Table => event(name, &serde_json::from_str(data).unwrap_or_default()),
                    };
                    // Whoever reads may have had enough.
                    out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
                })?;
            }
            Operate::Audit { search, extent, reach } => {
                reach.pages(config, "/api/audit", "audit", vec![("search", search)], extent, &CHANGES)?;
            }
        }
        Ok(0)
    }
}

impl ListCommand {
    fn run(self, config: Option<&Path>, path: &str, name: &str) -> Result<u8, RemoteFault> {
        match self {
            ListCommand::List { search, extent, reach } => {
                reach.pages(config, path, name, vec![("search", search)], extent, &ENTRIES)?;
                Ok(0)
            }
            ListCommand::Add { addresses, reason, force, reach } => {
                reach.each(config, "POST", path, &addresses, &json!({"reason": reason, "force": force}))
            }
            ListCommand::Remove { addresses, reach } => reach.each(config, "DELETE", path, &addresses, &json!({})),
        }
    }
}

/// The columns of lists.
const BANS: [&str; 7] =
    ["ip_address", "pattern", "severity", "failures", "offences", "banned_at", "duration_remaining"];
const ENTRIES: [&str; 5] = ["ip_address", "reason", "created_by", "created_at", "source"];

const CHANGES: [&str; 8] = ["at", "node", "who", "peer", "action", "target", "outcome", "detail"];

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "expected a number, at least 1".to_owned())
}

impl Reach {
    fn remote(&self, config: Option<&Path>) -> Result<Remote, RemoteFault> {
        Remote::new(self.socket.clone(), config)
    }

    fn show(&self, answer: &Value, people: impl FnOnce(&Value) -> String) {
        match self.format {
            Form::Json => print(&format!("{answer}\n")),
            Form::Table => print(&people(answer)),
        }
    }

    /// Says the same of each address, and goes on if one is refused.
    fn each(
        &self,
        config: Option<&Path>,
        method: &str,
        path: &str,
        addresses: &[String],
        extra: &Value,
    ) -> Result<u8, RemoteFault> {
        let remote = self.remote(config)?;
        let mut status = 0;
        for address in addresses {
            let mut body = Map::new();
            body.insert("ip_address".to_owned(), json!(address));
            body.extend(who_types().map(|who| ("created_by".to_owned(), json!(who))));
            let given = extra.as_object().into_iter().flatten();
            let given = given.filter(|(_, value)| !value.is_null() && **value != Value::Bool(false));
            body.extend(given.map(|(key, value)| (key.clone(), value.clone())));
            match remote.ask(method, path, Some(&Value::Object(body))) {
                Ok(answer) => self.show(&answer, message),
                Err(RemoteFault::Refused(why)) => {
                    eprintln!("mailfail2ban: {why}");
                    status = super::EXIT_RUN_TIME;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(status)
    }

    /// Prints a list, page by page; all of it if there is no limit.
    fn pages(
        &self,
        config: Option<&Path>,
        path: &str,
        name: &str,
        mut query: Vec<(&str, Option<String>)>,
        extent: Extent,
        columns: &[&'static str],
    ) -> Result<(), RemoteFault> {
        let remote = self.remote(config)?;
        let limit = (!extent.all).then_some(extent.limit);
        // How the answer names where the next page begins, and how the question does.
        let (next_name, cursor_name) =
            if name == "audit" { ("next_before", "before") } else { ("next_cursor", "cursor") };
        let (mut shown, mut cursor, mut first) = (0, None, true);
        loop {
            let left = limit.map_or(PAGE, |limit| limit.saturating_sub(shown).min(PAGE));
            query.retain(|(key, _)| *key != "limit" && *key != cursor_name);
            query.extend([("limit", Some(left.max(1).to_string())), (cursor_name, cursor.take())]);
            let answer = remote.ask("GET", &with_query(path, &query), None)?;
            shown += rows(&answer, name).count();
            let next = answer.get(next_name).filter(|next| !next.is_null());
            cursor = next.map(|next| next.as_str().map_or_else(|| next.to_string(), str::to_owned));
            match self.format {
                // One entry a line, so that pages need not be put together.
                Form::Json => rows(&answer, name).for_each(|row| print(&format!("{row}\n"))),
                Form::Table => {
                    let mut table = Table::new(columns);
                    rows(&answer, name).for_each(|row| table.row_of(row));
                    print(&if first { table.print() } else { table.print_rows() });
                }
            }
            first = false;
            if cursor.is_none() || limit.is_some_and(|limit| shown >= limit) {
                let total = answer.get("count").and_then(Value::as_u64).unwrap_or(0);
                if self.format == Form::Table && total > shown as u64 {
                    eprintln!("{shown} of {total}; --all prints all of them");
                }
                return Ok(());
            }
        }
    }
}

/// A body that says who it was, and nothing else.
fn by() -> Value {
    json!({"created_by": who_types()})
}

fn rows<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// A value as people read it; empty if it is not there.
fn text(value: &Value, key: &str) -> String {
    super::table::plain(value.get(key).unwrap_or(&Value::Null))
}

fn message(answer: &Value) -> String {
    format!("{}\n", text(answer, "message"))
}

fn status(answer: &Value) -> String {
    let mut said = String::new();
    let mut line = |name: &str, value: String| said.push_str(&format!("{name:<12} {value}\n"));
    line("version", format!("{} ({})", text(answer, "version"), text(answer, "commit")));
    line(
        "node",
        format!("{}, on {}, up {} s", text(answer, "node"), text(answer, "driver"), text(answer, "uptime_seconds")),
    );
    line(
        "bans",
        format!(
            "{} in force, {} clients counted, {} offenders remembered",
            text(answer, "banned"),
            text(answer, "counting"),
            text(answer, "remembered")
        ),
    );
    line(
        "policy",
        format!(
            "number {}: {} patterns, {} on the whitelist, {} on the blacklist",
            text(answer, "policy"),
            text(answer, "patterns"),
            text(answer, "whitelist"),
            text(answer, "blacklist")
        ),
    );
    let totals = answer.get("totals").unwrap_or(&Value::Null);
    line(
        "since start",
        format!(
            "{} let in, {} denied, {} lines, {} matched, {} bans, {} dropped",
            text(totals, "allowed"),
            text(totals, "denied"),
            text(totals, "lines"),
            text(totals, "matches"),
            text(totals, "bans"),
            text(totals, "dropped")
        ),
    );
    let database = answer.get("database").unwrap_or(&Value::Null);
    let connected = match (text(database, "enabled").as_str(), text(database, "connected").as_str()) {
        ("true", "true") => "connected",
        ("true", _) => "AWAY",
        _ => "none",
    };
    line(
        "database",
        format!(
            "{connected}, patterns from {}, ban settings from {}",
            text(database, "patterns_source"),
            text(database, "ban_config_source")
        ),
    );
    for (name, fault) in [("last error", text(database, "last_error")), ("local state", text(answer, "state_error"))] {
        if !fault.is_empty() {
            line(name, fault);
        }
    }
    let mut shards =
        Table::new(&["shard", "answers", "policy", "replica", "connections", "backlog", "questions", "records"]);
    for (at, shard) in rows(answer, "shards").enumerate() {
        let mut row = shard.clone();
        if let Some(row) = row.as_object_mut() {
            row.entry("shard").or_insert_with(|| json!(at));
        }
        shards.row_of(&row);
    }
    let mut patterns = Table::new(&["name", "severity", "matches", "bans", "banned"]);
    rows(answer, "by_pattern").for_each(|row| patterns.row_of(row));
    format!("{said}\n{}\n{}", shards.print(), patterns.print())
}

fn explanation(answer: &Value) -> String {
    let mut said = format!(
        "{} is {}\n",
        text(answer, "ip_address"),
        match text(answer, "verdict").as_str() {
            "whitelisted" => "let in: it is on the whitelist".to_owned(),
            "blacklisted" => "DENIED: it is on the blacklist".to_owned(),
            "banned" => "DENIED: it is banned".to_owned(),
            _ => "let in".to_owned(),
        }
    );
    said.push_str(&format!(
        "counted as {}: {} of {} failures, {} offences remembered\n",
        text(answer, "client"),
        text(answer, "failures"),
        text(answer, "threshold"),
        text(answer, "offences")
    ));
    for (name, title, columns) in [
        (
            "bans",
            "Bans in force",
            &[
                "ip_address",
                "pattern",
                "severity",
                "failures",
                "offences",
                "banned_at",
                "expires_at",
                "duration_remaining",
            ][..],
        ),
        ("whitelist", "On the whitelist", &ENTRIES[..]),
        ("blacklist", "On the blacklist", &ENTRIES[..]),
        ("evidence", "Last lines that counted", &["at", "pattern", "program", "line"][..]),
        (
            "history",
            "Bans remembered",
            &["banned_at", "expires_at", "node", "pattern", "offences", "reason", "created_by", "lifted_reason"][..],
        ),
    ] {
        let mut table = Table::new(columns);
        rows(answer, name).for_each(|row| table.row_of(row));
        if !table.is_empty() {
            said.push_str(&format!("\n{title}\n{}", table.print()));
        }
    }
    said
}

fn event(name: &str, data: &Value) -> String {
    let fields = data.as_object().into_iter().flatten().filter(|(key, value)| *key != "at" && !value.is_null());
    let fields: Vec<String> = fields.map(|(key, value)| format!("{key}={}", super::table::plain(value))).collect();
    format!("{} {name:<8} {}\n", text(data, "at"), fields.join(" "))
}
