//! Lines that look like failures, for whoever wants to know what the patterns do not see.

/// Programs of a mail cluster, and what is below them.
const PROGRAMS: [&str; 34] = [
    "dovecot",
    "dovecot-auth",
    "auth",
    "auth-worker",
    "imap-login",
    "pop3-login",
    "managesieve-login",
    "submission-login",
    "postfix",
    "exim",
    "exim4",
    "sendmail",
    "sm-mta",
    "saslauthd",
    "cyrus",
    "imap",
    "imaps",
    "pop3",
    "pop3s",
    "imapd",
    "imapd-ssl",
    "pop3d",
    "pop3d-ssl",
    "authdaemond",
    "courieresmtpd",
    "sogo",
    "sogod",
    "roundcube",
    "rspamd",
    "sshd",
    "sshd-session",
    "nginx",
    "haproxy",
    "opensmtpd",
];

/// What daemons write when they refuse somebody, in small letters.
const WORDS: [&str; 17] = [
    "fail",
    "denied",
    "deny",
    "invalid",
    "refused",
    "reject",
    "incorrect",
    "mismatch",
    "unknown user",
    "user unknown",
    "illegal",
    "not allowed",
    "not permitted",
    "unauthorized",
    "badlogin",
    "bad password",
    "too many",
];

/// Whether a record is of a mail cluster's program and has a word in it that daemons use for failures.
pub fn looks_like_a_failure(program: &[u8], message: &[u8]) -> bool {
    // postfix/smtpd, and postfix-out/smtpd of a second instance.
    let is_known = |known: &&str| {
        program.strip_prefix(known.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            || (*known == "postfix" && program.starts_with(b"postfix-"))
    };
    if !PROGRAMS.iter().any(is_known) {
        return false;
    }
    let message = message.to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&message, word.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::looks_like_a_failure;

    #[test]
    fn only_words_of_failure_from_programs_of_a_mail_cluster_count() {
        for (program, message, want) in [
            ("dovecot", "imap-login: Login Failed", true),
            ("postfix/smtpd", "NOQUEUE: reject: RCPT", true),
            ("postfix-out/smtpd", "NOQUEUE: reject: RCPT", true),
            ("dovecot", "imap-login: Login: user=<bob>", false),
            ("kernel", "audit failed", false),
            ("dovecotx", "failed", false),
        ] {
            assert_eq!(looks_like_a_failure(program.as_bytes(), message.as_bytes()), want, "{program}: {message}");
        }
    }
}
