//! What is sent: queries and bodies, read strictly. What is not known is named, because a word that is misspelt and passed
//! over does something else than was meant.

use super::refusal::Refused;
use super::schema::{Author, Reason};
use crate::config::parse_duration;
use crate::engine::address::{Address, Network};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// Longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(10);

/// Longest reason and name that an operator gives, in characters.
const REASON_CHARS_MAX: usize = 1_000;
const NAME_CHARS_MAX: usize = 100;

/// Shortest and longest ban that an operator can order. For longer there is the blacklist.
const BAN_MIN: Duration = Duration::from_secs(1);
const BAN_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// Networks shorter than these are a large part of the internet.
const IPV4_LEN_MIN: u8 = 8;
const IPV6_LEN_MIN: u8 = 16;

/// Reads a body of JSON. An empty one is `{}` where nothing is needed.
///
/// # Errors
///
/// If it is too long, too slow, or not what is expected.
pub async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    refuse_other_formats(request.headers())?;
    if request.method() == Method::POST && request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(Refused::wrong("the query is not looked at; what is meant belongs into the body"));
    }
    let read = timeout(BODY, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await;
    let bytes = match read {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(why)) if why.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(Err(_)) => return Err(Refused::wrong("the body ends early")),
        Err(_) => return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    };
    let text: &[u8] = match bytes.trim_ascii() {
        b"" | b"null" => b"{}",
        text => text,
    };
    // Derived readers take an array as an object's values, in the order of the fields.
    if text.first() == Some(&b'[') {
        return Err(Refused::wrong("expected a JSON object, found an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|why| {
        let path = why.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Refused::wrong(format!("{place}{}", why.into_inner()))
    })?;
    json.end().map_err(|why| Refused::wrong(format!("something follows the JSON object: {why}")))?;
    Ok(value)
}

/// Refuses what says of itself that it is no JSON. `curl -d` says that it is a form, and means JSON.
fn refuse_other_formats(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    let says = text(header::CONTENT_TYPE).unwrap_or_default();
    let format = says.split(';').next().unwrap_or_default().trim();
    let plain = ["", "application/x-www-form-urlencoded", "text/plain", "application/octet-stream"];
    let is_json = format.ends_with("/json") || format.ends_with("+json");
    let encoded = text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if (is_json || plain.contains(&format)) && !encoded {
        return Ok(());
    }
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be JSON: Content-Type: application/json"))
}

/// Reads a query.
///
/// # Errors
///
/// If a key is not known, or comes twice.
pub fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default()).map_err(|why| Refused::wrong(why.to_string()))
}

/// Who is meant: an address, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    pub network: Network,
    /// It was written as one address, which may stand for its client.
    pub is_address: bool,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)
    }
}

impl Subject {
    /// Reads `192.0.2.1` or `10.0.0.0/8`, the value of `key`.
    pub fn parse(key: &str, text: &str) -> Result<Subject, Refused> {
        let text = text.trim();
        match Network::parse(text) {
            Ok(network) => Ok(Subject { network, is_address: !text.contains('/') }),
            Err(why) => {
                let shown: String = text.chars().take(100).collect();
                Err(Refused::wrong(format!("{key}: {shown:?} is not an address or network: {why}")).about(shown))
            }
        }
    }

    /// The lowest address.
    pub fn base(self) -> Address {
        Address::from(self.network.base())
    }

    /// Refuses what would change things for a large part of the internet, unless that is meant.
    pub fn refuse_huge(self, force: Option<bool>) -> Result<Subject, Refused> {
        let shortest = if self.network.is_ipv4() { IPV4_LEN_MIN } else { IPV6_LEN_MIN };
        if self.network.len() < shortest && force != Some(true) {
            let message =
                "is a large part of the internet; if that is meant, say so with force (\"force\": true, or --force)";
            return Err(Refused::wrong(message).about(self.network));
        }
        Ok(self)
    }
}

/// Reads an address, the value of `key`.
pub fn address(key: &str, text: &str) -> Result<Address, Refused> {
    let text = text.trim();
    Address::parse(text.as_bytes()).ok_or_else(|| {
        let shown: String = text.chars().take(100).collect();
        Refused::wrong(format!("{key}: {shown:?} is not an address: write it like 192.0.2.1 or 2001:db8::1"))
            .about(shown)
    })
}

/// Reads how long a ban is to last: `1h30m`, or a number of seconds.
pub fn duration(value: Option<&Value>) -> Result<Option<Duration>, Refused> {
    let wrong = |why: String| Refused::wrong(format!("duration: {why}"));
    let duration = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => parse_duration(text.trim()).map_err(|why| wrong(why.to_string()))?,
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().filter(|seconds| *seconds >= 0.0 && *seconds <= BAN_MAX.as_secs_f64() + 1.0);
            Duration::from_secs_f64(seconds.ok_or_else(|| wrong(format!("{number} s is not from 1s to 3650d")))?)
        }
        Some(_) => return Err(wrong("expected a text like \"1h30m\", or a number of seconds".to_owned())),
    };
    if (BAN_MIN..=BAN_MAX).contains(&duration) {
        Ok(Some(duration))
    } else {
        Err(wrong("expected from 1s to 3650d; for longer there is \"permanent\": true".to_owned()))
    }
}

/// Reads a number of entries, `limit`.
pub fn limit(text: Option<&str>, max: usize) -> Result<usize, Refused> {
    let Some(text) = text else { return Ok(max.min(100)) };
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| Refused::wrong(format!("limit: expected a number from 1 to {max}")))
}

/// Reads where a page begins, the value of `key`.
pub fn place(key: &str, text: Option<&str>) -> Result<Option<i64>, Refused> {
    let number = |text: &str| text.parse::<u64>().map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let read =
        |text: &str| number(text).map_err(|_| Refused::wrong(format!("{key}: expected what the page before gave")));
    text.map(read).transpose()
}

/// A reason, or the name of an author, the value of `key`.
pub fn words(key: &str, text: Option<String>) -> Result<Option<String>, Refused> {
    let max = if key == "reason" { REASON_CHARS_MAX } else { NAME_CHARS_MAX };
    let Some(text) = text else { return Ok(None) };
    if text.chars().count() > max {
        return Err(Refused::wrong(format!("{key}: expected at most {max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Refused::wrong(format!("{key}: expected text on one line, found a control character")));
    }
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// A body for what needs none.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object, or nothing")]
pub struct Remarks {
    #[schema(value_type = Option<Reason>)]
    pub reason: Option<String>,
    /// Who does it, where nobody is asked for a password.
    #[schema(value_type = Option<Author>)]
    pub created_by: Option<String>,
}
