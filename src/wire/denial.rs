//! A denial, as far as a client is told over HTTP: nginx's and Envoy's. HAProxy's variables, which share the
//! cutting and the rounding, are in `spop/answer.rs`.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// Longest `X-Fail2ban-Reason` and JSON reason in bytes (before JSON escapes); the rest is cut off.
const REASON_BYTES_MAX: usize = 256;

/// Who is kept out, why, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    pub client: IpAddr,
    /// Human text; may be empty. In the header, what is not visible ASCII becomes `?`.
    pub reason: &'a str,
    /// Time until the ban ends; `None` if it does not end by itself.
    pub retry_after: Option<Duration>,
}

impl<'a> Denial<'a> {
    /// The reason without blanks around it, cut to its longest. May be empty.
    pub(super) fn short_reason(&self) -> &'a str {
        cut(self.reason.trim(), REASON_BYTES_MAX).trim_end()
    }

    /// The reason as a header's value.
    pub(super) fn push_visible_reason(&self, out: &mut Vec<u8>) {
        // One `?` per character, not per byte. Blanks stand inside only, where they are allowed.
        out.extend(self.short_reason().chars().map(|c| match u8::try_from(c) {
            Ok(byte) if byte == b' ' || byte.is_ascii_graphic() => byte,
            _ => b'?',
        }));
    }

    /// What `Retry-After` says, if the ban ends by itself.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(whole_seconds)
    }

    /// The denial as a JSON document.
    pub(super) fn push_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"status":"denied","ip":""#);
        push_ip(out, self.client);
        out.extend_from_slice(br#"","reason":"#);
        push_json_string(out, self.short_reason());
        out.extend_from_slice(br#","retry_after":"#);
        match self.retry_after_seconds() {
            Some(seconds) => push_number(out, seconds),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
    }
}

/// Rounded up: whoever waits that long finds the ban gone.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

pub(super) fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        // Nearly every answer holds one, and the standard formatter takes longer than all the rest of the answer.
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            push_octet(out, a);
            out.push(b'.');
            push_octet(out, b);
            out.push(b'.');
            push_octet(out, c);
            out.push(b'.');
            push_octet(out, d);
        }
        IpAddr::V6(ip) => {
            let _ = write!(out, "{ip}");
        }
    }
}

fn push_octet(out: &mut Vec<u8>, octet: u8) {
    let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
    let leading_zeros = usize::from(octet < 100) + usize::from(octet < 10);
    out.extend_from_slice(digits.get(leading_zeros..).unwrap_or_default());
}

/// RFC 8259 §7.
fn push_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            0..0x20 | 0x7f => {
                let _ = write!(out, "\\u{byte:04x}");
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// At most `bytes_max` bytes of `text`, whole characters only.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(ip: IpAddr) -> String {
        let mut out = Vec::new();
        push_ip(&mut out, ip);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for octet in 0..=255_u8 {
            let ip = IpAddr::from([octet, octet.wrapping_add(91), octet ^ 0x55, 255 - octet]);
            assert_eq!(written(ip), ip.to_string());
        }
        for text in ["::", "::1", "2001:db8::a:0:0:1", "::ffff:192.0.2.1"] {
            assert_eq!(written(text.parse().unwrap()), text);
        }
    }

    #[test]
    fn the_time_to_wait_is_rounded_up() {
        for (time, want) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_secs(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(whole_seconds(time), want);
        }
    }
}
