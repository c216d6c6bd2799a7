//! How the server is doing, how the API is guarded, reload, and who changed what.

use super::access::{Caller, Signed};
use super::answers::{
    AuditAnswer, HistoryAnswer, RadixAnswer, Reloaded, SampleItem, Security, SecurityAnswer, StatusAnswer,
};
use super::input;
use super::refusal::{OrderRefusals, Refusals, Refused};
use super::schema::EntriesCursor;
use super::{Noted, Office};
use crate::control::store::{AuditQuery, PAGE_MAX};
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::{Extension, Json};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

/// How the server is doing.
#[utoipa::path(
    get, path = "/api/status", tag = "server",
    responses((status = 200, description = "The server in numbers.", body = StatusAnswer), Refusals)
)]
pub(super) async fn status(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<StatusAnswer>, Refused> {
    let overview = office.desk.overview().await?;
    Ok(Json(StatusAnswer::new(overview, caller.operator(None).name, caller.may_change())))
}

/// What happened in the last hour.
#[utoipa::path(
    get, path = "/api/history", tag = "server",
    responses((status = 200, description = "The last hour.", body = HistoryAnswer), Refusals)
)]
pub(super) async fn history(State(office): State<Office>) -> Result<Json<HistoryAnswer>, Refused> {
    let samples = office.desk.history().await?.iter().map(SampleItem::from).collect();
    Ok(Json(HistoryAnswer { success: true, samples }))
}

/// What the tables of bans hold.
#[utoipa::path(
    get, path = "/api/radix-stats", tag = "server",
    responses((status = 200, description = "The tables in numbers.", body = RadixAnswer), Refusals)
)]
pub(super) async fn radix_stats(State(office): State<Office>) -> Result<Json<RadixAnswer>, Refused> {
    Ok(Json(office.desk.overview().await?.into()))
}

/// How the API is guarded.
#[utoipa::path(
    get, path = "/api/security-status", tag = "server",
    responses((status = 200, description = "Who may ask, and how often.", body = SecurityAnswer), Refusals)
)]
pub(super) async fn security_status(State(office): State<Office>) -> Json<SecurityAnswer> {
    let access = office.access();
    let rate_limit = access.limit();
    let active_clients = match rate_limit {
        Some(per_minute) => office.limiter.lock().await.active(per_minute, Instant::now()),
        None => 0,
    };
    Json(SecurityAnswer {
        success: true,
        security: Security {
            enabled: access.is_enabled(),
            allowed_ips_count: access.allowed_count(),
            basic_auth_enabled: access.has_basic_auth(),
            tokens_count: access.tokens_count(),
            rate_limiting_enabled: rate_limit.is_some(),
            active_clients,
            rate_limit,
        },
    })
}

/// Reads the configuration file again. If anything is wrong with it, the one before stays in force.
#[utoipa::path(
    post, path = "/api/reload", tag = "server", request_body = Option<input::Remarks>,
    responses((status = 200, description = "It is in force, on every shard.", body = Reloaded), Refusals, OrderRefusals)
)]
pub(super) async fn reload(
    State(office): State<Office>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Reloaded>, Refused> {
    let input::Remarks { reason, created_by } = input::body(request).await?;
    let Signed { operator, reason, .. } = caller.signs(reason, created_by)?;
    let detail = reason.unwrap_or_default();
    let noted = Noted { operator, action: "reload", target: "configuration".to_owned(), detail };
    let desk = office.desk.clone();
    let work = async move {
        match desk.reload().await? {
            Ok(policy) => Ok(Reloaded {
                success: true,
                message: format!("the configuration was read again; policy {policy} is in force on every shard"),
                policy,
            }),
            Err(faults) => {
                let message = match faults.as_slice() {
                    [one] => format!("the configuration is refused, and the one before stays in force: {one}"),
                    more => format!(
                        "the configuration is refused, and the one before stays in force: {} faults",
                        more.len()
                    ),
                };
                Err(Refused::wrong(message).with_faults(faults))
            }
        }
    };
    office.order(noted, work).await.map(Json)
}

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RecordQuery {
    /// Only entries with this text in any of their fields.
    search: Option<String>,
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// `next_before` of the page before.
    #[param(value_type = Option<EntriesCursor>)]
    before: Option<String>,
}

/// Who changed what, newest first.
#[utoipa::path(
    get, path = "/api/audit", tag = "server", params(RecordQuery),
    responses((status = 200, description = "A page.", body = AuditAnswer), Refusals)
)]
pub(super) async fn audit(State(office): State<Office>, uri: Uri) -> Result<Json<AuditAnswer>, Refused> {
    let RecordQuery { search, limit, before } = input::query(&uri)?;
    let query = AuditQuery {
        limit: input::limit(limit.as_deref(), PAGE_MAX)?,
        before: input::place("before", before.as_deref())?,
        search: search.filter(|search| !search.trim().is_empty()),
    };
    let _turn = match query.search {
        Some(_) => Some(office.searching.lock().await),
        None => None,
    };
    Ok(Json(office.clerk.audit(query).await?.into()))
}
