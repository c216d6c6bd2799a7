//! What people write in a pattern instead of a regex for an address or a user's name.
//!
//! | written | becomes |
//! | --- | --- |
//! | `<IP>`, `<HOST>` | the group `ip`: an IPv4 or IPv6 address, and nothing else |
//! | `<USER>` | the group `user`: any text, which the client chooses |
//!
//! `(?P<IP>…)` and `\<IP>` stay what they are.

use std::borrow::Cow;

/// An address. The order of the ways matters: of `::ffff:192.0.2.1`, the last would take `::ffff:192`.
const IP: &str = "(?P<ip>IPV4|[0-9a-fA-F:]*:IPV4|[0-9a-fA-F:]*:[0-9a-fA-F:]*)";
const IPV4: &str = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}";

/// As much as there may be: what stands behind it is the last that fits, which is the daemon's.
const USER: &str = "(?P<user>.*)";

/// A second address was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twice;

/// Writes regexes in the places of placeholders.
///
/// # Errors
///
/// If there are two addresses.
pub fn expand(pattern: &str) -> Result<Cow<'_, str>, Twice> {
    let mut out = String::new();
    let mut rest = pattern;
    let mut has = (false, false);
    while let Some(at) = rest.find('<') {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let is_name = out.ends_with("(?P") || out.ends_with("(?") || out.ends_with('\\');
        let known = ["<IP>", "<HOST>", "<USER>"].into_iter().find(|known| found.starts_with(known));
        match known.filter(|_| !is_name) {
            Some("<USER>") => out.push_str(if std::mem::replace(&mut has.1, true) { ".*" } else { USER }),
            Some(_) if std::mem::replace(&mut has.0, true) => return Err(Twice),
            Some(_) => out.push_str(&IP.replace("IPV4", IPV4)),
            None => out.push('<'),
        }
        rest = found.get(known.filter(|_| !is_name).map_or(1, str::len)..).unwrap_or_default();
    }
    if out.is_empty() {
        return Ok(Cow::Borrowed(pattern));
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::{self, pattern};
    use super::*;

    #[test]
    fn placeholders_become_groups_and_everything_else_stays() {
        assert_eq!(expand("a (b) <c> d").unwrap(), "a (b) <c> d");
        assert_eq!(expand("a(b)").unwrap(), "a(b)");
        assert_eq!(expand(r"(?P<IP>x) (?<HOST>y) \<USER> <").unwrap(), r"(?P<IP>x) (?<HOST>y) \<USER> <");
        assert_eq!(expand("<USER><USER>").unwrap(), "(?P<user>.*).*");
        assert_eq!(expand("<IP> <HOST>"), Err(Twice));
    }

    #[test]
    fn an_address_is_taken_whole() {
        let found = |regex: &str, line: &str| {
            let one = pattern(0, regex, &["x"], 1);
            one.extract(&mut pattern::Cache::default(), &mut vec![None; one.slots()], line.as_bytes())
                .caught()
                .map(|f| f.address.to_string())
        };
        for (address, want) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::", "::"),
            ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
        ] {
            for (regex, line) in [
                ("^from <IP>$", format!("from {address}")),
                ("from <IP>", format!("from {address}")),
                ("<HOST> failed", format!("{address} failed")),
                (r"\[<IP>\]: user <USER>", format!("[{address}]: user [203.0.113.9]: user x")),
                ("^user <USER> from <HOST>", format!("user x from 203.0.113.9 from {address}")),
            ] {
                assert_eq!(found(regex, &line).as_deref(), Some(want), "{regex} {line}");
            }
        }
        assert_eq!(found("at <IP>", "at 12:34:56"), None);
    }
}
