//! The handshake: HAPROXY-HELLO and AGENT-HELLO, SPOE.txt sections 3.2.4 and 3.2.5.

use super::data::{Decoder, Value, push_string, push_string_value, push_uint32_value};
use super::disconnect::Fault;
use super::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, frame};

/// The one version that HAProxy ever supported for good; 1.0 had its flags in the wrong byte order.
const VERSION: &[u8] = b"2.0";

/// What the peer says of itself, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// The smaller of the peer's and our own limit: what counts for both directions from now on.
    pub frame_bytes_max: u32,
    /// Whether the peer offers to send a NOTIFY before the one before it was answered.
    pub pipelining: bool,
    /// Whether it only wants to know if an agent lives here (`option spop-check`).
    pub healthcheck: bool,
}

impl Hello {
    /// Reads the payload of a HAPROXY-HELLO.
    ///
    /// Of a key that stands there twice the last counts, as HAProxy reads it in ours. Keys that are not known are
    /// skipped, and so is `engine-id`: it would tell which connections belong together, which matters to `async` only.
    pub(super) fn decode(payload: &[u8]) -> Result<Hello, Fault> {
        let mut items = Decoder::new(payload);
        let (mut versions, mut max_frame_size, mut capabilities, mut healthcheck) = (None, None, None, false);
        while !items.rest().is_empty() {
            let (key, value) = items.item().ok_or(Fault::Malformed)?;
            match (key, value) {
                (b"supported-versions", Value::String(list)) => versions = Some(list),
                (b"max-frame-size", value) => max_frame_size = Some(value.number().ok_or(Fault::ValueType)?),
                (b"capabilities", Value::String(list)) => capabilities = Some(list),
                (b"healthcheck", Value::Bool(is_so)) => healthcheck = is_so,
                (b"supported-versions" | b"capabilities" | b"healthcheck", _) => return Err(Fault::ValueType),
                _ => {}
            }
        }
        let versions = versions.ok_or(Fault::VersionMissing)?;
        let max_frame_size = max_frame_size.ok_or(Fault::MaxFrameSizeMissing)?;
        let capabilities = capabilities.ok_or(Fault::CapabilitiesMissing)?;
        if !elements(versions).any(speaks_ours) {
            return Err(Fault::UnsupportedVersion);
        }
        let frame_bytes_max = max_frame_size.min(FRAME_BYTES_MAX);
        if frame_bytes_max < FRAME_BYTES_MIN {
            return Err(Fault::MaxFrameSizeTooSmall);
        }
        let pipelining = elements(capabilities).any(|capability| capability == b"pipelining");
        Ok(Hello { frame_bytes_max, pipelining, healthcheck })
    }

    /// Appends the AGENT-HELLO.
    ///
    /// `pipelining` is only claimed where it was offered. HAProxy ignores a claim that it did not offer (2.6 and 3.5 do),
    /// but other peers need not, and section 3.2.1 wants both to have it. Without it a peer waits for each answer, which
    /// works too. The other two capabilities, `async` and `fragmentation`, are gone since 3.1.
    pub(super) fn push_answer(self, out: &mut Vec<u8>) {
        frame::push(out, frame::kind::AGENT_HELLO, 0, 0, |out| {
            push_string(out, b"version");
            push_string_value(out, VERSION);
            push_string(out, b"max-frame-size");
            push_uint32_value(out, self.frame_bytes_max);
            push_string(out, b"capabilities");
            push_string_value(out, if self.pipelining { b"pipelining" } else { b"" });
        });
    }
}

/// The elements of a comma-separated list, in which spaces are to be ignored.
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether who supports `version` speaks 2.0 too: a major version includes all its earlier minor ones.
fn speaks_ours(version: &[u8]) -> bool {
    version.strip_prefix(b"2.").is_some_and(|minor| !minor.is_empty() && minor.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::super::peer::{self, AgentFrame};
    use super::*;

    const FINE: Hello = Hello { frame_bytes_max: 16380, pipelining: true, healthcheck: false };

    #[test]
    fn hellos_are_read() {
        let versions = (&b"supported-versions"[..], Value::String(b"2.0"));
        let size = (&b"max-frame-size"[..], Value::Uint32(16380));
        let capabilities = (&b"capabilities"[..], Value::String(b"pipelining,async"));
        let healthcheck = |value| (&b"healthcheck"[..], value);
        for (items, want) in [
            (vec![versions, size, capabilities], Ok(FINE)),
            (vec![capabilities, size, versions], Ok(FINE)),
            (vec![versions, size, capabilities, healthcheck(Value::Bool(false))], Ok(FINE)),
            (
                vec![versions, size, capabilities, healthcheck(Value::Bool(true))],
                Ok(Hello { healthcheck: true, ..FINE }),
            ),
            (vec![versions, size, capabilities, healthcheck(Value::Uint32(1))], Err(Fault::ValueType)),
            // What is not known is skipped, whatever its type.
            (vec![(b"x", Value::Null), versions, size, (b"", Value::Bool(true)), capabilities], Ok(FINE)),
            (vec![versions, size, capabilities, (b"engine-id", Value::Int32(1))], Ok(FINE)),
            // The last one counts.
            (vec![(b"max-frame-size", Value::Uint32(1)), versions, size, capabilities], Ok(FINE)),
            (
                vec![versions, size, capabilities, (b"supported-versions", Value::String(b"1.0"))],
                Err(Fault::UnsupportedVersion),
            ),
            (vec![size, capabilities], Err(Fault::VersionMissing)),
            (vec![versions, capabilities], Err(Fault::MaxFrameSizeMissing)),
            (vec![versions, size], Err(Fault::CapabilitiesMissing)),
            (vec![], Err(Fault::VersionMissing)),
            (vec![(b"supported-versions", Value::Binary(b"2.0")), size, capabilities], Err(Fault::ValueType)),
            (vec![versions, size, (b"capabilities", Value::Null)], Err(Fault::ValueType)),
            // Names are whole and exact.
            (vec![(b"supported-versions2", Value::String(b"2.0")), size, capabilities], Err(Fault::VersionMissing)),
            (vec![(b"Supported-Versions", Value::String(b"2.0")), size, capabilities], Err(Fault::VersionMissing)),
        ] {
            let mut payload = Vec::new();
            peer::push_items(&mut payload, &items);
            assert_eq!(Hello::decode(&payload), want, "{items:?}");
        }
    }

    #[test]
    fn any_version_2_will_do() {
        for (versions, want) in [
            ("2.0", true),
            ("2.1", true),
            ("2.17,1.5", true),
            ("1.0, 2.0", true),
            (" \t2.0 ,", true),
            ("3.0,2.4", true),
            ("", false),
            ("1.0", false),
            ("3.0", false),
            ("20.0", false),
            ("2", false),
            ("2.", false),
            ("2.x", false),
            ("2.0.1", false),
            ("2.-1", false),
        ] {
            assert_eq!(elements(versions.as_bytes()).any(speaks_ours), want, "{versions:?}");
        }
    }

    #[test]
    fn the_smaller_frame_size_counts() {
        for (value, want) in [
            (Value::Uint32(256), Ok(256)),
            (Value::Uint32(255), Err(Fault::MaxFrameSizeTooSmall)),
            (Value::Uint32(0), Err(Fault::MaxFrameSizeTooSmall)),
            (Value::Uint32(FRAME_BYTES_MAX), Ok(FRAME_BYTES_MAX)),
            (Value::Uint32(u32::MAX), Ok(FRAME_BYTES_MAX)),
            (Value::Uint64(u64::MAX), Ok(FRAME_BYTES_MAX)),
            (Value::Uint64(16380), Ok(16380)),
            (Value::Int32(16380), Ok(16380)),
            (Value::Int32(-1), Err(Fault::MaxFrameSizeTooSmall)),
            (Value::Int64(i64::MAX), Ok(FRAME_BYTES_MAX)),
            (Value::Int64(i64::MIN), Err(Fault::MaxFrameSizeTooSmall)),
            (Value::String(b"16380"), Err(Fault::ValueType)),
        ] {
            let mut payload = Vec::new();
            peer::push_items(
                &mut payload,
                &[
                    (b"supported-versions", Value::String(b"2.0")),
                    (b"max-frame-size", value),
                    (b"capabilities", Value::String(b"")),
                ],
            );
            assert_eq!(Hello::decode(&payload).map(|hello| hello.frame_bytes_max), want, "{value:?}");
        }
    }

    #[test]
    fn only_what_was_offered_is_claimed() {
        for (offered, claimed) in [
            ("pipelining", "pipelining"),
            ("async , pipelining", "pipelining"),
            ("async", ""),
            ("", ""),
            ("pipelining2", ""),
            ("Pipelining", ""),
            ("async,fragmentation", ""),
        ] {
            let mut payload = Vec::new();
            peer::push_items(
                &mut payload,
                &[
                    (b"supported-versions", Value::String(b"2.0")),
                    (b"max-frame-size", Value::Uint32(16380)),
                    (b"capabilities", Value::String(offered.as_bytes())),
                ],
            );
            let mut out = Vec::new();
            Hello::decode(&payload).unwrap().push_answer(&mut out);
            let hello = AgentFrame::Hello {
                version: "2.0".to_owned(),
                max_frame_size: 16380,
                capabilities: claimed.to_owned(),
            };
            assert_eq!(peer::decode(&out), [hello], "{offered}");
        }
    }
}
