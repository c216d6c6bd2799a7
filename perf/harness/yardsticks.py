"""What is compared with, each with the settings that it is measured with: nginx, HAProxy, Envoy, the tonic service,
rsyslog, fail2ban."""

import os
import shutil
import socket
import time

from .processes import RoundFailed, Trouble, children, cpu_seconds

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen unix:{folder}/n.sock backlog=4096;
        location / {{ return 200; }}
    }}
}}
"""


class Nginx:
    """One worker that answers every request with an empty 200: the least that an HTTP server can do."""

    def __init__(self, space, peer, cores):
        self.port = space.port()
        self.folder = space.new_folder("n")
        config = space.write(os.path.join(self.folder, "nginx.conf"), NGINX.format(folder=self.folder, port=self.port))
        command = [peer.path, "-p", self.folder, "-e", "stderr", "-c", config]
        self.process = space.start("nginx", command, cores)
        space.wait_for_port(self.port, self.process)
        # The worker is what answers; the master only waits.
        self.pid = space.wait("nginx's worker", lambda: children(self.process.pid), self.process)[0]
        self.address, self.socket = f"127.0.0.1:{self.port}", f"unix:{self.folder}/n.sock"


HAPROXY = """\
global
    nbthread 1
    maxconn 4000
    stats socket {folder}/h.sock mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    no option abortonclose
frontend plain
    bind 127.0.0.1:{plain}
    http-request return status 200
frontend table
    bind 127.0.0.1:{table}
    http-request deny deny_status 403 if {{ hdr_ip(x-forwarded-for,-1),table_gpc0(banned) gt 0 }}
    http-request return status 200
backend banned
    stick-table type ip size 200k expire 24h store gpc0
"""

# Shared by ours and the other agent: how the question comes to it.
ASKED = """\
frontend {name}
    bind 127.0.0.1:{port}
    filter spoe engine {name} config {folder}/{name}.conf
    http-request deny deny_status 403 if {{ {deny} }}
    http-request return status 200
backend {name}-agents
    mode tcp
    timeout connect 5s
    timeout server 25s
    server agent {agent}
"""

# As the shipped example, but it waits longer, so that a busy machine makes an answer late and not wrong; and the client is
# the one in the header, since all of the load comes from one address.
SPOE = """\
[{name}]
spoe-agent {name}
    messages {message}
    use-backend {name}-agents
    option var-prefix {prefix}
    option set-on-error error
    register-var-names banned reason pattern severity expires_in {variables}
    timeout processing 5s
    timeout hello 5s
    timeout idle 20s
    max-waiting-frames 200
    maxconnrate 5
spoe-message {message}
    args {argument}=hdr_ip(x-forwarded-for,-1)
    event on-frontend-http-request
"""


class Haproxy:
    """HAProxy on one thread with a frontend for each address of ours that is asked, one that asks another agent, one that
    looks into a stick-table, and one that answers at once. All answer by themselves, without a server behind."""

    def __init__(self, space, peer, cores, ours, agent=None):
        self.space = space
        self.folder = space.new_folder("h")
        self.ports = {"plain": space.port(), "table": space.port()}
        text = HAPROXY.format(folder=self.folder, **self.ports)
        for name, address in ours.items():
            text += self._asked(name, address, "var(txn.mailfail2ban.banned) -m bool", "check-request", "src", "mailfail2ban")
        if agent:
            text += self._asked("agent", agent.address, agent.deny, agent.message, agent.argument, agent.prefix)
        config = space.write(os.path.join(self.folder, "haproxy.cfg"), text)
        self.process = space.start("haproxy", [peer.path, "-db", "-f", config], cores, environment=peer.environment)
        self.pid = self.process.pid
        for port in self.ports.values():
            space.wait_for_port(port, self.process)

    def _asked(self, name, address, deny, message, argument, prefix):
        self.ports[name] = self.space.port()
        # What HAProxy's example in C answers. Ours says nothing that is not named anyway.
        variables = "ip_score" if name == "agent" else ""
        spoe = SPOE.format(name=name, message=message, argument=argument, prefix=prefix, variables=variables)
        self.space.write(os.path.join(self.folder, f"{name}.conf"), spoe)
        return ASKED.format(name=name, port=self.ports[name], folder=self.folder, deny=deny, agent=address)

    def address(self, frontend):
        return f"127.0.0.1:{self.ports[frontend]}"

    def fill_table(self, addresses):
        """Puts addresses into the stick-table, as banned."""
        addresses = list(addresses)
        for begin in range(0, len(addresses), 200):
            commands = (f"set table banned key {key} data.gpc0 1" for key in addresses[begin : begin + 200])
            said = self.command("; ".join(commands))
            if said.strip():
                raise Trouble(f"HAProxy refused an entry of its table: {said.strip()[:200]}")
        used = self.command("show table banned").splitlines()[0]
        if f"used:{len(addresses)}" not in used:
            raise Trouble(f"HAProxy's table does not hold {len(addresses)} addresses: {used}")

    def command(self, text):
        """What its administration answers."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(os.path.join(self.folder, "h.sock"))
            stream.sendall(text.encode() + b"\n")
            said = b""
            while part := stream.recv(65536):
                said += part
        return said.decode(errors="replace")


class Agent:
    """Another agent that speaks SPOP, by its command line with `{port}` in it."""

    def __init__(self, space, template, cores, message, argument, prefix, deny):
        self.port = space.port()
        self.address = f"127.0.0.1:{self.port}"
        self.message, self.argument, self.prefix, self.deny = message, argument, prefix, deny
        command = template.format(port=self.port).split()
        if not shutil.which(command[0]):
            raise Trouble(f"--agent: there is no program {os.path.basename(command[0])}")
        self.process = space.start("agent", command, cores)
        space.wait_for_port(self.port, self.process)
        self.pid = self.process.pid


ENVOY_LISTENER = """\
    - name: {name}
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: {name}
                use_remote_address: false
                skip_xff_append: true
                common_http_protocol_options: {{ idle_timeout: 3600s }}
                http_filters:
{filter}\
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{ prefix: / }}
                          direct_response: {{ status: 200 }}
"""
# As the shipped example, but it waits longer and fails closed, so that a question without an answer is seen.
ENVOY_FILTER = """\
                  - name: ask
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      stat_prefix: {name}
                      transport_api_version: V3
                      grpc_service:
                        envoy_grpc: {{ cluster_name: {name} }}
                        timeout: 5s
                      failure_mode_allow: false
                      status_on_error: {{ code: ServiceUnavailable }}
                      allowed_headers:
                        patterns:
                          - exact: x-forwarded-for
"""
ENVOY_CLUSTER = """\
    - name: {name}
      type: STATIC
      connect_timeout: 5s
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ {address} }} }}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      circuit_breakers:
        thresholds:
          - {{ max_connections: 1024, max_pending_requests: 65536, max_requests: 65536 }}
"""


class Envoy:
    """Envoy on one worker thread, with a listener for each service that is asked and one that asks nobody. All answer by
    themselves, without a server behind. Services are ports, or paths of unix sockets."""

    def __init__(self, space, peer, cores, services):
        self.ports = {name: space.port() for name in [*services, "plain"]}
        listeners, clusters = [], []
        for name, port in self.ports.items():
            question = ENVOY_FILTER.format(name=name) if name in services else ""
            listeners.append(ENVOY_LISTENER.format(name=name, port=port, filter=question))
        for name, to in services.items():
            tcp = f"socket_address: {{ address: 127.0.0.1, port_value: {to} }}"
            address = tcp if isinstance(to, int) else f"pipe: {{ path: {to} }}"
            clusters.append(ENVOY_CLUSTER.format(name=name, address=address))
        text = "static_resources:\n  listeners:\n" + "".join(listeners)
        if clusters:
            text += "  clusters:\n" + "".join(clusters)
        config = space.write(os.path.join(space.new_folder("e"), "envoy.yaml"), text)
        command = [peer.path, "-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        self.process = space.start("envoy", command, cores)
        self.pid = self.process.pid
        for port in self.ports.values():
            space.wait_for_port(port, self.process)

    def address(self, listener):
        return f"127.0.0.1:{self.ports[listener]}"


class Tonic:
    """The tonic service of `perf/tonic`, with as many banned addresses as ours."""

    def __init__(self, space, program, cores, bans=100_000):
        self.port = space.port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = space.start("tonic", [program, self.address, str(bans)], cores)
        space.wait_for_port(self.port, self.process)
        self.pid = self.process.pid


class Sink:
    """The load tool's bare receiver of datagrams, which does nothing with them."""

    def __init__(self, space, program, cores):
        self.address = f"127.0.0.1:{space.port()}"
        self.process = space.start("sink", [program, "sink", "--listen", self.address, "--silence", "1h"], cores)
        self.pid = self.process.pid
        space.wait("the sink's socket", lambda: _udp_listens(self.address), self.process)


RSYSLOG = """\
global(workDirectory="{folder}")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="{port}" ruleset="all")
ruleset(name="all") {{ action(type="omfile" file="{folder}/log") }}
"""


class Rsyslog:
    """rsyslog that writes what it receives by UDP into a file, with its defaults."""

    def __init__(self, space, peer, cores):
        self.space, self.folder = space, space.new_folder("r")
        port = space.port()
        self.address = f"127.0.0.1:{port}"
        config = space.write(os.path.join(self.folder, "rsyslog.conf"), RSYSLOG.format(folder=self.folder, port=port))
        command = [peer.path, "-n", "-f", config, "-i", os.path.join(self.folder, "pid")]
        self.process = space.start("rsyslog", command, cores)
        self.pid = self.process.pid
        space.wait("rsyslog's socket", lambda: _udp_listens(self.address), self.process)

    def written(self):
        """How many lines it has written since this was asked last, when it is done."""
        path, size = os.path.join(self.folder, "log"), -1
        while size != (size := os.path.getsize(path) if os.path.exists(path) else 0):
            time.sleep(0.3)
        if not size:
            return 0
        with open(path, "rb") as file:
            lines = sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
        os.truncate(path, 0)
        return lines


JAILS = {
    "dovecot": ("dovecot", "dovecot: imap-login: Disconnected: Aborted login by logging out (auth failed, 1 attempts in 2 secs): user=<bob>, method=PLAIN, rip={ip}, lip=192.0.2.25, session=<x>"),
    "postfix": ("postfix[mode=normal]", "postfix/smtpd[871]: NOQUEUE: reject: RCPT from unknown[{ip}]: 554 5.7.1 <a@example.com>: Relay access denied; from=<b@example.org> to=<a@example.com> proto=ESMTP helo=<c>"),
    "postfix-sasl": ("postfix[mode=auth]", "postfix/smtpd[871]: warning: unknown[{ip}]: SASL LOGIN authentication failed: authentication failure"),
    "sshd": ("sshd", "sshd[871]: Failed password for invalid user bob from {ip} port 40000 ssh2"),
}


class Fail2ban:
    """fail2ban with four jails on one log, with the action of touching a file, which is the cheapest there is."""

    def __init__(self, space, peer, cores, backend="polling"):
        self.space, self.folder = space, space.new_folder("f")
        self.log = space.write(os.path.join(self.folder, "mail.log"), "")
        self.banned = os.path.join(self.folder, "banned")
        os.mkdir(self.banned)
        self.used = 0
        self._write_settings(backend)
        files = {name: os.path.join(self.folder, f"f.{name}") for name in ("sock", "pid")}
        command = [peer.path, "-f", "-c", os.path.join(self.folder, "etc"), "-s", files["sock"], "-p", files["pid"], "start"]
        self.process = space.start("fail2ban", command, cores)
        self.pid = self.process.pid
        space.wait("fail2ban's jails", lambda: self._jails_run(), self.process)

    def _write_settings(self, backend):
        etc = os.path.join(self.folder, "etc")
        os.mkdir(etc)
        shutil.copytree("/etc/fail2ban/filter.d", os.path.join(etc, "filter.d"))
        os.mkdir(os.path.join(etc, "action.d"))
        self.space.write(os.path.join(etc, "action.d", "touch.conf"), f"[Definition]\nactionban = touch {self.banned}/<ip>\n")
        own = f"loglevel = INFO\nlogtarget = {self.folder}/f.log\nsyslogsocket = auto\ndbfile = None\ndbpurgeage = 1d\n"
        own += f"socket = {self.folder}/f.sock\npidfile = {self.folder}/f.pid\n"
        self.space.write(os.path.join(etc, "fail2ban.conf"), "[Definition]\n" + own)
        jails = f"[DEFAULT]\nbackend = {backend}\nfindtime = 10m\nbantime = 1h\nmaxretry = 5\nusedns = no\n"
        jails += f"logpath = {self.log} tail\naction = touch\nignoreself = false\n"
        for name, (kind, _) in JAILS.items():
            jails += f"\n[{name}]\nenabled = true\nfilter = {kind}\n"
        self.space.write(os.path.join(etc, "jail.conf"), jails)

    def _jails_run(self):
        try:
            with open(os.path.join(self.folder, "f.log"), encoding="utf-8") as file:
                return file.read().count(" started\n") >= len(JAILS)
        except OSError:
            return False

    def failures(self):
        """Five failed logins for each jail, each of a client of its own: lines, and the clients."""
        lines, clients = [], []
        for _, message in JAILS.values():
            self.used += 1
            clients.append(f"203.0.{113 + (self.used >> 8)}.{self.used & 255}")
            line = f"{time.strftime('%b %e %H:%M:%S')} mx1 {message.format(ip=clients[-1])}\n"
            lines += [line] * 5
        return "".join(lines), clients

    def append(self, text):
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(text)

    def wait_for(self, clients, patience=120):
        """When each of them was banned, as the time of its file in nanoseconds."""
        paths = [os.path.join(self.banned, client) for client in clients]
        self.space.wait("fail2ban's bans", lambda: all(map(os.path.exists, paths)), self.process, patience=patience)
        return [os.stat(path).st_mtime_ns for path in paths]

    def reaction(self):
        """Seconds from line to ban, of each jail."""
        lines, clients = self.failures()
        begun = time.time_ns()
        self.append(lines)
        return [(banned - begun) / 1e9 for banned in self.wait_for(clients)]

    def lines_per_second(self, text):
        """How fast all jails get through a log of now: from its being there until bans of lines behind it."""
        lines, clients = self.failures()
        count, before = text.count("\n") + lines.count("\n"), cpu_seconds(self.pid)
        begun = time.time_ns()
        self.append(text + lines)
        seconds = (max(self.wait_for(clients, patience=600)) - begun) / 1e9
        if seconds <= 0:
            raise RoundFailed("fail2ban took no time")
        return count / seconds, count / (cpu_seconds(self.pid) - before)


def _udp_line(address):
    """What the kernel says of a socket for datagrams, as fields, or None if there is no such socket."""
    host, port = address.split(":")
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{int(port):04X}"
    with open("/proc/net/udp", encoding="ascii") as file:
        fields = [line.split() for line in file.readlines()[1:]]
    return next((line for line in fields if line[1] == wanted), None)


def _udp_listens(address):
    return _udp_line(address) is not None


def udp_dropped(address):
    """How many datagrams the kernel has dropped for want of room in the socket's buffer."""
    return int(_udp_line(address)[-1])
