//! Who may ask: the checks that every request passes before anything is done for it.
//!
//! In this order: may the client ask at all, has it asked too often, was a browser led here by somebody else, who is it,
//! and may he do that. What is cheap and needs no secret comes first, so that guessing a password costs the guesser.

use super::Origin;
use super::credentials::{Credentials, Known};
use super::input::words;
use super::limit::Limiter;
use super::refusal::Refused;
use crate::config::{ApiSettings, Role, Settings};
use crate::control::desk::Operator;
use crate::engine::address::{Address, Network};
use crate::engine::policy::forwarded_client;
use crate::engine::table::{NetworkTable, hash_key};
use axum::http::{HeaderMap, Method, StatusCode, header};
use std::hash::{BuildHasher as _, RandomState};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

/// What proxies add. Where no proxy is trusted, none of it says who asks; but it says that it is not the peer, and with the
/// settings as they come, everybody behind a proxy on this machine would be an administrator.
const FORWARDED: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];

/// Whoever comes over a unix socket.
pub(super) const THIS_MACHINE: Address = Address::LOCALHOST;

/// What the settings say about who may ask. New settings make a new one.
#[derive(Debug)]
pub(super) struct Access {
    /// What it was made of, to see what has changed.
    settings: ApiSettings,
    trusted_proxies: Vec<Network>,
    allowed: Vec<Network>,
    trusted: NetworkTable<()>,
    /// Requests a minute; `None`: as many as anybody likes.
    limit: Option<u32>,
    credentials: Credentials,
    basic_auth: bool,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// `None` if nobody is asked who he is.
    known: Option<Known>,
    channel: &'static str,
    peer: Option<Address>,
}

/// Whose order it is, and why.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub operator: Operator,
    /// Who is shown as its author.
    pub author: String,
    pub reason: Option<String>,
}

impl Caller {
    /// Reads what he says of an order: why, and who is to be named as its author.
    ///
    /// # Errors
    ///
    /// If it is too long, or not one line.
    pub fn signs(&self, reason: Option<String>, created_by: Option<String>) -> Result<Signed, Refused> {
        let reason = words("reason", reason)?;
        let created_by = words("created_by", created_by)?;
        let operator = self.operator(created_by.as_deref());
        let author = created_by.unwrap_or_else(|| operator.name.clone());
        Ok(Signed { operator, author, reason })
    }

    /// Whether he may do more than look.
    pub fn may_change(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.role == Role::Admin)
    }

    /// The operator. Who has not proved his name is called as he says, else by the way he came.
    pub fn operator(&self, says: Option<&str>) -> Operator {
        let says = says.map(str::trim).filter(|says| !says.is_empty());
        let name = self.known.as_ref().map(|known| &*known.name).or(says).unwrap_or(self.channel);
        Operator { name: name.to_owned(), channel: self.channel, peer: self.peer }
    }
}

impl Access {
    pub fn new(settings: &Settings) -> Access {
        let mut trusted = NetworkTable::new(hash_key(RandomState::new().hash_one(0u8)));
        for network in &settings.nginx.trusted_proxies {
            trusted.insert(*network, ());
        }
        let limit = &settings.api.rate_limiting;
        Access {
            settings: settings.api.clone(),
            trusted_proxies: settings.nginx.trusted_proxies.clone(),
            allowed: settings.api.allowed_ips.clone(),
            trusted,
            limit: limit.enabled.then_some(limit.requests_per_minute),
            credentials: Credentials::new(&settings.api),
            basic_auth: settings.api.basic_auth.enabled,
        }
    }

    /// Whether another one says the same.
    pub fn is_like(&self, other: &Access) -> bool {
        self.settings == other.settings && self.trusted_proxies == other.trusted_proxies
    }

    pub fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    pub fn allowed_count(&self) -> usize {
        self.allowed.len()
    }

    pub fn tokens_count(&self) -> usize {
        self.settings.tokens.len()
    }

    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    pub fn has_basic_auth(&self) -> bool {
        self.basic_auth
    }

    /// Whether a peer may ask, for itself or for others.
    pub fn welcomes(&self, peer: Address) -> bool {
        self.allows(peer) || self.trusted.contains(peer)
    }

    fn allows(&self, client: Address) -> bool {
        self.allowed.iter().any(|network| network.contains(client))
    }

    /// Finds out who asks.
    ///
    /// # Errors
    ///
    /// If he may not.
    pub async fn admit(
        &self,
        method: &Method,
        headers: &HeaderMap,
        origin: Option<Origin>,
        limiter: &Mutex<Limiter>,
    ) -> Result<Caller, Refused> {
        let peer = match origin {
            Some(Origin::Socket) => return Ok(Caller { known: None, channel: "socket", peer: None }),
            Some(Origin::Peer(peer)) => peer.unwrap_or(THIS_MACHINE),
            // Whoever serves connections says so. If it was forgotten, nobody is let in by it.
            None => return Err(Refused::new(StatusCode::FORBIDDEN, "where the request comes from is not known")),
        };
        if !self.settings.enabled {
            return Err(Refused::new(StatusCode::NOT_FOUND, "the API is switched off; see api.enabled"));
        }
        let client = self.client(peer, headers)?;
        if !self.allows(client) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "may not use the API; see api.allowed_ips").about(client));
        }
        if let Some(per_minute) = self.limit {
            let taken = limiter.lock().await.take(client, per_minute, Instant::now());
            taken.map_err(|wait| {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let message = format!("too many requests: {per_minute} a minute are allowed; try again in {seconds} s");
                Refused::new(StatusCode::TOO_MANY_REQUESTS, message).about(client).again_in(seconds.max(1))
            })?;
        }
        refuse_strange_browsers(method, headers, !self.credentials.is_empty())?;
        let known = self.identify(headers).await?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !reads
            && known.is_none()
            && !self.trusted.contains(peer)
            && FORWARDED.iter().any(|name| headers.contains_key(*name))
        {
            let message = "a proxy sends this, and nobody says for whom: name the proxy in nginx.trusted_proxies, or \
                           have users or tokens";
            return Err(Refused::new(StatusCode::FORBIDDEN, message).about(client));
        }
        if !reads && known.as_ref().is_some_and(|known| known.role == Role::Read) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "this user may look, but change nothing"));
        }
        Ok(Caller { known, channel: "api", peer: Some(client) })
    }

    /// The client: the peer itself, or the one that a trusted proxy names.
    fn client(&self, peer: Address, headers: &HeaderMap) -> Result<Address, Refused> {
        if !self.trusted.contains(peer) || !headers.contains_key("x-forwarded-for") {
            return Ok(peer);
        }
        let lines: Vec<&[u8]> = headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        let hops = hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty());
        forwarded_client(hops, &self.trusted)
            .ok_or_else(|| Refused::new(StatusCode::FORBIDDEN, "the proxy's X-Forwarded-For names no client"))
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Option<Known>, Refused> {
        if self.credentials.is_empty() {
            return Ok(None);
        }
        let sent = headers.get(header::AUTHORIZATION);
        let known = match sent {
            Some(sent) => self.credentials.check(sent).await,
            None => None,
        };
        known.map(Some).ok_or_else(|| {
            let message = match sent {
                Some(_) => "the user, the password or the token is wrong",
                None => "who are you? Send a user and a password, or a token",
            };
            let refused = Refused::new(StatusCode::UNAUTHORIZED, message);
            self.credentials.challenges().fold(refused, |refused, value| refused.with(header::WWW_AUTHENTICATE, value))
        })
    }
}

/// Refuses what a browser does for somebody else's page: it has our user's address and, once he has given it, his password.
///
/// A page of others may send requests here (it cannot read the answers), and then the browser says from where. A name of
/// others that is made to point here (DNS rebinding) can read them too; against that a password helps, and where there is
/// none only names are accepted that nobody outside can own.
fn refuse_strange_browsers(method: &Method, headers: &HeaderMap, has_credentials: bool) -> Result<(), Refused> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text("host");
    let forbidden = |message: &str| Err(Refused::new(StatusCode::FORBIDDEN, message));
    // Somebody may follow a link to here. That changes nothing, and whoever set it sees nothing of it.
    let follows_link = *method == Method::GET
        && text("sec-fetch-mode") == Some("navigate")
        && text("sec-fetch-dest") == Some("document");
    if text("sec-fetch-site").is_some_and(|site| site == "cross-site") && !follows_link {
        return forbidden("the request comes from the page of another site");
    }
    if text("origin").is_some_and(|origin| !host.is_some_and(|host| is_same(origin, host))) {
        return forbidden("the request comes from the page of another site: Origin and Host differ");
    }
    if !has_credentials && host.is_some_and(|host| !is_ours(host)) {
        return forbidden(
            "without a password or a token, the API answers only by an address, by localhost, or by a name without a dot",
        );
    }
    Ok(())
}

/// Whether a page of this origin was served under this `Host`.
fn is_same(origin: &str, host: &str) -> bool {
    let Ok(origin) = Url::parse(origin) else { return false };
    let Ok(host) = Url::parse(&format!("{}://{host}/", origin.scheme())) else { return false };
    origin.host().is_some()
        && origin.host() == host.host()
        && origin.port_or_known_default() == host.port_or_known_default()
}

/// Whether nobody outside can own the name.
fn is_ours(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => !name.contains('.'),
        Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_host_or_it_is_not() {
        for (origin, host, same) in [
            ("http://localhost:8888", "localhost:8888", true),
            ("http://LOCALHOST:8888", "Localhost:8888", true),
            ("http://[::1]:8888", "[::1]:8888", true),
            ("https://bans.example.org", "bans.example.org", true),
            ("https://bans.example.org", "bans.example.org:443", true),
            ("http://localhost:8888", "localhost:3000", false),
            ("http://localhost", "localhost:8888", false),
            ("http://evil.example", "localhost", false),
            ("http://localhost.evil.example", "localhost", false),
            ("http://localhost@evil.example", "localhost", false),
            ("null", "localhost", false),
            ("", "localhost", false),
            ("file:///x", "localhost", false),
            ("http://localhost", "", false),
        ] {
            assert_eq!(is_same(origin, host), same, "{origin} {host}");
        }
    }

    #[test]
    fn names_that_nobody_outside_can_own() {
        for host in
            ["localhost", "localhost:8888", "127.0.0.1:8888", "[::1]", "mail-1:8888", "192.0.2.1", "[2001:db8::1]:80"]
        {
            assert!(is_ours(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.", "127.0.0.1.evil.example", "a.b:8888", "", ":8888", "a@b.example", "?", "a b"]
        {
            assert!(!is_ours(host), "{host}");
        }
    }
}
