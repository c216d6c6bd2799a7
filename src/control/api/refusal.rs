//! What is answered when something is not done.

use crate::control::desk::Refusal;
use crate::control::store::EditFault;
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: Refusing,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Nothing was done, or not all of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Refusing {
    #[schema(example = false)]
    success: bool,
    /// Why, and what would be right.
    message: String,
    /// What was asked about, if it is known.
    ip_address: String,
    /// What is wrong with a configuration that was to be read again, one fault each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
}

impl Refused {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refused {
        let body = Refusing { success: false, message: message.into(), ip_address: String::new(), faults: Vec::new() };
        Refused { status, body, headers: Vec::new() }
    }

    /// What was sent is wrong.
    pub fn wrong(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no place for the connection.
    pub fn full() -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections; see api.max_connections").again_in(1)
    }

    /// Says what was asked about.
    pub fn about(mut self, subject: impl ToString) -> Refused {
        self.body.ip_address = subject.to_string();
        self
    }

    /// Names all that is wrong with a configuration.
    pub fn with_faults(mut self, faults: Vec<String>) -> Refused {
        self.body.faults = faults;
        self
    }

    /// Says in how many seconds to try again.
    pub fn again_in(self, seconds: u64) -> Refused {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Refused {
        self.headers.push((name, value));
        self
    }

    pub fn message(&self) -> &str {
        &self.body.message
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let message = refusal.to_string();
        match refusal {
            Refusal::Allowed(_) | Refusal::Conflict(_) => Refused::new(StatusCode::CONFLICT, message),
            Refusal::Unavailable(_) => Refused::new(StatusCode::SERVICE_UNAVAILABLE, message).again_in(1),
        }
    }
}

impl From<EditFault> for Refused {
    fn from(fault: EditFault) -> Refused {
        let message = fault.to_string();
        match fault {
            EditFault::InFile(_) | EditFault::TooMany(_) => Refused::new(StatusCode::CONFLICT, message),
            EditFault::Away(_)
            | EditFault::Refused(_)
            | EditFault::Unwritable(_)
            | EditFault::Busy
            | EditFault::Ending => Refused::new(StatusCode::SERVICE_UNAVAILABLE, message).again_in(1),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, body, headers } = self;
        let mut response = (status, Json(body)).into_response();
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// What may be answered to anything instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the words for the document")]
pub(super) enum Refusals {
    /// What was sent is wrong, and how.
    #[response(status = 400)]
    Wrong(Refusing),
    /// Nobody who is known.
    #[response(status = 401)]
    Unknown(Refusing),
    /// May not do that, or not from there.
    #[response(status = 403)]
    Forbidden(Refusing),
    /// There is no such thing, or the API is switched off.
    #[response(status = 404)]
    NotFound(Refusing),
    /// Not by this method.
    #[response(status = 405)]
    NotAllowed(Refusing),
    /// Too many requests; `Retry-After` says when there may be another.
    #[response(status = 429)]
    TooMany(Refusing),
    /// It cannot be done now.
    #[response(status = 503)]
    Unavailable(Refusing),
}

/// What may be answered to an order besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the words for the document")]
pub(super) enum OrderRefusals {
    /// The body took too long to arrive.
    #[response(status = 408)]
    Late(Refusing),
    /// It contradicts something: the whitelist, a wider entry, the configuration file.
    #[response(status = 409)]
    Conflict(Refusing),
    /// The body is too long.
    #[response(status = 413)]
    TooLong(Refusing),
    /// The body says that it is something else than JSON.
    #[response(status = 415)]
    NotJson(Refusing),
}
