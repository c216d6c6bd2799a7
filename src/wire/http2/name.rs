//! What the name of a field is to HTTP/2 (RFC 9113 §8.2, §8.3).

/// Kinds of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Method,
    Scheme,
    Authority,
    Path,
    /// It speaks of one connection of HTTP/1.x, and must not be here (§8.2.2).
    OfConnection,
    /// Only `trailers` may be its value.
    Te,
    /// Not a name: none at all, with upper case, with bytes that are none of a name (§8.2.1), or a pseudo-header field that
    /// no request has (§8.3).
    Malformed,
    Other,
}

impl Kind {
    pub fn of(name: &[u8]) -> Kind {
        match name {
            b":method" => Kind::Method,
            b":scheme" => Kind::Scheme,
            b":authority" => Kind::Authority,
            b":path" => Kind::Path,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Kind::OfConnection
            }
            b"te" => Kind::Te,
            _ if name.is_empty() || name.iter().any(|byte| !may_be_in_name(*byte)) => Kind::Malformed,
            _ => Kind::Other,
        }
    }
}

/// §8.2.1 names what must not be; whatever else is no token (RFC 9110 §5.6.2) is none of our business.
fn may_be_in_name(byte: u8) -> bool {
    matches!(byte, 0x21..0x7f) && !byte.is_ascii_uppercase() && byte != b':'
}

/// Holds the fields of a request's head against RFC 9113 §8.3.1, or those of its trailers against §8.1.
///
/// Values may be what they like: a client of a proxy writes some of them, and a proxy passes on what it finds right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    has_method: bool,
    has_scheme: bool,
    has_authority: bool,
    has_path: bool,
    is_connect: bool,
    has_others: bool,
    is_malformed: bool,
}

impl Shape {
    pub fn field(&mut self, kind: Kind, value: &[u8]) {
        let twice = match kind {
            Kind::Method => {
                self.is_connect = value == b"CONNECT";
                std::mem::replace(&mut self.has_method, true)
            }
            Kind::Scheme => std::mem::replace(&mut self.has_scheme, true),
            Kind::Authority => std::mem::replace(&mut self.has_authority, true),
            Kind::Path => value.is_empty() || std::mem::replace(&mut self.has_path, true),
            Kind::OfConnection | Kind::Malformed => {
                self.is_malformed = true;
                return;
            }
            Kind::Te | Kind::Other => {
                self.has_others = true;
                self.is_malformed |= kind == Kind::Te && !value.eq_ignore_ascii_case(b"trailers");
                return;
            }
        };
        // Pseudo-header fields come first, and once.
        self.is_malformed |= twice || self.has_others;
    }

    /// Whether these may be the fields of a request. CONNECT has neither scheme nor path (§8.5).
    pub fn is_request(self) -> bool {
        let is_complete = match self.is_connect {
            true => self.has_authority && !self.has_scheme && !self.has_path,
            false => self.has_scheme && self.has_path,
        };
        !self.is_malformed && self.has_method && is_complete
    }

    /// Whether these may be trailers: no pseudo-header field is among them.
    pub fn is_trailers(self) -> bool {
        let has_pseudo = self.has_method || self.has_scheme || self.has_authority || self.has_path;
        !self.is_malformed && !has_pseudo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(fields: &[(&str, &str)]) -> Shape {
        let mut shape = Shape::default();
        fields.iter().for_each(|(name, value)| shape.field(Kind::of(name.as_bytes()), value.as_bytes()));
        shape
    }

    #[test]
    fn requests_have_their_shape() {
        let head = [(":method", "POST"), (":scheme", "http"), (":path", "/")];
        assert!(shape(&head).is_request() && !shape(&head).is_trailers());
        let with = |field: (&'static str, &'static str)| shape(&[&head[..], &[field]].concat());
        for fine in [
            (":authority", "a"),
            ("te", "trailers"),
            ("te", "Trailers"),
            ("x!#$%&'*+-.^_`|~9", "\0\r\n\u{ff}"),
            ("content-length", "no number"),
            ("host", ""),
        ] {
            assert!(with(fine).is_request(), "{fine:?}");
        }
        for wrong in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":status", "200"),
            (":protocol", "websocket"),
            (":", ""),
            ("", "x"),
            ("X", "x"),
            ("a b", "x"),
            ("a:b", "x"),
            ("a\u{e9}", "x"),
            ("a\0", "x"),
            ("te", "gzip"),
            ("connection", "close"),
            ("keep-alive", ""),
            ("proxy-connection", ""),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ] {
            assert!(!with(wrong).is_request(), "{wrong:?}");
        }
        for missing in 0..3 {
            let mut fields = head.to_vec();
            fields.remove(missing);
            assert!(!shape(&fields).is_request());
        }
        assert!(!shape(&[(":method", "POST"), (":scheme", "http"), (":path", "")]).is_request());
        assert!(!shape(&[(":method", "POST"), ("a", "b"), (":scheme", "http"), (":path", "/")]).is_request());
        assert!(shape(&[(":method", "CONNECT"), (":authority", "a:1")]).is_request());
        assert!(!shape(&[(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")]).is_request());
    }

    #[test]
    fn trailers_have_theirs() {
        assert!(shape(&[("grpc-status", "0")]).is_trailers() && shape(&[]).is_trailers());
        assert!(!shape(&[(":path", "/")]).is_trailers());
        assert!(!shape(&[("connection", "close")]).is_trailers());
    }
}
