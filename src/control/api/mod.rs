//! The API: what operators ask and order over HTTP, and the page that shows it.
//!
//! It comes in by three doors: a listener of its own (`api.address`), connections that a shard found to be for it on
//! nginx's port, and the control socket of the command line. Behind them is one router. It owns nothing: what the shards
//! know is asked at the [`Desk`], what is kept at the store's [`Clerk`], and both answer when it is so everywhere.
//!
//! ```text
//! serve.rs        connections: the doors, their bounds
//!   access.rs     who may ask: allow-list, rate limit, browsers of others, roles
//!     limit.rs    how often
//!     credentials.rs  passwords and tokens
//!   input.rs      queries and bodies, read strictly
//!   bans.rs       ban, unban, the list of bans
//!   lists.rs      whitelist and blacklist
//!   explain.rs    why an address is denied, or why not
//!   patterns.rs   a pattern, tried before it goes live
//!   server.rs     how the server is doing, reload, audit
//!   events.rs     what happens, as it happens
//!   answers.rs    the JSON of all of them
//!   refusal.rs    the JSON of what is not done
//!   schema.rs     what texts look like
//!   document.rs   what there is, in OpenAPI's words
//!   page.rs       the page
//! socket.rs       the control socket's file
//! ```

mod access;
mod answers;
mod bans;
mod credentials;
mod document;
mod events;
mod explain;
mod input;
mod limit;
mod lists;
mod page;
mod patterns;
mod refusal;
mod schema;
mod serve;
mod server;
mod socket;

pub use socket::{ControlSocket, NAME as CONTROL_SOCKET};

use super::desk::{Desk, Operator, Refusal};
use super::journal;
use super::store::{AuditEntry, Clerk, EditFault};
use crate::config::Settings;
use crate::engine::address::Address;
use access::{Access, Caller};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use limit::Limiter;
use refusal::Refused;
use serve::Places;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The control socket.
    Socket,
    /// This peer; `None` on a unix socket of a proxy, which counts as this machine.
    Peer(Option<Address>),
}

/// The running API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    router: Router,
    office: Office,
}

/// What all requests are answered with. Cheap to clone.
#[derive(Clone, Debug)]
struct Office {
    desk: Desk,
    clerk: Clerk,
    access: watch::Sender<Arc<Access>>,
    limiter: Arc<Mutex<Limiter>>,
    places: Arc<Places>,
    /// Edits of lists wait for each other, those of one entry: see [`Office::turn`].
    turns: Arc<[Mutex<()>; TURNS]>,
    hash: RandomState,
    /// Searches go through everything, and others who ask for something small should not stand behind a row of them.
    searching: Arc<Mutex<()>>,
    answered: Arc<Answered>,
}

/// Edits of lists that are made at a time, if they are of different entries.
const TURNS: usize = 64;

/// How many requests were answered with which status, since the start.
#[derive(Debug, Default)]
pub struct Answered([AtomicU64; STATUSES.len() + 1]);

/// Those that are counted apart. The others are one.
const STATUSES: [(u16, &str); 14] = [
    (200, "200"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
];

impl Answered {
    fn count(&self, status: StatusCode) {
        let at = STATUSES.iter().position(|(known, _)| *known == status.as_u16()).unwrap_or(STATUSES.len());
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }

    /// By status.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = STATUSES.iter().map(|(_, name)| *name).chain(["other"]);
        names.zip(&self.0).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// What an operator orders, for the record.
#[derive(Clone, Debug)]
struct Noted {
    operator: Operator,
    action: &'static str,
    target: String,
    detail: String,
}

impl Api {
    /// Makes the API. Nothing comes in before one of the doors is opened: [`Api::listen`], [`Api::listen_locally`],
    /// [`Api::serve_handed_over`]. Needs tokio's runtime around it.
    pub fn new(desk: Desk, clerk: Clerk, settings: &Settings) -> Api {
        let office = Office {
            desk,
            clerk,
            access: watch::Sender::new(Arc::new(Access::new(settings))),
            limiter: Arc::default(),
            places: Arc::new(Places::new(settings.api.max_connections)),
            turns: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            hash: RandomState::new(),
            searching: Arc::default(),
            answered: Arc::default(),
        };
        let router = routes()
            .split_for_parts()
            .0
            .merge(document::router())
            .merge(page::router())
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .layer(from_fn_with_state(office.clone(), admit))
            .with_state(office.clone());
        Api { router, office }
    }

    /// Takes over what a reload can change. Streams of events end, since whoever listens may not be welcome any more.
    pub fn adopt(&self, settings: &Settings) {
        let access = Access::new(settings);
        self.office.access.send_if_modified(|present| {
            let changed = !present.is_like(&access);
            if changed {
                *present = Arc::new(access);
            }
            changed
        });
    }

    /// Ends: nothing is accepted any more, streams of events end, requests are answered until `deadline`. True if all were.
    pub async fn close(&self, deadline: Instant) -> bool {
        self.places().close(deadline).await
    }

    pub fn answered(&self) -> &Answered {
        &self.office.answered
    }

    fn router(&self) -> &Router {
        &self.router
    }

    fn places(&self) -> &Places {
        &self.office.places
    }

    /// Whether a peer may ask at all.
    fn welcomes(&self, origin: Origin) -> bool {
        match origin {
            Origin::Socket => true,
            Origin::Peer(peer) => self.office.access().welcomes(peer.unwrap_or(access::THIS_MACHINE)),
        }
    }
}

impl Office {
    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.borrow())
    }

    /// Has an order carried out and written down, also if whoever gave it does not wait for what comes of it.
    async fn order<T: Send + 'static>(
        &self,
        noted: Noted,
        work: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let clerk = self.clerk.clone();
        let place = self.places.order().ok_or_else(|| Refused::from(EditFault::Busy))?;
        let order = tokio::spawn(async move {
            let _place = place;
            let done = work.await;
            let Noted { operator, action, target, detail } = noted;
            let entry = AuditEntry {
                who: operator.name,
                channel: operator.channel,
                peer: operator.peer.map(|peer| peer.to_string()),
                action,
                target,
                detail,
                outcome: match &done {
                    Ok(_) => "ok".to_owned(),
                    Err(refused) => refused.message().to_owned(),
                },
            };
            journal::ordered(&entry);
            clerk.note(entry).await;
            done
        });
        // It ends without an answer only with the program.
        order.await.unwrap_or_else(|_| Err(Refusal::Unavailable("the program is ending".to_owned()).into()))
    }
}

/// What there is under `/api/`, with its description.
fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::with_openapi(document::head())
        .routes(routes!(bans::ban))
        .routes(routes!(bans::unban))
        .routes(routes!(bans::list))
        .routes(routes!(bans::purge))
        .routes(routes!(lists::whitelist, lists::add_to_whitelist, lists::remove_from_whitelist))
        .routes(routes!(lists::blacklist, lists::add_to_blacklist, lists::remove_from_blacklist))
        .routes(routes!(explain::explain))
        .routes(routes!(patterns::check))
        .routes(routes!(events::events))
        .routes(routes!(server::status))
        .routes(routes!(server::history))
        .routes(routes!(server::radix_stats))
        .routes(routes!(server::security_status))
        .routes(routes!(server::reload))
        .routes(routes!(server::audit))
}

/// Lets a request in or refuses it, and says to browsers what they may do with the answer.
async fn admit(State(office): State<Office>, mut request: Request, next: Next) -> Response {
    let access = office.access();
    let origin = request.extensions().get().copied();
    let (method, headers) = (request.method().clone(), std::mem::take(request.headers_mut()));
    let admitted = access.admit(&method, &headers, origin, &office.limiter).await;
    *request.headers_mut() = headers;
    let mut response = match admitted {
        Ok(caller) => {
            request.extensions_mut().insert::<Caller>(caller);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    office.answered.count(response.status());
    response
}

async fn not_found(request: Request) -> Refused {
    let path: String = request.uri().path().chars().take(200).collect();
    Refused::new(StatusCode::NOT_FOUND, format!("there is no {path}; /api/docs says what there is"))
}

async fn not_allowed(request: Request) -> Refused {
    let method = request.method();
    let message = format!("{method} is not possible there; the field Allow says what is");
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
