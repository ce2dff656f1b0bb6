"""Sweeps: every run once, failures and interruptions survived, one table."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mae_jax import cli, sweep
from mae_jax.types import UserError


def start(root, workdir, *options):
    """A sweep in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "mae_jax", "sweep", "--config", "tests/tiny_sweep.py"]
        + ["--workdir", str(workdir), *options],
        cwd=root,
        env=os.environ | {"COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(workdir):
    """The lines of results.jsonl."""
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def swept(root, tmp_path_factory):
    """Workdir and outcome of a whole sweep."""
    workdir = tmp_path_factory.mktemp("sweep")
    process = start(root, workdir)
    output, error = process.communicate()
    return workdir, process.returncode, output, error


def test_one_failed_run_does_not_stop_the_rest(swept):
    workdir, code, output, error = swept
    assert code == 1
    assert error.splitlines()[-1] == "mae-jax: 1 of 3 runs failed: broken/small/0"
    said = output + error
    assert "[2/3] broken/small/0: failed after" in said and "nowhere" in said
    found = records(workdir)
    assert [(r["row"], r["column"], r["seed"]) for r in found] == [
        ("mae", "small", "0"),
        ("mae", "small", "1"),
    ]
    assert all(r["step"] == 8 and list(r["results"])[-1] == "mae" for r in found)
    knn = [100 * r["results"]["mae"]["knn"] for r in found]
    assert f"{statistics.mean(knn):.1f} ± {statistics.stdev(knn):.1f}" in said
    assert f"± {statistics.stdev(knn):.1f} |" in (workdir / "results.md").read_text()
    assert "step 8/8" in (workdir / "mae/small/0/log.txt").read_text()


def test_what_is_done_is_not_run_again(root, swept):
    workdir = swept[0]
    logs = [workdir / f"mae/small/{seed}/log.txt" for seed in (0, 1)]
    before = [log.read_text() for log in logs]
    assert start(root, workdir, "--only", "mae/small/0").wait() == 0  # on purpose: it is
    again = start(root, workdir)
    again.communicate()
    assert again.returncode == 1 and [log.read_text() for log in logs] == before
    other = start(root, workdir, "--config.schedule.base_lr=0.2")
    _, error = other.communicate()
    assert other.returncode == 2 and "workdir of another config (schedule.base_lr" in error
    assert len(records(workdir)) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_anywhere_it_ends_in_the_same_results(root, swept, tmp_path, number):
    process = start(root, tmp_path)
    metrics = tmp_path / "mae/small/0/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 75 and "start again to go on" in error
    assert not (tmp_path / "mae/small/1").exists()
    assert start(root, tmp_path).wait() == 1
    assert records(tmp_path) == records(swept[0])


def test_names_and_spread():
    with pytest.raises(UserError, match="'a/b': a name must be ROW/COLUMN/SEED"):
        sweep.check({"a/b": ConfigDict()}, Path("nowhere"))
    with pytest.raises(UserError, match="ROW/COLUMN/SEED"):
        sweep.check({"a/../0": ConfigDict()}, Path("nowhere"))
    assert sweep.spread("top1", [0.5, 0.7]) == "60.0 ± 14.1"
    assert sweep.spread("nll", [1.5]) == "1.500" and sweep.spread("top1", []) == ""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("sweep", "--config", "tests/tiny_sweep.py", "--only", "mae/small/2"),
            "--only mae/small/2: no such experiment: did you mean",
        ),
        (
            ("sweep", "--config", "configs/mae.py:L/16"),
            "configs/mae.py has no function get_configs(arg): it is for `mae-jax train`",
        ),
        (
            ("train", "--config", "configs/low_shot.py:scenes"),
            "configs/low_shot.py has no function get_config(arg): it is for `mae-jax sweep`",
        ),
    ],
)
def test_mistakes(command, message, capsys, root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(command))
    assert exit_.value.code == 2 and message in capsys.readouterr().err
