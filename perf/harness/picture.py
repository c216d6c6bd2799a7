"""A record as a picture: how much of each goal is used up."""

import math
from xml.sax.saxutils import escape

from . import numbers

# Shares of a goal from the left end to the right.
LEAST, MOST = 0.04, 4.0
LABELS, BARS, VALUES, ROW = 430, 400, 190, 22
MET, NOT_MET, INK, FAINT = "#2f7d4f", "#b5472f", "#1f2328", "#9aa1a9"


def share(row, value):
    """What part of the goal a value is: up to 1 it is met, whichever way the goal goes."""
    sign, number = row["goal"].split()[:2]
    limit = float(number.replace(",", ""))
    if limit == 0 or value == 0:
        return None
    return value / limit if sign == "≤" else limit / value


def place(part):
    """Where a share is, from the left; each step to the right is as many times as much."""
    part = min(max(part, LEAST), MOST)
    return LABELS + BARS * math.log(part / LEAST) / math.log(MOST / LEAST)


def measured(row):
    return row["ratio"] or row["ours"]


def value(row):
    """What was measured, and the goal."""
    unit = "×" if row["ratio"] else row["unit"]
    return f'{numbers.short(measured(row)["median"])} {unit}  ({row["goal"]})'


def picture(record):
    """The rows that were measured and have a goal other than nothing at all."""
    known = ("met", "not met")
    rows = [row for row in record["rows"] if row["goal"] and row["verdict"] in known and share(row, measured(row)["median"])]
    height = 78 + ROW * len(rows)
    width = LABELS + BARS + VALUES
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="600">How much of each goal is used, '
        f'{escape(record["date"])}, commit {escape(record["commit"])}</text>',
    ]
    for part in (0.05, 0.1, 0.25, 0.5, 1, 2, 4):
        x = place(part)
        ink, wide = (INK, 1.5) if part == 1 else (FAINT, 0.5)
        out.append(f'<line x1="{x:.1f}" y1="46" x2="{x:.1f}" y2="{height - 12}" stroke="{ink}" stroke-width="{wide}"/>')
        out.append(f'<text x="{x:.1f}" y="40" text-anchor="middle" fill="{ink}">{part:g}</text>')
    for number, row in enumerate(rows):
        y = 64 + ROW * number
        found = measured(row)
        middle = place(share(row, found["median"]))
        ends = sorted(place(share(row, found[end])) for end in ("min", "max"))
        ink = MET if row["verdict"] == "met" else NOT_MET
        title = row["title"].partition(",")[0].partition(" (")[0]
        about = f'{row["target"]}  {title}: {row["what"]}'
        about = about if len(about) < 64 else about[:62] + "…"
        out += [
            f'<text x="12" y="{y}">{escape(about)}</text>',
            f'<rect x="{LABELS}" y="{y - 10}" width="{middle - LABELS:.1f}" height="12" fill="{ink}" fill-opacity="0.75"/>',
            f'<line x1="{ends[0]:.1f}" y1="{y - 4}" x2="{ends[1]:.1f}" y2="{y - 4}" stroke="{INK}"/>',
            f'<text x="{LABELS + BARS + 12}" y="{y}">{escape(value(row))}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])
