//! The API: what operators ask and order over HTTP, and the page that shows it.
//!
//! It comes in by three doors: a listener of its own (`api.address`), connections that a shard found to be for it on
//! nginx's port, and the control socket of the command line. Behind them is one router. It owns nothing: what is asked is
//! asked at the [`Desk`](super::desk::Desk), so an answer says what every shard does.

mod refusal;
mod serve;
mod socket;

pub use socket::{ControlFile, ControlSocket, NAME as CONTROL_SOCKET};

use super::desk::Desk;
use crate::config::Settings;
use crate::engine::address::Address;
use axum::Router;
use serve::Places;
use std::sync::Arc;
use tokio::time::Instant;

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
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    router: Router,
    places: Places,
}

impl Api {
    /// Makes the API. Nothing comes in before one of the doors is opened: [`Api::listen`], [`Api::listen_locally`],
    /// [`Api::serve_handed_over`]. Needs tokio's runtime around it.
    pub fn new(desk: Desk, _settings: &Settings) -> Api {
        let router = Router::new().with_state(desk);
        Api(Arc::new(Inner { router, places: Places::new(256) }))
    }

    /// Takes over what a reload can change.
    pub fn adopt(&self, _settings: &Settings) {}

    /// Ends: nothing is accepted any more, streams of events end, requests are answered until `deadline`. True if all were.
    pub async fn close(&self, deadline: Instant) -> bool {
        self.0.places.close(deadline).await
    }

    fn router(&self) -> &Router {
        &self.0.router
    }

    fn places(&self) -> &Places {
        &self.0.places
    }

    /// Whether a peer may ask at all.
    fn welcomes(&self, _origin: Origin) -> bool {
        true
    }
}
