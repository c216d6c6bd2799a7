"""Tests of what can be wrong without anything being measured: parsing, medians, ratios, verdicts, tables, differences."""

import os
import time
import unittest
from xml.etree import ElementTree

from . import benches, load, measurements, numbers, patterns, picture, record
from .measurements import Row
from .processes import RoundFailed, Workspace, cpu_seconds


class Numbers(unittest.TestCase):
    def test_ratios_are_of_the_same_round(self):
        self.assertEqual(numbers.ratios([1, 4, None], [2, 2, 2]), [0.5, 2, None])
        self.assertEqual(numbers.spread([3, None, 1, 2]), (2, 1, 3))
        self.assertIsNone(numbers.spread([None]))
        self.assertIsNone(numbers.ratio(1, 0))

    def test_goals(self):
        self.assertTrue(numbers.meets(0.95, "<=", 0.95))
        self.assertFalse(numbers.meets(0.96, "<=", 0.95))
        self.assertTrue(numbers.meets(2, ">=", 2))

    def test_numbers_for_people(self):
        texts = [numbers.short(value) for value in (0, 0.01234, 0.954, 4.567, 45.67, 456.7, 2_000_000.4)]
        self.assertEqual(texts, ["0", "0.0123", "0.95", "4.57", "45.7", "457", "2,000,000"])
        self.assertEqual(numbers.with_spread([1, 3, 2]), "2.00 (1.00..3.00)")

    def test_metrics(self):
        text = '# TYPE a counter\na 1\nb{x="1",y="two"} 2.5e3\nb{x="2",y="a \\"b\\""} 1\n\n'
        page = numbers.samples(text)
        self.assertEqual(numbers.total(page, "a"), 1)
        self.assertEqual(numbers.total(page, "b"), 2501)
        self.assertEqual(numbers.total(page, "b", x="1"), 2500)
        self.assertEqual(numbers.by_label(page, "b", "x"), {"1": 2500, "2": 1})

    def test_what_match_says(self):
        text = "2,000 lines, 1 matched with 1 failures, 1136 lines/s\n         1 lines,          1 failures  dovecot\n"
        self.assertEqual(numbers.matched_speed(text), (2000, 1, 1136))
        with self.assertRaises(ValueError):
            numbers.matched_speed("nothing")


class Results(unittest.TestCase):
    RESULT = {
        "done": 1000,
        "errors": {},
        "latency_us": {"p99": 9},
        "cpu": {"server": {"seconds": 0.004, "us_each": 4}},
        "per_second": 100,
        "timeline": [{"at": at, "p99_us": at * 10} for at in (1, 2, 3, 4)],
    }

    def test_what_a_benchmark_says(self):
        said = """
line/mix, as records/built-in + 50
                        time:   [2.3012 ms 2.3240 ms 2.3526 ms]
                        thrpt:  [4.2506 Melem/s 4.3030 Melem/s 4.3456 Melem/s]
Found 1 outliers among 20 measurements (5.00%)
lookup/hit/1000         time:   [1.0 µs 2.0 µs 3.0 µs]
                        thrpt:  [900.5 Kelem/s 901.5 Kelem/s 902.5 Kelem/s]
                 change:
                        time:   [-5.0% -4.0% -3.0%] (p = 0.00 < 0.05)
"""
        self.assertEqual(
            benches.rates(said), {"line/mix, as records/built-in + 50": 4.303e6, "lookup/hit/1000": 901.5e3}
        )

    def test_cost(self):
        self.assertAlmostEqual(load.microseconds(self.RESULT, "server"), 4)
        with self.assertRaises(RoundFailed):
            load.microseconds(self.RESULT, "other")

    def test_faults(self):
        self.assertIsNone(load.fault(self.RESULT))
        self.assertIn("wrong", load.fault({**self.RESULT, "wrong": 1}))
        self.assertIsNone(load.fault({**self.RESULT, "wrong": 1}, verified=False))
        self.assertIn("lost", load.fault({**self.RESULT, "lost": 2}))
        self.assertIn("closed", load.fault({**self.RESULT, "errors": {"connection closed": 3}}))
        self.assertIn("nothing", load.fault({"done": 0}))

    def test_a_rate_that_was_not_reached(self):
        self.assertEqual(load.held(self.RESULT, 100)["done"], 1000)
        with self.assertRaises(RoundFailed):
            load.held(self.RESULT, 200)

    def test_the_worst_second(self):
        self.assertEqual(load.worst_p99(self.RESULT), 40)
        self.assertEqual(load.worst_p99(self.RESULT, 0, 1.5), 20)
        self.assertEqual(load.worst_p99({**self.RESULT, "timeline": []}), 9)

    def test_a_command_line(self):
        line = load.Load(None, "L", None, 3).command("auth", {"to": "a", "verify": True, "rate": None}, {"it": 7}, "r")
        self.assertEqual(line, ["L", "auth", "--to", "a", "--verify", "--pid", "it=7", "--json", "r", "--quiet"])


class Rows(unittest.TestCase):
    VALUES = {"ours": {"us": [1.0, 2.0, 3.0], "lost": [0, 0, 5]}, "nginx": {"us": [2.0, 2.0, 2.0]}}

    def verdict(self, row, failures=None, missing=None, values=None):
        found = record.evaluate(row, "T1", "title", values or self.VALUES, failures or {}, missing or {})
        return found["verdict"]

    def test_verdicts(self):
        row = Row("CPU", "ours.us", "nginx.us", ("<=", 1.0), needs=("nginx",))
        self.assertEqual(self.verdict(row), "met")
        self.assertEqual(self.verdict(Row("CPU", "ours.us", None, ("<=", 1.5))), "not met")
        self.assertEqual(self.verdict(Row("CPU", "ours.us")), "")
        self.assertEqual(self.verdict(row, missing={"nginx": "get it"}), "not measured")
        self.assertEqual(self.verdict(row, failures={"ours": [(1, "wrong")]}), "failed in 1 of 3")
        self.assertEqual(self.verdict(row, failures={"other": [(1, "wrong")]}), "met")
        self.assertEqual(self.verdict(row, values={"ours": {"us": [None]}}), "not measured")

    def test_one_lost_line_is_too_many(self):
        row = Row("lost", "ours.lost", None, ("<=", 0), exact=True)
        self.assertEqual(self.verdict(row, failures={"ours": [(2, "5 lines were lost")]}), "not met")
        self.assertEqual(self.verdict(row, values={"ours": {"lost": [0, 0]}}), "met")

    def test_table_and_page(self):
        row = Row("CPU", "ours.us", "nginx.us", ("<=", 0.95), "µs/request")
        found = record.evaluate(row, "T1", "auth endpoint", self.VALUES, {}, {})
        text = record.table([found])
        self.assertIn("1.00 (0.50..1.50)", text)
        self.assertIn("≤ 0.95 ×", text)
        self.assertIn("not met", text)
        page = record.markdown(self.record([found]))
        self.assertIn("| T1 | auth endpoint: CPU | 2.00 µs/request | 2.00 | 1.00 (0.50..1.50) | ≤ 0.95 × | not met |", page)

    def test_picture(self):
        rows = [
            Row("CPU & all", "ours.us", "nginx.us", ("<=", 0.5), "µs/request"),
            Row("rate", "ours.us", None, (">=", 8), "/s"),
            Row("lost", "ours.us", None, ("<=", 0), exact=True),
            Row("for information", "ours.us"),
        ]
        found = [record.evaluate(row, "T1", "auth endpoint", self.VALUES, {}, {}) for row in rows]
        self.assertEqual([picture.share(row, 2) for row in found[:3]], [4, 4, None])
        drawn = picture.picture(self.record(found))
        texts = [text.text for text in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("T1  auth endpoint: CPU & all", texts)
        self.assertIn("1.00 ×  (≤ 0.50 ×)", texts)
        self.assertIn("2.00 /s  (≥ 8.00)", texts)
        self.assertFalse([text for text in texts if "lost" in text or "information" in text])

    def record(self, rows, values=None):
        return {
            "date": "2026-01-01",
            "commit": "abc",
            "dirty": False,
            "machine": {"kernel": "6", "cpu": "c", "cores": 2},
            "settings": {"rounds": 3, "seconds": 3, "server_cores": "0", "load_cores": "1"},
            "peers": {"nginx": "1.22", "envoy": None},
            "rows": rows,
            "values": {"auth endpoint": values or self.VALUES},
        }

    def test_difference(self):
        row = Row("CPU", "ours.us", "nginx.us")
        after = {"ours": {"us": [0.5, 1.0, 1.5]}, "nginx": {"us": [2.0, 2.0, 2.0]}}
        records = [
            self.record([record.evaluate(row, "T1", "auth endpoint", values, {}, {})], values)
            for values in (self.VALUES, after)
        ]
        lines = record.difference(*records).splitlines()
        self.assertEqual([line.split()[-3:] for line in lines if "ratio" in line and "T1" in line], [["1.00", "0.50", "0.500"]])
        self.assertEqual([line.split()[-3:] for line in lines if "ours.us" in line], [["2.00", "1.00", "0.500"]])
        self.assertFalse(any("lost" in line for line in lines), "a value that one of them does not have")

    def test_records_name_no_machine(self):
        text = record.without_names({"why": f"{record.ROOT}/x: no; /tmp/mf2b-1/a.sock 10/s"}, "/tmp/mf2b-1")["why"]
        self.assertNotIn(record.ROOT, text)
        self.assertNotIn("mf2b", text)
        self.assertIn("10/s", text)

    def test_every_row_names_values_of_a_variant(self):
        for measurement in measurements.ALL:
            rows = measurement.rows if isinstance(measurement.rows, tuple) else ()
            for row in rows:
                self.assertRegex(row.ours, r"^[\w-]+\.\w+$")
                self.assertTrue(row.goal is None or row.goal[0] in ("<=", ">="))
            self.assertTrue(measurement.__doc__ and measurement.title and measurement.target)


class Patterns(unittest.TestCase):
    def test_all_are_different(self):
        found = patterns.patterns(1000)
        self.assertEqual(len({name for name, *_ in found}), 1000)
        self.assertEqual(len({(program, regex) for _, program, _, regex in found}), 1000)
        self.assertFalse({regex for *_, regex in patterns.patterns(1000, 1)[50:]} & {regex for *_, regex in found})
        self.assertTrue(all("<IP>" in regex for *_, regex in found))
        self.assertTrue(all(kind in ("auth", "abuse") for _, _, kind, _ in found), "others are not used")


class Processes(unittest.TestCase):
    def test_everything_ends_and_nothing_stays(self):
        with Workspace() as space:
            process = space.start("sleeper", ["sh", "-c", "sleep 100 & wait"], {min(os.sched_getaffinity(0))})
            child = space.wait("its child", lambda: measurements.yardsticks.children(process.pid), process)[0]
            self.assertGreaterEqual(cpu_seconds(process.pid), 0)
            self.assertNotEqual(space.port(), space.port())
            status, out, err, seconds = space.run(["sh", "-c", "echo a; echo b >&2; exit 3"])
            self.assertEqual((status, out, err), (3, "a\n", "b\n"))
            self.assertGreaterEqual(seconds, 0)
        self.assertFalse(os.path.exists(space.folder))
        self.assertTrue(process.ended())
        deadline = time.monotonic() + 10
        while _runs(child):
            self.assertLess(time.monotonic(), deadline, "a child is still there")
            time.sleep(0.01)

    def test_offenders_are_those_of_the_load_tool(self):
        addresses = [measurements.offender(number) for number in (0, (1 << 17) - 1, 1 << 17)]
        self.assertEqual(addresses, ["198.18.0.0", "198.19.255.255", "10.0.0.0"])


def _runs(pid):
    """Whether a process is there, and not only its entry, which waits for its parent."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return ") Z" not in file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def run():
    """Runs all of them. Returns whether they passed."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__("harness.selftest", fromlist=["selftest"]))
    return unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful()
