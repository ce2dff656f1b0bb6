"""What the tests may cost, by what was measured when they were last recorded."""

import pytest

from tests.helpers import durations

LIMIT = 1150
"""Seconds of CPU of all tests but those marked thorough, without a compilation cache: ten minutes
of two cores."""
QUICK_LIMIT = 850
"""The same of those that are not marked as slow either."""


@pytest.fixture(autouse=True)
def not_while_recording(request):
    """Then it is about to change."""
    if request.config.getoption("record_durations"):
        pytest.skip("recording")


def test_every_file_is_recorded_and_within_its_limit():
    record = durations.recorded()
    paths = (durations.ROOT / "tests").rglob("test_*.py")
    files = {path.relative_to(durations.ROOT).as_posix() for path in paths}
    known = {path for path, entry in record.items() if path in files and counts(path, entry)}
    again = " ".join(sorted(files - known))
    assert not again, f"run: bash launch/test.sh --record-durations {again}"
    large = [path for path in files if record[path]["cpu"] > durations.FILE_LIMIT]
    assert not large, f"over {durations.FILE_LIMIT} s of CPU: {large}"


def counts(path, entry):
    """Whether a file has the tests that were measured."""
    return entry["tests"] == len(durations.test_functions(path))


def test_all_files_are_within_the_limit():
    record = durations.recorded()
    starts = record[durations.STARTS]["cpu"]
    files = [entry for path, entry in record.items() if path != durations.STARTS]
    assert starts + sum(entry["cpu"] for entry in files) <= LIMIT
    assert starts + sum(entry["cpu"] - entry["slow"] for entry in files) <= QUICK_LIMIT
