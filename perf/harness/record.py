"""What becomes of the values of all rounds: rows with a verdict, the table, records, and the difference of two records."""

import json
import os
import platform
import re
import socket
import subprocess
import time

from . import numbers
from .peers import ROOT
from .picture import picture

HEADINGS = ("target", "what", "ours", "yardstick", "ratio", "goal", "verdict")


def rounds_of(values, name):
    """The values of all rounds by a name like `ours.us`; None for those that failed."""
    variant, _, value = name.partition(".")
    return values.get(variant, {}).get(value, [])


def evaluate(row, target, title, values, failures, missing):
    """A row of the table, as a dictionary. `values` and `failures` are by variant; `missing` says for what is not there
    why a row that needs it is not measured."""
    found = {"target": target, "title": title, "what": row.what, "unit": row.unit, "goal": goal_text(row)}
    ours = rounds_of(values, row.ours)
    theirs = rounds_of(values, row.yardstick) if row.yardstick else []
    found["ours"] = summary(ours)
    found["yardstick"] = summary(theirs) if row.yardstick else None
    found["ratio"] = summary(numbers.ratios(ours, theirs)) if row.yardstick else None
    found["verdict"], found["why"] = verdict(row, found, ours, failures, missing)
    return found


def verdict(row, found, ours, failures, missing):
    """What the row comes to, and why, if there is more to say."""
    for need in row.needs:
        if need in missing:
            return "not measured", missing[need]
    involved = {name.partition(".")[0] for name in (row.ours, row.yardstick) if name}
    failed = [failure for name in sorted(involved) for failure in failures.get(name, [])]
    compared = found["ratio"] if row.yardstick else found["ours"]
    if row.exact:
        # One of these is one too many, so no median; and it is known of failed rounds too.
        known = [value for value in ours if value is not None]
        if not known:
            return ("failed", failed[0][1]) if failed else ("not measured", "")
        return ("met" if numbers.meets(max(known), *row.goal) else "not met"), ""
    if failed:
        rounds = len({number for number, _ in failed})
        return f"failed in {rounds} of {len(ours) or rounds}", failed[0][1]
    if not compared:
        return "not measured", ""
    if not row.goal:
        return "", ""
    return ("met" if numbers.meets(compared["median"], *row.goal) else "not met"), ""


def summary(values):
    """Median, least and greatest by name, or None of nothing."""
    found = numbers.spread(values)
    return dict(zip(("median", "min", "max"), found)) if found else None


def goal_text(row):
    if not row.goal:
        return ""
    relation, limit = row.goal
    sign = {"<=": "≤", ">=": "≥"}[relation]
    return f"{sign} {numbers.short(limit)}" + (" ×" if row.yardstick else "")


def cells(row):
    """A row as the texts of its columns."""

    def text(found, spread=False):
        if not found:
            return "-"
        if not spread:
            return numbers.short(found["median"])
        return numbers.with_spread([found["min"], found["median"], found["max"]])

    ours = text(row["ours"], spread=not row["ratio"])
    unit = f" {row['unit']}" if row["unit"] and row["ours"] else ""
    final = row["verdict"] + (f": {row['why']}" if row["why"] else "")
    yardstick = text(row["yardstick"]) if row["yardstick"] else "-"
    return [row["target"], row["what"], ours + unit, yardstick, text(row["ratio"], spread=True), row["goal"] or "-", final or "-"]


def table(rows):
    """The table for people, aligned, with a line above the rows of each measurement."""
    lines = [(None, list(HEADINGS))] + [(row["title"], cells(row)) for row in rows]
    widths = [max(len(line[column]) for _, line in lines) for column in range(len(HEADINGS) - 1)]
    out, before = [], None
    for title, line in lines:
        if title != before:
            out += ["", f"{line[0]}  {title}"]
            before = title
        out.append("  ".join(text.ljust(width) for text, width in zip(line, widths)) + "  " + line[-1])
    return "\n".join(line.rstrip() for line in out)


def markdown(record):
    """A record as a page."""
    settings = record["settings"]
    machine = record["machine"]
    lines = [
        f"# {record['date']}, commit {record['commit']}{' with changes' if record['dirty'] else ''}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; "
        + f"{settings['rounds']} rounds of {numbers.short(settings['seconds'])} s each, server on core "
        + f"{settings['server_cores']}, load on core {settings['load_cores']}. "
        + ", ".join(f"{name} {version}" for name, version in sorted(record["peers"].items()) if version)
        + ".",
        "",
        "The ratio is the median of all rounds' ratios, with the least and the greatest.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + " --- |" * len(HEADINGS),
    ]
    for row in record["rows"]:
        texts = cells({**row, "what": f"{row['title']}: {row['what']}"})
        lines.append("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |")
    return "\n".join(lines) + "\n"


def machine():
    """What it ran on, without its name."""
    cpu = "unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        match = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
        cpu = match.group(1).strip() if match else cpu
    return {"kernel": platform.release(), "cpu": cpu, "cores": os.cpu_count()}


def commit():
    """The commit that is checked out, and whether files differ from it."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") or "unknown", bool(git("status", "--porcelain"))


def without_names(value, *hidden):
    """The same without paths and names of this machine: a record is for others to read."""
    if isinstance(value, dict):
        return {key: without_names(found, *hidden) for key, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_names(found, *hidden) for found in value]
    if isinstance(value, str):
        for name in (*hidden, ROOT, os.path.expanduser("~")):
            if len(name) > 1:
                value = value.replace(name, "…")
        name = re.escape(socket.gethostname())
        value = re.sub(rf"\b{name}\b", "…", value) if len(name) > 1 else value
        return re.sub(r"(?<![\w/])/(?:tmp|home|root|work|var|usr|opt|srv)/[^\s:;,'\")]*", "…", value)
    return value


def write(record):
    """Writes a record as JSON, as a page and as a picture. Returns the name of them, without an ending."""
    folder = os.path.join(ROOT, "perf", "record")
    os.makedirs(folder, exist_ok=True)
    name = os.path.join(folder, f"{record['date']}-{record['commit']}")
    number = 1
    while os.path.exists(f"{name}.json"):
        number += 1
        name = os.path.join(folder, f"{record['date']}-{record['commit']}-{number}")
    with open(f"{name}.json", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)
        file.write("\n")
    with open(f"{name}.md", "w", encoding="utf-8") as file:
        file.write(markdown(record))
    with open(f"{name}.svg", "w", encoding="utf-8") as file:
        file.write(picture(record))
    return name


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())


def difference(before, after):
    """Two records, value by value: before, after, and after divided by before. Ratios against yardsticks come first:
    they are what stays comparable between machines and days."""
    out = ["", "before: " + _about(before), "after:  " + _about(after)]
    for key in ("kernel", "cpu", "cores"):
        if before["machine"][key] != after["machine"][key]:
            out.append(f"not the same {key}: only ratios can be compared")
    lines = [("what", "before", "after", "after/before")]
    rows = {(row["title"], row["what"]): row for row in before["rows"]}
    for row in after["rows"]:
        old = rows.get((row["title"], row["what"]))
        if old and old["ratio"] and row["ratio"]:
            pair = old["ratio"]["median"], row["ratio"]["median"]
            lines.append((f"{row['target']} {row['title']}: {row['what']}, ratio", *_changed(*pair)))
    for title in after["values"]:
        for variant, values in after["values"][title].items():
            for name, found in values.items():
                old = before["values"].get(title, {}).get(variant, {}).get(name, [])
                pair = numbers.median(old), numbers.median(found)
                if None not in pair:
                    lines.append((f"{title}: {variant}.{name}", *_changed(*pair)))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        out.append("  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))]))
    return "\n".join(out)


def _changed(before, after):
    by = numbers.ratio(after, before)
    return numbers.short(before), numbers.short(after), f"{by:.3f}" if by is not None else "-"


def _about(record):
    changes = " with changes" if record["dirty"] else ""
    return f"{record['date']}, commit {record['commit']}{changes}, {record['settings']['rounds']} rounds"
