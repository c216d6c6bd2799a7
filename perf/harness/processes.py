"""Processes of our own in a temporary folder, on ports of our own, and what they cost. All of them end with us."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PATIENCE = 60
PAUSE = 0.02
PR_SET_PDEATHSIG = 1


class Trouble(Exception):
    """Something that makes a measurement impossible. Its text is for people."""


class RoundFailed(Exception):
    """A round that has no number: an answer was wrong, or a line was lost. `kept` are values that stay true anyway."""

    def __init__(self, why, **kept):
        super().__init__(why)
        self.kept = kept


class Process:
    """A process, its name, and where its output goes."""

    def __init__(self, name, popen, output):
        self.name, self.popen, self.output = name, popen, output
        self.pid = popen.pid

    def ended(self):
        """Whether it has ended. Its entry stays until `stop`, so that its number is nobody else's meanwhile."""
        if self.popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def said(self, lines=12):
        """The end of what it wrote."""
        try:
            with open(self.output, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 8192))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def signal(self, number):
        if not self.ended():
            os.kill(self.pid, number)

    def stop(self):
        """Ends it and its children, politely first. Returns its status and the CPU seconds of it and the children that
        it waited for."""
        if self.popen.returncode is not None:
            return self.popen.returncode, 0
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.005)
        # Its group is its own, so this is it and its children and nobody else.
        os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        return self.popen.returncode, usage.ru_utime + usage.ru_stime


class Workspace:
    """A temporary folder, and the processes that run in it. A context: at its end nothing of it is left."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="mf2b-")
        self.processes = []
        self.taken = set()
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def new_path(self, name):
        """A path that was not given before. Short: paths of unix sockets have 108 bytes."""
        self.count += 1
        return self.path(f"{self.count}-{name}")

    def new_folder(self, name):
        """A folder that was not there before."""
        path = self.new_path(name)
        os.mkdir(path)
        return path

    def write(self, path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def port(self):
        """A port that nobody listens on, for both transports, below those that the kernel gives to clients."""
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            end = int(file.read().split()[0])
        for _ in range(1000):
            port = random.randrange(min(10000, end // 2), end)
            if port not in self.taken and _is_free(port):
                self.taken.add(port)
                return port
        raise Trouble("there is no free port below the ephemeral ones")

    def start(self, name, command, cores=None, environment=None, folder=None, output=None):
        """Starts a process in a group of its own, pinned to `cores`."""
        output = output or self.new_path(f"{name}.out")
        with open(output, "wb") as file:
            return self._spawn(name, command, cores, environment, folder, file, subprocess.STDOUT)

    def _spawn(self, name, command, cores, environment, folder, out, err):
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder or self.folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=lambda: _prepare(cores),
        )
        process = Process(name, popen, (out if err is subprocess.STDOUT else err).name)
        self.processes.append(process)
        return process

    def run(self, command, cores=None, environment=None, timeout=600, folder=None):
        """Runs a command to its end. Returns status, standard output, standard error, and its own CPU seconds."""
        files = [self.new_path(stream) for stream in ("stdout", "stderr")]
        with open(files[0], "wb") as out, open(files[1], "wb") as err:
            process = self._spawn(os.path.basename(command[0]), command, cores, environment, folder, out, err)
        try:
            self.wait(f"the end of {process.name}", process.ended, patience=timeout, pause=0.005)
        finally:
            ((status, seconds),) = self.stop(process)
        texts = []
        for path in files:
            with open(path, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
            os.unlink(path)
        return status, texts[0], texts[1], seconds

    def stop(self, *processes):
        """Ends processes. Returns what each of them ended with."""
        found = [process.stop() for process in processes]
        self.processes = [process for process in self.processes if process not in processes]
        return found

    def stop_all(self):
        for process in reversed(list(self.processes)):
            self.stop(process)

    def wait(self, what, look, *processes, patience=PATIENCE, pause=PAUSE):
        """Waits until `look` returns something. It is trouble if one of the processes ends meanwhile."""
        deadline = time.monotonic() + patience
        while True:
            found = look()
            if found:
                return found
            for process in processes:
                if process.ended():
                    raise Trouble(f"{process.name} ended before there was {what}:\n{process.said()}")
            if time.monotonic() > deadline:
                said = "\n".join(process.said() for process in processes)
                raise Trouble(f"waited {patience} s in vain for {what}\n{said}".rstrip())
            time.sleep(pause)

    def wait_for_port(self, port, process):
        self.wait(f"a listener on port {port}", lambda: _accepts(port), process)


def _prepare(cores):
    """Runs in the child: it ends if we do, however that happens, and stays on its cores."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if cores:
        os.sched_setaffinity(0, cores)


def _is_free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cpu_seconds(pid):
    """CPU seconds of all threads of a process so far, from the scheduler, which counts nanoseconds. Threads that have
    ended are not in it, so take differences of processes whose threads stay."""
    nanoseconds = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                nanoseconds += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return nanoseconds / 1e9


def resident_bytes(pid):
    """The memory that a process has at the moment."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise Trouble("no VmRSS: the process has ended")


def children(pid):
    """Pids of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def machine_seconds():
    """Seconds of all cores since boot: all, busy, and stolen by other guests of the same host."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    unit = os.sysconf("SC_CLK_TCK")
    idle = fields[3] + fields[4]
    return sum(fields) / unit, (sum(fields) - idle) / unit, fields[7] / unit
