//! The whitelist and the blacklist.

use super::access::{Caller, Signed};
use super::answers::{Blacklist, Done, ListItem, Whitelist};
use super::input::{self, Subject};
use super::refusal::{OrderRefusals, Refusals, Refused};
use super::schema::{AddressOrNetwork, Author, EntriesCursor, Reason};
use super::{Noted, Office, TURNS};
use crate::control::store::contents::ListName;
use crate::control::store::{Enlisted, EntryPage, EntryQuery, NewEntry, PAGE_MAX};
use crate::engine::address::Network;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json};
use serde::Deserialize;
use std::hash::BuildHasher as _;
use tokio::sync::MutexGuard;
use utoipa::{IntoParams, ToSchema};

/// What is to be put on a list.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object with ip_address")]
pub(super) struct EntryBody {
    /// An address, or a network.
    #[schema(value_type = AddressOrNetwork)]
    ip_address: String,
    #[schema(value_type = Option<Reason>)]
    reason: Option<String>,
    /// Who is to be named as its author.
    #[schema(value_type = Option<Author>)]
    created_by: Option<String>,
    /// Needed for networks larger than an IPv4 /8 or an IPv6 /16.
    force: Option<bool>,
}

/// What is to be taken from a list.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default, expecting = "a JSON object with ip_address")]
pub(super) struct RemovalBody {
    /// Exactly this address or network. It may stand in the query instead.
    #[schema(value_type = Option<AddressOrNetwork>)]
    ip_address: Option<String>,
    #[schema(value_type = Option<Reason>)]
    reason: Option<String>,
    #[schema(value_type = Option<Author>)]
    created_by: Option<String>,
}

/// For clients that send no body with DELETE.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RemovalQuery {
    /// Exactly this address or network.
    #[param(value_type = Option<AddressOrNetwork>)]
    ip_address: Option<String>,
}

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct EntriesQuery {
    /// Only entries that lie inside of this network, or that are this address.
    #[param(value_type = Option<AddressOrNetwork>)]
    ip: Option<String>,
    /// Only entries with this text in their address, reason or author.
    search: Option<String>,
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<EntriesCursor>)]
    cursor: Option<String>,
}

/// The whitelist, page by page: who is on it is never denied.
#[utoipa::path(
    get, path = "/api/whitelist", tag = "lists", params(EntriesQuery),
    responses((status = 200, description = "A page.", body = Whitelist), Refusals)
)]
pub(super) async fn whitelist(State(office): State<Office>, uri: Uri) -> Result<Json<Whitelist>, Refused> {
    let page = office.entries(ListName::Whitelist, &uri).await?;
    let next_cursor = page.next.map(|next| next.to_string());
    let whitelist = page.entries.into_iter().map(ListItem::from).collect();
    Ok(Json(Whitelist { success: true, count: page.total, whitelist, next_cursor }))
}

/// The blacklist, page by page: who is on it is denied, unless it is on the whitelist.
#[utoipa::path(
    get, path = "/api/blacklist", tag = "lists", params(EntriesQuery),
    responses((status = 200, description = "A page.", body = Blacklist), Refusals)
)]
pub(super) async fn blacklist(State(office): State<Office>, uri: Uri) -> Result<Json<Blacklist>, Refused> {
    let page = office.entries(ListName::Blacklist, &uri).await?;
    let next_cursor = page.next.map(|next| next.to_string());
    let blacklist = page.entries.into_iter().map(ListItem::from).collect();
    Ok(Json(Blacklist { success: true, count: page.total, blacklist, next_cursor }))
}

/// Puts an address or a network on the whitelist. Bans that it covers end.
#[utoipa::path(
    post, path = "/api/whitelist", tag = "lists", request_body = EntryBody,
    responses((status = 200, description = "It is on the list, on every shard.", body = Done), Refusals, OrderRefusals)
)]
pub(super) async fn add_to_whitelist(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Done>, Refused> {
    office.add(ListName::Whitelist, "whitelist_add", &caller, request).await
}

/// Puts an address or a network on the blacklist.
#[utoipa::path(
    post, path = "/api/blacklist", tag = "lists", request_body = EntryBody,
    responses((status = 200, description = "It is on the list, on every shard.", body = Done), Refusals, OrderRefusals)
)]
pub(super) async fn add_to_blacklist(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Done>, Refused> {
    office.add(ListName::Blacklist, "blacklist_add", &caller, request).await
}

/// Takes an address or a network from the whitelist.
#[utoipa::path(
    delete, path = "/api/whitelist", tag = "lists", params(RemovalQuery), request_body = Option<RemovalBody>,
    responses((status = 200, description = "It is not on the list any more, on any shard.", body = Done), Refusals, OrderRefusals)
)]
pub(super) async fn remove_from_whitelist(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Done>, Refused> {
    office.remove(ListName::Whitelist, "whitelist_remove", &caller, request).await
}

/// Takes an address or a network from the blacklist.
#[utoipa::path(
    delete, path = "/api/blacklist", tag = "lists", params(RemovalQuery), request_body = Option<RemovalBody>,
    responses((status = 200, description = "It is not on the list any more, on any shard.", body = Done), Refusals, OrderRefusals)
)]
pub(super) async fn remove_from_blacklist(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Done>, Refused> {
    office.remove(ListName::Blacklist, "blacklist_remove", &caller, request).await
}

impl Office {
    async fn entries(&self, list: ListName, uri: &Uri) -> Result<EntryPage, Refused> {
        let EntriesQuery { ip, search, limit, cursor } = input::query(uri)?;
        let query = EntryQuery {
            within: ip.as_deref().map(|ip| Subject::parse("ip", ip)).transpose()?.map(|subject| subject.network),
            search,
            limit: input::limit(limit.as_deref(), PAGE_MAX)?,
            after: input::place("cursor", cursor.as_deref())?,
        };
        let _turn = match query.search {
            Some(_) => Some(self.searching.lock().await),
            None => None,
        };
        Ok(self.clerk.entries(list, query).await?)
    }

    async fn add(
        &self,
        list: ListName,
        action: &'static str,
        caller: &Caller,
        request: Request,
    ) -> Result<Json<Done>, Refused> {
        let EntryBody { ip_address, reason, created_by, force } = input::body(request).await?;
        let subject = Subject::parse("ip_address", &ip_address)?.refuse_huge(force)?;
        let Signed { operator, author, reason } = caller.signs(reason, created_by)?;
        let detail = reason.clone().unwrap_or_default();
        let noted = Noted { operator, action, target: subject.to_string(), detail };
        let office = self.clone();
        let work = async move {
            let entry = NewEntry { network: subject.network, reason, created_by: author };
            let is_new = office.enlist(list, entry).await.map_err(|refused| refused.about(subject))?;
            let already = if is_new { "" } else { " already" };
            let mut message = format!("{subject} is on the {}{already}", list.name());
            // It is on the list, whether that can be found out or not.
            if list == ListName::Blacklist
                && let Ok(inspected) = office.desk.inspect(subject.base()).await
                && let Some(entry) = inspected.whitelist.iter().find(|entry| entry.covers(subject.network))
            {
                message.push_str(&format!("; but it is let in, because {entry} is on the whitelist"));
            }
            Ok(Done { success: true, message, ip_address: subject.to_string() })
        };
        self.order(noted, work).await.map(Json)
    }

    async fn remove(
        &self,
        list: ListName,
        action: &'static str,
        caller: &Caller,
        request: Request,
    ) -> Result<Json<Done>, Refused> {
        let RemovalQuery { ip_address: in_query } = input::query(request.uri())?;
        let RemovalBody { ip_address, reason, created_by } = input::body(request).await?;
        let subject = match (in_query, ip_address) {
            (Some(text), None) | (None, Some(text)) => Subject::parse("ip_address", &text)?,
            (Some(_), Some(_)) => return Err(Refused::wrong("ip_address: it stands in the query and in the body")),
            (None, None) => return Err(Refused::wrong("ip_address: missing")),
        };
        let Signed { operator, author: by, reason } = caller.signs(reason, created_by)?;
        let noted = Noted { operator, action, target: subject.to_string(), detail: reason.unwrap_or_default() };
        let office = self.clone();
        let work = async move {
            let removed = office.delist(list, subject.network, by).await.map_err(|refused| refused.about(subject))?;
            if !removed {
                let message = format!("is not on the {} by itself", list.name());
                return Err(Refused::new(StatusCode::NOT_FOUND, message).about(subject));
            }
            let message = format!("{subject} is not on the {} any more", list.name());
            Ok(Done { success: true, message, ip_address: subject.to_string() })
        };
        self.order(noted, work).await.map(Json)
    }

    /// The turn of an entry. Until one edit is in force no other of the same entry is made: were it undone at once, nobody
    /// could say that it ever was.
    async fn turn(&self, network: Network) -> MutexGuard<'_, ()> {
        self.turns[self.hash.hash_one(network) as usize % TURNS].lock().await
    }

    /// Puts a network on a list, and waits until every shard knows. False if it was there.
    pub(super) async fn enlist(&self, list: ListName, entry: NewEntry) -> Result<bool, Refused> {
        let (network, by) = (entry.network, entry.created_by.clone());
        let _turn = self.turn(network).await;
        let is_new = self.clerk.enlist(list, entry).await? == Enlisted::New;
        self.desk.until_in_force(list, network, true, is_new.then_some(by)).await?;
        Ok(is_new)
    }

    /// Takes a network from a list, and waits until every shard knows. False if it was not there.
    pub(super) async fn delist(&self, list: ListName, network: Network, by: String) -> Result<bool, Refused> {
        let _turn = self.turn(network).await;
        let was_there = self.clerk.delist(list, network).await?;
        if was_there {
            self.desk.until_in_force(list, network, false, Some(by)).await?;
        }
        Ok(was_there)
    }
}
