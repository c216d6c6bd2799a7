//! What anybody would write first to answer Envoy's ext_authz: tonic on one thread, and a set of banned addresses. It is
//! the yardstick of `perf/compare` for mailfail2ban's own server, and answers the same questions with the same headers.
//!
//! `mailfail2ban-tonic 127.0.0.1:9001 100000`: where to listen, and how many addresses are banned. They are those that
//! `mailfail2ban-load` takes for offenders: 198.18.0.0 and those after it, behind these 10.0.0.0 and those after it.

mod messages {
    tonic::include_proto!("messages");
}

use messages::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use messages::envoy::config::core::v3::{HeaderValue, HeaderValueOption, address};
use messages::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use messages::envoy::service::auth::v3::check_response::HttpResponse;
use messages::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use messages::envoy::r#type::v3::{HttpStatus, StatusCode};
use messages::google::rpc;
use std::collections::HashSet;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Request, Response, Status};

/// How many offenders come out of the first range, 198.18.0.0/15.
const FIRST_RANGE: u32 = 1 << 17;

struct Service {
    banned: HashSet<IpAddr>,
}

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let client = request.into_inner().attributes.and_then(client);
        let answer = match client {
            Some(client) if self.banned.contains(&client) => denied(client),
            _ => allowed(),
        };
        Ok(Response::new(answer))
    }
}

/// Envoy's peer, or the last of X-Forwarded-For where that peer is on this machine: the measured Envoy has all of its load
/// from one address, and both services have to believe what stands in the header.
fn client(attributes: AttributeContext) -> Option<IpAddr> {
    let peer: IpAddr = match attributes.source?.address?.address? {
        address::Address::SocketAddress(socket) => socket.address.parse().ok()?,
        address::Address::Pipe(_) | address::Address::EnvoyInternalAddress(_) => return None,
    };
    if !peer.is_loopback() {
        return Some(peer);
    }
    let headers = attributes.request.and_then(|request| request.http).map(|http| http.headers).unwrap_or_default();
    let forwarded = headers.get("x-forwarded-for").and_then(|header| header.rsplit(',').next());
    forwarded.map_or(Some(peer), |client| client.trim().parse().ok())
}

fn allowed() -> CheckResponse {
    CheckResponse {
        status: Some(rpc::Status { code: Code::Ok.into(), message: String::new() }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {})),
    }
}

fn denied(client: IpAddr) -> CheckResponse {
    let headers = vec![
        header("content-type", "application/json".to_owned()),
        header("x-fail2ban-status", "denied".to_owned()),
        header("x-fail2ban-ip", client.to_string()),
        header("x-fail2ban-reason", "dovecot-login".to_owned()),
        header("retry-after", "3600".to_owned()),
    ];
    CheckResponse {
        status: Some(rpc::Status { code: Code::PermissionDenied.into(), message: "denied".to_owned() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: StatusCode::Forbidden.into() }),
            headers,
            body: format!(r#"{{"status":"denied","ip":"{client}","reason":"dovecot-login","retry_after":3600}}"#),
        })),
    }
}

fn header(key: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value, raw_value: Vec::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

/// The addresses that are banned.
fn offenders(count: u32) -> HashSet<IpAddr> {
    let address = |i: u32| match i.checked_sub(FIRST_RANGE) {
        None => u32::from(Ipv4Addr::new(198, 18, 0, 0)) + i,
        Some(i) => u32::from(Ipv4Addr::new(10, 0, 0, 0)) + i,
    };
    (0..count).map(|i| IpAddr::V4(address(i).into())).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(banned), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: mailfail2ban-tonic ADDRESS:PORT BANNED".into());
    };
    let address: SocketAddr = address.parse()?;
    let service = AuthorizationServer::new(Service { banned: offenders(banned.parse()?) });
    let mut end = signal(SignalKind::terminate())?;
    let ended = async move {
        end.recv().await;
    };
    tonic::transport::Server::builder().add_service(service).serve_with_shutdown(address, ended).await?;
    Ok(())
}
