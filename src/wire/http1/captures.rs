//! Questions as real proxies sent them, byte for byte.
//!
//! Taken on 2026-11-22 on loopback from nginx 1.22.1-9+deb12u11 (Debian 12, nginx-light) with `auth_request`; the
//! client was Python's `http.client`. The configuration of each location stands beside it.

/// `proxy_pass http://127.0.0.1:18901/auth; proxy_pass_request_body off; proxy_set_header Content-Length "";
/// proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Original-URI $request_uri;
/// proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`
///
/// HTTP/1.0 and one connection per question is nginx's default. The client sent `GET /x/mail?id=7`.
pub const NGINX_HTTP10: &[u8] = b"GET /auth HTTP/1.0\r\n\
    X-Real-IP: 127.0.0.1\r\n\
    X-Original-URI: /x/mail?id=7\r\n\
    X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n\
    Host: 127.0.0.1:18901\r\n\
    Connection: close\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\n\
    \r\n";

/// `upstream auth { server 127.0.0.1:18901; keepalive 4; }` and `proxy_pass http://auth/auth; proxy_http_version 1.1;
/// proxy_set_header Connection ""; proxy_pass_request_body off; proxy_set_header Content-Length "";
/// proxy_set_header Host $host; proxy_set_header X-Original-IP $remote_addr;`
///
/// The client sent `HEAD /k/h`; the question is a GET all the same.
pub const NGINX_KEEP_ALIVE: &[u8] = b"GET /auth HTTP/1.1\r\n\
    Host: 127.0.0.1\r\n\
    X-Original-IP: 127.0.0.1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\n\
    X-Forwarded-For: 203.0.113.9\r\n\
    \r\n";

/// The same upstream, but only `proxy_http_version 1.1; proxy_set_header Connection "";`, as many write it. The
/// client sent `POST /e/login` with ten bytes of content: they are declared here, and never sent. What followed on the
/// same connection was the next client's [`NGINX_NEXT_QUESTION`].
pub const NGINX_KEEP_ALIVE_WITHOUT_ITS_BODY: &[u8] = b"GET /auth HTTP/1.1\r\n\
    Host: auth\r\n\
    Content-Length: 10\r\n\
    Accept-Encoding: identity\r\n\
    \r\n";

/// See [`NGINX_KEEP_ALIVE_WITHOUT_ITS_BODY`].
pub const NGINX_NEXT_QUESTION: &[u8] = b"GET /auth HTTP/1.1\r\n\
    Host: auth\r\n\
    Accept-Encoding: identity\r\n\
    X: 1\r\n\
    \r\n";

/// The configuration of [`NGINX_HTTP10`]. The client sent the field `X` with control bytes in it. nginx
/// passes on all but NUL and CR.
pub const NGINX_CONTROL_BYTES: &[u8] = b"GET /auth HTTP/1.0\r\n\
    X-Real-IP: 127.0.0.1\r\n\
    X-Original-URI: /x/a\r\n\
    X-Forwarded-For: 127.0.0.1\r\n\
    Host: 127.0.0.1:18901\r\n\
    Connection: close\r\n\
    X: a\x01b\x7fc\x0bd\x80e\r\n\
    \r\n";

/// All of them, for the properties.
pub const ALL: [&[u8]; 5] =
    [NGINX_HTTP10, NGINX_KEEP_ALIVE, NGINX_KEEP_ALIVE_WITHOUT_ITS_BODY, NGINX_NEXT_QUESTION, NGINX_CONTROL_BYTES];
