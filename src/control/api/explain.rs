//! Why an address is denied, or why not: in one call.

use super::Office;
use super::answers::{Explanation, ListItem};
use super::input;
use super::refusal::{Refusals, Refused};
use super::schema::Address as AddressText;
use crate::control::store::Entry;
use crate::control::store::contents::ListName;
use crate::engine::address::{Address, Network};
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

/// Earlier bans that are shown.
const HISTORY: usize = 20;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// An address.
    #[param(value_type = AddressText)]
    ip: String,
}

/// Why an address is denied, or why not: its verdict, lists, bans, counted failures, the log lines that counted, and what
/// happened before.
#[utoipa::path(
    get, path = "/api/explain", tag = "bans", params(ExplainQuery),
    responses((status = 200, description = "All that is known.", body = Explanation), Refusals)
)]
pub(super) async fn explain(State(office): State<Office>, uri: Uri) -> Result<Json<Explanation>, Refused> {
    let ExplainQuery { ip } = input::query(&uri)?;
    let address = input::address("ip", &ip)?;
    let inspected = office.desk.inspect(address).await?;
    let whitelist = office.entries_of(ListName::Whitelist, address, &inspected.whitelist).await;
    let blacklist = office.entries_of(ListName::Blacklist, address, &inspected.blacklist).await;
    let mut clients = vec![inspected.client, Network::host(address)];
    clients.extend(inspected.bans.iter().map(|ban| ban.client));
    clients.sort_unstable();
    clients.dedup();
    // What is decided does not hang on what is kept of it.
    let history = office.clerk.history(clients, HISTORY).await.unwrap_or_default();
    Ok(Json(Explanation::new(inspected, whitelist, blacklist, history)))
}

impl Office {
    /// What is written about the entries of a list that are in force.
    async fn entries_of(&self, list: ListName, address: Address, in_force: &[Network]) -> Vec<ListItem> {
        if in_force.is_empty() {
            return Vec::new();
        }
        // If it cannot be read now, the entries count all the same.
        let mut written = self.clerk.covering(list, address).await.unwrap_or_default();
        let of = |entry: &Entry, network: &Network| Network::parse(entry.address.trim()).is_ok_and(|is| is == *network);
        let described = in_force.iter().map(|network| match written.iter().position(|entry| of(entry, network)) {
            Some(at) => ListItem::from(written.remove(at)),
            None => ListItem::bare(network.to_string()),
        });
        described.collect()
    }
}
