//! Envoy's side of gRPC, as far as a test needs it: calls over HTTP/2, made with another implementation's client.

use super::DEADLINE;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use std::future::Future;
use std::net::SocketAddr;
use tokio::task::JoinHandle;

pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The gRPC messages, without their prefix.
    pub message: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn grpc_status(&self) -> &str {
        let found = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        found.map_or("none", |status| status.to_str().expect("text"))
    }

    /// Whether the client may come in.
    #[track_caller]
    pub fn allows(&self) -> bool {
        assert_eq!((self.status, self.grpc_status()), (StatusCode::OK, "0"), "{self:?}");
        // CheckResponse: the status, first of all. An empty one says OK.
        assert_eq!(self.message[0], 0x0a);
        let status = &self.message[2..2 + usize::from(self.message[1])];
        match status {
            [] => true,
            [0x08, 7, ..] => false,
            other => panic!("a status that is neither: {other:02x?}"),
        }
    }

    pub fn says(&self, text: &str) -> bool {
        self.message.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// One connection of a caller.
#[derive(Clone)]
pub struct Caller(pub SendRequest<Bytes>);

impl Caller {
    pub async fn connect(to: SocketAddr) -> Caller {
        Caller::connect_watched(to).await.0
    }

    /// The same, and how the connection will have ended.
    pub async fn connect_watched(to: SocketAddr) -> (Caller, JoinHandle<Result<(), h2::Error>>) {
        let stream = tokio::net::TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("an option of TCP");
        // With its usual window this client takes hundreds of small answers at once for an attack.
        let mut client = h2::client::Builder::new();
        client.initial_connection_window_size(8 << 20);
        let (send, connection) = client.handshake(stream).await.expect("HTTP/2");
        (Caller(send), tokio::spawn(connection))
    }

    pub async fn call(&self, path: &str, message: &[u8]) -> Result<Answer, h2::Error> {
        self.send(path, "application/grpc", [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()).await
    }

    pub async fn send(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Answer, h2::Error> {
        let request = Request::post(format!("http://authz{path}"))
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (response, mut stream) = self.0.clone().ready().await?.send_request(request, false)?;
        stream.send_data(body.into(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            message.extend_from_slice(&data?);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            message: message.split_off(5.min(message.len())),
            trailers,
        })
    }

    /// Whether `client` may come in, as Envoy's own peer.
    pub async fn allows(&self, client: &str) -> bool {
        self.call(CHECK, &question(client, &[])).await.expect("an answer").allows()
    }
}

/// Runs a caller to its end.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await.expect("an end in time") })
}

/// A field of protobuf: a number and bytes.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 128 {
        out.push(length as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
    [out, bytes.to_vec()].concat()
}

/// CheckRequest: attributes.source.address.socket_address.address, and attributes.request.http.headers.
pub fn question(client: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let source = field(1, &field(1, &field(1, &field(2, client.as_bytes()))));
    let headers: Vec<u8> = headers
        .iter()
        .flat_map(|(name, value)| field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()))
        .collect();
    // The destination, which is never asked about.
    let destination = field(2, &field(1, &field(1, &field(2, b"192.0.2.7"))));
    field(1, &[source, destination, field(4, &field(2, &headers))].concat())
}
