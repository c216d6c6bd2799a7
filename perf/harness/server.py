"""The measured server: its settings, its start with bans loaded, and what its metrics say."""

import os
import signal
import time
import urllib.request

from . import numbers, patterns
from .processes import Trouble, cpu_seconds

SETTINGS = """\
syslog:
  address: 127.0.0.1:{syslog}
  with_default_patterns: true
  patterns:
{patterns}\
spoa:
  address: 127.0.0.1
  port: {spoa}
  socket: {folder}/spoa.sock
envoy:
  address: 127.0.0.1
  port: {envoy}
  socket: {folder}/envoy.sock
  trusted_proxies: [127.0.0.0/8]
nginx:
  address: 127.0.0.1
  port: {nginx}
  socket: {folder}/nginx.sock
prometheus:
  port: {metrics}
ban:
  # Longer than any run.
  initial_ban_time: 24h
  max_attempts: {attempts}
  time_window: {window}
  max_tracked: {tracked}
{blacklist}\
runtime:
  shards: {shards}
  state_dir: {folder}/state
  node: compare
log:
  level: {level}
"""


class Server:
    """A running server. Everything is at its default but what `SETTINGS` says: addresses, further patterns, one shard,
    and bans that outlast the run."""

    def __init__(
        self,
        space,
        program,
        load,
        cores,
        further=50,
        shards=1,
        bans=100_000,
        attempts=5,
        window="10m",
        tracked=1_000_000,
        level="info",
    ):
        self.space, self.program, self.load, self.cores = space, program, load, cores
        self.folder = space.new_folder("s")
        os.mkdir(os.path.join(self.folder, "state"))
        names = ("syslog", "spoa", "envoy", "nginx", "metrics")
        self.ports = {name: space.port() for name in names}
        self.further, self.shards, self.attempts, self.window = further, shards, attempts, window
        self.tracked, self.level = tracked, level
        self.listed, self.edition = 0, 0
        self.write_settings()
        self.start()
        if bans:
            self.offend(bans)

    def address(self, service):
        return f"127.0.0.1:{self.ports[service]}"

    def socket(self, service):
        return f"unix:{self.folder}/{service}.sock"

    @property
    def metrics_url(self):
        return f"http://127.0.0.1:{self.ports['metrics']}/metrics"

    def settings(self):
        lines = ["  blacklist:\n"] if self.listed else []
        lines += [f"    - 172.{16 + (i >> 16)}.{i >> 8 & 255}.{i & 255}\n" for i in range(self.listed)]
        return SETTINGS.format(
            **self.ports,
            patterns=patterns.as_yaml(patterns.patterns(self.further, self.edition)),
            folder=self.folder,
            shards=self.shards,
            attempts=self.attempts,
            window=self.window,
            tracked=self.tracked,
            level=self.level,
            blacklist="".join(lines),
        )

    def write_settings(self):
        """Puts the file in its place at once, so that it is never read by halves."""
        path = os.path.join(self.folder, "config.yaml")
        self.space.write(path + ".new", self.settings())
        os.rename(path + ".new", path)

    def start(self):
        command = [self.program, "--config", "config.yaml"]
        self.process = self.space.start("mailfail2ban", command, self.cores, folder=self.folder)
        self.pid = self.process.pid
        for port in self.ports.values():
            self.space.wait_for_port(port, self.process)

    def stop(self):
        self.space.stop(self.process)

    def page(self):
        """All of its metrics, as samples."""
        with urllib.request.urlopen(self.metrics_url, timeout=30) as answer:
            return numbers.samples(answer.read().decode())

    def metric(self, name, **labels):
        return numbers.total(self.page(), name, **labels)

    def bans(self):
        return int(self.metric("fail2ban_current_bans"))

    def offend(self, count, seconds=300):
        """Has the first `count` offenders banned. Returns how long that took, until the last one was."""
        begun = time.monotonic()
        self.load.offend(self.address("syslog"), count)
        # Not asked more often than this: each answer is work of the server's.
        self.space.wait(f"{count} bans", lambda: self.bans() >= count, self.process, patience=seconds, pause=0.2)
        took = time.monotonic() - begun
        have = self.bans()
        if have != count:
            raise Trouble(f"{have} bans are in force where {count} were loaded")
        self.settle()
        return took

    def settle(self):
        """Waits until it has nothing more to do, such as writing bans to disk."""
        def quiet():
            before = cpu_seconds(self.pid)
            time.sleep(0.25)
            return cpu_seconds(self.pid) - before < 0.01

        self.space.wait("the server to be idle", quiet, self.process, patience=120)

    def received(self):
        return int(self.metric("fail2ban_syslog_received_total"))

    def change(self, further=None, listed=None):
        """Changes patterns or the blacklist in the file and has it read again. Does not wait until it is in force. What
        patterns there are beyond the usual ones is different each time, so that none of them is known already."""
        self.edition += 1
        self.further = self.further if further is None else further
        self.listed = self.listed if listed is None else listed
        before = self.page()
        self.write_settings()
        self.process.signal(signal.SIGHUP)
        return before

    def in_force(self, before):
        """Whether all shards work by what was changed after `before`. Trouble if it was refused."""
        page = self.page()
        name = "fail2ban_config_reloads_total"
        if numbers.total(page, name, status="error") > numbers.total(before, name, status="error"):
            raise Trouble(f"the changed settings were refused:\n{self.process.said()}")
        done = numbers.total(page, name, status="success") > numbers.total(before, name, status="success")
        newest = numbers.total(page, "fail2ban_policy_number")
        shards = numbers.by_label(page, "fail2ban_shard_policy_number", "shard").values()
        return done and all(number == newest for number in shards)
