//! What happens, as it happens: server-sent events, as the HTML standard has them.

use super::Office;
use super::answers::SampleItem;
use super::refusal::Refusals;
use crate::control::desk::{Happening, Heard};
use crate::control::store::print_wall;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How often something is sent to whom nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bans, unbans, changes of lists and of the policy, refused configurations, the database going and coming, and every five
/// seconds what happened in them, as they happen.
///
/// The events are `ban`, `unban`, `list`, `policy`, `refused`, `database`, `sample` and `lagged` (some were missed by a
/// slow listener); the data of each is a JSON object. The stream ends when who may use the API changes.
#[utoipa::path(
    get, path = "/api/events", tag = "server",
    responses((status = 200, description = "The stream.", body = String, content_type = "text/event-stream"), Refusals)
)]
pub(super) async fn events(State(office): State<Office>) -> Response {
    let happenings = office.desk.listen();
    let mut access = office.access.subscribe();
    let ends = office.places.ends();
    let over = async move {
        tokio::select! {
            () = ends => {}
            // An error means that the sender is gone, which is an end as well.
            _ = access.changed() => {}
        }
    };
    let told = unfold(happenings, next).take_until(Box::pin(over));
    let mut response =
        Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here")).into_response();
    // nginx would wait for more before it passes anything on.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

type Happenings = broadcast::Receiver<Arc<Heard>>;

/// The next event; `None` if there will be none.
async fn next(mut happenings: Happenings) -> Option<(Result<Event, Infallible>, Happenings)> {
    let event = match happenings.recv().await {
        Ok(heard) => {
            let name = name(&heard.happening);
            Event::default().event(name).data(heard.printed(|happening| data(happening).to_string()))
        }
        Err(RecvError::Lagged(missed)) => Event::default().event("lagged").data(json!({"missed": missed}).to_string()),
        Err(RecvError::Closed) => return None,
    };
    Some((Ok(event), happenings))
}

fn name(happening: &Happening) -> &'static str {
    match happening {
        Happening::Ban { .. } => "ban",
        Happening::Unban { .. } => "unban",
        Happening::Policy { .. } => "policy",
        Happening::Refused { .. } => "refused",
        Happening::List { .. } => "list",
        Happening::Database { .. } => "database",
        Happening::Sample(_) => "sample",
    }
}

fn data(happening: &Happening) -> Value {
    match happening {
        Happening::Ban { at, client, pattern, severity, kind, failures, offences, expires_at, learned, by } => json!({
            "at": print_wall(*at),
            "ip_address": client.to_string(),
            "pattern": pattern,
            "severity": severity,
            "kind": kind,
            "failures": failures,
            "offences": offences,
            "expires_at": print_wall(*expires_at),
            "learned": learned,
            "created_by": by,
        }),
        Happening::Unban { at, client, why, learned, by } => json!({
            "at": print_wall(*at),
            "ip_address": client.to_string(),
            "reason": why,
            "learned": learned,
            "created_by": by,
        }),
        Happening::Policy { at, number, patterns, whitelist, blacklist } => json!({
            "at": print_wall(*at),
            "number": number,
            "patterns": patterns,
            "whitelist": whitelist,
            "blacklist": blacklist,
        }),
        Happening::Refused { at, faults } => json!({"at": print_wall(*at), "faults": faults}),
        Happening::List { at, list, entry, added, by } => json!({
            "at": print_wall(*at),
            "list": list.name(),
            "ip_address": entry.to_string(),
            "added": added,
            "created_by": by,
        }),
        Happening::Database { at, connected } => json!({"at": print_wall(*at), "connected": connected}),
        Happening::Sample(sample) => json!(SampleItem::from(sample)),
    }
}
