"""What each test file costs, in seconds of CPU, with the processes that it starts.

A plugin of pytest, which starts with the longest files. `bash launch/test.sh --record-durations`
writes what it measured to `tests/durations.json`; `tests/test_durations.py` has the limits. It
measures CPU time: wall time depends on what else the machine does. Run it with an empty compilation
cache, as in a fresh clone: `JAX_COMPILATION_CACHE_DIR=$(mktemp -d) bash launch/test.sh
--record-durations`. With the names of test files it replaces their entries only.
"""

import ast
import json
import resource
from collections import defaultdict
from pathlib import Path

import pytest

from tests.helpers import forkserver

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "durations.json"
FILE_LIMIT = 100
"""Seconds of CPU that a test file may take."""
STARTS = "starting the workers"
"""The entry of what belongs to no file: imports and collecting tests, in each worker."""


def test_functions(path):
    """Names of the tests of a file."""
    tree = ast.parse((ROOT / path).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def recorded():
    """File, or STARTS -> what was recorded."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def used():
    """Seconds of CPU of this process and of its children, as far as they have ended."""
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(times.ru_utime + times.ru_stime for times in ours) + forkserver.used()


def pytest_addoption(parser):
    """--record-durations."""
    text = f"write the CPU time of each whole test file to {RECORD.relative_to(ROOT)}"
    parser.addoption("--record-durations", action="store_true", help=text)


def pytest_collection_modifyitems(items):
    """The longest files first: a worker that begins one at the end keeps all others waiting."""
    costs = {path: entry["cpu"] for path, entry in recorded().items()}
    items.sort(key=lambda item: -costs.get(item.nodeid.partition("::")[0], FILE_LIMIT))


def pytest_configure(config):
    """One meter a process."""
    config.pluginmanager.register(Meter(config), "durations")


class Meter:
    """Notes in the reports of tests what they used; sums it up where all reports arrive."""

    def __init__(self, config):
        self.config, self.last, self.workers = config, 0.0, 0.0
        self.files, self.slow = defaultdict(float), defaultdict(float)
        self.ran = defaultdict(set)

    def pytest_runtest_logstart(self):
        """What was used until now is not of this test."""
        self.last = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        """Attributes of reports come with them from the workers."""
        report = yield
        now = used()
        report.cpu, self.last = now - self.last, now
        report.is_slow = item.get_closest_marker("slow") is not None
        return report

    def pytest_runtest_logreport(self, report):
        """Adds up."""
        path, _, name = report.nodeid.partition("::")
        if not hasattr(report, "cpu"):  # xdist's own, of a worker that has crashed
            return
        self.files[path] += report.cpu
        self.slow[path] += report.cpu if report.is_slow else 0.0
        self.ran[path].add(name.partition("[")[0])

    def pytest_sessionfinish(self):
        """A worker tells what it used in all."""
        forkserver.close()
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["cpu"] = used()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Of each worker, where all reports arrive."""
        self.workers += getattr(node, "workeroutput", {}).get("cpu", 0.0)

    def pytest_terminal_summary(self, terminalreporter):
        """Says the sum, and writes the record if asked to."""
        spent = sum(self.files.values())
        starts = (self.workers or used()) - spent
        terminalreporter.write_line(
            f"{spent:.0f} s of CPU in tests, {starts:.0f} s in {STARTS.removesuffix('s')}(s)"
        )
        for path, entry in recorded().items():
            if self.files.get(path, 0.0) > 2 * entry["cpu"] + 5:
                terminalreporter.write_line(
                    f"{path}: {self.files[path]:.0f} s of CPU, {entry['cpu']:.0f} s when recorded"
                )
        if self.config.getoption("record_durations"):
            parts = [path for path in self.ran if self.ran[path] != test_functions(path)]
            for path in parts:
                terminalreporter.write_line(f"not recorded, run in part only: {path}")
            self.write(set(self.ran) - set(parts), starts)

    def write(self, paths, starts):
        """Replaces the entries of these files, and removes those of files that are gone."""
        there = lambda path: path == STARTS or (ROOT / path).exists()
        record = {path: entry for path, entry in recorded().items() if there(path)}
        for path in paths:
            record[path] = {
                "tests": len(test_functions(path)),
                "cpu": round(self.files[path], 1),
                "slow": round(self.slow[path], 1),
            }
        if record.keys() - {STARTS} == paths:  # all of them: the starts are those of a whole run
            record[STARTS] = {"cpu": round(starts, 1)}
        record = {path: record[path] for path in sorted(record)}
        lines = [f"{json.dumps(path)}: {json.dumps(entry)}" for path, entry in record.items()]
        RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
