//! Connections: each is one task that speaks HTTP/1.1, bounded in number and in time.
//!
//! There are three pools of places. Peers that may ask have `api.max_connections`; all others together have a few, so
//! that they get their refusal but can keep nobody out; and so has the control socket, so that the command line works
//! when everything else is full.

use super::refusal::Refused;
use super::{Api, Origin};
use crate::control::http::{self, Patient};
use crate::engine::address::Address;
use axum::body::Body;
use axum::http::Request;
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tower::ServiceExt as _;

/// Connections of peers that may not ask, or that find no other place.
const STRANGERS: usize = 32;

/// Connections on the control socket.
const LOCAL: usize = 32;

/// Orders that are carried out at a time.
const ORDERS: usize = 256;

/// How long nothing is accepted after that failed: what is missing, mostly file descriptors, may come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The places that there are for connections.
#[derive(Debug)]
pub(super) struct Places {
    peers: Pool,
    strangers: Pool,
    local: Pool,
    /// Orders that are being carried out, whoever waits for them.
    orders: Pool,
    /// True once the program ends.
    ends: watch::Sender<bool>,
}

#[derive(Debug)]
struct Pool {
    size: usize,
    free: Arc<Semaphore>,
}

/// A place, and whether its holder is served, or only told that there is no other.
struct Place {
    full: bool,
    permit: OwnedSemaphorePermit,
}

impl Pool {
    fn new(size: usize) -> Pool {
        Pool { size, free: Arc::new(Semaphore::new(size)) }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }
}

impl Places {
    pub fn new(connections_max: usize) -> Places {
        Places {
            peers: Pool::new(connections_max),
            strangers: Pool::new(STRANGERS),
            local: Pool::new(LOCAL),
            orders: Pool::new(ORDERS),
            ends: watch::Sender::new(false),
        }
    }

    /// Resolves when the program ends.
    pub fn ends(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ends = self.ends.subscribe();
        // An error means that the sender is gone, which is an end as well.
        async move { drop(ends.wait_for(|ends| *ends).await) }
    }

    /// A place for an order; `None` if too many are being carried out.
    pub fn order(&self) -> Option<OwnedSemaphorePermit> {
        self.orders.take()
    }

    /// Has every connection end after what it is at, and waits for that until `deadline`. True if all did.
    pub async fn close(&self, deadline: Instant) -> bool {
        self.ends.send_replace(true);
        let all_back = async {
            for pool in [&self.peers, &self.strangers, &self.local, &self.orders] {
                while pool.free.available_permits() < pool.size {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        };
        timeout_at(deadline, all_back).await.is_ok()
    }

    fn take(&self, origin: Origin, welcome: bool) -> Option<Place> {
        let place = |full| move |permit| Place { full, permit };
        match origin {
            Origin::Socket => self.local.take().map(place(false)).or_else(|| self.strangers.take().map(place(true))),
            Origin::Peer(_) if welcome => {
                self.peers.take().map(place(false)).or_else(|| self.strangers.take().map(place(true)))
            }
            Origin::Peer(_) => self.strangers.take().map(place(false)),
        }
    }
}

impl Api {
    /// Serves what is accepted on a listener of our own, which must not block.
    ///
    /// # Errors
    ///
    /// If the runtime does not take the listener.
    pub fn listen(&self, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let api = self.clone();
        tokio::spawn(async move {
            let mut ends = pin!(api.places().ends());
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => api.spawn(stream, Origin::Peer(Some(peer.ip().into())), false),
                        Err(_) => sleep(ACCEPT_PAUSE).await,
                    },
                    () = &mut ends => return,
                }
            }
        });
        Ok(())
    }

    /// Serves the command line. Whoever may open the socket is an administrator.
    ///
    /// # Errors
    ///
    /// If the runtime does not take the socket.
    pub fn listen_locally(&self, listener: std::os::unix::net::UnixListener) -> io::Result<()> {
        let listener = UnixListener::from_std(listener)?;
        let api = self.clone();
        tokio::spawn(async move {
            let mut ends = pin!(api.places().ends());
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => api.spawn(stream, Origin::Socket, false),
                        Err(_) => sleep(ACCEPT_PAUSE).await,
                    },
                    () = &mut ends => return,
                }
            }
        });
        Ok(())
    }

    /// Serves one request of a connection that a shard hands over, TCP or unix, and closes it. `read` is what the shard has
    /// read of it: the request from its first byte on. `peer` is `None` on a unix socket.
    pub fn serve_handed_over(&self, socket: OwnedFd, read: Vec<u8>, peer: Option<Address>) {
        // A unix socket as well: of TCP's stream only receiving and sending is used, which is the same for both.
        let stream = StdStream::from(socket);
        let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) else { return };
        let (rest, write) = stream.into_split();
        self.spawn(join(Cursor::new(read).chain(rest), write), Origin::Peer(peer), true);
    }

    /// Serves a connection, if there is a place for it. `once` is whether it is closed after one request.
    fn spawn<S>(&self, stream: S, origin: Origin, once: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Without a place even for a refusal, the connection is closed here.
        let Some(place) = self.places().take(origin, self.welcomes(origin)) else { return };
        let api = self.clone();
        tokio::spawn(async move {
            // All of it, so that the place is taken until the connection has ended.
            let Place { full, permit: _permit } = place;
            let stream = TokioIo::new(Patient::new(stream));
            let answer = service_fn(|mut request: Request<Incoming>| {
                request.extensions_mut().insert(origin);
                let router = api.router().clone();
                async move {
                    match full {
                        true => Ok::<_, Infallible>(Refused::full().into_response()),
                        false => router.oneshot(request.map(Body::new)).await,
                    }
                }
            });
            let mut builder = http::builder();
            builder.keep_alive(!once && !full);
            let mut connection = pin!(builder.serve_connection(stream, answer));
            tokio::select! {
                // What went wrong with a connection is its peer's business.
                _ = &mut connection => return,
                () = api.places().ends() => {}
            }
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        });
    }
}
