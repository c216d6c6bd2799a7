//! Bans: made, ended, listed.

use super::access::{Caller, Signed};
use super::answers::{BanDone, BanItem, BanList, Purged, UnbanDone};
use super::input::{self, Subject};
use super::refusal::{OrderRefusals, Refusals, Refused};
use super::schema::{AddressOrNetwork, Author, BanDuration, BansCursor, Reason};
use super::{Noted, Office};
use crate::control::desk::{BanOrder, Refusal, Whom};
use crate::control::store::contents::ListName;
use crate::control::store::{EntryQuery, NewEntry};
use crate::engine::address::Network;
use crate::engine::survey::{Order, PAGE_MAX, Place, Question};
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Who is to be banned.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object with ip_address")]
pub(super) struct BanBody {
    /// An address, or a network. An IPv6 address stands for its network (`ban.ipv6_prefix`).
    #[schema(value_type = AddressOrNetwork)]
    ip_address: String,
    /// How long, like `1h30m`, or in seconds; from 1s to 3650d. Without it, as long as the next step of the escalation.
    #[schema(value_type = Option<BanDuration>)]
    duration: Option<Value>,
    #[schema(value_type = Option<Reason>)]
    reason: Option<String>,
    /// Who is to be named as its author.
    #[schema(value_type = Option<Author>)]
    created_by: Option<String>,
    /// Puts it on the blacklist, whatever the duration.
    permanent: Option<bool>,
    /// Needed for networks larger than an IPv4 /8 or an IPv6 /16.
    force: Option<bool>,
}

/// Bans a client or a network, for a time or for good.
#[utoipa::path(
    post, path = "/api/ban", tag = "bans", request_body = BanBody,
    responses((status = 200, description = "It is banned, on every shard.", body = BanDone), Refusals, OrderRefusals)
)]
pub(super) async fn ban(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<BanDone>, Refused> {
    let BanBody { ip_address, duration, reason, created_by, permanent, force } = input::body(request).await?;
    let subject = Subject::parse("ip_address", &ip_address)?.refuse_huge(force)?;
    let duration = input::duration(duration.as_ref())?;
    let Signed { operator, author, reason } = caller.signs(reason, created_by)?;
    let permanent = permanent == Some(true);
    let mut detail = match (permanent, &duration) {
        (true, _) => "for good".to_owned(),
        (false, Some(duration)) => format!("for {}", super::answers::lasting(*duration)),
        (false, None) => "for as long as the escalation says".to_owned(),
    };
    if let Some(reason) = &reason {
        detail.push_str(&format!(": {reason}"));
    }
    let noted = Noted { action: "ban", target: subject.to_string(), detail, operator };
    let by = noted.operator.name.clone();
    let work = {
        let office = office.clone();
        async move {
            if permanent {
                return office.blacklist(subject, reason, author).await;
            }
            let order = BanOrder { whom: subject.whom(), duration, reason, created_by: Some(author) };
            let banned = office.desk.ban(order, by).await.map_err(|refusal| Refused::from(refusal).about(subject))?;
            Ok(BanDone::banned(&banned))
        }
    };
    office.order(noted, work).await.map(Json)
}

impl Office {
    /// Puts a client or a network on the blacklist.
    async fn blacklist(&self, subject: Subject, reason: Option<String>, author: String) -> Result<BanDone, Refused> {
        let inspected = self.desk.inspect(subject.base()).await?;
        // Who was on the whitelist as well would not be denied.
        if let Some(entry) = inspected.whitelist.iter().find(|entry| entry.covers(subject.network)) {
            return Err(Refused::from(Refusal::Allowed(*entry)).about(subject));
        }
        let client = if subject.is_address { inspected.client } else { subject.network };
        let entry = NewEntry { network: client, reason, created_by: author };
        let already = !self.enlist(ListName::Blacklist, entry).await?;
        Ok(BanDone::blacklisted(client.to_string(), already))
    }
}

/// Who is to be let in again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object with ip_address")]
pub(super) struct UnbanBody {
    /// An address: its ban ends. A network: all bans inside of it end.
    #[schema(value_type = AddressOrNetwork)]
    ip_address: String,
    #[schema(value_type = Option<Reason>)]
    reason: Option<String>,
    #[schema(value_type = Option<Author>)]
    created_by: Option<String>,
}

/// Ends temporary bans, and removes the entry from the blacklist.
#[utoipa::path(
    post, path = "/api/unban", tag = "bans", request_body = UnbanBody,
    responses((status = 200, description = "It is not denied any more by these, on any shard.", body = UnbanDone), Refusals, OrderRefusals)
)]
pub(super) async fn unban(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<UnbanDone>, Refused> {
    let UnbanBody { ip_address, reason, created_by } = input::body(request).await?;
    let subject = Subject::parse("ip_address", &ip_address)?;
    let Signed { operator, author: by, reason } = caller.signs(reason, created_by)?;
    let noted = Noted { operator, action: "unban", target: subject.to_string(), detail: reason.unwrap_or_default() };
    let work = {
        let office = office.clone();
        async move { office.unban(subject, by).await.map_err(|refused| refused.about(subject)) }
    };
    office.order(noted, work).await.map(Json)
}

impl Office {
    /// How many entries of the blacklist lie inside of a network; 0 if that cannot be found out now.
    async fn inside_of(&self, network: Network) -> u64 {
        let query = EntryQuery { within: Some(network), limit: 1, ..EntryQuery::default() };
        self.clerk.entries(ListName::Blacklist, query).await.map_or(0, |page| page.total)
    }

    async fn unban(&self, subject: Subject, by: String) -> Result<UnbanDone, Refused> {
        let inspected = self.desk.inspect(subject.base()).await?;
        // Exactly these; what is wider holds others as well.
        let exactly: Vec<Network> = match subject.is_address && inspected.client != subject.network {
            true => vec![subject.network, inspected.client],
            false => vec![subject.network],
        };
        let bans = match subject.is_address {
            true => {
                let theirs = inspected.bans.iter().map(|ban| ban.client).filter(|client| exactly.contains(client));
                self.desk.lift(theirs.collect(), by.clone()).await?
            }
            false => self.desk.lift_within(Some(subject.network), by.clone()).await?,
        };
        // Bans end also while the database is away, or when the entry stands in the file.
        let (mut entries, mut stays) = (0, None);
        for network in exactly.iter().filter(|network| inspected.blacklist.contains(network)) {
            match self.delist(ListName::Blacklist, *network, by.clone()).await {
                Ok(true) => entries += 1,
                Ok(false) => {}
                Err(why) if bans + entries == 0 => return Err(why),
                Err(why) => stays = Some((*network, why.message().to_owned())),
            }
        }
        let blocks = inspected.blacklist.into_iter();
        let mut denied_by = blocks.chain(inspected.bans.iter().map(|ban| ban.client));
        let still = denied_by.find(|network| network.covers(subject.network) && !exactly.contains(network));
        let still = stays.as_ref().map(|(network, _)| *network).or(still).filter(|_| inspected.whitelist.is_empty());
        let inside = if subject.is_address { 0 } else { self.inside_of(subject.network).await };
        let what = match (bans, entries) {
            (0, 0) => {
                return Err(match still {
                    None if inside > 0 => Refused::new(StatusCode::CONFLICT, inside_stay(inside)),
                    Some(wider) => {
                        let message =
                            format!("is denied by {wider}, which holds others as well; unban {wider} if that is meant");
                        Refused::new(StatusCode::CONFLICT, message)
                    }
                    None => Refused::new(StatusCode::NOT_FOUND, "is neither banned nor on the blacklist"),
                });
            }
            (bans, 0) => many(bans, "ban"),
            (0, _) => "it is off the blacklist".to_owned(),
            (bans, _) => format!("{}, and it is off the blacklist", many(bans, "ban")),
        };
        let what = if bans > 0 { format!("ended {what}") } else { what };
        Ok(UnbanDone {
            success: true,
            message: match (still, stays) {
                (Some(_), Some((_, why))) => format!("{subject}: {what}; it stays on the blacklist: {why}"),
                (Some(wider), None) => format!("{subject}: {what}; it is still denied, by {wider}"),
                (None, _) if inside > 0 => format!("{subject}: {what}; {}", inside_stay(inside)),
                (None, _) => format!("{subject}: {what}"),
            },
            ip_address: subject.to_string(),
            bans,
            blacklist_entries: entries,
            still_denied_by: still.map(|wider| wider.to_string()),
        })
    }
}

fn inside_stay(entries: u64) -> String {
    let entries = match entries {
        1 => "1 entry".to_owned(),
        more => format!("{more} entries"),
    };
    format!("{entries} of the blacklist inside of it stay: they are removed one by one")
}

fn many(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// Which bans, in which order.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct BansQuery {
    /// Only bans that hold this address, or that lie inside of this network.
    #[param(value_type = Option<AddressOrNetwork>)]
    ip: Option<String>,
    /// Only bans by this pattern; `manual` are those of operators.
    pattern: Option<String>,
    /// Only bans whose address contains this text.
    search: Option<String>,
    #[param(value_type = Option<SortBy>)]
    sort: Option<String>,
    #[param(value_type = Option<Direction>)]
    order: Option<String>,
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<BansCursor>)]
    cursor: Option<String>,
}

/// By what bans are sorted.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case", default = "banned_at")]
#[expect(dead_code, reason = "the words for the document; input is read with better messages")]
pub(super) enum SortBy {
    BannedAt,
    ExpiresAt,
    IpAddress,
    Offences,
    Severity,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case", default = "desc")]
#[expect(dead_code, reason = "the words for the document; input is read with better messages")]
pub(super) enum Direction {
    Asc,
    Desc,
}

/// The bans in force, page by page.
#[utoipa::path(
    get, path = "/api/temp-bans", tag = "bans", params(BansQuery),
    responses((status = 200, description = "A page.", body = BanList), Refusals)
)]
pub(super) async fn list(State(office): State<Office>, uri: Uri) -> Result<Json<BanList>, Refused> {
    let BansQuery { ip, pattern, search, sort, order, limit, cursor } = input::query(&uri)?;
    let subject = ip.as_deref().map(|ip| Subject::parse("ip", ip)).transpose()?;
    let wrong = |key: &str, text: &str, known: &str| {
        let shown: String = text.chars().take(100).collect();
        Err(Refused::wrong(format!("{key}: {shown:?} is none of {known}")))
    };
    let question = Question {
        within: subject.filter(|subject| !subject.is_address).map(|subject| subject.network),
        covering: subject.filter(|subject| subject.is_address).map(Subject::base),
        patterns: None,
        text: search.unwrap_or_default().trim().to_ascii_lowercase(),
        order: match sort.as_deref() {
            None | Some("banned_at") => Order::BannedAt,
            Some("expires_at") => Order::ExpiresAt,
            Some("ip_address") => Order::Address,
            Some("offences") => Order::Offences,
            Some("severity") => Order::Severity,
            Some(other) => return wrong("sort", other, "banned_at, expires_at, ip_address, offences, severity"),
        },
        descending: match order.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => return wrong("order", other, "asc, desc"),
        },
        limit: input::limit(limit.as_deref(), PAGE_MAX)?,
        after: match cursor.as_deref() {
            None => None,
            Some(text) => match Place::parse(text) {
                Some(place) => Some(place),
                None => return Err(Refused::wrong("cursor: expected next_cursor of the page before")),
            },
        },
    };
    let page = office.desk.bans(question, pattern).await?;
    Ok(Json(BanList {
        success: true,
        count: page.total,
        temp_bans: page.bans.into_iter().map(BanItem::from).collect(),
        next_cursor: page.next,
    }))
}

/// Ends all temporary bans. The blacklist stays.
#[utoipa::path(
    post, path = "/api/purge-bans", tag = "bans", request_body = Option<input::Remarks>,
    responses((status = 200, description = "No temporary ban is in force, on any shard.", body = Purged), Refusals, OrderRefusals)
)]
pub(super) async fn purge(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Purged>, Refused> {
    let input::Remarks { reason, created_by } = input::body(request).await?;
    let Signed { operator, author: by, reason } = caller.signs(reason, created_by)?;
    let noted = Noted { operator, action: "purge", target: "all bans".to_owned(), detail: reason.unwrap_or_default() };
    let desk = office.desk.clone();
    let work = async move {
        let purged_count = desk.lift_within(None, by).await?;
        Ok(Purged { success: true, message: format!("ended {}", many(purged_count, "ban")), purged_count })
    };
    office.order(noted, work).await.map(Json)
}

impl Subject {
    /// Who is meant by it.
    fn whom(self) -> Whom {
        if self.is_address { Whom::ClientOf(self.base()) } else { Whom::Exactly(self.network) }
    }
}
