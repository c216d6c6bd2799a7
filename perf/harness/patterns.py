"""Further patterns for the measured server: what a mail host with webmail, groupware and a few more services adds to
those that are built in. A fifth is for programs that the measured log is full of, so that its lines have to be tried."""

# Name, program (or None: the lines of all programs), kind, message.
REALISTIC = [
    ("vsftpd-login", "vsftpd", "auth", r"^FAIL LOGIN: Client \"<IP>\"$"),
    ("proftpd-login", "proftpd", "auth", r"^\S+ \([^\[\]]*\[<IP>\]\) - USER <USER>: no such user found from [^\[\]]+ \[[^\[\]]+\] to \S+$"),
    ("proftpd-password", "proftpd", "auth", r"^\S+ \([^\[\]]*\[<IP>\]\) - USER <USER> \(Login failed\): Incorrect password$"),
    ("pure-ftpd-login", "pure-ftpd", "auth", r"^\(\?@<IP>\) \[WARNING\] Authentication failed for user \[<USER>\]$"),
    ("nextcloud-login", "nextcloud", "auth", r"^Login failed: '<USER>' \(Remote IP: '<IP>'\)$"),
    ("nextcloud-domain", "nextcloud", "abuse", r"^Trusted domain error\. \"<IP>\" tried to access using \"[^\"]*\" as host\.$"),
    ("mailcow-login", "mailcow", "auth", r"^Invalid password for <USER> by <IP>$"),
    ("mailcow-oauth", "mailcow", "auth", r"^OAuth2 token refused for <USER> by <IP>$"),
    ("postfixadmin-login", "postfixadmin", "auth", r"^Failed login attempt for <USER> from \(<IP>\)$"),
    ("phpmyadmin-login", "phpmyadmin", "auth", r"^user denied: <USER> \(mysql-denied\) from <IP>$"),
    ("grafana-login", "grafana", "auth", r"^level=error msg=\"Invalid username or password\" uname=<USER> remote_addr=<IP>$"),
    ("gitea-login", "gitea", "auth", r"^Failed authentication attempt for <USER> from <IP>:\d+$"),
    ("gitlab-login", "gitlab", "auth", r"^Failed Login: username=<USER> ip=<IP>$"),
    ("vaultwarden-login", "vaultwarden", "auth", r"^\[ERROR\] Username or password is incorrect\. Try again\. IP: <IP>\. Username: <USER>\.$"),
    ("bitwarden-totp", "vaultwarden", "auth", r"^\[ERROR\] Invalid TOTP code! Server time: \S+ UTC IP: <IP>$"),
    ("openvpn-tls", "openvpn", "abuse", r"^<IP>:\d{1,5} TLS Error: TLS handshake failed$"),
    ("openvpn-auth", "openvpn", "auth", r"^<IP>:\d{1,5} TLS Auth Error: Auth Username/Password verification failed for peer$"),
    ("strongswan-auth", "charon", "auth", r"^\d{2}\[IKE\] EAP method EAP_MSCHAPV2 failed for peer <IP>$"),
    ("asterisk-register", "asterisk", "auth", r"^NOTICE\[\d+\]: Registration from '<USER>' failed for '<IP>:\d+' - Wrong password$"),
    ("asterisk-peer", "asterisk", "auth", r"^NOTICE\[\d+\]: Registration from '<USER>' failed for '<IP>:\d+' - No matching peer found$"),
    ("ejabberd-auth", "ejabberd", "auth", r"^\[warning\] Failed c2s PLAIN authentication for <USER> from <IP>: Invalid username or password$"),
    ("prosody-auth", "prosody", "auth", r"^c2s[0-9a-f]+ warn Failed authentication attempt for user <USER> from IP: <IP>$"),
    ("slapd-bind", "slapd", "auth", r"^conn=\d+ op=\d+ RESULT tag=97 err=49 from IP=<IP>:\d+$"),
    ("radius-reject", "freeradius", "auth", r"^Login incorrect \(pap\): \[<USER>\] \(from client [\w.-]+ port \d+ cli <IP>\)$"),
    ("mysqld-denied", "mysqld", "auth", r"^\[Warning\] Access denied for user '<USER>'@'<IP>' \(using password: (?:YES|NO)\)$"),
    ("postgres-password", "postgres", "auth", r"^FATAL: password authentication failed for user \"<USER>\" client=<IP>$"),
    ("mongod-auth", "mongod", "auth", r"^SASL SCRAM-SHA-\d+ authentication failed for <USER> on \w+ from client <IP>:\d+$"),
    ("cockpit-login", "cockpit-session", "auth", r"^user authentication failed: <USER> from <IP>$"),
    ("webmin-login", "webmin", "auth", r"^Invalid login as <USER> from <IP>$"),
    ("webmin-unknown", "webmin", "auth", r"^Non-existent login as <USER> from <IP>$"),
    ("wordpress-login", "wordpress", "auth", r"^Authentication failure for <USER> from <IP>$"),
    ("wordpress-xmlrpc", "wordpress", "abuse", r"^XML-RPC multicall authentication failure from <IP>$"),
    ("drupal-login", "drupal", "auth", r"^https?://[\w.-]+\|\d+\|user\|<IP>\|Login attempt failed$"),
    ("rainloop-login", "rainloop", "auth", r"^Auth failed: ip=<IP> user=<USER>$"),
    ("horde-login", "HORDE", "auth", r"^\[imp\] FAILED LOGIN for <USER> \[<IP>\] to \{[\w.:-]+\}$"),
    ("zimbra-soap", "zimbra", "auth", r"^\[oip=<IP>;\] SoapEngine - handler exception: authentication failed for \[<USER>\], invalid password$"),
    ("milter-auth", "opendkim", "abuse", r"^[0-9A-F]{6,20}: bad signature data from \[<IP>\]$"),
    ("amavis-bad-header", "amavis", "abuse", r"^\([\d-]+\) Blocked BAD-HEADER-\d \{[\w,]+\}, \[<IP>\]:\d+$"),
    ("policyd-rate", "policyd-rate-limit", "abuse", r"^Quota exceeded for client \[<IP>\], rejected$"),
    ("smtp-bad-helo", "postfix", "abuse", r"^NOQUEUE: reject: RCPT from [^\[\]\s]+\[<IP>\](?::\d+)?: 504 5\.5\.2 <<USER>>: Helo command rejected: need fully-qualified hostname$"),
    ("smtp-policy", "postfix", "abuse", r"^NOQUEUE: reject: MAIL from [^\[\]\s]+\[<IP>\](?::\d+)?: 554 5\.7\.1 <<USER>>: Sender address rejected: our policy$"),
    ("smtp-milter", "postfix", "abuse", r"^[0-9A-Za-z]{6,20}: milter-reject: END-OF-MESSAGE from [^\[\]\s]+\[<IP>\]: 5\.7\.1 Spam message rejected$"),
    ("smtp-tls-library", "postfix", "abuse", r"^SSL_accept error from [^\[\]\s]+\[<IP>\](?::\d+)?: lost connection$"),
    ("smtp-timeout-auth", "postfix", "abuse", r"^timeout after AUTH from [^\[\]\s]+\[<IP>\](?::\d+)?$"),
    ("imap-lua", "dovecot", "auth", r"^auth-worker\(\d+\): lua\([^,()]*,<IP>(?:,<[^<>]*>)?\): policy refused the login$"),
    ("imap-country", "dovecot", "abuse", r"^imap-login: Disconnected: country not allowed: rip=<IP>, lip=[0-9a-f.:]+$"),
    ("sieve-flood", "dovecot", "abuse", r"^managesieve-login: Disconnected: Too many bad commands: rip=<IP>, lip=[0-9a-f.:]+$"),
    ("web-basic-auth", None, "auth", r"^apache2\[\d+\]: \[auth_basic:error\] \[client <IP>:\d+\] AH01617: user authentication failure$"),
    ("web-scanner", None, "abuse", r"^apache2\[\d+\]: \[client <IP>:\d+\] AH01630: client denied by server configuration$"),
    ("web-captcha", None, "abuse", r"^webmail(?:\[\d+\])?: captcha failed three times for <IP>$"),
]


def patterns(count, edition=0):
    """`count` patterns, each as name, program, kind, regex. Beyond the fifty above, they are the same services again as
    other versions say it, with a code of their own, so that each is another one for the matcher too; and those of another
    edition are others again, that no server has seen before."""
    found = []
    for number in range(count):
        name, program, kind, regex = REALISTIC[number % len(REALISTIC)]
        generation = number // len(REALISTIC)
        if generation:
            code = f"E{edition}-{generation:03}{number % len(REALISTIC):02}"
            name, regex = f"{name}-{generation}", f"{regex[:-1]} code={code}$"
        found.append((name, program, kind, regex))
    return found


def as_yaml(found, indent="    "):
    """Patterns as they stand below `syslog.patterns`."""
    lines = []
    for name, program, kind, regex in found:
        lines.append(f"{indent}- name: {name}")
        if program:
            lines.append(f"{indent}  program: {program}")
        lines.append(f"{indent}  kind: {kind}")
        quoted = regex.replace('\\"', '"').replace("'", "''")
        lines.append(f"{indent}  regex: '{quoted}'")
    return "\n".join(lines) + "\n"
