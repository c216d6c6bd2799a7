//! The JSON of what is answered. Times are RFC 3339 in UTC.

use crate::config::duration::print_duration;
use crate::control::desk::{BanShown, Banned, Evidence, Inspection, Overview, Sample, Totals};
use crate::control::store::{AuditPage, AuditSource, Audited, Entry, EntrySource, PastBan, print_wall};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// How long, as people write it: whole seconds, like `25m30s`.
pub fn lasting(duration: Duration) -> String {
    print_duration(Duration::from_secs(duration.as_secs()))
}

/// It is done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    #[schema(example = true)]
    pub success: bool,
    pub message: String,
    #[schema(example = "198.51.100.0/24")]
    pub ip_address: String,
}

/// A ban is in force on every shard.
#[derive(Debug, Serialize, ToSchema)]
pub struct BanDone {
    #[schema(example = true)]
    success: bool,
    message: String,
    /// Who is banned: the address, its network if it is an IPv6 address, or the network that was given.
    #[schema(example = "192.0.2.7")]
    ip_address: String,
    /// It is on the blacklist.
    permanent: bool,
    /// It was banned already, for as long or longer.
    already: bool,
    /// How long it lasts from now on.
    #[schema(example = "1h")]
    duration: Option<String>,
    duration_seconds: Option<u64>,
    expires_at: Option<String>,
    /// Offences of that client that are remembered, with this one.
    offences: Option<u32>,
}

impl BanDone {
    pub fn banned(banned: &Banned) -> BanDone {
        // A ban that was ordered for an hour is shown as one, though some microseconds of it are over.
        let seconds = banned.remaining.as_millis().div_ceil(1000);
        let left = print_duration(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)));
        BanDone {
            success: true,
            message: match banned.already {
                true => format!("{} is banned already, for {left}", banned.client),
                false => format!("{} is banned for {left}", banned.client),
            },
            ip_address: banned.client.to_string(),
            permanent: false,
            already: banned.already,
            duration: Some(left),
            duration_seconds: u64::try_from(seconds).ok(),
            expires_at: Some(print_wall(banned.expires_at)),
            offences: Some(banned.offences),
        }
    }

    pub fn blacklisted(client: String, already: bool) -> BanDone {
        BanDone {
            success: true,
            message: match already {
                true => format!("{client} is on the blacklist already"),
                false => format!("{client} is on the blacklist"),
            },
            ip_address: client,
            permanent: true,
            already,
            duration: None,
            duration_seconds: None,
            expires_at: None,
            offences: None,
        }
    }
}

/// What an unban ended, on every shard.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnbanDone {
    #[schema(example = true)]
    pub success: bool,
    pub message: String,
    pub ip_address: String,
    /// Temporary bans that it ended.
    pub bans: u64,
    /// Entries of the blacklist that are gone.
    pub blacklist_entries: u64,
    /// A wider ban or entry that denies it still.
    pub still_denied_by: Option<String>,
}

/// A ban that is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct BanItem {
    #[schema(example = "192.0.2.7")]
    ip_address: String,
    pattern: String,
    severity: u8,
    /// What the pattern's failures are: `auth`, `abuse` or `probe`. Null for a ban that an operator ordered.
    #[schema(example = "auth")]
    kind: Option<&'static str>,
    failures: u32,
    offences: u32,
    banned_at: String,
    expires_at: String,
    #[schema(example = "25m30s")]
    duration_remaining: String,
    duration_remaining_seconds: u64,
    /// Another node made it, or an earlier run of this one.
    learned: bool,
}

impl From<BanShown> for BanItem {
    fn from(ban: BanShown) -> BanItem {
        BanItem {
            ip_address: ban.client.to_string(),
            pattern: ban.pattern.to_string(),
            severity: ban.severity,
            kind: ban.kind,
            failures: ban.failures,
            offences: ban.offences,
            banned_at: print_wall(ban.banned_at),
            expires_at: print_wall(ban.expires_at),
            duration_remaining: lasting(ban.remaining),
            duration_remaining_seconds: ban.remaining.as_secs(),
            learned: ban.learned,
        }
    }
}

/// A page of the bans in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct BanList {
    #[schema(example = true)]
    pub success: bool,
    /// On all pages.
    pub count: usize,
    pub temp_bans: Vec<BanItem>,
    /// To be sent as `cursor` for the next page.
    pub next_cursor: Option<String>,
}

/// All bans are ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Purged {
    #[schema(example = true)]
    pub success: bool,
    pub message: String,
    /// How many there were.
    pub purged_count: u64,
}

/// Where an entry is kept.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeptIn {
    /// In the configuration: it is changed there.
    File,
    /// In this node's state: it counts on this node.
    Local,
    /// In the database: it counts on every node.
    Database,
}

/// An entry of the whitelist or the blacklist.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListItem {
    /// As it is stored.
    #[schema(example = "198.51.100.0/24")]
    pub ip_address: String,
    reason: Option<String>,
    created_by: Option<String>,
    created_at: Option<String>,
    /// A row that is switched off is not in force.
    enabled: bool,
    source: Option<KeptIn>,
}

impl From<Entry> for ListItem {
    fn from(entry: Entry) -> ListItem {
        ListItem {
            ip_address: entry.address,
            reason: entry.reason,
            created_by: entry.created_by,
            created_at: entry.created_at,
            enabled: entry.enabled,
            source: Some(match entry.source {
                EntrySource::File => KeptIn::File,
                EntrySource::Local => KeptIn::Local,
                EntrySource::Database => KeptIn::Database,
            }),
        }
    }
}

impl ListItem {
    /// One of which nothing is known but that it is in force.
    pub fn bare(ip_address: String) -> ListItem {
        ListItem { ip_address, reason: None, created_by: None, created_at: None, enabled: true, source: None }
    }
}

/// A page of the whitelist: the entries of the file, then the others, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Whitelist {
    #[schema(example = true)]
    pub success: bool,
    /// On all pages.
    pub count: u64,
    pub whitelist: Vec<ListItem>,
    /// To be sent as `cursor` for the next page.
    pub next_cursor: Option<String>,
}

/// A page of the blacklist: the entries of the file, then the others, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Blacklist {
    #[schema(example = true)]
    pub success: bool,
    /// On all pages.
    pub count: u64,
    pub blacklist: Vec<ListItem>,
    /// To be sent as `cursor` for the next page.
    pub next_cursor: Option<String>,
}

/// Whether an address is let in.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictShown {
    Allowed,
    Whitelisted,
    Blacklisted,
    Banned,
}

impl VerdictShown {
    fn named(name: &str) -> VerdictShown {
        match name {
            "whitelisted" => VerdictShown::Whitelisted,
            "blacklisted" => VerdictShown::Blacklisted,
            "banned" => VerdictShown::Banned,
            _ => VerdictShown::Allowed,
        }
    }
}

/// A log line that counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceItem {
    /// When it arrived.
    at: String,
    pattern: String,
    program: String,
    /// What the line says, made printable, cut if it is long. Anybody may have chosen parts of it.
    line: String,
}

impl From<Evidence> for EvidenceItem {
    fn from(evidence: Evidence) -> EvidenceItem {
        let Evidence { at, pattern, program, line } = evidence;
        EvidenceItem { at: print_wall(at), pattern: pattern.to_string(), program, line }
    }
}

/// A ban that is kept in the records, in force or not.
#[derive(Debug, Serialize, ToSchema)]
pub struct PastBanItem {
    /// The node that made it.
    node: String,
    ip_address: String,
    pattern: String,
    severity: u8,
    failures: u32,
    offences: u32,
    /// What an operator gave as the reason, and who that was.
    reason: Option<String>,
    created_by: Option<String>,
    banned_at: String,
    expires_at: String,
    lifted_at: Option<String>,
    lifted_reason: Option<String>,
    lifted_by: Option<String>,
}

impl From<PastBan> for PastBanItem {
    fn from(ban: PastBan) -> PastBanItem {
        PastBanItem {
            node: ban.node,
            ip_address: ban.client,
            pattern: ban.pattern,
            severity: ban.severity,
            failures: ban.failures,
            offences: ban.offences,
            reason: ban.reason,
            created_by: ban.created_by,
            banned_at: ban.banned_at,
            expires_at: ban.expires_at,
            lifted_at: ban.lifted_at,
            lifted_reason: ban.lifted_reason.map(str::to_owned),
            lifted_by: ban.lifted_by,
        }
    }
}

/// What is right and wrong with a pattern.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct PatternCheck {
    #[schema(example = true)]
    pub success: bool,
    /// Whether it could go live.
    pub usable: bool,
    pub faults: Vec<RemarkItem>,
    pub warnings: Vec<RemarkItem>,
    /// A line in which a client has another one found. With `syslog.strict` such a pattern is refused.
    pub counter_example: Option<CounterExampleItem>,
    /// What it finds in each line that was sent.
    pub lines: Vec<CheckedLine>,
}

/// Something about one key of a pattern.
#[derive(Debug, Serialize, ToSchema)]
pub struct RemarkItem {
    #[schema(example = "regex")]
    pub key: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CounterExampleItem {
    pub line: String,
    /// Whose line it can be; null if it names nobody but whom its writer wants.
    pub of: Option<String>,
    /// Who is found in it.
    pub found: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CheckedLine {
    pub matches: bool,
    pub ip_address: Option<String>,
    pub failures: u32,
}

/// Why an address is denied, or why not.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    #[schema(example = true)]
    success: bool,
    #[schema(example = "192.0.2.7")]
    ip_address: String,
    /// The address or network by which its failures are counted.
    client: String,
    verdict: VerdictShown,
    /// The same in a sentence.
    message: String,
    /// The entries of the lists that hold it, the longest first.
    whitelist: Vec<ListItem>,
    blacklist: Vec<ListItem>,
    /// The bans in force that hold it, the longest network first.
    bans: Vec<BanItem>,
    /// Failures that count at the moment, and how many lead to a ban.
    failures: u32,
    threshold: u32,
    /// Offences that are remembered, and when the last was.
    offences: u32,
    last_offence: Option<String>,
    /// The last lines that counted against it, newest first. They are kept in memory, for a while.
    evidence: Vec<EvidenceItem>,
    /// Bans that are kept in the records, newest first.
    history: Vec<PastBanItem>,
    /// Which node says so, and by which policy.
    node: String,
    policy: u64,
}

impl Explanation {
    pub fn new(
        inspected: Inspection,
        whitelist: Vec<ListItem>,
        blacklist: Vec<ListItem>,
        history: Vec<PastBan>,
    ) -> Explanation {
        let address = inspected.address;
        let message = match inspected.verdict {
            "whitelisted" => format!("{address} is let in, because it is on the whitelist"),
            "blacklisted" => format!("{address} is denied, because it is on the blacklist"),
            "banned" => match inspected.bans.first() {
                Some(ban) => {
                    format!("{address} is denied for {}, because of {}", lasting(ban.remaining), ban.pattern)
                }
                None => format!("{address} is denied"),
            },
            _ => format!("{address} is let in"),
        };
        Explanation {
            success: true,
            ip_address: address.to_string(),
            client: inspected.client.to_string(),
            verdict: VerdictShown::named(inspected.verdict),
            message,
            whitelist,
            blacklist,
            bans: inspected.bans.into_iter().map(BanItem::from).collect(),
            failures: inspected.failures,
            threshold: inspected.threshold,
            offences: inspected.offences,
            last_offence: inspected.last_offence.map(print_wall),
            evidence: inspected.evidence.into_iter().map(EvidenceItem::from).collect(),
            history: history.into_iter().map(PastBanItem::from).collect(),
            node: inspected.node,
            policy: inspected.policy,
        }
    }
}

/// Counts over all shards.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct CountsShown {
    /// Questions that were answered with "let in", and with "denied".
    allowed: u64,
    denied: u64,
    /// Log records that arrived, and lines in which a failure was recognised.
    lines: u64,
    matches: u64,
    bans: u64,
    /// Log records that were not looked at.
    dropped: u64,
}

impl From<Totals> for CountsShown {
    fn from(totals: Totals) -> CountsShown {
        let Totals { allowed, denied, lines, matches, bans, dropped } = totals;
        CountsShown { allowed, denied, lines, matches, bans, dropped }
    }
}

/// What happened in the seconds before a moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SampleItem {
    at: String,
    seconds: f64,
    /// Questions that were answered with "let in", and with "denied".
    allowed: u64,
    denied: u64,
    /// Log records that arrived, and lines in which a failure was recognised.
    lines: u64,
    matches: u64,
    bans: u64,
    /// Log records that were not looked at.
    dropped: u64,
    /// Bans in force at that moment.
    banned: usize,
}

impl From<&Sample> for SampleItem {
    fn from(sample: &Sample) -> SampleItem {
        let Totals { allowed, denied, lines, matches, bans, dropped } = sample.counts;
        SampleItem {
            at: print_wall(sample.at),
            seconds: sample.seconds,
            allowed,
            denied,
            lines,
            matches,
            bans,
            dropped,
            banned: sample.banned,
        }
    }
}

/// The last hour.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryAnswer {
    #[schema(example = true)]
    pub success: bool,
    /// One each five seconds, oldest first.
    pub samples: Vec<SampleItem>,
}

/// A shard in numbers. One that did not answer in time has zeros.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShardItem {
    index: usize,
    answers: bool,
    /// The policy that it works by.
    policy: u64,
    /// Bans in its replica.
    replica: usize,
    connections: usize,
    /// Failures and bans that wait to be passed on to other shards.
    backlog: usize,
    questions: u64,
    records: u64,
}

/// A pattern in numbers, since the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct PatternItem {
    name: String,
    severity: u8,
    /// What its failures are: `auth`, `abuse` or `probe`.
    #[schema(example = "auth")]
    kind: Option<&'static str>,
    matches: u64,
    bans: u64,
    /// Bans in force.
    banned: u64,
}

/// The database, and where settings come from.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatabaseShown {
    enabled: bool,
    connected: bool,
    /// `file`, `database` or `database_cached`.
    patterns_source: String,
    ban_config_source: String,
    last_error: Option<String>,
    /// Rows that cannot be used and are left out; the log names them.
    faulty_rows: usize,
}

/// Who asks, as the API knows him.
#[derive(Debug, Serialize, ToSchema)]
pub struct You {
    name: String,
    /// Whether he may change anything.
    may_change: bool,
}

/// How the server is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatusAnswer {
    #[schema(example = true)]
    success: bool,
    version: String,
    commit: String,
    node: String,
    /// How it waits for the network: `io_uring` or `epoll`.
    driver: String,
    uptime_seconds: u64,
    /// The number of the policy in force.
    policy: u64,
    patterns: usize,
    whitelist: usize,
    blacklist: usize,
    /// Bans in force, clients whose failures are counted, clients whose offences are remembered.
    banned: usize,
    counting: usize,
    remembered: usize,
    shards: Vec<ShardItem>,
    by_pattern: Vec<PatternItem>,
    /// Since the start.
    totals: CountsShown,
    database: DatabaseShown,
    /// What is wrong with the local state, if anything is.
    state_error: Option<String>,
    /// What is wrong with the configuration file, if it was refused since it was last taken.
    refused: Vec<String>,
    you: You,
}

impl StatusAnswer {
    pub fn new(overview: Overview, name: String, may_change: bool) -> StatusAnswer {
        let shards = overview.shards.iter().enumerate().map(|(index, shard)| ShardItem {
            index,
            answers: shard.answers,
            policy: shard.policy,
            replica: shard.replica,
            connections: shard.connections,
            backlog: shard.backlog,
            questions: shard.questions,
            records: shard.records,
        });
        let by_pattern = overview.by_pattern.iter().map(|pattern| PatternItem {
            name: pattern.name.to_string(),
            severity: pattern.severity,
            kind: pattern.kind,
            matches: pattern.matches,
            bans: pattern.bans,
            banned: pattern.banned,
        });
        StatusAnswer {
            success: true,
            version: overview.version.to_owned(),
            commit: overview.commit.to_owned(),
            shards: shards.collect(),
            by_pattern: by_pattern.collect(),
            node: overview.node,
            driver: overview.driver.to_owned(),
            uptime_seconds: overview.uptime.as_secs(),
            policy: overview.policy,
            patterns: overview.patterns,
            whitelist: overview.whitelist,
            blacklist: overview.blacklist,
            banned: overview.banned,
            counting: overview.counting,
            remembered: overview.remembered,
            totals: overview.totals.into(),
            database: DatabaseShown {
                enabled: overview.database_enabled,
                connected: overview.database_connected,
                patterns_source: overview.patterns_source.to_owned(),
                ban_config_source: overview.ban_config_source.to_owned(),
                last_error: overview.last_error,
                faulty_rows: overview.faulty_rows,
            },
            state_error: overview.state_error,
            refused: overview.refused,
            you: You { name, may_change },
        }
    }
}

/// What the tables of bans hold.
#[derive(Debug, Serialize, ToSchema)]
pub struct RadixStats {
    /// Clients that are known for anything: a failure that counts, a ban, an offence that is remembered.
    total_ips_tracked: usize,
    currently_banned: usize,
    /// Networks in the replica that each shard answers from.
    tree_nodes: usize,
    counting: usize,
    offenders_remembered: usize,
    whitelist_entries: usize,
    blacklist_entries: usize,
    shards: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RadixAnswer {
    #[schema(example = true)]
    success: bool,
    stats: RadixStats,
}

impl From<Overview> for RadixAnswer {
    fn from(overview: Overview) -> RadixAnswer {
        RadixAnswer {
            success: true,
            stats: RadixStats {
                // Who is banned is remembered as an offender, too.
                total_ips_tracked: overview.counting + overview.remembered,
                currently_banned: overview.banned,
                tree_nodes: overview.shards.iter().map(|shard| shard.replica).max().unwrap_or(0),
                counting: overview.counting,
                offenders_remembered: overview.remembered,
                whitelist_entries: overview.whitelist,
                blacklist_entries: overview.blacklist,
                shards: overview.shards.len(),
            },
        }
    }
}

/// How the API is guarded.
#[derive(Debug, Serialize, ToSchema)]
pub struct Security {
    pub enabled: bool,
    /// Networks that may ask.
    pub allowed_ips_count: usize,
    pub basic_auth_enabled: bool,
    pub tokens_count: usize,
    pub rate_limiting_enabled: bool,
    /// Clients that asked within the last minute, about.
    pub active_clients: usize,
    /// Requests a minute that each may make.
    pub rate_limit: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SecurityAnswer {
    #[schema(example = true)]
    pub success: bool,
    pub security: Security,
}

/// The file was read again, and is in force on every shard.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reloaded {
    #[schema(example = true)]
    pub success: bool,
    pub message: String,
    /// The number of the policy.
    pub policy: u64,
}

/// What somebody changed, or tried to.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditItem {
    id: i64,
    node: String,
    at: String,
    who: String,
    /// By which way: `api` or `socket`.
    channel: String,
    peer: Option<String>,
    #[schema(example = "ban")]
    action: String,
    target: String,
    detail: String,
    /// `ok`, or why it was refused.
    outcome: String,
}

impl From<Audited> for AuditItem {
    fn from(audited: Audited) -> AuditItem {
        let Audited { id, node, at, who, channel, peer, action, target, detail, outcome } = audited;
        AuditItem { id, node, at, who, channel, peer, action, target, detail, outcome }
    }
}

/// Whose changes these are.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditedBy {
    /// Those of all nodes.
    Database,
    /// Those of this node.
    Local,
}

/// A page of who changed what, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditAnswer {
    #[schema(example = true)]
    success: bool,
    source: AuditedBy,
    audit: Vec<AuditItem>,
    /// To be sent as `before` for the next page.
    next_before: Option<i64>,
}

impl From<AuditPage> for AuditAnswer {
    fn from(page: AuditPage) -> AuditAnswer {
        AuditAnswer {
            success: true,
            source: match page.source {
                AuditSource::Database => AuditedBy::Database,
                AuditSource::Local => AuditedBy::Local,
            },
            audit: page.entries.into_iter().map(AuditItem::from).collect(),
            next_before: page.next,
        }
    }
}
