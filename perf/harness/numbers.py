"""Medians, ratios and goals: what is made of the raw values of all rounds. Nothing in here starts or reads anything."""

import math
import re
import statistics


def median(values):
    """The median, or None of nothing."""
    values = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.median(values) if values else None


def spread(values):
    """Median, least and greatest, or None of nothing."""
    values = [value for value in values if value is not None and not math.isnan(value)]
    return (statistics.median(values), min(values), max(values)) if values else None


def ratio(value, to):
    """One value divided by another, or None where that makes no sense."""
    if value is None or to is None or to == 0:
        return None
    return value / to


def ratios(values, yardsticks):
    """The ratio of each round. Both were measured in it, one shortly after the other, so what else the machine did
    then is in both; that is why the median of ratios is compared, and not the ratio of medians."""
    return [ratio(value, to) for value, to in zip(values, yardsticks)]


def meets(value, relation, limit):
    """Whether a value meets a goal."""
    if relation == "<=":
        return value <= limit
    if relation == ">=":
        return value >= limit
    raise ValueError(f"no such relation: {relation}")


def short(value):
    """A number for people: three or four significant digits."""
    if value is None:
        return "-"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.1:
        return f"{value:.2f}"
    return f"{value:.4f}"


def with_spread(values):
    """`median (min..max)`."""
    found = spread(values)
    if found is None:
        return "-"
    middle, least, greatest = found
    return f"{short(middle)} ({short(least)}..{short(greatest)})"


def samples(text):
    """The samples of a page in Prometheus' format: a list of name, labels, value."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.match(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)", line)
        if match:
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
            found.append((match.group(1), labels, float(match.group(3))))
    return found


def total(page, name, **labels):
    """The sum of the samples with this name and these labels."""
    return sum(
        value
        for found, have, value in page
        if found == name and all(have.get(key) == wanted for key, wanted in labels.items())
    )


def by_label(page, name, label):
    """The values of a metric by one of its labels."""
    return {have[label]: value for found, have, value in page if found == name and label in have}


def matched_speed(text):
    """How many lines a second `mailfail2ban match` says, and of how many lines how many matched."""
    match = re.search(r"^([\d,]+) lines?, ([\d,]+) matched.*?([\d,.]+) lines/s", text, re.MULTILINE)
    if not match:
        raise ValueError(f"no speed in what `match` said: {text.strip()[:200]!r}")
    lines, matched, speed = (float(number.replace(",", "")) for number in match.groups())
    return lines, matched, speed
