"""A trace of a few steps of a run."""

import gzip
import json

import pytest

from mae_jax.engine.profile import Profile
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run


@pytest.mark.parametrize("steps", ["3", "5:3", "0:2", "a:b", "1:2:3"])
def test_steps_that_mean_nothing(steps):
    with pytest.raises(UserError, match="write FIRST:LAST, e.g. 20:22"):
        Profile(steps=steps, total=100)


def test_steps_that_the_run_has_not():
    Profile(steps="6:9", total=6)
    with pytest.raises(UserError, match="config.profile='7:9': the run has 6 steps"):
        Profile(steps="7:9", total=6)


def test_a_trace_is_written_when_it_is_cut_short_but_not_of_a_failure(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder, **_: calls.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    with Profile(steps="1:9", total=9, folder=tmp_path) as profile:
        profile.turn()
        profile.end()
        assert calls == ["start", "stop"]
    with pytest.raises(ValueError), Profile(steps="1:9", total=9, folder=tmp_path) as profile:
        profile.turn()
        raise ValueError
    assert calls == ["start", "stop", "start"]


def test_which_steps_are_traced(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder, **_: calls.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    for steps, first, expected in [
        ("3:4", 1, [1, 2, "start", 3, 4, "stop", 5, 6]),
        ("3:4", 4, ["start", 4, "stop", 5, 6]),  # goes on amid them
        ("3:4", 5, [5, 6]),
        ("6:9", 5, [5, "start", 6, "stop"]),  # ends before them
        ("", 5, [5, 6]),
    ]:
        calls.clear()
        with Profile(steps=steps, total=6, folder=tmp_path) as profile:
            for step in range(first, 7):
                if profile.due(step):
                    profile.turn()
                calls.append(step)
        assert calls == expected


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_writes_a_trace_of_its_steps(tmp_path, root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    command = "train", "--config", "tests/helpers/tiny.py", "--workdir", tmp_path
    options = "--config.schedule.epochs=1.0", "--config.schedule.warmup_epochs=0.0"
    assert "config.profile='2'" in mistake(capsys, *command, *options, "--config.profile=2")
    assert run(*command, *options, "--config.profile=2:3") == 0
    (path,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert len(events) > 100
