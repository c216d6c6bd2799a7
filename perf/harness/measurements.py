"""What is measured for each target, in variants that are run one after the other in every round.

A variant returns values by name, or raises `RoundFailed`. A row of the table names what of them is compared."""

import os
import re
import time

from . import benches, numbers, patterns, yardsticks
from .load import held, microseconds, worst_p99
from .processes import RoundFailed, Trouble, cpu_seconds, resident_bytes
from .server import Server

BANS = 100_000
# Offenders that nobody has had banned yet begin here.
FRESH = 200_000
# For who denies nobody: the same questions, all of them about others.
NOBODY = {"verify": True, "denied": 0}
# No run uses up more fresh offenders than this.
FRESH_STEP = 2_000


class Context:
    """What all measurements share: where things run, what there is, and how long to measure."""

    def __init__(self, space, options, programs, peers, load):
        self.space, self.options, self.programs, self.peers, self.load = space, options, programs, peers, load
        self.benches = {}

    @property
    def seconds(self):
        return self.options.seconds

    def has(self, name):
        return name in self.peers and self.peers[name].there

    def server(self, **settings):
        cores = settings.pop("cores", self.options.server_cores)
        return Server(self.space, self.programs["server"], self.load, cores, **settings)

    def bench(self, name):
        """The program of a micro-benchmark."""
        if name not in self.benches:
            self.benches[name] = benches.program(self.options.target, name, self.options.no_build, self.options.say)
        return self.benches[name]

    def ask(self, command, to, pids, **arguments):
        """Questions to a service: a tenth of them about banned clients, as many of which there are as bans."""
        arguments = {"for": f"{self.seconds}s", "warm_up": "1s", "denied": 0.1, "offenders": BANS, **arguments}
        return self.load.run(command, pids, to=to, **arguments)


class Row:
    """A line of the table. `ours` and `yardstick` are names of values, `VARIANT.VALUE`. The goal is about their ratio in
    each round, or, without a yardstick, about ours. Without a goal it is for information."""

    def __init__(self, what, ours, yardstick=None, goal=None, unit="", needs=(), exact=False):
        self.what, self.ours, self.yardstick, self.goal = what, ours, yardstick, goal
        self.unit, self.needs, self.exact = unit, needs, exact


class Measurement:
    """One target. `rows` and `variants` may depend on what there is; `set_up` is called before them."""

    target = ""
    title = ""
    # What is needed of the yardsticks for anything to be measured at all.
    needs = ()
    # As many rounds at most, where one takes long.
    rounds_max = None
    rows = ()

    def __init__(self, context):
        self.context = context

    def impossible(self):
        """Why this cannot be measured on this machine, or None."""
        return None

    def set_up(self):
        """Starts what is measured."""

    def variants(self):
        """Names and functions, in the order of the first round."""
        return []

    def latencies(self, result):
        return {"p50": result["latency_us"]["p50"], "p99": result["latency_us"]["p99"]}


class Auth(Measurement):
    """T1. nginx's `return 200` is the least that an HTTP server can do; ours looks an address up among 100,000, and has
    longer headers. 64 connections that always wait for an answer: what is limited is the server or the load, so only CPU
    time is compared. Latency is compared at a rate that both can do, counted from when a question was due."""

    target = "T1"
    title = "auth endpoint, 64 connections"
    rows = (
        Row("CPU, TCP", "ours.us", "nginx.us", ("<=", 0.95), "µs/request", ("nginx",)),
        Row("CPU, unix socket", "ours-unix.us", "nginx-unix.us", ("<=", 0.95), "µs/request", ("nginx",)),
        Row("p99, as fast as answers come", "ours.p99", "nginx.p99", None, "µs", ("nginx",)),
        Row("p99 at 60 % of nginx's rate", "ours-open.p99", "nginx-open.p99", ("<=", 1.0), "µs", ("nginx",)),
        Row("p50 at 60 % of nginx's rate", "ours-open.p50", "nginx-open.p50", None, "µs", ("nginx",)),
        Row("answers a second", "ours.per_second", "nginx.per_second", None, "/s", ("nginx",)),
    )

    def set_up(self):
        self.server = self.context.server(bans=BANS)
        self.nginx = None
        if self.context.has("nginx"):
            self.nginx = yardsticks.Nginx(self.context.space, self.context.peers["nginx"], self.context.options.server_cores)
        self.rate = None

    def variants(self):
        server, nginx = self.server, self.nginx
        found = [("ours", lambda: self.closed(server.address("nginx"), server.pid, verify=True))]
        if nginx:
            found.append(("nginx", lambda: self.closed(nginx.address, nginx.pid, **NOBODY)))
        found.append(("ours-unix", lambda: self.closed(server.socket("nginx"), server.pid, verify=True)))
        if nginx:
            found.append(("nginx-unix", lambda: self.closed(nginx.socket, nginx.pid, **NOBODY)))
        found.append(("ours-open", lambda: self.open(server.address("nginx"), server.pid, verify=True)))
        if nginx:
            found.append(("nginx-open", lambda: self.open(nginx.address, nginx.pid, **NOBODY)))
        return found

    def closed(self, to, pid, **arguments):
        result = self.context.ask("auth", to, {"it": pid}, connections=64, **arguments)
        if self.rate is None and (not self.nginx or pid == self.nginx.pid):
            self.rate = round(result["per_second"] * 0.6, -3)
        return {"us": microseconds(result, "it"), "per_second": result["per_second"], **self.latencies(result)}

    def open(self, to, pid, **arguments):
        if self.rate is None:
            raise RoundFailed("no rate to ask at: the run that tells it failed")
        result = held(self.context.ask("auth", to, {"it": pid}, connections=64, rate=self.rate, **arguments), self.rate)
        return {"us": microseconds(result, "it"), "per_second": result["per_second"], **self.latencies(result)}


class Spoa(Measurement):
    """T2, without a proxy: four connections with 32 questions in flight on each, as HAProxy 2.x pipelines them."""

    target = "T2"
    title = "SPOA alone, 4 connections × 32 in flight"
    rows = (
        Row("CPU, TCP", "ours.us", None, ("<=", 1.5), "µs/question"),
        Row("CPU, unix socket", "ours-unix.us", None, ("<=", 1.5), "µs/question"),
        Row("CPU, TCP, against the other agent", "ours.us", "agent.us", ("<=", 0.3), "µs/question", ("agent",)),
        Row("questions a second", "ours.per_second", "agent.per_second", None, "/s", ("agent",)),
    )

    def set_up(self):
        self.server = self.context.server(bans=BANS)
        self.agent = self.context.options.start_agent(self.context.space)

    def variants(self):
        found = [
            ("ours", lambda: self.run(self.server.address("spoa"), self.server.pid, verify=True)),
            ("ours-unix", lambda: self.run(self.server.socket("spoa"), self.server.pid, verify=True)),
        ]
        if self.agent:
            asked = {"message": self.agent.message, "argument": self.agent.argument, "any_answer": True}
            found.append(("agent", lambda: self.run(self.agent.address, self.agent.pid, **asked)))
        return found

    def run(self, to, pid, **arguments):
        result = self.context.ask("spoa", to, {"it": pid}, connections=4, depth=32, **arguments)
        return {"us": microseconds(result, "it"), "per_second": result["per_second"], **self.latencies(result)}


class BehindHaproxy(Measurement):
    """T2, through HAProxy: what a request costs the agent and what it costs HAProxy, against HAProxy that asks nobody,
    that looks into a table of its own with as many addresses, and that asks another agent."""

    target = "T2"
    peer = ""

    def impossible(self):
        if not self.context.has(self.peer):
            return f"{self.peer} is missing: {self.context.peers[self.peer].how()}"
        return None

    @property
    def rows(self):
        agent = ("agent",)
        return (
            Row("agent's CPU", "ours.agent", "agent.agent", ("<=", 0.7), "µs/request", agent),
            Row("HAProxy's CPU", "ours.haproxy", "agent.haproxy", ("<=", 1.0), "µs/request", agent),
            Row("HAProxy's CPU, asking or not", "ours.haproxy", "plain.haproxy", None, "µs/request"),
            Row("HAProxy's CPU, asking or its table", "ours.haproxy", "table.haproxy", None, "µs/request"),
            Row("agent's CPU, unix socket or TCP", "unix.agent", "ours.agent", None, "µs/request"),
            Row("HAProxy's CPU, unix socket or TCP", "unix.haproxy", "ours.haproxy", None, "µs/request"),
            Row("p99, asking or not", "ours.p99", "plain.p99", None, "µs"),
        )

    def set_up(self):
        context = self.context
        self.server = context.server(bans=BANS)
        self.agent = context.options.start_agent(context.space)
        peer, cores = context.peers[self.peer], context.options.proxy_cores
        ours = {"ours": self.server.address("spoa"), "unix": self.server.socket("spoa").replace("unix:", "unix@")}
        self.haproxy = yardsticks.Haproxy(context.space, peer, cores, ours, self.agent)
        self.haproxy.fill_table(offender(i) for i in range(BANS))

    def variants(self):
        found = [
            ("ours", lambda: self.run("ours", {"agent": self.server.pid}, verify=True)),
            ("unix", lambda: self.run("unix", {"agent": self.server.pid}, verify=True)),
            ("plain", lambda: self.run("plain", {}, **NOBODY)),
            ("table", lambda: self.run("table", {}, verify=True)),
        ]
        if self.agent:
            found.append(("agent", lambda: self.run("agent", {"agent": self.agent.pid})))
        return found

    def run(self, frontend, pids, **arguments):
        pids = {"haproxy": self.haproxy.pid, **pids}
        header, to = "X-Forwarded-For", self.haproxy.address(frontend)
        result = self.context.ask("auth", to, pids, connections=64, header=header, path="/", **arguments)
        values = {name: microseconds(result, name) for name in pids}
        return {**values, "per_second": result["per_second"], **self.latencies(result)}


class BehindHaproxy26(BehindHaproxy):
    __doc__ = BehindHaproxy.__doc__
    peer = "haproxy"
    title = "SPOA behind the system's HAProxy, 64 connections"


class BehindHaproxy28(BehindHaproxy):
    __doc__ = BehindHaproxy.__doc__
    peer = "haproxy-2.8"
    title = "SPOA behind HAProxy 2.8, 64 connections"


class Authz(Measurement):
    """T3, without a proxy: the same checks to ours and to the tonic service."""

    target = "T3"
    title = "ext_authz alone"
    rows = (
        Row("CPU, 4 connections × 16 streams", "ours-4x16.us", "tonic-4x16.us", None, "µs/check"),
        Row("CPU, 16 connections × 1 stream", "ours-16x1.us", "tonic-16x1.us", None, "µs/check"),
        Row("CPU, 4 × 16, unix socket or TCP", "ours-unix.us", "ours-4x16.us", None, "µs/check"),
    )

    def set_up(self):
        self.server = self.context.server(bans=BANS)
        cores = self.context.options.server_cores
        self.tonic = yardsticks.Tonic(self.context.space, self.context.programs["tonic"], cores, BANS)

    def variants(self):
        ours, tonic = (self.server.address("envoy"), self.server.pid), (self.tonic.address, self.tonic.pid)
        return [
            ("ours-4x16", lambda: self.run(*ours, 4, 16)),
            ("tonic-4x16", lambda: self.run(*tonic, 4, 16)),
            ("ours-16x1", lambda: self.run(*ours, 16, 1)),
            ("tonic-16x1", lambda: self.run(*tonic, 16, 1)),
            ("ours-unix", lambda: self.run(self.server.socket("envoy"), self.server.pid, 4, 16)),
        ]

    def run(self, to, pid, connections, depth):
        result = self.context.ask("authz", to, {"it": pid}, connections=connections, depth=depth, verify=True)
        return {"us": microseconds(result, "it"), "per_second": result["per_second"], **self.latencies(result)}


class BehindEnvoy(Measurement):
    """T3, through Envoy on one worker: what a request costs the service and what it costs Envoy, asking ours, the tonic
    service, or nobody."""

    target = "T3"
    title = "ext_authz behind Envoy, 64 connections"
    rows = (
        Row("service's CPU", "ours.service", "tonic.service", ("<=", 0.65), "µs/request"),
        Row("Envoy's CPU, asking ours or tonic", "ours.envoy", "tonic.envoy", None, "µs/request"),
        Row("Envoy's CPU, asking or not", "ours.envoy", "plain.envoy", None, "µs/request"),
        Row("service's CPU, unix socket or TCP", "unix.service", "ours.service", None, "µs/request"),
        Row("p99, asking ours or tonic", "ours.p99", "tonic.p99", None, "µs"),
    )

    def impossible(self):
        return None if self.context.has("envoy") else f"Envoy is missing: {self.context.peers['envoy'].how()}"

    def set_up(self):
        context = self.context
        self.server = context.server(bans=BANS)
        self.tonic = yardsticks.Tonic(context.space, context.programs["tonic"], context.options.server_cores, BANS)
        socket = self.server.socket("envoy").removeprefix("unix:")
        services = {"ours": self.server.ports["envoy"], "unix": socket, "tonic": self.tonic.port}
        self.envoy = yardsticks.Envoy(context.space, context.peers["envoy"], context.options.proxy_cores, services)

    def variants(self):
        return [
            ("ours", lambda: self.run("ours", {"service": self.server.pid}, verify=True)),
            ("tonic", lambda: self.run("tonic", {"service": self.tonic.pid}, verify=True)),
            ("unix", lambda: self.run("unix", {"service": self.server.pid}, verify=True)),
            ("plain", lambda: self.run("plain", {}, **NOBODY)),
        ]

    def run(self, listener, pids, **arguments):
        pids = {"envoy": self.envoy.pid, **pids}
        header, to = "X-Forwarded-For", self.envoy.address(listener)
        result = self.context.ask("auth", to, pids, connections=64, header=header, path="/", **arguments)
        values = {name: microseconds(result, name) for name in pids}
        return {**values, "per_second": result["per_second"], **self.latencies(result)}


class Datagrams(Measurement):
    """T4. A mail log by UDP at a fixed rate, from one sender, to one shard: against a receiver that does nothing with a
    datagram, and against rsyslog that writes it into a file. What rsyslog loses is not in its cost a message."""

    target = "T4"
    title = "syslog over UDP, one shard, 50 further patterns"
    rates = (200_000, 400_000)
    rows = (
        Row("CPU at 200,000/s", "ours-200k.us", "sink-200k.us", ("<=", 1.6), "µs/datagram"),
        Row("CPU at 400,000/s", "ours-400k.us", "sink-400k.us", ("<=", 1.6), "µs/datagram"),
        Row("lost at 200,000/s", "ours-200k.lost", None, ("<=", 0), "datagrams", exact=True),
        Row("lost at 400,000/s", "ours-400k.lost", None, ("<=", 0), "datagrams", exact=True),
        Row("CPU at 200,000/s, against rsyslog", "ours-200k.us", "rsyslog.us", None, "µs/datagram", ("rsyslog",)),
        Row("rsyslog wrote of what was sent", "rsyslog.share", None, None, "", ("rsyslog",)),
    )

    def set_up(self):
        context, cores = self.context, self.context.options.server_cores
        self.server = context.server(bans=BANS)
        self.sink = yardsticks.Sink(context.space, context.programs["load"], cores)
        self.rsyslog = None
        if context.has("rsyslog"):
            self.rsyslog = yardsticks.Rsyslog(context.space, context.peers["rsyslog"], cores)

    def variants(self):
        found = []
        for rate in self.rates:
            name = f"{rate // 1000}k"
            found.append((f"ours-{name}", lambda rate=rate: self.ours(rate)))
            found.append((f"sink-{name}", lambda rate=rate: self.theirs(self.sink, rate)))
        if self.rsyslog:
            found.append(("rsyslog", lambda: self.file(self.rates[0])))
        return found

    def send(self, to, pid, rate, **arguments):
        run = {"for": f"{self.context.seconds}s", "rate": rate, "clients": BANS, **arguments}
        return held(self.context.load.run("syslog", {"it": pid}, to=to, udp=True, **run), rate, "the sender")

    def ours(self, rate):
        result = self.send(self.server.address("syslog"), self.server.pid, rate, metrics=self.server.metrics_url)
        return {"us": microseconds(result, "it"), "lost": lost(result), "per_second": result["per_second"]}

    def theirs(self, peer, rate):
        dropped = yardsticks.udp_dropped(peer.address)
        result = self.send(peer.address, peer.pid, rate)
        dropped = yardsticks.udp_dropped(peer.address) - dropped
        if dropped:
            raise RoundFailed(f"{dropped} datagrams were lost")
        return {"us": microseconds(result, "it")}

    def file(self, rate):
        before = cpu_seconds(self.rsyslog.pid)
        sent = self.send(self.rsyslog.address, self.rsyslog.pid, rate)["done"]
        written = self.rsyslog.written()
        if not written:
            raise RoundFailed("rsyslog wrote nothing")
        return {"us": (cpu_seconds(self.rsyslog.pid) - before) * 1e6 / written, "share": written / sent}


class Spread(Measurement):
    """T4: whether what one sender sends comes to all shards. The kernel by itself would give it all to one."""

    target = "T4"
    title = "one sender's flow on two shards"
    rows = (Row("least shard's share of its half", "ours.share", None, (">=", 0.8), ""),)

    def impossible(self):
        return None if len(self.context.options.cores) >= 2 else "this machine has one core"

    def set_up(self):
        self.server = self.context.server(bans=0, shards=2, cores=self.context.options.two_cores)

    def variants(self):
        return [("ours", self.run)]

    def run(self):
        name = "fail2ban_shard_records_total"
        before = numbers.by_label(self.server.page(), name, "shard")
        to, metrics = self.server.address("syslog"), self.server.metrics_url
        run = {"for": f"{self.context.seconds}s", "rate": 100_000, "clients": 1_000, "metrics": metrics}
        held(self.context.load.run("syslog", to=to, udp=True, **run), 100_000, "the sender")
        after = numbers.by_label(self.server.page(), name, "shard")
        records = [after[shard] - before.get(shard, 0) for shard in after]
        if len(records) != 2 or not sum(records):
            raise RoundFailed(f"two shards should have received lines, these did: {records}")
        return {"share": min(records) / (sum(records) / 2)}


class Stream(Measurement):
    """T5. As many lines as the server takes, over one TCP connection and over four: what it takes is what it can do, and
    it must make the sender wait and lose nothing. CPU time is until it has counted the last line."""

    target = "T5"
    title = "syslog over TCP, one shard, 50 further patterns"
    rows = (
        Row("lines a CPU second, 1 connection", "one.per_cpu_second", None, (">=", 2_000_000), "/s"),
        Row("lines a CPU second, 4 connections", "four.per_cpu_second", None, (">=", 2_000_000), "/s"),
        Row("lines a second, 1 connection", "one.per_second", None, None, "/s"),
        Row("lines a second, 4 connections", "four.per_second", None, None, "/s"),
        Row("lost, 1 connection", "one.lost", None, ("<=", 0), "lines", exact=True),
        Row("lost, 4 connections", "four.lost", None, ("<=", 0), "lines", exact=True),
    )

    def set_up(self):
        self.server = self.context.server(bans=BANS)
        self.count = 1_000_000 if self.context.options.quick else 5_000_000

    def variants(self):
        return [("one", lambda: self.run(1)), ("four", lambda: self.run(4))]

    def run(self, connections):
        return stream(self.context, self.server, self.count, connections, BANS)


class Matcher(Measurement):
    """T6. The matcher alone, on one core (bench/matcher.rs); and `mailfail2ban match` over a log file, which reads the file,
    takes lines apart and prints what matched besides."""

    target = "T6"
    title = "the matcher alone, and `match` on a file of the same log, one core"
    rows = (
        Row("lines a second, 50 further patterns", "alone.few", None, (">=", 5_000_000), "/s"),
        Row("500 further patterns against 50", "alone.many", "alone.few", (">=", 0.5), "/s"),
        Row("`match`, 50 further patterns", "few.per_second", None, None, "/s"),
        Row("`match`, 500 against 50", "many.per_second", "few.per_second", None, "/s"),
        Row("`match`, lines a CPU second, with the start", "few.per_cpu_second", None, None, "/s"),
    )

    def set_up(self):
        context = self.context
        self.file = context.space.path("match.log")
        count = 500_000 if context.options.quick else 3_000_000
        status, _, said, _ = context.space.run(
            [context.programs["load"], "syslog", "--file", self.file, "--count", str(count), "--quiet"],
            context.load.cores,
        )
        if status != 0:
            raise Trouble(f"no log was written: {said.strip()[-300:]}")
        self.count = count
        self.folders = {further: self.settings(further) for further in (50, 500)}

    def settings(self, further):
        """A folder with the settings of a server that is never started."""
        folder = self.context.space.new_folder("m")
        text = "syslog:\n  with_default_patterns: true\n  patterns:\n" + patterns.as_yaml(patterns.patterns(further))
        self.context.space.write(os.path.join(folder, "config.yaml"), text)
        return folder

    def variants(self):
        return [("alone", self.alone), ("few", lambda: self.run(50)), ("many", lambda: self.run(500))]

    def alone(self):
        rates, _ = benches.run(self.context, "matcher", r"^line/mix, as records/built-in \+ (50|500)$")
        few, many = (rates[f"line/mix, as records/built-in + {further}"] for further in (50, 500))
        return {"few": few, "many": many}

    def run(self, further):
        command = [self.context.programs["server"], "--config", "config.yaml", "match", self.file]
        status, _, said, seconds = self.context.space.run(
            command, self.context.options.server_cores, folder=self.folders[further]
        )
        if status != 0:
            raise RoundFailed(f"match: status {status}: {said.strip()[-300:]}")
        lines, matched, speed = numbers.matched_speed(said)
        if lines != self.count or not 0.05 * lines < matched < 0.15 * lines:
            raise RoundFailed(f"match saw {lines:.0f} lines of {self.count}, and {matched:.0f} of them matched")
        return {"per_second": speed, "per_cpu_second": lines / seconds}


class Reaction(Measurement):
    """T7. From the fifth failed login until each of two shards denies the client, with nothing else to do and while lines
    come at 200,000 a second. Where there are two cores in all, the load has to share them with the shards."""

    target = "T7"
    title = "line to ban on every one of two shards"
    rows = (
        Row("median, idle", "idle.p50", None, ("<=", 100), "µs"),
        Row("p99, idle", "idle.p99", None, ("<=", 1_000), "µs"),
        Row("p99, at 200,000 lines/s", "busy.p99", None, ("<=", 5_000), "µs"),
        Row("median, at 200,000 lines/s", "busy.p50", None, None, "µs"),
    )

    def impossible(self):
        return None if len(self.context.options.cores) >= 2 else "this machine has one core"

    def set_up(self):
        self.server = self.context.server(bans=BANS, shards=2, cores=self.context.options.two_cores)
        self.fresh = FRESH

    def variants(self):
        return [("idle", self.react), ("busy", self.busy)]

    def react(self):
        self.fresh += FRESH_STEP
        count = 50 if self.context.options.quick else 200
        result = self.context.load.run(
            "reaction",
            syslog=self.server.address("syslog"),
            auth=self.server.address("nginx"),
            metrics=self.server.metrics_url,
            count=count,
            first=self.fresh,
        )
        return self.latencies(result)

    def busy(self):
        seconds = self.context.seconds * 2 + 5
        to, rate = self.server.address("syslog"), 200_000
        # It waits awake, as in T4, also where it shares a core with the second shard.
        dropped = self.server.metric("fail2ban_syslog_dropped_total")
        beside = self.context.load.begin("syslog", to=to, udp=True, rate=rate, clients=BANS, **{"for": f"{seconds}s"})
        try:
            time.sleep(1)
            found = self.react()
            if beside[0].ended():
                raise RoundFailed("the reactions took longer than the load beside them")
        except RoundFailed:
            self.context.space.stop(beside[0])
            raise
        held(self.context.load.finish(beside), rate, "the load beside it")
        dropped = self.server.metric("fail2ban_syslog_dropped_total") - dropped
        if dropped:
            raise RoundFailed(f"{dropped:.0f} datagrams of the load beside it were lost")
        return found


class Fail2banReaction(Measurement):
    """T7's yardstick: fail2ban with four jails on one log file. From a line's being in the file until the action of the
    ban has run, and how many lines a second all four get through."""

    target = "T7"
    title = "fail2ban, four jails (dovecot, postfix, postfix-sasl, sshd)"
    rows = (
        Row("line to ban, median of jails", "fail2ban.median", None, None, "ms"),
        Row("line to ban, slowest jail", "fail2ban.slowest", None, None, "ms"),
        Row("lines a second", "fail2ban.per_second", None, None, "/s"),
        Row("lines a CPU second", "fail2ban.per_cpu_second", None, None, "/s"),
    )

    def impossible(self):
        return None if self.context.has("fail2ban") else f"fail2ban is missing: {self.context.peers['fail2ban'].how()}"

    def set_up(self):
        context = self.context
        backend = "pyinotify" if _has_pyinotify() else "polling"
        self.fail2ban = yardsticks.Fail2ban(context.space, context.peers["fail2ban"], context.options.server_cores, backend)

    def variants(self):
        return [("fail2ban", self.run)]

    def run(self):
        context = self.context
        times = [seconds for _ in range(2 if context.options.quick else 10) for seconds in self.fail2ban.reaction()]
        file, count = context.space.path("fail2ban.log"), 20_000 if context.options.quick else 100_000
        # Nobody of these fails often enough to be banned.
        command = [context.programs["load"], "syslog", "--file", file, "--count", str(count)]
        status, _, said, _ = context.space.run([*command, "--clients", str(BANS), "--quiet"], context.load.cores)
        if status != 0:
            raise Trouble(f"no log was written: {said.strip()[-300:]}")
        with open(file, encoding="utf-8") as log:
            per_second, per_cpu_second = self.fail2ban.lines_per_second(log.read())
        values = {"per_second": per_second, "per_cpu_second": per_cpu_second}
        return {"median": numbers.median(times) * 1e3, "slowest": max(times) * 1e3, **values}


class Table(Measurement):
    """T8. Lookups in a million bans of hosts and 10,000 of networks, and what the table takes: bench/replica.rs."""

    target = "T8"
    title = "the replica alone, a million bans"
    rows = (
        Row("lookup of a banned client", "table.hit", None, ("<=", 50), "ns"),
        Row("lookup of another", "table.miss", None, ("<=", 50), "ns"),
        Row("memory of the table", "table.bytes", None, ("<=", 48), "bytes/ban"),
    )

    def variants(self):
        return [("table", self.table)]

    def table(self):
        rates, said = benches.run(self.context, "replica", r"^lookup/replica IPv4 (hit|miss)/1000000$")
        hit, miss = (1e9 / rates[f"lookup/replica IPv4 {what}/1000000"] for what in ("hit", "miss"))
        bytes_ = re.search(r"^ *1000000 +([\d.]+)", said, re.MULTILINE)
        return {"hit": hit, "miss": miss, "bytes": float(bytes_.group(1))}


class Replica(Measurement):
    """T8, from outside: what a million bans add to the memory of the whole process, with all that is kept of a ban and
    not only what a shard looks up; and how long it takes to have them, from log lines and from disk after a restart."""

    target = "T8"
    title = "a million bans, one shard"
    rounds_max = 2
    rows = (
        Row("memory of the process", "ours.bytes", None, None, "bytes/ban"),
        Row("banned by log lines", "ours.load", None, None, "s"),
        Row("CPU, banned by log lines", "ours.cpu", None, None, "µs/ban"),
        Row("in force after a restart", "ours.restart", None, None, "s"),
    )

    def variants(self):
        return [("ours", self.run)]

    def run(self):
        million = 1_000_000
        # A line of log for each ban would be a part of neither.
        server = self.context.server(bans=BANS, tracked=2 * million, level="warn")
        try:
            before, used = resident_bytes(server.pid), cpu_seconds(server.pid)
            took = server.offend(million, seconds=600)
            grown, used = resident_bytes(server.pid) - before, cpu_seconds(server.pid) - used
            server.stop()
            begun = time.monotonic()
            server.start()
            self.context.space.wait("bans after a restart", lambda: server.bans() >= million, server.process, patience=300)
            restarted = time.monotonic() - begun
        finally:
            server.stop()
        more = million - BANS
        return {"bytes": grown / more, "load": took, "cpu": used * 1e6 / more, "restart": restarted}


class Change(Measurement):
    """T9. Questions at a fixed rate and log lines beside them, while the file gets 1,000 patterns, or 100,000 entries of
    the blacklist. The worst second from the signal until all shards work by the new settings is what counts."""

    target = "T9"
    title = "change of settings under load (40 % of what it can answer, 20,000 lines/s)"
    USUAL, PATTERNS, ENTRIES = {"further": 50, "listed": 0}, {"further": 1_050}, {"listed": 100_000}
    rows = (
        Row("p99, nothing changes", "quiet.p99", None, None, "µs"),
        Row("p99 of the worst second, 1,000 patterns", "patterns.p99", None, ("<=", 2_000), "µs"),
        Row("p99 of the worst second, 100,000 entries", "entries.p99", None, ("<=", 2_000), "µs"),
        Row("until in force to 0.5 s, 1,000 patterns", "patterns.in_force", None, None, "s"),
        Row("until in force to 0.5 s, 100,000 entries", "entries.in_force", None, None, "s"),
        Row("lines lost, 1,000 patterns", "patterns.lost", None, ("<=", 0), "lines", exact=True),
        Row("lines lost, 100,000 entries", "entries.lost", None, ("<=", 0), "lines", exact=True),
    )

    def set_up(self):
        self.server = self.context.server(bans=BANS)
        result = self.context.ask("auth", self.server.address("nginx"), {}, connections=64, verify=True)
        self.rate = round(result["per_second"] * 0.4, -3)
        # The load must last longer than any of the changes does with nothing beside it.
        slowest = max(self.apply(change) for change in (self.PATTERNS, self.USUAL, self.ENTRIES, self.USUAL))
        self.length = max(10, 4 * int(self.context.seconds), round(4 + 4 * slowest))

    def apply(self, change):
        """Makes a change and waits until it is in force. Returns the seconds that it took, to half a second: asking more
        often would take the core from the load."""
        begun = time.monotonic()
        before = self.server.change(**change)
        self.context.space.wait(
            "the new settings", lambda: self.server.in_force(before), self.server.process, patience=120, pause=0.5
        )
        return time.monotonic() - begun

    def variants(self):
        return [
            ("quiet", lambda: self.run(None)),
            ("patterns", lambda: self.run(self.PATTERNS)),
            ("entries", lambda: self.run(self.ENTRIES)),
        ]

    def run(self, change):
        server, load, lines = self.server, self.context.load, 20_000
        length = {"for": f"{self.length}s"}
        to, metrics = server.address("syslog"), server.metrics_url
        asking = load.begin(
            "auth",
            {"it": server.pid},
            to=server.address("nginx"),
            connections=64,
            rate=self.rate,
            denied=0.1,
            offenders=BANS,
            warm_up="1s",
            verify=True,
            **length,
        )
        begun = time.monotonic() + 1
        # The sender sleeps between its lines: awake, it would take the core from those who ask.
        sending = load.begin(
            "syslog", to=to, tcp=True, rate=lines, nap="1ms", clients=BANS, metrics=metrics, **length
        )
        try:
            at, in_force = self.change(change, begun, asking[0])
            asked, sent = held(load.finish(asking), self.rate), load.finish(sending)
        finally:
            self.context.space.stop(asking[0], sending[0])
            if change:
                self.apply(self.USUAL)
                server.settle()
        p99 = worst_p99(asked, at, at + in_force) if change else asked["latency_us"]["p99"]
        return {"p99": p99, "p99_all": asked["latency_us"]["p99"], "in_force": in_force, "lost": lost(sent)}

    def change(self, change, begun, asking):
        """Has the change made, two seconds after counting began. Returns when, and how long it took to be in force."""
        if not change:
            return 0, 0
        time.sleep(max(0, begun + 2 - time.monotonic()))
        at = time.monotonic()
        took = self.apply(change)
        if asking.ended():
            raise RoundFailed(f"the new settings were in force after {took:.1f} s, when the load had ended")
        return at - begun, took


class Clients(Measurement):
    """T10. What a line costs where a thousand clients fail and where a million do, each of which is being counted: the
    tables of the latter fit into no cache. Of a thousand nearly all are banned soon, and of who is banned nothing is
    counted, which is the cheaper case; where a threshold of 10,000 keeps them from it, each has some hundred failures in its
    window of a second, which is the dearer one. Of the million a quarter fails in each run, in turn, so that nobody is banned
    in twelve rounds."""

    target = "T10"
    title = "a thousand or a million clients, TCP, one shard"
    rows = (
        Row("CPU, a million against a thousand", "million.us", "thousand.us", ("<=", 1.1), "µs/line"),
        Row("CPU, a million against a thousand, nobody banned", "million.us", "unbanned.us", None, "µs/line"),
    )
    # Of the servers: clients that fail, and what decides about them.
    SERVERS = {
        "thousand": (1_000, {}),
        "unbanned": (1_000, {"attempts": 10_000, "window": "1s"}),
        "million": (1_000_000, {}),
    }

    def set_up(self):
        self.servers = {}
        for name, (count, rules) in self.SERVERS.items():
            self.servers[name] = server = self.context.server(bans=0, tracked=4_000_000, **rules)
            # Each fails once, so that all are tracked before anything is measured.
            to, metrics = server.address("syslog"), server.metrics_url
            self.context.load.run("syslog", to=to, tcp=True, count=count, clients=count, failing=1, metrics=metrics)
            have = server.metric("fail2ban_tracked", what="counting")
            if have < 0.95 * count and "window" not in rules:
                raise Trouble(f"{have:.0f} clients are tracked where {count} have failed")
            server.settle()
        self.count = 500_000 if self.context.options.quick else 2_000_000
        self.runs = 0

    def variants(self):
        return [
            (name, lambda name=name, count=count: self.run(name, count)) for name, (count, _) in self.SERVERS.items()
        ]

    def run(self, name, count):
        whom = {"clients": count}
        if name == "million":
            # More clients than a run has failures: each of them fails once in it at most.
            quarter = count // 4
            whom = {"clients": quarter, "first": self.runs % 4 * quarter}
            self.runs += 1
        found = stream(self.context, self.servers[name], self.count, 1, **whom)
        if name != "thousand" and self.servers[name].bans():
            raise RoundFailed("clients were banned where none should be")
        return found


class Shards(Measurement):
    """T10. What two shards take on two cores against one on one: only where a third core is left for the load, and a
    fourth for the second sender is better. What a line costs on two shards tells the same on any machine, but for what
    cores share."""

    target = "T10"
    title = "two shards on two cores, TCP, 4 connections"

    @property
    def rows(self):
        spare = [] if self.spare() else ["cores"]
        return (
            Row("lines a second, two against one", "two.per_second", "one.per_second", (">=", 1.8), "/s", spare),
            Row("CPU, two against one", "two.us", "one.us", None, "µs/line"),
        )

    def spare(self):
        """Whether the load has a core of its own beside two shards."""
        return bool(set(self.context.load.cores) - set(self.context.options.two_cores))

    def impossible(self):
        return None if len(self.context.options.cores) >= 2 else "this machine has one core"

    def set_up(self):
        self.one = self.context.server(bans=BANS)
        self.two = self.context.server(bans=BANS, shards=2, cores=self.context.options.two_cores)
        self.count = 1_000_000 if self.context.options.quick else 5_000_000

    def variants(self):
        return [
            ("one", lambda: stream(self.context, self.one, self.count, 4, BANS)),
            ("two", lambda: stream(self.context, self.two, self.count, 4, BANS)),
        ]


def stream(context, server, count, connections, clients, first=0):
    """Sends `count` lines over TCP. The server's CPU time is taken until it has counted the last of them."""
    received, before = server.received(), cpu_seconds(server.pid)
    result = context.load.run(
        "syslog",
        to=server.address("syslog"),
        tcp=True,
        count=count,
        connections=connections,
        clients=clients,
        first=first,
        metrics=server.metrics_url,
    )
    have = context.space.wait(
        "the last line", lambda: server.received() - received >= result["done"] and server.received(), server.process
    )
    seconds = cpu_seconds(server.pid) - before
    if have - received != result["done"]:
        raise RoundFailed(f"{result['done']} lines were sent and {have - received} received")
    return {
        "us": seconds * 1e6 / result["done"],
        "per_cpu_second": result["done"] / seconds,
        "per_second": result["per_second"],
        "lost": lost(result),
    }


def lost(result):
    """How many lines the server did not count."""
    if result.get("lost") is None:
        raise RoundFailed("the load tool did not say whether lines were lost")
    return result["lost"]


def offender(number):
    """The address of an offender of the load tool."""
    first, range_ = (198 << 24) + (18 << 16), 1 << 17
    bits = first + number if number < range_ else (10 << 24) + number - range_
    return ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))


def _has_pyinotify():
    """Whether fail2ban's Python has what its other backend for files needs."""
    return any(
        os.path.exists(os.path.join(folder, name))
        for folder in ("/usr/lib/python3/dist-packages", "/usr/local/lib/python3/dist-packages")
        for name in ("pyinotify.py", "pyinotify")
    )


ALL = (
    Auth,
    Spoa,
    BehindHaproxy26,
    BehindHaproxy28,
    Authz,
    BehindEnvoy,
    Datagrams,
    Spread,
    Stream,
    Matcher,
    Reaction,
    Fail2banReaction,
    Table,
    Replica,
    Change,
    Clients,
    Shards,
)
