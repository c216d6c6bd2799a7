//! Filters of fail2ban, read as patterns.
//!
//! A filter is an INI file whose values name each other, as `%(name)s` and as `<name>`, and may continue on lines that begin with
//! a blank. What it means is in fail2ban's manual page jail.conf(5), under FILTER FILES. Here a record is parsed before a pattern sees
//! it, so `__prefix_line`, which skips date, host and program, becomes the pattern's `program`.
//!
//! Pure: files that a filter includes are given by whoever asks.

use super::settings::PatternSettings;
use std::collections::BTreeMap;
use std::path::Path;

/// Values that name each other, at most so deep.
const DEPTH_MAX: usize = 24;

/// Files that are included, all together.
const FILES_MAX: usize = 32;

/// Longest value after all names were replaced, in bytes: names that name each other twice would double it each time.
const VALUE_BYTES_MAX: usize = 256 << 10;

/// Stands for `__prefix_line` until it is known where it is.
const PREFIX: &str = "\u{1}";

/// What became of a filter.
#[derive(Debug, Default)]
pub struct Translation {
    /// Whether they compile is for others to say.
    pub patterns: Vec<PatternSettings>,
    /// What could not be said, a line each.
    pub left_out: Vec<String>,
}

/// Translates the filter called `name`. `include` gives the text of a file that it includes.
pub fn translate_filter(name: &str, text: &str, include: impl Fn(&Path) -> Option<String>) -> Translation {
    let mut translation = Translation::default();
    let mut values = BTreeMap::new();
    let mut opened = 0;
    read(text, &include, &mut values, &mut translation.left_out, &mut opened);
    // Whatever it is elsewhere: here nothing stands before the message, but for what a filter adds to it.
    let known = "known/__prefix_line";
    values.insert(known.to_owned(), PREFIX.to_owned());
    if !values.get("__prefix_line").is_some_and(|own| own.contains(known)) {
        values.insert("__prefix_line".to_owned(), PREFIX.to_owned());
    }
    let whole = |key: &str| values.get(key).and_then(|value| resolve(value, &values));
    let programs = whole("_daemon").map(|daemon| programs_of(&daemon)).unwrap_or_default();
    let prefix = whole("prefregex").filter(|prefix| !prefix.is_empty());
    if whole("ignoreregex").is_some_and(|ignored| !ignored.trim().is_empty()) {
        let what = "ignoreregex is left out: say in the regex what must be there instead";
        translation.left_out.push(what.to_owned());
    }
    let Some(failregex) = whole("failregex") else {
        translation.left_out.push("it has no failregex, or one whose names lead round in a circle".to_owned());
        return translation;
    };
    let regexes: Vec<&str> = failregex.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for (index, regex) in regexes.iter().enumerate() {
        let joined = match &prefix {
            Some(prefix) => match with_content(prefix, regex) {
                Some(joined) => joined,
                None => {
                    translation.left_out.push(format!("{regex}: its prefregex has no <F-CONTENT>"));
                    continue;
                }
            },
            None => (*regex).to_owned(),
        };
        // One that is bound to no program sees the program's name in front.
        let before = if programs.is_empty() { "[^ ]+: " } else { "" };
        match translate(&joined.replace(PREFIX, before)) {
            Ok(regex) => translation.patterns.push(PatternSettings {
                name: if index == 0 { name.to_owned() } else { format!("{name}-{}", index + 1) },
                program: if joined.contains(PREFIX) { programs.clone() } else { Vec::new() },
                regex,
                severity: 3,
                weight: 1,
                enabled: true,
                description: format!("Translated from the filter {name} of fail2ban"),
                ..PatternSettings::default()
            }),
            Err(why) => translation.left_out.push(format!("{}: {why}", joined.replace(PREFIX, "%(__prefix_line)s"))),
        }
    }
    translation
}

/// Reads a file's values, after those of the files that it includes before itself, and before those after.
fn read(
    text: &str,
    include: &impl Fn(&Path) -> Option<String>,
    values: &mut BTreeMap<String, String>,
    left_out: &mut Vec<String>,
    opened: &mut usize,
) {
    let own = parse_ini(text);
    let mut included = |key: &str, values: &mut BTreeMap<String, String>| {
        let files = own.get(key).map(String::as_str).unwrap_or_default();
        for file in files.split_whitespace() {
            *opened += 1;
            let text = if *opened > FILES_MAX { None } else { include(Path::new(file)) };
            match text {
                Some(text) => read(&text, include, values, left_out, opened),
                // What is most often in there is not needed here, and what is an administrator's own need not be there.
                None if file.ends_with("common.conf") || file.ends_with(".local") => {}
                None => left_out.push(format!("{file}, which it includes, cannot be read")),
            }
        }
    };
    included("before", values);
    values.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
    included("after", values);
}

/// Keys and values of all sections together.
fn parse_ini(text: &str) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || trimmed.starts_with('[') && !line.starts_with([' ', '\t']) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if let Some(value) = last.as_ref().and_then(|key| values.get_mut(key)).filter(|_| !trimmed.is_empty()) {
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        let key = key.trim().to_owned();
        values.insert(key.clone(), value.trim().to_owned());
        last = Some(key);
    }
    values
}

/// A value with all names in it replaced. `None` if they lead round in a circle.
fn resolve(value: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut value = value.to_owned();
    for _ in 0..DEPTH_MAX {
        let next = replace_once(&value, values);
        if next == value {
            return Some(value.replace("%%", "%"));
        }
        if next.len() > VALUE_BYTES_MAX {
            return None;
        }
        value = next;
    }
    None
}

/// Replaces the names in a value that have no other name inside.
fn replace_once(value: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find(['%', '<']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let name = if let Some(inner) = found.strip_prefix("%(") {
            inner.split_once(")s").map(|(name, _)| (name, name.len() + 4))
        } else if found.starts_with("%%") {
            out.push_str("%%");
            rest = found.get(2..).unwrap_or_default();
            continue;
        } else {
            let inner = found.strip_prefix('<').unwrap_or_default();
            let is_name = |name: &&str| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b))
            };
            inner.split_once('>').map(|(name, _)| name).filter(is_name).map(|name| (name, name.len() + 2))
        };
        // `<HOST>` and a group's `(?P<user>` are no names of values.
        match name.and_then(|(name, len)| Some((values.get(name)?, len))).filter(|_| !out.ends_with("(?P")) {
            Some((value, len)) => {
                out.push_str(value);
                rest = found.get(len..).unwrap_or_default();
            }
            None => {
                let first = found.chars().next().map_or(0, char::len_utf8);
                out.push_str(found.get(..first).unwrap_or_default());
                rest = found.get(first..).unwrap_or_default();
            }
        }
    }
    out + rest
}

/// A prefregex with a failregex in the place of its content.
fn with_content(prefix: &str, regex: &str) -> Option<String> {
    let (before, content) = prefix.split_once("<F-CONTENT>")?;
    let (_, after) = content.split_once("</F-CONTENT>")?;
    let (open, content) = match regex.strip_prefix('^') {
        Some(anchored) => ("", anchored),
        None => (".*?", regex),
    };
    let (content, rest) = match content.strip_suffix('$').filter(|content| !content.ends_with('\\')) {
        Some(ended) => (ended, ""),
        None => (content, ".*"),
    };
    Some(format!("{before}{open}(?:{content}){rest}{after}"))
}

/// One regex in our words.
fn translate(regex: &str) -> Result<String, &'static str> {
    for (tag, why) in [
        ("<SKIPLINES>", "it is about several lines, and here each line stands for itself"),
        ("<F-NOFAIL>", "it is about a line that only belongs to a failure on another line"),
        ("<F-MLFFORGET>", "it is about a line that only belongs to a failure on another line"),
        ("<F-MLFGAINED>", "it is about a login that succeeds after failures"),
        ("<DNS>", "it takes names of hosts for clients, and here only addresses are"),
    ] {
        if regex.contains(tag) {
            return Err(why);
        }
    }
    // An address as sendmail writes it.
    let regex = regex.replace("(?:IPv6:<IP6>|<IP4>)", "(?:IPv6:)?<IP>");
    let mut out = String::with_capacity(regex.len());
    let mut rest = regex.as_str();
    let mut groups: Vec<String> = Vec::new();
    let mut open = |name: &str, out: &mut String| {
        // What only ties lines together says nothing here.
        if name == "mlfid" || groups.iter().any(|taken| taken == name) {
            out.push_str("(?:");
        } else {
            groups.push(name.to_owned());
            out.push_str(&format!("(?P<{name}>"));
        }
    };
    while let Some(c) = rest.chars().next() {
        if let Some(after) =
            ["<HOST>", "<ADDR>", "<IP4>", "<IP6>", "<SUBNET>", "<CIDR>"].iter().find_map(|tag| rest.strip_prefix(tag))
        {
            out.push_str("<IP>");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("(?P<host>") {
            open("ip", &mut out);
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("<F-").and_then(|tag| tag.split_once('>')) {
            open(&name.trim_end_matches('/').replace('-', "_").to_ascii_lowercase(), &mut out);
            if name.ends_with('/') {
                out.push_str(r"\S+)");
            }
            rest = after;
        } else if let Some((_, after)) = rest.strip_prefix("</F-").and_then(|tag| tag.split_once('>')) {
            out.push(')');
            rest = after;
        } else if let Some(after) = rest.strip_prefix(r"\Z") {
            out.push_str(r"\z");
            rest = after;
        } else if c == '\\' {
            let len = c.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(rest.get(..len).unwrap_or_default());
            rest = rest.get(len..).unwrap_or_default();
        } else {
            out.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    Ok(out)
}

/// The programs that a regex for a daemon's name begins with: `postfix(-\w+)?/\w+` is `postfix`. Empty if it says none.
fn programs_of(daemon: &str) -> Vec<String> {
    let inner = daemon.strip_prefix("(?:").and_then(|inner| inner.strip_suffix(')')).filter(|inner| {
        // One pair of brackets around everything, not two beside each other.
        let mut depth = 0i32;
        inner.chars().all(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth >= 0
        })
    });
    let mut ways = vec![String::new()];
    let mut depth = 0;
    for c in inner.unwrap_or(daemon).chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match ways.last_mut() {
            _ if c == '|' && depth == 0 => ways.push(String::new()),
            Some(way) => way.push(c),
            None => {}
        }
    }
    let names: Vec<String> = ways.iter().flat_map(|way| names_of(way)).collect();
    if names.iter().any(String::is_empty) { Vec::new() } else { names }
}

/// The names that one way begins with: both of `sshd(?:-session)?` and of `sshd?`.
fn names_of(way: &str) -> Vec<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (name, rest) = way.split_at(way.find(|c| !is_plain(c)).unwrap_or(way.len()));
    let shorter = name.get(..name.len().saturating_sub(1)).unwrap_or_default();
    let optional = rest.strip_prefix("(?:").or_else(|| rest.strip_prefix('(')).and_then(|rest| rest.strip_suffix(")?"));
    match optional.filter(|optional| optional.chars().all(is_plain)) {
        Some(optional) => vec![name.to_owned(), format!("{name}{optional}")],
        None if rest == "?" => vec![shorter.to_owned(), name.to_owned()],
        None if rest.starts_with(['?', '*', '{']) => vec![shorter.trim_end_matches('-').to_owned()],
        None => vec![name.trim_end_matches('-').to_owned()],
    }
}

/// A pattern as an entry of `syslog.patterns`.
pub fn entry(pattern: &PatternSettings) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut text = format!("- name: {}\n", quoted(&pattern.name));
    if !pattern.program.is_empty() {
        text += &format!("  program: [{}]\n", pattern.program.join(", "));
    }
    text += &format!("  severity: {}\n", pattern.severity);
    text += &format!("  description: {}\n", quoted(&pattern.description));
    text += &format!("  regex: {}\n", quoted(&pattern.regex));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> (Vec<String>, Vec<String>) {
        let Translation { patterns, left_out } = translate_filter("x", text, |_| None);
        let patterns = patterns.iter().map(|p| format!("{} {} {}", p.name, p.program.join(","), p.regex));
        (patterns.collect(), left_out)
    }

    #[test]
    fn names_are_replaced_and_the_prefix_becomes_the_program() {
        let text = "[INCLUDES]\nbefore = common.conf\n[Definition]\n_daemon = widget(?:d|-server)?\nword = (?:no|%(other)s)\n\
                    other = never\n# a comment\nfailregex = ^%(__prefix_line)slogin of <F-USER>\\S+</F-USER> from <HOST>: %(word)s$\n            \
                    ^bare <ADDR> 100%%\n\nmode = a\nmore-a = ^again <HOST>$\n";
        let (patterns, left_out) = translated(text);
        assert_eq!(left_out, [""; 0]);
        assert_eq!(patterns, [r"x widget ^login of (?P<user>\S+) from <IP>: (?:no|never)$", "x-2  ^bare <IP> 100%"]);
    }

    #[test]
    fn what_a_filter_adds_to_the_prefix_stays() {
        let text = "[Definition]\n_daemon = sendmail\naddr = (?:IPv6:<IP6>|<IP4>)\n\
                    __prefix_line = %(known/__prefix_line)s(?:\\w{14,20}: )?\n\
                    prefregex = ^<F-MLFID>%(__prefix_line)s</F-MLFID><F-CONTENT>.+</F-CONTENT>$\nfailregex = ^at \\[%(addr)s\\]$\n";
        let (patterns, left_out) = translated(text);
        assert_eq!(left_out, [""; 0]);
        assert_eq!(patterns, [r"x sendmail ^(?:(?:\w{14,20}: )?)(?:at \[(?:IPv6:)?<IP>\])$"]);
    }

    #[test]
    fn without_a_program_its_name_stands_in_front() {
        let (patterns, _) =
            translated("[Definition]\n_daemon = (?:x)?(?:a|b)\nfailregex = ^%(__prefix_line)sfailed <HOST>$\n");
        assert_eq!(patterns, ["x  ^[^ ]+: failed <IP>$"]);
    }

    #[test]
    fn a_prefregex_goes_around_each_failregex() {
        let text = "[Definition]\n_daemon = (?:a-one|two)\nmode = hard\nwords-hard = ^x <HOST>$\n    y <HOST>\n\
                    prefregex = ^%(__prefix_line)swarning: <F-CONTENT>.+</F-CONTENT>$\nfailregex = <words-<mode>>\n";
        let (patterns, _) = translated(text);
        assert_eq!(patterns, ["x a-one,two ^warning: (?:x <IP>)$", "x-2 a-one,two ^warning: .*?(?:y <IP>).*$"]);
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        let text = "[Definition]\nfailregex = ^a<SKIPLINES><HOST>$\n   ^<F-NOFAIL>x</F-NOFAIL> <HOST>$\nignoreregex = ^y$\n\
                    [INCLUDES]\nbefore = other.conf\n";
        let (patterns, left_out) = translated(text);
        assert!(patterns.is_empty());
        assert_eq!(left_out.len(), 4, "{left_out:?}");
        assert!(left_out[0].starts_with("other.conf"));
        let (_, left_out) = translated("failregex = %(a)s\na = %(b)s\nb = %(a)s\n");
        assert_eq!(left_out.len(), 1, "{left_out:?}");
        let doubling: String = (0..40).map(|n| format!("a{n} = %(a{0})s%(a{0})s\n", n + 1)).collect();
        let (_, left_out) = translated(&format!("failregex = %(a0)s\n{doubling}a40 = xx\n"));
        assert_eq!(left_out.len(), 1, "{left_out:?}");
    }

    #[test]
    fn daemons_become_programs() {
        for (daemon, programs) in [
            (r"postfix(-\w+)?/\w+(?:/smtp[ds])?", "postfix"),
            ("(?:dovecot(?:-auth)?|auth)", "dovecot,dovecot-auth,auth"),
            ("(?:a)(?:b)", ""),
            ("sshd?", "ssh,sshd"),
            ("sshd(?:-session)?", "sshd,sshd-session"),
            (r"\S+", ""),
        ] {
            assert_eq!(programs_of(daemon).join(","), programs, "{daemon}");
        }
    }
}
