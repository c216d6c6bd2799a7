//! What is answered when something is not done.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    message: String,
    /// What was asked about, as it was written or understood.
    subject: String,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Refused {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refused {
        Refused { status, message: message.into(), subject: String::new(), headers: Vec::new() }
    }

    /// There is no place for the connection.
    pub fn full() -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections; see api.max_connections").again_in(1)
    }

    /// Says what was asked about.
    pub fn about(mut self, subject: impl ToString) -> Refused {
        self.subject = subject.to_string();
        self
    }

    /// Says in how many seconds to try again.
    pub fn again_in(self, seconds: u64) -> Refused {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn with(mut self, name: header::HeaderName, value: HeaderValue) -> Refused {
        self.headers.push((name, value));
        self
    }
}

#[derive(Serialize)]
struct Body<'a> {
    success: bool,
    message: &'a str,
    ip_address: &'a str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, message, subject, headers } = self;
        let body = Body { success: false, message: &message, ip_address: &subject };
        let mut response = (status, Json(body)).into_response();
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}
