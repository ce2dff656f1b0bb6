"""Sweeps: every run once, failures and interruptions survived, one table.

One sweep has real runs. The others have small processes that only write what a run would.
"""

import json
import os
import signal
import statistics
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mae_jax import cli
from mae_jax.config import load_configs
from mae_jax.evaluate import write_results
from mae_jax.sweeps import experiments, pool
from mae_jax.train import train
from mae_jax.types import Metric, UserError
from mae_jax.weights.init_from import origin
from mae_jax.workdir import claim
from tests.helpers.commands import mistake, run
from tests.helpers.forkserver import Child
from tests.helpers.jobs import DEADLINE, environment, until
from tests.helpers.runs import losses, whole_log

CONFIG = "tests/helpers/tiny_sweep.py"

FAKE = """
import os, pathlib, signal, sys, time
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def meet(*others):
    (root / f"here{name[0]}").touch()
    end = time.monotonic() + 120
    while not all((root / f"here{other}").exists() for other in others):
        assert time.monotonic() < end
        time.sleep(0.01)
with (root / "order").open("a") as file:
    file.write(name[0])
exec(sys.argv[3])
print(os.environ.get("CUDA_VISIBLE_DEVICES"), *os.sched_getaffinity(0))
results = '{"step": 1, "results": {}, "final": {"x": {"top1": 0.5}}, "evaluators": "knn"}'
(root / name / "results.json").write_text(results)
"""


def sweep_fakes(workdir, starts, shares=None, **scripts):
    """A sweep of processes that do as FAKE says; `a='...'` is what a/x/0 does in between. The
    second letter of a start is the teacher's.
    """
    configs = {}
    for name, (first, *more) in ((name, start or [""]) for name, start in starts.items()):
        sections = dict(path=first and f"{first}/x/0")
        for other in more:
            sections["teacher"] = dict(path=f"{other}/x/0", into="extra/target/encoder")
        configs[f"{name}/x/0"] = ConfigDict(dict(init_from=sections, evals=dict(run="knn")))
    command = lambda name: [sys.executable, "-c", FAKE, workdir, name, scripts.get(name[0], "")]
    links = experiments.link(configs, workdir)
    return experiments.sweep(
        configs, workdir, command, starts=links, shares=shares or [pool.Share()]
    )


def records(workdir):
    """The lines of results.jsonl."""
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Workdir and outcome of a whole sweep with real runs, which was killed amid the first one."""
    workdir = tmp_path_factory.mktemp("sweep")
    environment_ = environment(devices=2) | {"COLUMNS": "120"}
    command = "sweep", "--config", CONFIG, "--workdir", workdir
    first = workdir / "mae/small/0"
    killed = Child("mae_jax", *command, env=environment_)
    until(lambda: losses(first), killed)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (first / "results.json").exists() and not (workdir / "mae/small/1").exists()
    again = Child("mae_jax", *command, env=environment_)
    output, error = again.communicate(2 * DEADLINE)
    return workdir, again.returncode, output, error


@pytest.mark.slow
@pytest.mark.thorough  # the other sweeps have small processes, test_train.py kills a run of its own
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


@pytest.mark.slow
@pytest.mark.thorough  # test_train.py kills a run of its own
def test_a_run_that_was_killed_ends_as_one_that_was_not(root, swept, tmp_path):
    config = load_configs(str(root / CONFIG))["mae/small/0"]
    train(config, tmp_path)
    assert whole_log(swept[0] / "mae/small/0") == whole_log(tmp_path)
    assert (
        records(swept[0])[0]["results"]
        == json.loads((tmp_path / "results.json").read_text())["final"]
    )


@pytest.fixture
def python(root, tmp_path, monkeypatch):
    """Makes `mae-jax sweep` in this process start a line of bash instead of Python."""
    monkeypatch.chdir(root)

    def replace(line):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/bash\n{line}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return replace


@pytest.fixture
def done(root, tmp_path):
    """The workdir of a sweep that has run, but for one experiment, as far as results show."""
    configs = load_configs(str(root / CONFIG))
    for knn, name in ((0.25, "mae/small/0"), (0.75, "mae/small/1")):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        claim(folder, configs[name], {})
        (folder / "checkpoints" / "8").mkdir(parents=True)
        results = {"step": 8, "results": {}, "final": {"mae": {"knn": knn}}}
        (folder / "results.json").write_text(json.dumps(results))
    return tmp_path / "sweep"


def test_what_is_done_is_not_run_again(done, tmp_path, python, capsys):
    command = "sweep", "--config", CONFIG, "--workdir", done
    python(f'echo "$@" >>{tmp_path}/started; echo no luck; exit 2')
    assert run(*command) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "mae-jax: 1 of 3 runs failed: broken/small/0"
    assert "[2/3] broken/small/0: failed after" in said.err and "no luck" in said.err
    (line,) = (tmp_path / "started").read_text().splitlines()
    options = f"--config {CONFIG} --workdir {done} --distributed off --only broken/small/0"
    assert line == f"-m mae_jax sweep {options}"
    assert [record["results"]["mae"]["knn"] for record in records(done)] == [0.25, 0.75]
    assert "50.0 ± 35.4" in said.out and "50.0 ± 35.4 |" in (done / "results.md").read_text()
    error = mistake(capsys, *command, "--config.schedule.base_lr=0.2")
    assert "workdir of another config (schedule.base_lr" in error
    assert len(records(done)) == 2


def test_declarations_of_metrics_go_with_the_results(root, done):
    """Those that are in no comparison are in no table of a sweep."""
    configs = load_configs(str(root / CONFIG))
    path = done / "mae/small/0/results.json"
    metrics = {"psnr": Metric("dB", 2)._asdict(), "head": Metric("", 0, table="")._asdict()}
    results = {"step": 8, "results": {}, "final": {"mae": {"psnr": 23.4, "head": 3.0}}}
    path.write_text(json.dumps(results | {"metrics": metrics}))
    table = experiments.collect(configs, done)
    assert table[:2] == [["", "small: psnr\xa0dB", "small: knn\xa0%"], ["mae", "23.40", "75.0"]]
    new, old = records(done)
    assert new["metrics"] == metrics and old["metrics"] == {"knn": Metric()._asdict()}


def test_results_count_for_the_evaluators_that_made_them(root, done):
    """A run that was stopped amid an evaluation by others has these in its config already."""
    config, folder = load_configs(str(root / CONFIG))["mae/small/0"], done / "mae/small/0"
    assert experiments.finished(folder, config), "older results do not say: those of its config"
    write_results(folder / "results.json", 8, {"mae": {"knn": 0.5}}, [], ended_by="knn(k=3)")
    assert experiments.finished(folder, config)
    config.evals.run = "knn(k=1)"
    claim(folder, config, {})
    assert not experiments.finished(folder, config)


def test_mistakes_of_all_experiments_are_found_before_one_runs(tmp_path, python, capsys):
    python(f"touch {tmp_path}/started")
    command = "sweep", "--config", CONFIG, "--workdir", tmp_path / "sweep"
    said = mistake(capsys, *command, "--config.evals.run=logistic(limit=0)")
    assert said.startswith("experiment mae/small/0: logistic: limit=0 must be at least 1")
    assert not list(tmp_path.glob("s[tw]*"))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_told_to_stop_it_says_how_to_go_on(tmp_path, python, monkeypatch, capsys, jobs):
    monkeypatch.setattr(pool, "PATIENCE", 2)
    tell = f"mkdir {tmp_path}/told && kill -TERM $PPID"  # the first one only
    python(f"trap 'exit 75' TERM; {tell}; while :; do sleep 0.05; done")
    command = "sweep", "--config", CONFIG, "--workdir", tmp_path, "--jobs", jobs
    assert run(*command) == 75
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "mae-jax: stopped with 3 of 3 runs left: run again to resume"
    assert (tmp_path / "broken").exists() == (jobs == "2")


@pytest.mark.slow
def test_an_experiment_starts_from_another_of_the_file(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    train(load_configs(str(root / CONFIG))["mae/small/0"], tmp_path / "mae/small/0")
    command = "sweep", "--config", f"{CONFIG}:follower", "--workdir", tmp_path
    assert run(*command, "--only", "tuned/small/0") == 0
    assert run(*command, "--only", "2") == 0  # on purpose: it is done
    assert [r["row"] for r in records(tmp_path)] == ["tuned", "mae"]
    there = json.loads((tmp_path / "tuned/small/0/origin.json").read_text())
    assert there == origin(str(tmp_path / "mae/small/0")) and there["step"] == 8


def test_starts_come_first_and_their_failures_spread(tmp_path, capsys):
    starts = dict(b="ae", a="", d="ac", c="l", l="", e="")
    failed, left = sweep_fakes(tmp_path, starts, l="raise SystemExit('no luck')")
    assert failed == {
        "l/x/0": "no luck",
        "d/x/0": "c/x/0, which it starts from, failed",
        "c/x/0": "l/x/0, which it starts from, failed",
    }
    assert left == [] and (tmp_path / "order").read_text() == "aleb"
    assert "[4/6] c/x/0: l/x/0, which it starts from, failed" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    assert sweep_fakes(tmp_path, starts) == ({}, [])
    assert (tmp_path / "order").read_text() == "aleb" + "lcd"


def test_two_at_a_time_each_with_its_devices(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "REPORT", 0)
    starts = dict(a="", b="", c="a", d="")  # c is the last one, and has all cores
    # a ends only when d is there, for which b must have ended, while c waits for a.
    scripts = dict(a="print('step 3/4', flush=True); meet('b', 'd')", b="meet('a')", d="meet()")
    core = min(os.sched_getaffinity(0))
    shares = [pool.Share(gpus="4", cores=(core,)), pool.Share(gpus="7")]
    assert sweep_fakes(tmp_path, starts, shares, **scripts) == ({}, [])
    logs = {name: (tmp_path / name / "x/0/log.txt").read_text() for name in "abcd"}
    said = {name: text.splitlines()[-1] for name, text in logs.items()}
    rest = " ".join(map(str, os.sched_getaffinity(0)))
    assert said == dict(a=f"4 {core}", b=f"7 {rest}", c=f"4 {rest}", d=f"7 {rest}")
    assert "[1/4] a/x/0: step 3/4\n" in capsys.readouterr().err
    order = (tmp_path / "order").read_text()
    assert sorted(order[:2]) == ["a", "b"] and order[2:] == "dc"


def test_a_request_to_stop_reaches_all(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 2)
    wait = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); meet('a', 'b');"
    tell = "os.kill(os.getppid(), signal.SIGTERM);"
    scripts = dict(a=f"{wait} {tell} time.sleep(600)", b=f"{wait} time.sleep(600)")
    failed, left = sweep_fakes(tmp_path, dict(a="", b="", c=""), [pool.Share()] * 2, **scripts)
    assert failed == {} and sorted(left) == ["a/x/0", "b/x/0", "c/x/0"]
    assert not (tmp_path / "c").exists()


def test_a_run_that_was_told_to_stop_stops_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 2)
    scripts = dict(a="meet('b'); sys.exit(75)", b="meet('a'); time.sleep(600)")
    failed, left = sweep_fakes(tmp_path, dict(a="", b="", c=""), [pool.Share()] * 2, **scripts)
    assert failed == {} and left == ["a/x/0", "b/x/0", "c/x/0"]
    assert not (tmp_path / "c").exists()


def test_shares(monkeypatch):
    gpus = lambda jobs: [share.gpus for share in pool.shares(jobs)]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert gpus(2) == [None, None]
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5,7")
    assert gpus(1) == [None] and gpus(2) == ["2", "GPU-5"]
    with pytest.raises(UserError, match="--jobs 4: each uses a GPU, and CUDA_.* lists 3"):
        pool.shares(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus(2) == [None, None]  # no GPU is shown that was hidden
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))  # a machine without GPUs
    assert gpus(2) == ["0", "1"]
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia3")]))
    with pytest.raises(UserError, match="--jobs 2: each uses a GPU, and this machine has 1"):
        pool.shares(2)
    with pytest.raises(UserError, match="--jobs 0"):
        pool.shares(0)


def test_cores_are_split_between_processes_on_the_cpu(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 1, 3, 5, 9})
    cores = lambda jobs: [share.cores for share in pool.shares(jobs)]
    assert cores(1) == [None] and cores(2) == [(1, 3), (5, 8, 9)]
    assert cores(5) == [(1,), (3,), (5,), (8,), (9,)] and cores(6) == [None] * 6


@pytest.mark.parametrize("starts", [dict(a="a"), dict(a="b", b="c", c="b")])
def test_circles(tmp_path, starts):
    with pytest.raises(UserError, match="has a cycle, a/x/0 from (b/x/0 from c/x/0 from b|a)/x/0:"):
        sweep_fakes(tmp_path, starts)


def test_list_and_numbers(root, done, capsys, monkeypatch):
    monkeypatch.chdir(root)
    assert run("sweep", "--config", CONFIG, "--workdir", done, "--list") == 0
    said = ["1 mae/small/0 done", "2 broken/small/0 not yet", "3 mae/small/1 done"]
    assert capsys.readouterr().out.splitlines() == said
    configs = dict.fromkeys(line.split()[1] for line in said)
    for line in said:
        number, name, *_ = line.split()
        assert experiments.chosen(number, configs, {}, done) == name
        assert experiments.chosen(name, configs, {}, done) == name
    for bad in ("0", "4", "-1"):
        with pytest.raises(UserError, match=f"--only {bad}: .* have the numbers 1 to 3"):
            experiments.chosen(bad, configs, {}, done)


def test_names():
    with pytest.raises(UserError, match="'a/b': a name must be ROW/COLUMN/SEED"):
        experiments.check({"a/b": ConfigDict()}, Path("nowhere"))
    with pytest.raises(UserError, match="ROW/COLUMN/SEED"):
        experiments.check({"a/../0": ConfigDict()}, Path("nowhere"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("sweep", "--config", CONFIG, "--only", "mae/small/2"),
            "--only mae/small/2: no such experiment: did you mean",
        ),
        (
            ("sweep", "--config", f"{CONFIG}:follower", "--only", "1"),
            "--only 1: mae/small/0, which it starts from, is not finished: run --only mae/small/0",
        ),
        (
            ("sweep", "--config", CONFIG, "--jobs", "0"),
            "--jobs 0 must be at least 1",
        ),
        (
            ("sweep", "--config", CONFIG, "--local-devices", "0"),
            "--local-devices is for a single experiment: add --only, or set CUDA_VISIBLE_DEVICES",
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
