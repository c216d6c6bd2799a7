"""The load tool `mailfail2ban-load`: how it is called, and what becomes of its results."""

import json
import os

from .processes import RoundFailed, Trouble


class Load:
    """Runs the load tool, pinned to the cores of the load."""

    def __init__(self, space, program, cores, seconds):
        self.space, self.program, self.cores, self.seconds = space, program, cores, seconds

    def offend(self, to, offenders, failures=5):
        command = [self.program, "offend", "--to", to, "--offenders", str(offenders), "--failures", str(failures)]
        status, _, said, _ = self.space.run(command + ["--quiet"], self.cores)
        if status != 0:
            raise Trouble(f"offenders could not be had banned: {said.strip()[-500:]}")

    def command(self, command, arguments, pids, result):
        """The command line. `arguments` are options; True is one without a value, None is left out."""
        line = [self.program, command]
        for name, value in arguments.items():
            if value is not None and value is not False:
                line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        for name, pid in pids.items():
            line += ["--pid", f"{name}={pid}"]
        return line + ["--json", result, "--quiet"]

    def run(self, command, pids=None, timeout=None, **arguments):
        """Runs it to its end. A wrong answer, an error or no result at all is a failed round."""
        return self.finish(self.begin(command, pids, **arguments), timeout)

    def begin(self, command, pids=None, **arguments):
        """Starts it beside others; `finish` gets the result."""
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        result = self.space.new_path("load.json")
        line = self.command(command, arguments, pids or {}, result)
        process = self.space.start(f"load-{command}", line, self.cores)
        return process, command, result

    def finish(self, begun, timeout=None):
        process, command, result = begun
        try:
            self.space.wait(f"the end of {command}", process.ended, patience=timeout or self.seconds * 10 + 120)
        finally:
            ((status, _),) = self.space.stop(process)
            said, found = process.said(3), _read(result)
            if os.path.exists(result):
                os.unlink(result)
        if found is None:
            raise RoundFailed(f"{command}: no result, status {status}: {said}")
        why = fault(found, "--verify" in process.popen.args) or (f"status {status}: {said}" if status != 0 else None)
        if why:
            kept = {"lost": found["lost"]} if found.get("lost") is not None else {}
            raise RoundFailed(f"{command}: {why}", **kept)
        return found


def _read(path):
    """A result with what it says of answers and of lines beside the rest, or None if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return {**(found.get("questions") or {}), **(found.get("lines") or {}), **found}


def fault(result, verified=True):
    """What was wrong in a result, or None. Answers of a peer that decides at random are not `verified`."""
    if not result.get("done"):
        return "nothing was done"
    if verified and result.get("wrong"):
        return f"{result['wrong']} answers were wrong"
    errors = {what: count for what, count in (result.get("errors") or {}).items() if count}
    if errors:
        return "errors: " + ", ".join(f"{count} × {what}" for what, count in errors.items())
    if result.get("lost"):
        return f"{result['lost']} lines were lost"
    return None


def microseconds(result, process):
    """CPU µs of a process for each answer or line."""
    used = (result.get("cpu") or {}).get(process)
    if not used:
        raise RoundFailed(f"the load tool did not say the CPU time of {process}")
    return used["seconds"] * 1e6 / result["done"]


def held(result, rate, what="the load"):
    """Whether an open loop really asked at its rate; else its latency and cost are of another load."""
    if result["per_second"] < 0.95 * rate:
        raise RoundFailed(f"{what} reached {result['per_second']:,.0f}/s of the {rate:,.0f}/s that it should have")
    return result


def worst_p99(result, begin=0.0, end=float("inf")):
    """The greatest p99 of the seconds of a run between two points of time in it, and of the whole run without any."""
    seconds = [entry["p99_us"] for entry in result.get("timeline") or [] if begin <= entry["at"] <= end + 1]
    seconds = [value for value in seconds if value is not None]
    return max(seconds) if seconds else result["latency_us"]["p99"]
