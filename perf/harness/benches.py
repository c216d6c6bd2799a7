"""The micro-benchmarks of bench/, as programs: what a piece costs with nothing around it."""

import glob
import os
import re
import subprocess

from .peers import ROOT
from .processes import Trouble

UNITS = {"elem/s": 1, "Kelem/s": 1e3, "Melem/s": 1e6, "Gelem/s": 1e9}


def program(target, name, is_built, say):
    """The program of a benchmark; it is built first unless it is said to be there."""
    if not is_built:
        command = ["cargo", "bench", "--locked", "--no-run", "--bench", name]
        say(" ".join(command))
        environment = {**os.environ, "CARGO_TARGET_DIR": target}
        if subprocess.run(command, cwd=ROOT, env=environment, check=False, stderr=subprocess.DEVNULL).returncode != 0:
            raise Trouble(f"the benchmark {name} does not build")
    found = glob.glob(os.path.join(target, "release", "deps", f"{name}-*"))
    found = [path for path in found if "." not in os.path.basename(path) and os.access(path, os.X_OK)]
    if not found:
        raise Trouble(f"there is no benchmark {name}: cargo bench --no-run --bench {name}")
    return max(found, key=os.path.getmtime)


def rates(said):
    """Elements a second by name, the middle of criterion's three."""
    rows = re.findall(
        r"^(\S[^\n]*?)\s+time:\s+\[[^\]]*\]\s+thrpt:\s+\[[\d.]+ \S+ ([\d.]+) (\S+) [\d.]+ \S+\]", said, re.MULTILINE
    )
    return {name: float(number) * UNITS[unit] for name, number, unit in rows}


def run(context, name, rows):
    """Runs the rows of a benchmark that match `rows`. Returns their elements a second by name, and all that was printed."""
    path = context.bench(name)
    status, said, faults, _ = context.space.run(
        [path, "--bench", "--noplot", rows], context.options.server_cores, folder=context.space.new_folder("b")
    )
    if status != 0:
        raise Trouble(f"the benchmark {name} ended with status {status}: {faults.strip()[-300:]}")
    return rates(said), said
