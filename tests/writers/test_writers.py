"""What services receive of a run: everything once, also after a resume, a failure of the network or
a change of the config; whatever a service does, the run goes on.
"""

import importlib.machinery
import json
import shutil
import sys

import numpy as np
import pytest

from mae_jax.engine import log as logs
from mae_jax.engine.log import Log
from mae_jax.plan import check
from mae_jax.run import Run
from mae_jax.settings import make_log_plan
from mae_jax.train import train
from mae_jax.types import Metric, UserError
from mae_jax.writers import delivery
from mae_jax.writers.delivery import Writers
from mae_jax.writers.writer import Writer
from tests.helpers import services
from tests.helpers.runs import tiny, whole_log

PIXELS = np.zeros((4, 6, 3), np.uint8)
RESULTS = {"raw pixels": {"knn": 0.25}, "mae": {"knn": 0.5, "rank": 3.0}}
METRICS = {"knn": Metric(), "rank": Metric(unit="", decimals=0)}
CONFIG = {"seed": 0, "method": {"name": "mae", "args": {"mean": (0.5,)}}}
BOTH = "wandb(project=cells, mode=offline)|mlflow(cells)"


@pytest.fixture
def service(monkeypatch):
    """Stand-ins for both packages, each with its own service: (of wandb, of mlflow)."""
    both = services.Service(), services.Service()
    for made, module in zip(both, (services.wandb, services.mlflow), strict=True):
        stand_in = module(made)
        stand_in.__spec__ = importlib.machinery.ModuleSpec(stand_in.__name__, None)
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    return both


@pytest.fixture
def clock(monkeypatch):
    """The time of the deliveries, in seconds: clock[0]."""
    now = [0.0]
    monkeypatch.setattr(delivery.time, "monotonic", lambda: now[0])
    return now


class Faulty(Writer):
    """A writer whose calls fail while `down`."""

    def __init__(self, down=()):
        self.down, self.calls = set(down), []

    def _take(self, kind, *values):
        if kind in self.down:
            raise OSError(f"no {kind}\nmore")
        self.calls.append((kind, *values))

    def start(self, session):
        self._take("start", session.start)

    def scalars(self, step, values, wall_time):
        self._take("scalars", step, values["loss"])

    def image(self, step, name, pixels, text, wall_time):
        self._take("image", step)

    def results(self, step, results, metrics, wall_time):
        self._take("results", step)

    def finish(self, *, failed):
        self._take("finish", failed)


def opened(folder, writers, lines=None):
    """The writers of a run, which print into `lines`."""
    if isinstance(writers, str):
        writers = make_log_plan(every=1, writers=writers).writers
    printed = [] if lines is None else lines
    return Writers(writers, workdir=folder, config=CONFIG, report=printed.append)


def logged(folder, writers, steps, start=0, lines=None):
    """A log of some steps, with a picture at the last."""
    made = opened(folder, writers, lines)
    with made, Log(workdir=folder, start=start, total=99, every=1, writers=made) as log:
        for step in steps:
            log.write(step, {"loss": float(step)})
        log.picture(steps[-1], "reconstructions", PIXELS, "rows: a; b")
    return made


def test_services_receive_the_whole_run_once(service, tmp_path, clock):
    wandb, mlflow = service
    logged(tmp_path, BOTH, range(1, 6))
    for _ in range(2):  # the second time, all was sent
        with opened(tmp_path, BOTH) as again:
            again.start(3, lambda: logs.read(tmp_path / "metrics.jsonl"))
            for step in (4, 5, 6):
                again.scalars(step, {"loss": float(step), "lr": 1.0}, 0.0)
            again.scalars(5, {"eval/knn": 0.5}, 0.0)  # cut short the first time
            for step in (5, 6):
                again.image(step, "reconstructions", PIXELS, "again")
            again.results(6, RESULTS, METRICS)
    for one in service:
        assert one.series("loss") == [(step, float(step)) for step in range(1, 7)]
        assert one.series("eval/knn") == [(5, 0.5)], "it is another kind than a step"
    (run,) = wandb.runs.values()
    shape = (4, 6, 3)
    assert run["images"] == [
        (5, "reconstructions", shape, "rows: a; b"),
        (6, "reconstructions", shape, "again"),
    ]
    assert run["config"] == CONFIG and run["status"] == 0
    assert run["summary"] == {
        "results/raw pixels/knn": 0.25,
        "results/mae/knn": 0.5,
        "results/mae/rank": 3.0,
    }
    table = [["features", "knn %", "rank"], ["raw pixels", "25.0", "–"], ["mae", "50.0", "3"]]
    assert wandb.series("results") == [(6, table)]
    starts = [(start["id"], start["mode"], start["project"]) for start in wandb.starts]
    assert len({*starts}) == 1 and len(starts) == 3 and starts[0][1:] == ("offline", "cells")
    (run,) = mlflow.runs.values()
    assert [image[:2] for image in run["images"]] == [
        (5, "reconstructions"),
        (6, "reconstructions"),
    ]
    assert (
        run["files"]["results.json"] == RESULTS
        and "| mae | 50.0 | 3 |" in run["files"]["results.md"]
    )
    assert run["config"] == {"seed": "0", "method.name": "mae", "method.args.mean": "(0.5,)"}
    assert mlflow.series("results/mae/rank") == [(6, 3.0)]
    assert mlflow.uri == "http://tracking" and run["status"] == "FINISHED"
    assert mlflow.starts == ["run0"] * 3


def test_a_writer_that_is_added_receives_the_earlier_lines(service, tmp_path, clock):
    logged(tmp_path, "tensorboard", range(1, 6))
    assert not (tmp_path / delivery.FILE).exists()
    logged(tmp_path, "tensorboard|wandb", (4, 5), start=3)
    assert service[0].series("loss") == [(step, float(step)) for step in range(1, 6)]


def test_without_a_checkpoint_it_is_another_run(service, tmp_path, clock):
    for _ in range(2):
        logged(tmp_path, "mlflow", (1, 2))
    assert [len(run["logged"]) for run in service[1].runs.values()] == [2, 2]


def test_mlflow_offline_is_in_the_workdir(service, tmp_path, clock):
    logged(tmp_path, "mlflow(mode=offline)", (1,))
    assert service[1].uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert service[1].experiment == ("mae_jax", (tmp_path / "mlruns").as_uri())


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("wandb(a, entity=lab)", "wandb(b)", "is logged to the W&B project lab/a"),
        ("mlflow(a)", "mlflow(a, uri='http://b')", "experiment a at http://tracking"),
    ],
)
def test_another_project_is_refused(service, tmp_path, clock, first, second, said):
    logged(tmp_path, first, (1, 2))
    with pytest.raises(UserError, match=said):
        logged(tmp_path, second, (3,), start=2)


def test_no_login_ends_the_run_before_it_starts(service, tmp_path, monkeypatch):
    service[0].down = "no login"
    no_arrays = lambda self: self.abstract_state.replace(step=0)
    monkeypatch.setattr(Run, "loaded_state", no_arrays)  # it comes before the step is compiled
    with pytest.raises(UserError, match=r"W&B: api_key not .* more: run wandb login, or write"):
        train(tiny("log.writers=wandb"), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_network_that_fails_loses_nothing(service, tmp_path, clock):
    lines, made = [], opened(tmp_path, BOTH, [])
    made.report = lines.append
    with made, Log(workdir=tmp_path, start=0, total=99, every=1, writers=made) as log:
        for step in range(1, 9):
            clock[0] += 1
            service[0].down = service[1].down = 3 <= step < 7
            log.write(step, {"loss": float(step)})
        assert service[0].series("loss") == [(1, 1.0), (2, 2.0)], "it is left alone for a while"
        clock[0] += delivery.PAUSE
        log.write(9, {"loss": 9.0})
    for one in service:
        assert one.series("loss") == [(step, float(step)) for step in range(1, 10)]
    assert sorted(lines) == [
        f"{name}{text}"
        for name in ("mlflow", "wandb")
        for text in (
            " failed (ConnectionError: no route to the service): the run goes on, its values are "
            "in metrics.jsonl, and further failures are counted only",
            ": 1 call(s) failed; all was sent",
        )
    ]


def test_what_was_not_sent_is_sent_after_a_resume(tmp_path, clock):
    lines, writer = [], Faulty(["scalars", "image"])
    logged(tmp_path, {"mine": writer}, (1, 2, 3), lines=lines)
    assert writer.calls == [("start", 0), ("finish", False)]
    assert lines[0].startswith("mine failed (OSError: no scalars): the run goes on")
    assert lines[1:] == ["mine: 2 call(s) failed; 4 were not sent"], "when it came and at the end"
    again = Faulty()
    logged(tmp_path, {"mine": again}, (3, 4), start=2)
    sent = [("scalars", step, float(step)) for step in (1, 2, 3, 4)]
    assert again.calls == [("start", 2), *sent, ("image", 4), ("finish", False)]


def test_a_service_that_never_starts_or_ends(tmp_path, clock):
    lines, writer = [], Faulty(["start"])
    logged(tmp_path, {"mine": writer}, (1, 2), lines=lines)
    assert not writer.calls and lines[-1] == "mine: 2 call(s) failed; 3 were not sent"
    lines, writer = [], Faulty(["finish"])
    logged(tmp_path, {"mine": writer}, (1, 2), lines=lines)
    assert lines[-1] == "mine: 1 call(s) failed; all was sent"


def test_a_value_that_is_rejected_blocks_others_for_a_while_only(tmp_path, clock):
    writer, lines = Faulty(["image"]), []
    made = opened(tmp_path, {"mine": writer}, lines)
    with made:
        made.start(0, lambda: [])
        for step in range(1, 30):
            if step in (2, 4):
                made.image(step, "a", PIXELS, "")
            clock[0] += delivery.PAUSE
            made.scalars(step, {"loss": float(step)}, 0.0)
    assert [call[1] for call in writer.calls if call[0] == "scalars"] == [*range(1, 30)]
    assert lines[-1].endswith("; 2 were not sent"), "the newest picture, and one it replaced"


def test_an_interrupted_run_has_failed_there(service, tmp_path, clock):
    with pytest.raises(RuntimeError), opened(tmp_path, BOTH) as made:
        made.start(0, lambda: [])
        raise RuntimeError
    assert [run["status"] for one in service for run in one.runs.values()] == [1, "FAILED"]


def test_a_missing_package_is_one_line_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = "config.log.writers: {0} is not installed: pip install {0}"
    for name in ("wandb", "mlflow"):
        with pytest.raises(UserError) as error:
            opened(tmp_path, f"tensorboard|{name}")
        assert str(error.value) == said.format(name)
    with pytest.raises(UserError, match="wandb is not installed"):
        check(tiny("log.writers=wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wandb|wandb(b)", "config.log.writers=wandb|wandb(b): wandb is there twice: drop one"),
        ("wandb(mode=on)", "wandb: mode 'on' is unknown: choose , online, offline"),
        ("wandb(projekt=a)", "there is no 'projekt': did you mean 'project'"),
        ("tensorbord", "did you mean 'tensorboard'"),
        ("mlflow(uri='a', mode=offline)", "exclude each other"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(UserError) as error:
        make_log_plan(every=1, writers=text)
    assert said in str(error.value)


def test_damaged_notes_are_named(tmp_path, service):
    (tmp_path / delivery.FILE).write_text('{"wandb": 3}')
    with opened(tmp_path, "wandb") as made, pytest.raises(UserError, match="writers.json is dam"):
        made.start(3, lambda: [])


@pytest.mark.slow
@pytest.mark.thorough  # two compiled runs; the parts of it are above
def test_a_run_that_resumes_continues_there(service, tmp_path):
    """With its evaluations and the final table, which the last start writes."""
    short = ("schedule.epochs=1.0", "schedule.warmup_epochs=0.0", "checkpoint.every=2")
    config = tiny(*short, "evals.run=knn(k=3)", "evals.every=2", f"log.writers=tensorboard|{BOTH}")
    train(config, tmp_path)
    log = whole_log(tmp_path)
    first = json.dumps([one.series("loss") for one in service])
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    train(config, tmp_path)
    assert whole_log(tmp_path) == log
    assert json.dumps([one.series("loss") for one in service]) == first
    knn = json.loads((tmp_path / "results.json").read_text())["results"]["mae"]["knn"]
    for one in service:
        assert [step for step, _ in one.series("loss")] == [1, 2, 3, 4]
        assert [step for step, _ in one.series("eval/knn")] == [0, 2, 4]
        assert one.series("eval/knn")[-1] == (4, knn)
    assert len(service[0].starts) == len(service[1].starts) == 2
    assert service[0].runs.popitem()[1]["summary"]["results/mae/knn"] == knn
