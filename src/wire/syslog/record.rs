//! One syslog entry: RFC 5424, RFC 3164 as senders really write it, and lines of log files.
//!
//! ```text
//! <22>1 2026-11-22T17:32:41.057905+00:00 mail1 dovecot 7210 LOGIN [meta sequenceId="5"] imap-login: ...   RFC 5424
//! <22>Nov 22 17:32:41 mail1 postfix/smtpd[7210]: warning: ...                                             RFC 3164
//! └┬─┘└──────┬──────┘ └─┬─┘ └─────┬─────┘└─┬──┘  └────┬─────
//! PRI    timestamp    host     program    pid      message
//! ```
//!
//! In RFC 3164 everything but the message may be missing, and nothing marks what is. Three rules keep the reading
//! from depending on text that a user chose:
//!
//! 1. A program is a word that says it is one: `name:`, `name[pid]:` or `name[pid]`. A bare first word is none,
//!    although some BSD daemons wrote it so (`syslogd restart`): the first word of any free text would be a program.
//! 2. A host stands only between a timestamp and a program (RFC 3164 §4.1.2 has both or neither).
//! 3. The first word that can be the program is the program. What follows is message, also when it looks like
//!    another header (SOGo's log read by rsyslog's imfile does).

use std::fmt;

/// Longest host: that of RFC 5424 §6 (255 bytes, as in DNS).
pub const HOST_BYTES_MAX: usize = 255;

/// Longest program. RFC 3164's 32 and RFC 5424's 48 bytes are exceeded by real names such as
/// `postfix/submission-proxied/smtpd` and by containers' names; a longer first word is text, not a program.
pub const PROGRAM_BYTES_MAX: usize = 128;

/// Longest process id: that of PROCID in RFC 5424 §6.
pub const PID_BYTES_MAX: usize = 128;

/// Longest MSGID. RFC 5424 §6 says 32; it is skipped, so a sender that writes its program there again (Docker does)
/// may have as much as for the program.
const MSGID_BYTES_MAX: usize = PROGRAM_BYTES_MAX;

/// Highest PRI: facility 23, severity 7 (RFC 5424 §6.2.1).
const PRIORITY_MAX: u16 = 191;

/// The byte order mark in UTF-8, which may open MSG (RFC 5424 §6.4). Old versions of Python's handler wrote it
/// straight after PRI.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One syslog entry, borrowed from the buffer it arrived in.
///
/// An empty slice is an absent field: it was not written, or written as NILVALUE (`-`). The bytes are as the sender
/// wrote them: not always UTF-8, and in the message anything at all, NUL and line feeds included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who logged it, by its own account: a name or an address, at most [`HOST_BYTES_MAX`] bytes.
    pub host: &'a [u8],
    /// APP-NAME of RFC 5424, TAG of RFC 3164 without its colon: printable, at most [`PROGRAM_BYTES_MAX`] bytes.
    pub program: &'a [u8],
    /// PROCID of RFC 5424, what stands in brackets after the TAG of RFC 3164; mostly, not always, a number.
    pub pid: &'a [u8],
    /// The text, without blanks or a byte order mark at its start and without LF, CR or NUL at its end.
    pub message: &'a [u8],
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Record {{ host: \"{}\", program: \"{}\", pid: \"{}\", message: \"{}\" }}",
            self.host.escape_ascii(),
            self.program.escape_ascii(),
            self.pid.escape_ascii(),
            self.message.escape_ascii()
        )
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Nothing there: no bytes, only blanks and line ends, or a PRI or timestamp with nothing after it.
    Empty,
    /// It opens with `<`, but not with `<0>` to `<191>`.
    Priority,
    /// It opens as RFC 5424 does, but the fields up to PROCID are not all there, or one is too long or not printable.
    Header,
    /// An element of structured data that opens rightly and then breaks off. Where the message would begin is a
    /// guess, and the values are often chosen by users: no guess is made.
    StructuredData,
}

impl Malformed {
    /// Every reason, for whoever registers a counter for each.
    pub const ALL: &'static [Malformed] =
        &[Malformed::Empty, Malformed::Priority, Malformed::Header, Malformed::StructuredData];

    /// The reason as a metric label.
    pub fn name(self) -> &'static str {
        match self {
            Malformed::Empty => "empty",
            Malformed::Priority => "priority",
            Malformed::Header => "header",
            Malformed::StructuredData => "structured_data",
        }
    }
}

/// Decodes one record as it came over UDP, or over TCP out of its frame.
///
/// It is RFC 5424 if `1 ` and a timestamp (or `-`) stand after PRI. Everything else is read by the rules of RFC 3164,
/// in which a text without any header is a record too: its message is the whole text, its program is empty.
///
/// # Errors
///
/// [`Malformed`] says what can be wrong. Such bytes are to be counted and dropped.
///
/// # Example
///
/// ```
/// use mailfail2ban::wire::syslog::decode;
///
/// let record = decode(b"<22>Nov 22 17:32:41 mail1 postfix/smtpd[7210]: lost connection\n").unwrap();
/// assert_eq!(record.host, b"mail1");
/// assert_eq!(record.program, b"postfix/smtpd");
/// assert_eq!(record.pid, b"7210");
/// assert_eq!(record.message, b"lost connection");
/// ```
pub fn decode(datagram_or_frame: &[u8]) -> Result<Record<'_>, Malformed> {
    let text = trim_end(datagram_or_frame);
    match priority(text)? {
        Some(text) => match after_version(text) {
            Some(fields) => decode_5424(fields),
            None => decode_3164(text),
        },
        None => decode_3164(text),
    }
}

/// Decodes one line of a log file, as it lies on disk, with or without its line end.
///
/// As [`decode`], and a line of RFC 5424 may lack its PRI (it must have a time then: `1 - ` alone says too little).
///
/// # Errors
///
/// As [`decode`].
pub fn decode_logged(line: &[u8]) -> Result<Record<'_>, Malformed> {
    let text = trim_end(line);
    match text {
        [b'1', b' ', b'0'..=b'9', ..] => after_version(text).map_or_else(|| decode(text), decode_5424),
        _ => decode(text),
    }
}

/// Splits PRI off, one to three digits in angle brackets (RFC 5424 §6.2.1): `Ok(None)` if there is none.
///
/// Leading zeros are let pass (RFC 5424 §6.2.1 forbids writing them): the number is not used, and refusing them
/// would lose a record that is plain to read.
fn priority(text: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let (digits, rest) = match text {
        [b'<', one, b'>', rest @ ..] => ([b'0', b'0', *one], rest),
        [b'<', tens, ones, b'>', rest @ ..] => ([b'0', *tens, *ones], rest),
        [b'<', hundreds, tens, ones, b'>', rest @ ..] => ([*hundreds, *tens, *ones], rest),
        [b'<', ..] => return Err(Malformed::Priority),
        _ => return Ok(None),
    };
    let value = digits.iter().fold(0, |value, digit| value * 10 + u16::from(digit.wrapping_sub(b'0')));
    if digits.iter().all(u8::is_ascii_digit) && value <= PRIORITY_MAX {
        Ok(Some(rest))
    } else {
        Err(Malformed::Priority)
    }
}

// RFC 5424

/// Returns what follows VERSION and TIMESTAMP, if they are RFC 5424's: `1 `, then NILVALUE or a time.
fn after_version(text: &[u8]) -> Option<&[u8]> {
    let rest = match text.strip_prefix(b"1 ")? {
        [b'-', rest @ ..] => rest,
        time => after_iso_time(time, |separator| matches!(separator, b'T' | b't'))?,
    };
    match rest {
        [b' ', rest @ ..] => Some(rest),
        [] => Some(rest),
        _ => None,
    }
}

/// Decodes from HOSTNAME on (RFC 5424 §6: `HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA [MSG]`).
///
/// Structured data may be missing, since well-known senders forget it (Heroku's does): the message begins in its
/// place then.
fn decode_5424(fields: &[u8]) -> Result<Record<'_>, Malformed> {
    let (host, rest) = field(fields, HOST_BYTES_MAX)?;
    let (program, rest) = field(rest, PROGRAM_BYTES_MAX)?;
    let (pid, rest) = field(rest, PID_BYTES_MAX)?;
    let (_message_id, rest) = field(rest, MSGID_BYTES_MAX)?;
    Ok(Record { host, program, pid, message: trim_start(after_structured_data(rest)?) })
}

/// Takes one field of the header and the blank after it. NILVALUE is empty, and so is a field of no bytes: a sender
/// that has no host name and writes nothing in its place means just that, and the places of the others still hold.
fn field(text: &[u8], bytes_max: usize) -> Result<(&[u8], &[u8]), Malformed> {
    if text.is_empty() {
        return Err(Malformed::Header);
    }
    let end = up_to(text, bytes_max).iter().position(|&b| !is_printable(b)).unwrap_or(text.len());
    let (value, rest) = text.split_at_checked(end).ok_or(Malformed::Header)?;
    let rest = match rest {
        [b' ', rest @ ..] => rest,
        [] => rest,
        [..] => return Err(Malformed::Header),
    };
    match value {
        _ if value.len() > bytes_max => Err(Malformed::Header),
        b"-" => Ok((&[], rest)),
        value => Ok((value, rest)),
    }
}

/// Returns what follows the structured data (RFC 5424 §6.3), which is NILVALUE or elements without a blank between.
fn after_structured_data(text: &[u8]) -> Result<&[u8], Malformed> {
    if let [b'-'] | [b'-', b' ' | b'\t', ..] = text {
        return Ok(text.get(1..).unwrap_or_default());
    }
    let mut rest = text;
    while let Some(after) = after_element(rest)? {
        rest = after;
    }
    Ok(rest)
}

/// Returns what follows one element, `[name key="value" …]`, or `None` if no element begins here but message does:
/// `[Sun Nov 22 …` is no promise of one, `[name key="` is. (`[ERROR] text` is an element of no values, §6.3.1.)
///
/// In a value `\"`, `\\` and `\]` are escapes, any other backslash stands for itself, and a bare `]` (which must not
/// be written, §6.3.3) is let pass, so that no value can end the element that it stands in.
fn after_element(text: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let [b'[', inner @ ..] = text else { return Ok(None) };
    let Some(mut rest) = after_name(inner) else { return Ok(None) };
    let mut promised = false;
    loop {
        let unbroken = rest;
        rest = trim_blanks(rest);
        if let [b']', after @ ..] = rest {
            return Ok(Some(after));
        }
        let value = match after_name(rest) {
            Some([b'=', b'"', value @ ..]) if rest.len() < unbroken.len() => value,
            _ if promised => return Err(Malformed::StructuredData),
            _ => return Ok(None),
        };
        promised = true;
        rest = after_value(value).ok_or(Malformed::StructuredData)?;
    }
}

/// Returns what follows an SD-NAME (RFC 5424 §6: printable ASCII without `=`, `]` and `"`) of at least one byte.
fn after_name(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&b| !b.is_ascii_graphic() || matches!(b, b'=' | b']' | b'"'))?;
    if end == 0 { None } else { text.get(end..) }
}

/// Returns what follows the quote that ends a value.
fn after_value(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr::memchr2(b'"', b'\\', text)?;
        text = match text.get(at..)? {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'"' | b'\\', after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

// RFC 3164

/// Decodes what stands after PRI, or all there is if there was none.
fn decode_3164(text: &[u8]) -> Result<Record<'_>, Malformed> {
    let text = trim_start(text);
    let record = if let Some(rest) = after_time(text) {
        host_and_tag(rest).unwrap_or_else(|| tagless(rest))
    } else {
        tag(text).or_else(|| odd_header(text)).unwrap_or_else(|| tagless(text))
    };
    if record.program.is_empty() && record.message.is_empty() { Err(Malformed::Empty) } else { Ok(record) }
}

/// The reading that is always left: no header, all message.
fn tagless(text: &[u8]) -> Record<'_> {
    Record { host: &[], program: &[], pid: &[], message: trim_start(text) }
}

/// Reads `HOST TAG` or `TAG` after a timestamp. A word that can be the TAG is the TAG: hosts are not followed by a
/// colon, except on Cisco's devices, which then write `HOST : TAG` or a plain address.
fn host_and_tag(text: &[u8]) -> Option<Record<'_>> {
    let text = after_facility(text).unwrap_or(text);
    let (host, rest) = match word(text) {
        Some(Word { bytes: host, rest, is_plain: true }) if is_plainly_host(host, rest) => (host, rest),
        first => match first.and_then(tag_of) {
            Some(record) => return Some(record),
            None => odd_host(text)?,
        },
    };
    let rest = match trim_blanks(rest) {
        [b':', rest @ ..] => trim_blanks(ends_header(rest)?),
        rest => rest,
    };
    Some(Record { host: if host == b"-" { &[] } else { host }, ..tag(rest)? })
}

/// What nearly all hosts are: before a blank and something that is no process id, so that it is no TAG.
fn is_plainly_host(word: &[u8], rest: &[u8]) -> bool {
    matches!(rest, [b' ', next, ..] if *next != b'[') && has(word, ALPHANUMERIC)
}

/// Splits off what stands before a blank, if it can be a host: Cisco's devices have a colon behind their addresses.
fn odd_host(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = up_to(text, HOST_BYTES_MAX).iter().position(|&b| is_blank(b))?;
    let (word, rest) = text.split_at_checked(end)?;
    let host = word.strip_suffix(b":").filter(|word| is_address(word)).unwrap_or(word);
    is_host(host).then_some((host, rest))
}

/// Reads a TAG and the message after it: `name:`, `name[pid]:`, `name[pid]` or `name [pid]:`, then a blank or the end.
///
/// A name is judged by what it cannot be: an address with a port (`192.0.2.1:53856 [22/Nov/…`, `::1:53132 [22/…`, so
/// HAProxy's short format), a number with a colon (a Cisco sequence number), a piece of JSON.
fn tag(text: &[u8]) -> Option<Record<'_>> {
    word(text).and_then(tag_of)
}

/// The same, where the first word is known already.
fn tag_of(Word { bytes: program, rest, .. }: Word<'_>) -> Option<Record<'_>> {
    let has_letter = has(program, LETTER);
    let (pid, rest) = match rest {
        [b':', rest @ ..] if has_letter => (&[][..], ends_header(rest)?),
        // `name[pid]:`. A container's name may be a number, so here it may.
        [b'[', rest @ ..] => {
            let (pid, rest) = bracketed(rest)?;
            let rest = match rest {
                [b':', rest @ ..] => ends_header(rest)?,
                // GNUstep writes `sogod[12603:12603] text`. Without the colon only a number is a pid:
                // `unknown[192.0.2.1] text` is how a daemon names its client.
                [b' ' | b'\t', ..] if is_number(pid) => rest,
                _ => return None,
            };
            (pid, rest)
        }
        // SOGo writes `sogod [12603]: text`.
        [b' ', b'[', rest @ ..] if has_letter => match bracketed(rest)? {
            (pid, [b':', rest @ ..]) if is_number(pid) => (pid, ends_header(rest)?),
            _ => return None,
        },
        _ => return None,
    };
    if !has_letter && !has(program, ALPHANUMERIC) {
        return None;
    }
    let pid = if pid == b"-" { &[] } else { pid };
    Some(Record { host: &[], program, pid, message: trim_start(rest) })
}

/// Splits `pid]rest`.
fn bracketed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = end_of(BRACKETED, up_to(text, PID_BYTES_MAX))?;
    match text.split_at_checked(end)? {
        (pid, [b']', rest @ ..]) => Some((pid, rest)),
        _ => None,
    }
}

/// A process id, or a process and a thread id with a colon between.
fn is_number(pid: &[u8]) -> bool {
    pid.first().is_some_and(u8::is_ascii_digit) && pid.iter().all(|b| b.is_ascii_digit() || *b == b':')
}

/// Returns `text` if the header can end before it: at a blank or at the end.
fn ends_header(text: &[u8]) -> Option<&[u8]> {
    matches!(text, [] | [b' ' | b'\t', ..]).then_some(text)
}

/// Skips `<mail.info> ` or `<2.6> `, which FreeBSD's syslogd -v writes into its files after the timestamp.
fn after_facility(text: &[u8]) -> Option<&[u8]> {
    /// The longest is `local7.warning`.
    const FACILITY_BYTES_MAX: usize = 14;

    let inner = text.strip_prefix(b"<")?;
    let is_end = |b: &u8| !b.is_ascii_alphanumeric() && *b != b'.';
    let end = inner.iter().take(FACILITY_BYTES_MAX + 1).position(is_end)?;
    match inner.get(end..)? {
        [b'>', rest @ ..] if end > 0 => ends_header(rest).map(trim_blanks),
        _ => None,
    }
}

/// Reads a header with something before it that only some senders write: on Cisco's devices a sequence number
/// (`123: `) and a mark that the clock is wrong (`*` or `.`; their EMBLEM format has `:` there), in syslog-ng's
/// ts-format(full) a year (`2026 Nov 22 …`). It is believed only if a whole header follows, and else is message.
fn odd_header(text: &[u8]) -> Option<Record<'_>> {
    /// A counter of 32 bits has ten.
    const SEQUENCE_DIGITS_MAX: usize = 10;

    let digits = text.iter().take(SEQUENCE_DIGITS_MAX + 1).take_while(|b| b.is_ascii_digit()).count();
    let rest = match text.get(digits..)? {
        [b' ', rest @ ..] if digits == 4 => return after_traditional_time(rest).and_then(host_and_tag),
        [b':', rest @ ..] if (1..=SEQUENCE_DIGITS_MAX).contains(&digits) => trim_blanks(ends_header(rest)?),
        _ if digits == 0 => text,
        _ => return None,
    };
    let unmarked = match rest {
        [b'*' | b'.' | b':', rest @ ..] => rest,
        rest => rest,
    };
    match after_time(unmarked) {
        // A zone has a colon too (`UTC: %SYS-5-CONFIG_I: …`), and only here is it not the colon of a program.
        Some(rest) => match after_zone_name(rest) {
            Some([b':', b' ', tagged @ ..]) if tagged.starts_with(b"%") => tag(tagged),
            _ => host_and_tag(rest),
        },
        None if digits > 0 => tag(rest),
        None => None,
    }
}

// Timestamps. All of them are recognised by shape and range, none is turned into a time.

/// Returns what follows a timestamp of either kind and the blanks after it.
fn after_time(text: &[u8]) -> Option<&[u8]> {
    match text.first()? {
        b'A'..=b'Z' => after_traditional_time(text),
        b'0'..=b'9' => {
            let rest = after_iso_time(text, |separator| matches!(separator, b'T' | b't' | b' '))?;
            end_of_time(rest)
        }
        _ => None,
    }
}

/// Skips `Nov 22 17:32:41` (RFC 3164 §4.1.2) and its kin: a day of one digit after one blank or two, a fraction, a
/// year before or after the time.
fn after_traditional_time(text: &[u8]) -> Option<&[u8]> {
    let (month, rest) = text.split_first_chunk::<3>()?;
    if !matches!(
        month,
        b"Jan" | b"Feb" | b"Mar" | b"Apr" | b"May" | b"Jun" | b"Jul" | b"Aug" | b"Sep" | b"Oct" | b"Nov" | b"Dec"
    ) {
        return None;
    }
    let rest = after_day(rest)?;
    let rest = match after_year(rest) {
        Some(rest) => after_blank(rest)?,
        None => rest,
    };
    let rest = after_clock(rest)?;
    // What nearly all senders write: a blank and a name, which is neither a year nor a zone.
    if let [b' ', b'a'..=b'z', ..] = rest {
        return rest.get(1..);
    }
    let rest = after_fraction(rest);
    end_of_time(after_late_year(rest).unwrap_or(rest))
}

/// Skips ` 22 `, a day of the month.
fn after_day(text: &[u8]) -> Option<&[u8]> {
    match after_blank(text)? {
        [b'0', b'1'..=b'9', rest @ ..]
        | [b'1' | b'2', b'0'..=b'9', rest @ ..]
        | [b'3', b'0' | b'1', rest @ ..]
        | [b'1'..=b'9', rest @ ..] => after_blank(rest),
        _ => None,
    }
}

/// Skips a year after the time, ` 2026` or ` CST 1987` (RFC 3164 §5.4, example 3).
fn after_late_year(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_prefix(b" ")?;
    after_year(text).or_else(|| after_year(after_zone_name(text)?.strip_prefix(b" ")?))
}

/// Skips `UTC`, `CEST`, `CHAST`.
fn after_zone_name(text: &[u8]) -> Option<&[u8]> {
    const ZONE_LETTERS_MAX: usize = 5;

    let letters = text.iter().take(ZONE_LETTERS_MAX).take_while(|b| b.is_ascii_uppercase()).count();
    if letters == 0 { None } else { text.get(letters..) }
}

/// Skips a year from 1900 to 2099 that is a word of its own (`2001:db8::1` is none).
fn after_year(text: &[u8]) -> Option<&[u8]> {
    let (b"19" | b"20", rest) = text.split_first_chunk::<2>()? else { return None };
    let [b'0'..=b'9', b'0'..=b'9', rest @ ..] = rest else { return None };
    ends_header(rest.strip_prefix(b":").unwrap_or(rest)).map(|_| rest)
}

/// Skips `2026-11-22T17:32:41` with or without fraction and zone (RFC 3339 §5.6), somewhat more freely than RFC 5424
/// §6.2.3 has it: as many digits of fraction as nanoseconds need, a comma before them, a zone without colon or
/// minutes or none at all. The caller says what may separate date and time, and looks at what follows.
fn after_iso_time(text: &[u8], is_separator: fn(u8) -> bool) -> Option<&[u8]> {
    let rest = match text {
        [
            b'0'..=b'9',
            b'0'..=b'9',
            b'0'..=b'9',
            b'0'..=b'9',
            b'-',
            month_tens,
            month_ones,
            b'-',
            day_tens,
            day_ones,
            separator,
            rest @ ..,
        ] if matches!((month_tens, month_ones), (b'0', b'1'..=b'9') | (b'1', b'0'..=b'2'))
            && matches!(
                (day_tens, day_ones),
                (b'0', b'1'..=b'9') | (b'1' | b'2', b'0'..=b'9') | (b'3', b'0' | b'1')
            )
            && is_separator(*separator) =>
        {
            after_fraction(after_clock(rest)?)
        }
        _ => return None,
    };
    Some(match rest {
        [b'Z' | b'z', rest @ ..]
        | [b'+' | b'-', b'0'..=b'2', b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9', rest @ ..]
        | [b'+' | b'-', b'0'..=b'2', b'0'..=b'9', b'0'..=b'5', b'0'..=b'9', rest @ ..]
        | [b'+' | b'-', b'0'..=b'2', b'0'..=b'9', rest @ ..] => rest,
        rest => rest,
    })
}

/// Skips `17:32:41`; 60 is a leap second.
fn after_clock(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'0' | b'1', b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9', b':', second_tens, second_ones, rest @ ..]
        | [b'2', b'0'..=b'3', b':', b'0'..=b'5', b'0'..=b'9', b':', second_tens, second_ones, rest @ ..]
            if matches!((second_tens, second_ones), (b'0'..=b'5', b'0'..=b'9') | (b'6', b'0')) =>
        {
            Some(rest)
        }
        _ => None,
    }
}

/// Skips `.057905` if it is there: a point or a comma and at most nine digits. A tenth is left over, and what is left
/// over is not the end of a timestamp.
fn after_fraction(text: &[u8]) -> &[u8] {
    const FRACTION_DIGITS_MAX: usize = 9;

    let [b'.' | b',', fraction @ ..] = text else { return text };
    let looked_at = fraction.get(..FRACTION_DIGITS_MAX).unwrap_or(fraction);
    let digits = looked_at.iter().position(|b| !b.is_ascii_digit()).unwrap_or(looked_at.len());
    if digits == 0 { text } else { fraction.get(digits..).unwrap_or_default() }
}

/// Skips what ends a timestamp of RFC 3164's kind: a blank, or a colon and a blank, or the end of the text.
fn end_of_time(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_prefix(b":").unwrap_or(text);
    ends_header(text).map(trim_blanks)
}

// Bytes

fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// Neither blank nor control. Bytes above ASCII pass, since nothing says in which encoding they are.
const fn is_printable(b: u8) -> bool {
    b > b' ' && b != 0x7f
}

// What a byte can be part of. A table, since the words of every header are walked through here.

/// Printable, and no square bracket.
const BRACKETED: u8 = 1;
/// Printable, and not what marks free text or ends a name: brackets but the round ones (`(sd-pam)[12]:` and
/// `run-parts(/etc/cron.daily)[34]:` are names), quotes, `=`, `,` and `;`.
const PROGRAM: u8 = 2;
/// A host's name. Relays may chain them (`src@relay/192.0.2.1`).
const HOST: u8 = 4;
const LETTER: u8 = 8;
const ALPHANUMERIC: u8 = 16;

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
static PARTS: [u8; 256] = {
    let mut parts = [0; 256];
    let mut at = 0;
    while at <= u8::MAX as usize {
        let b = at as u8;
        if is_printable(b) && !matches!(b, b'[' | b']') {
            parts[at] |= BRACKETED;
        }
        if is_printable(b) && !matches!(b, b':' | b'[' | b']' | b'<' | b'>' | b'{' | b'}' | b'"' | b'=' | b',' | b';') {
            parts[at] |= PROGRAM;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b'@' | b'+' | b'~') {
            parts[at] |= HOST;
        }
        if b.is_ascii_alphabetic() {
            parts[at] |= LETTER;
        }
        if b.is_ascii_alphanumeric() {
            parts[at] |= ALPHANUMERIC;
        }
        at += 1;
    }
    parts
};

fn parts(b: u8) -> u8 {
    PARTS.get(usize::from(b)).copied().unwrap_or(0)
}

/// Whether some byte can be part of this.
fn has(word: &[u8], part: u8) -> bool {
    word.iter().any(|b| parts(*b) & part != 0)
}

/// As much of a text as has to be looked at to see whether a word in it has more than so many bytes.
fn up_to(text: &[u8], bytes_max: usize) -> &[u8] {
    text.get(..=bytes_max).unwrap_or(text)
}

/// The first word of a text, as far as it can be a program's name, and what follows.
struct Word<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    /// All of its bytes can be part of a host's name.
    is_plain: bool,
}

/// `None` if the word has more than [`PROGRAM_BYTES_MAX`] bytes, or nothing follows.
#[inline]
fn word(text: &[u8]) -> Option<Word<'_>> {
    let looked_at = up_to(text, PROGRAM_BYTES_MAX);
    let mut end = end_of(HOST, looked_at)?;
    let mut is_plain = true;
    if looked_at.get(end).is_some_and(|b| parts(*b) & PROGRAM != 0) {
        is_plain = false;
        end = end_of(PROGRAM, looked_at)?;
    }
    let (bytes, rest) = text.split_at_checked(end)?;
    Some(Word { bytes, rest, is_plain })
}

/// Where the first byte is that cannot be part of this. `None` if there is none.
fn end_of(part: u8, text: &[u8]) -> Option<usize> {
    text.iter().position(|b| parts(*b) & part == 0)
}

/// A host's name or address, or NILVALUE. Only IPv6 has colons, and at
/// least two: `192.0.2.1:53856` is a client, not a host.
fn is_host(word: &[u8]) -> bool {
    let named = word.iter().all(|b| parts(*b) & HOST != 0) && (word == b"-" || has(word, ALPHANUMERIC));
    named || is_address(word) && word.iter().filter(|&&b| b == b':').count() >= 2
}

/// Made of what numeric addresses are made of, a zone (`fe80::1%eth0`) included.
fn is_address(word: &[u8]) -> bool {
    let (address, zone) = match word.iter().position(|&b| b == b'%').and_then(|at| word.split_at_checked(at)) {
        Some((address, [_, zone @ ..])) => (address, zone),
        _ => (word, &[][..]),
    };
    address.iter().any(u8::is_ascii_hexdigit)
        && address.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b':'))
        && zone.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn after_blank(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b' ' | b'\t', rest @ ..] => Some(trim_blanks(rest)),
        _ => None,
    }
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&b| !is_blank(b)).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

/// Drops what may stand before text: blanks, and a byte order mark.
fn trim_start(text: &[u8]) -> &[u8] {
    let text = trim_blanks(text);
    text.strip_prefix(BOM).map_or(text, trim_blanks)
}

/// Drops what ends records in one framing or another, and got into them in the next: LF, CR and NUL.
fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r' | 0] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record<'a>(host: &'a str, program: &'a str, pid: &'a str, message: &'a str) -> Result<Record<'a>, Malformed> {
        Ok(Record {
            host: host.as_bytes(),
            program: program.as_bytes(),
            pid: pid.as_bytes(),
            message: message.as_bytes(),
        })
    }

    fn tagless(message: &str) -> Result<Record<'_>, Malformed> {
        record("", "", "", message)
    }

    #[test]
    fn priorities() {
        for (text, good) in [
            ("<0>a: b", true),
            ("<9>a: b", true),
            ("<99>a: b", true),
            ("<191>a: b", true),
            ("<007>a: b", true),
            ("<192>a: b", false),
            ("<999>a: b", false),
            ("<0191>a: b", false),
            ("<>a: b", false),
            ("<+1>a: b", false),
            ("<-1>a: b", false),
            ("< 1>a: b", false),
            ("<1 >a: b", false),
            ("<1a>a: b", false),
            ("<1", false),
            ("<12a: b", false),
            ("<", false),
        ] {
            let expected = if good { record("", "a", "", "b") } else { Err(Malformed::Priority) };
            assert_eq!(decode(text.as_bytes()), expected, "{text}");
            assert_eq!(decode_logged(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_no_record() {
        for text in ["", " ", "\t ", "\r\n", "\0", " \n", "<22>", "<22>  \r\n\0", "<22>Nov 22 17:32:41", "\u{feff}"] {
            assert_eq!(decode(text.as_bytes()), Err(Malformed::Empty), "{text:?}");
        }
    }

    #[test]
    fn a_clock_is_one_at_every_place() {
        let highest = |clock: &[u8], place: usize| match place {
            0 => b'2',
            1 if clock[0] == b'2' => b'3',
            3 => b'5',
            6 if clock[7] == b'0' => b'6',
            6 => b'5',
            _ => b'9',
        };
        for clock in [*b"00:00:00", *b"10:09:58", *b"20:50:59", *b"19:59:30", *b"23:59:60"] {
            assert_eq!(after_clock(&clock), Some(&[][..]));
            for (place, b) in (0..8).flat_map(|place| (0..=u8::MAX).map(move |b| (place, b))) {
                let mut text = [clock, *b"leftover"].concat();
                text[place] = b;
                let right = match place {
                    2 | 5 => b == b':',
                    // An hour of 20 to 23, or a second of 60, at the other place too.
                    0 if b == b'2' => clock[1] <= b'3',
                    7 if clock[6] == b'6' => b == b'0',
                    _ => (b'0'..=highest(&text, place)).contains(&b),
                };
                let rest = right.then_some(&b"leftover"[..]);
                assert_eq!(after_clock(&text), rest, "{}", text.escape_ascii());
            }
        }
        assert_eq!(after_clock(b"17:32:4"), None);
    }

    #[test]
    fn a_program_has_no_more_than_so_many_bytes() {
        for length in 1..=PROGRAM_BYTES_MAX + 1 {
            let name = "n".repeat(length);
            let text = format!("{name}[7]: x");
            let want = if length <= PROGRAM_BYTES_MAX { record("", &name, "7", "x") } else { tagless(&text) };
            assert_eq!(decode(text.as_bytes()), want, "{length}");
        }
    }

    #[test]
    fn traditional_timestamps() {
        for time in [
            "Nov 22 17:32:41",
            "Nov  2 17:32:41",
            "Nov 2 17:32:41",
            "Nov 02 17:32:41",
            "Dec 31 23:59:60",
            "Nov  22  17:32:41 ",
            "Nov 22 17:32:41.123",
            "Nov 22 17:32:41:",
            "Nov 22 2026 17:32:41",
            "Nov 22 2026 17:32:41:",
            "Nov 22 17:32:41 2026",
            "Nov 22 17:32:41 CET 2026",
            "*Nov 22 17:32:41.123:",
            ".Nov 22 17:32:41:",
            "17: *Nov 22 17:32:41:",
            "0000000017: Nov 22 17:32:41.123456:",
            "2026 Nov 22 17:32:41",
        ] {
            let line = format!("<22>{time} mail1 prog[1]: text");
            assert_eq!(decode(line.as_bytes()), record("mail1", "prog", "1", "text"), "{time}");
            assert_eq!(decode(&line.as_bytes()[4..]), record("mail1", "prog", "1", "text"), "{time}");
        }
        for time in [
            "nov 22 17:32:41",
            "Nov 00 17:32:41",
            "Nov 32 17:32:41",
            "Nov 22 24:32:41",
            "Nov 22 17:60:41",
            "Nov 22 17:32:61",
            "Nov 22 17:32",
            "Nov 22 7:32:41",
            "Nov 22 17:32:41x",
            "Nov 22 17:32:41.1234567890",
            "Nov22 17:32:41",
            "Nov 22 20261 17:32:41",
        ] {
            let line = format!("<22>{time} mail1 prog[1]: text");
            let expected = format!("{time} mail1 prog[1]: text");
            assert_eq!(decode(line.as_bytes()), tagless(&expected), "{time}");
        }
    }

    #[test]
    fn iso_timestamps() {
        for time in [
            "2026-11-22T17:32:41Z",
            "2026-11-22t17:32:41z",
            "2026-11-22T17:32:41.1+00:00",
            "2026-11-22T17:32:41.123456789-23:59",
            "2026-11-22T17:32:41+0100",
            "2026-11-22T17:32:41+01",
            "2026-11-22T17:32:41",
        ] {
            for line in [
                format!("<22>{time} mail1 prog[1]: text"),
                format!("{time} mail1 prog[1]: text"),
                format!("{time}: mail1 prog[1]: text"),
                format!("{} mail1 prog[1]: text", time.replace(['T', 't'], " ")),
                format!("<22>1 {time} mail1 prog 1 - - text"),
            ] {
                assert_eq!(decode(line.as_bytes()), record("mail1", "prog", "1", "text"), "{line}");
            }
            let line = format!("1 {time} mail1 prog 1 - - text");
            assert_eq!(decode_logged(line.as_bytes()), record("mail1", "prog", "1", "text"), "{line}");
        }
        for time in [
            "2026-13-22T17:32:41Z",
            "2026-00-22T17:32:41Z",
            "2026-11-32T17:32:41Z",
            "2026-11-22T25:32:41Z",
            "2026-11-22_17:32:41Z",
            "2026-11-22T17:32:41.Z",
            "2026-11-22T17:32:41.1234567890Z",
            "2026-11-22T17:32:41+1",
            "2026-11-22T17:32:41Zx",
            "26-11-22T17:32:41Z",
        ] {
            for text in [format!("{time} mail1 prog[1]: text"), format!("1 {time} mail1 prog 1 - - text")] {
                assert_eq!(decode(format!("<22>{text}").as_bytes()), tagless(&text), "{text}");
                assert_eq!(decode_logged(text.as_bytes()), tagless(&text), "{text}");
            }
        }
    }

    #[test]
    fn what_is_a_tag() {
        for (text, program, pid, message) in [
            ("dovecot: text", "dovecot", "", "text"),
            ("dovecot:", "dovecot", "", ""),
            ("dovecot:\ttext", "dovecot", "", "text"),
            ("dovecot:  text ", "dovecot", "", "text "),
            ("postfix/submission/smtpd[7]: text", "postfix/submission/smtpd", "7", "text"),
            ("prog[7]:", "prog", "7", ""),
            ("prog[7] text", "prog", "7", "text"),
            ("prog[]: text", "prog", "", "text"),
            ("prog[-]: text", "prog", "", "text"),
            ("prog[<0.12.0>]: text", "prog", "<0.12.0>", "text"),
            ("sogod [7]: text", "sogod", "7", "text"),
            ("sogod[12:34] text", "sogod", "12:34", "text"),
            ("123456789012[7]: text", "123456789012", "7", "text"),
            ("(sd-pam)[7]: text", "(sd-pam)", "7", "text"),
            ("run-parts(/etc/cron.daily)[7]: text", "run-parts(/etc/cron.daily)", "7", "text"),
            ("%ASA-6-106015: text", "%ASA-6-106015", "", "text"),
            ("kernel: [   12.3] text", "kernel", "", "[   12.3] text"),
            ("a: b: c", "a", "", "b: c"),
            ("a: [7]: c", "a", "", "[7]: c"),
            ("a[1]: b[2]: c", "a", "1", "b[2]: c"),
            ("a:\u{feff}b", "", "", "a:\u{feff}b"),
            ("a: \u{feff}b", "a", "", "b"),
        ] {
            assert_eq!(decode(text.as_bytes()), record("", program, pid, message), "{text}");
            let with_host = format!("<22>Nov 22 17:32:41 mail1 {text}");
            let expected = match program {
                "" => continue,
                _ => record("mail1", program, pid, message),
            };
            assert_eq!(decode(with_host.as_bytes()), expected, "{with_host}");
        }
        let long = "x".repeat(PROGRAM_BYTES_MAX);
        assert_eq!(decode(format!("{long}: text").as_bytes()), record("", &long, "", "text"));
        let longer = format!("{long}x: text");
        assert_eq!(decode(longer.as_bytes()), tagless(&longer));
        let pid = "7".repeat(PID_BYTES_MAX);
        assert_eq!(decode(format!("a[{pid}]: text").as_bytes()), record("", "a", &pid, "text"));
        let longer = format!("a[{pid}7]: text");
        assert_eq!(decode(longer.as_bytes()), tagless(&longer));
    }

    #[test]
    fn what_is_no_tag() {
        for text in [
            "syslogd restart",
            "127.0.0.1:53856 [22/Nov/2026:17:32:40.507] web: x",
            "::1:53132 [22/Nov/2026:17:32:40.526] web: x",
            "127.0.0.1: x",
            "::1: x",
            "123: x",
            "123 [7]: x",
            "a:b: x",
            "a:b",
            ": x",
            "[7]: x",
            "--: x",
            "unknown[192.0.2.1] x",
            "unknown [192.0.2.1]: x",
            "a  [7]: x",
            "a[7]x: x",
            "a[7]",
            "a[7 8]: x",
            "a[[7]]: x",
            "a[7",
            "user=<bob>: x",
            "{\"a\": 1}",
            "a\0b: x",
            "a\x7fb: x",
            "a, b: x",
        ] {
            assert_eq!(decode(text.as_bytes()), tagless(text), "{text:?}");
            let timed = format!("<22>Nov 22 17:32:41 {text}");
            assert_eq!(decode(timed.as_bytes()).map(|record| record.program != b"x"), Ok(true), "{text:?}");
        }
    }

    #[test]
    fn what_is_a_host() {
        for host in [
            "mail1",
            "mail1.example.test",
            "192.0.2.1",
            "2001:db8::1",
            "::1",
            "fe80::1%eth0",
            "src@relay/192.0.2.1",
            "my_host",
            "1",
        ] {
            for line in [
                format!("<22>Nov 22 17:32:41 {host} dovecot: text"),
                format!("<22>Nov 22 17:32:41   {host}   dovecot: text"),
                format!("<22>Nov 22 17:32:41 {host} : dovecot: text"),
                format!("Nov 22 17:32:41 <mail.info> {host} dovecot: text"),
                format!("Nov 22 17:32:41 <2.6> {host} dovecot: text"),
            ] {
                assert_eq!(decode_logged(line.as_bytes()), record(host, "dovecot", "", "text"), "{line}");
            }
        }
        assert_eq!(decode(b"<22>Nov 22 17:32:41 - dovecot: text"), record("", "dovecot", "", "text"));
        assert_eq!(
            decode(b"<22>Nov 22 17:32:41 192.0.2.1: %SYS-5-X: text"),
            record("192.0.2.1", "%SYS-5-X", "", "text")
        );
        let long = "x".repeat(HOST_BYTES_MAX);
        let line = format!("<22>Nov 22 17:32:41 {long} dovecot: text");
        assert_eq!(decode(line.as_bytes()), record(&long, "dovecot", "", "text"));

        for text in [
            "mail1 text without a tag",
            "mail1",
            "(mail1) dovecot: text",
            "192.0.2.1:53856 dovecot: text",
            "mail1:514 dovecot: text",
            "mail1:b:c dovecot: text",
            "\"mail1\" dovecot: text",
            "<mail1 dovecot: text",
            ": dovecot: text",
            ":: dovecot: text",
        ] {
            let line = format!("<22>Nov 22 17:32:41 {text}");
            assert_eq!(decode(line.as_bytes()), tagless(text), "{text}");
        }
        let longer = format!("{long}x dovecot: text");
        assert_eq!(decode(format!("<22>Nov 22 17:32:41 {longer}").as_bytes()), tagless(&longer));
        // Without a timestamp there is no place for a host.
        assert_eq!(decode(b"<22>mail1 dovecot: text"), tagless("mail1 dovecot: text"));
    }

    #[test]
    fn only_the_first_header_counts() {
        for inner in [
            "Nov 22 17:12:55 sogod [12603]: text",
            "2026-11-22 17:12:55.545 sogod[12603:12603] text",
            "<22>Nov 22 17:12:55 mail1 dovecot: text",
            "1 2026-11-22T17:12:55Z mail1 dovecot - - - text",
            "dovecot: text",
            "mail1 dovecot[1]: text",
        ] {
            for (outer, host, program) in [
                ("<158>Nov 22 17:12:55 groupware1 sogo: ", "groupware1", "sogo"),
                ("<158>Nov 22 17:12:55 sogo: ", "", "sogo"),
                ("<158>sogo: ", "", "sogo"),
                ("sogo: ", "", "sogo"),
                ("<158>1 2026-11-22T17:12:55Z groupware1 sogo - - - ", "groupware1", "sogo"),
                ("<158>1 - - - - - - ", "", ""),
                ("<158>1 - - sogo - - [a b=\"] dovecot: \\\"\"] ", "", "sogo"),
            ] {
                let line = format!("{outer}{inner}");
                assert_eq!(decode(line.as_bytes()), record(host, program, "", inner), "{line}");
            }
        }
        assert_eq!(decode(b"a b\nNov 22 17:12:55 mail1 dovecot: c"), tagless("a b\nNov 22 17:12:55 mail1 dovecot: c"));
    }

    #[test]
    fn rfc_5424_header() {
        for (line, expected) in [
            ("<22>1 - - - - - -", record("", "", "", "")),
            ("<22>1 - h a p m - x", record("h", "a", "p", "x")),
            ("<22>1 - h a p m -  x", record("h", "a", "p", "x")),
            ("<22>1 - h a p m - \u{feff}x", record("h", "a", "p", "x")),
            ("<22>1 - h a p m - \u{feff}", record("h", "a", "p", "")),
            ("<22>1 - h a p m -x", record("h", "a", "p", "-x")),
            ("<22>1 - h a p m x", record("h", "a", "p", "x")),
            ("<22>1 - h a p m", record("h", "a", "p", "")),
            ("<22>1 -  a p m - x", record("", "a", "p", "x")),
            ("<22>1 - h a p", Err(Malformed::Header)),
            ("<22>1 - h", Err(Malformed::Header)),
            ("<22>1 -", Err(Malformed::Header)),
            ("<22>1 2026-11-22T17:32:41Z", Err(Malformed::Header)),
            ("<22>1 - h\ta p m - x", Err(Malformed::Header)),
            ("<22>1 - h a\0 p m - x", Err(Malformed::Header)),
            ("<22>1 - h a p\nm - x", Err(Malformed::Header)),
            ("<22>2 - h a p m - x", tagless("2 - h a p m - x")),
            ("<22>1  - h a p m - x", tagless("1  - h a p m - x")),
        ] {
            assert_eq!(decode(line.as_bytes()), expected, "{line:?}");
        }
        // Without PRI only a line of a file can be RFC 5424, and only with a time.
        assert_eq!(decode(b"1 2026-11-22T17:32:41Z h a p m - x"), tagless("1 2026-11-22T17:32:41Z h a p m - x"));
        assert_eq!(decode_logged(b"1 - h a p m - x"), tagless("1 - h a p m - x"));
        for (bytes_max, before, after) in
            [(HOST_BYTES_MAX, "", "a p m"), (PROGRAM_BYTES_MAX, "h ", "p m"), (PID_BYTES_MAX, "h a ", "m")]
        {
            let long = "x".repeat(bytes_max);
            assert!(decode(format!("<22>1 - {before}{long} {after} - x").as_bytes()).is_ok());
            let longer = format!("<22>1 - {before}{long}x {after} - x");
            assert_eq!(decode(longer.as_bytes()), Err(Malformed::Header));
        }
    }

    #[test]
    fn structured_data() {
        let broken = Err(Malformed::StructuredData);
        for (data, expected) in [
            ("[a] x", Ok("x")),
            ("[a]", Ok("")),
            ("[a][b] x", Ok("x")),
            ("[a b=\"\"] x", Ok("x")),
            ("[a b=\"c\" d=\"e\"][f@1 g=\"h\"] x", Ok("x")),
            ("[a b=\"c\"] [d] x", Ok("[d] x")),
            (r#"[a b="\"] dovecot: y \\" c="\]"] x"#, Ok("x")),
            (r#"[a b="\\"] x"] y"#, Ok(r#"x"] y"#)),
            (r#"[a b="\n"] x"#, Ok("x")),
            (r#"[a b="]"] x"#, Ok("x")),
            ("[a b=\"c\n\0\"] x", Ok("x")),
            ("[a b=\"c\" ] x", Ok("x")),
            ("[a b=\"c\"]x", Ok("x")),
            ("[a b=\"c\"][not an element", Ok("[not an element")),
            ("[ERROR: x", Ok("[ERROR: x")),
            ("[Sun Nov 22 17:32:41 2026] x", Ok("[Sun Nov 22 17:32:41 2026] x")),
            ("[  12.345678] x", Ok("[  12.345678] x")),
            ("[", Ok("[")),
            ("[]", Ok("[]")),
            ("[a b=c] x", Ok("[a b=c] x")),
            ("[a b=\"c", broken),
            ("[a b=\"c\\\"] x", broken),
            ("[a b=\"c\"", broken),
            ("[a b=\"c\" d=e] x", broken),
            ("[a b=\"c\"d=\"e\"] x", broken),
            ("[a b=\"c\"][d e=\"f] x", broken),
            ("[a b=\"c\\", broken),
        ] {
            let line = format!("<22>1 - h p - - {data}");
            assert_eq!(decode(line.as_bytes()), expected.and_then(|message| record("h", "p", "", message)), "{line}");
        }
    }

    #[test]
    fn messages_keep_their_bytes() {
        let message = b"a\0b\nc\r\x1b[1m \xff\xc3 ";
        for header in [&b"<22>Nov 22 17:32:41 h p: "[..], b"<22>1 - h p - - - ", b"2026-11-22T17:32:41Z h p:"] {
            for (open, end) in
                [(&b" "[..], &b""[..]), (b"", b"\n"), (b" \t", b"\r\n"), (b"", b"\0"), (b" ", b"\r\n\0\n")]
            {
                let line = [header, open, message, end].concat();
                if header.ends_with(b":") && open.is_empty() {
                    continue;
                }
                let expected = Record { host: b"h", program: b"p", pid: b"", message };
                assert_eq!(decode(&line), Ok(expected), "{}", line.escape_ascii());
                assert_eq!(decode_logged(&line), Ok(expected), "{}", line.escape_ascii());
            }
        }
    }

    #[test]
    fn debug_is_safe_to_print() {
        let record = Record { host: b"h", program: b"p", pid: b"", message: b"\x1b[2J\n\"\xff" };
        assert_eq!(format!("{record:?}"), r#"Record { host: "h", program: "p", pid: "", message: "\x1b[2J\n\"\xff" }"#);
    }

    #[test]
    fn names_are_distinct_labels() {
        let names: std::collections::BTreeSet<_> = Malformed::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Malformed::ALL.len());
    }

    /// Bytes made of what headers are made of, so that they come close to every rule.
    fn near_records() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &str = concat!(
            "<22>|<|>|1 |- |-| |  |:|: |[|]|\"|\\|=|[a b=\"|\"]|Nov 22 |17:32:41|.123|2026-11-22T17:32:41|Z |+01:00 |2026 |",
            "mail1 |dovecot|7|%ASA-1-2|*|\u{feff}|\n|\0|é",
        );
        let piece = proptest::sample::select(PIECES.split('|').collect::<Vec<_>>());
        let near = proptest::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![9 => near, 1 => proptest::collection::vec(any::<u8>(), 0..64)]
    }

    /// Text that could be mistaken for something else, but has no blank at its start and no line end at its end.
    fn messages() -> impl Strategy<Value = Vec<u8>> {
        near_records()
            .prop_map(|bytes| trim_end(trim_start(trim_start(&bytes))).to_vec())
            .prop_filter("a mark within a mark", |bytes| trim_start(bytes).len() == bytes.len())
    }

    fn sd_value() -> impl Strategy<Value = String> {
        "[a-z \"\\\\\\]\\[=:\n]{0,12}"
            .prop_map(|value| value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]"))
    }

    /// The field, or NILVALUE.
    fn or_nil(field: &str) -> &str {
        if field.is_empty() { "-" } else { field }
    }

    fn is_part(part: &[u8], whole: &[u8]) -> bool {
        let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
        part.is_empty() || whole.start <= part.start && part.end <= whole.end
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_are_a_record_or_a_reason(bytes in near_records()) {
            for decoded in [decode(&bytes), decode_logged(&bytes)] {
                let Ok(Record { host, program, pid, message }) = decoded else { continue };
                for part in [host, program, pid, message] {
                    prop_assert!(is_part(part, &bytes));
                }
                prop_assert!(host.len() <= HOST_BYTES_MAX && host.iter().all(|&b| is_printable(b)));
                prop_assert!(program.len() <= PROGRAM_BYTES_MAX && program.iter().all(|&b| is_printable(b)));
                prop_assert!(pid.len() <= PID_BYTES_MAX && pid.iter().all(|&b| is_printable(b)));
                prop_assert!(!matches!(message, [b' ' | b'\t', ..] | [.., b'\n' | b'\r' | 0]));
            }
        }

        /// No text in a message moves the border between header and message.
        #[test]
        fn rfc_3164_there_and_back(
            time in prop_oneof![
                Just("Nov 22 17:32:41 "), Just("Nov  2 17:32:41 "), Just("2026-11-22T17:32:41.057905+00:00 "), Just(""),
            ],
            host in prop_oneof![Just("".to_owned()), "[a-zA-Z][a-zA-Z0-9.-]{0,20}", Just("2001:db8::1".to_owned())],
            program in "[a-zA-Z][a-zA-Z0-9/._-]{0,60}",
            pid in "[0-9]{0,6}",
            message in messages(),
        ) {
            let host = if time.is_empty() { "" } else { &host };
            let blank = if host.is_empty() { "" } else { " " };
            let tag = if pid.is_empty() { program.clone() } else { format!("{program}[{pid}]") };
            let header = format!("{time}{host}{blank}{tag}: ");
            let expected =
                Record { host: host.as_bytes(), program: program.as_bytes(), pid: pid.as_bytes(), message: &message };
            for line in [["<22>".as_bytes(), header.as_bytes(), &message].concat(), [header.as_bytes(), &message].concat()] {
                prop_assert_eq!(decode(&line), Ok(expected));
                prop_assert_eq!(decode_logged(&line), Ok(expected));
            }
        }

        #[test]
        fn rfc_5424_there_and_back(
            time in prop_oneof![Just("2026-11-22T17:32:41Z"), Just("2026-11-22T17:32:41.057905-03:00"), Just("-")],
            host in "([!-,.-~][!-~]{0,40})?",
            program in "([!-,.-~][!-~]{0,47})?",
            pid in "([!-,.-~][!-~]{0,40})?",
            values in proptest::collection::vec(proptest::collection::vec(sd_value(), 0..3), 0..4),
            message in messages(),
        ) {
            let mut data: String = values
                .iter()
                .map(|values| {
                    let params: String = values.iter().map(|value| format!(" key=\"{value}\"")).collect();
                    format!("[id@32473{params}]")
                })
                .collect();
            if data.is_empty() {
                data.push('-');
            }
            let header = format!("1 {time} {} {} {} - {data} ", or_nil(&host), or_nil(&program), or_nil(&pid));
            let expected = Record {
                host: host.as_bytes(),
                program: program.as_bytes(),
                pid: pid.as_bytes(),
                message: &message,
            };
            let line = [b"<165>", header.as_bytes(), &message].concat();
            prop_assert_eq!(decode(&line), Ok(expected));
            prop_assert_eq!(decode_logged(&line), Ok(expected));
            if time != "-" {
                let line = [header.as_bytes(), &message].concat();
                prop_assert_eq!(decode_logged(&line), Ok(expected));
            }
        }
    }
}
