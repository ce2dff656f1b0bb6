"""Projects beside the library: every kind of extension, texts without images, segmentations, and
images of one, two and three dimensions, through the commands of `mae-jax`.
"""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mae_jax import project
from mae_jax.bench import step as bench_step
from mae_jax.workdir import last_step
from tests.helpers.commands import mistake, run
from tests.helpers.jobs import ROOT
from tests.helpers.runs import whole_log

EXAMPLE = ROOT / "tests" / "example_project"


def train_twice(config, workdir):
    """Trains, loses the last checkpoint, and goes on from the one before it."""
    assert run("train", "--config", config, "--workdir", workdir) == 0
    log, last = whole_log(workdir), last_step(workdir)
    shutil.rmtree(workdir / "checkpoints" / str(last))
    assert run("train", "--config", config, "--workdir", workdir) == 0
    assert whole_log(workdir) == log, "goes on to the bit"


def results(workdir):
    """Representation -> metric -> value."""
    return json.loads((workdir / "results.json").read_text())["results"]


THOROUGH = pytest.mark.thorough


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=THOROUGH) for name in ("signal", "image", "volume")],
)
def test_masked_autoencoders_of_any_rank(name, at, tmp_path):
    at(EXAMPLE)
    workdir = tmp_path / name
    train_twice(f"experiments.py:{name}", workdir)
    assert [*results(workdir)] == ["raw pixels", "random encoder", "mae"]
    assert run("evaluate", "--run", workdir, "--evals", "logistic(l2=0.1)") == 0
    assert {"knn", "logistic"} <= results(workdir)["mae"].keys()
    assert run("reconstruct", "--run", workdir, "--count", 3, "--out", tmp_path / "out.png") == 0
    assert (tmp_path / "out.png").stat().st_size > 5000
    check_export(workdir, tmp_path / "function", "features")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, output, metrics",
    [
        pytest.param("words", "features", ["knn", "logistic"], marks=THOROUGH),
        pytest.param("segment", "segmentation", ["miou", "knn"], marks=THOROUGH),
    ],
)
def test_texts_and_segmentations(name, output, metrics, at, tmp_path):
    """They train and go on, are evaluated and exported like any other."""
    at(EXAMPLE)
    workdir = tmp_path / name
    train_twice(f"experiments.py:{name}", workdir)
    assert {*metrics} <= [*results(workdir).values()][-1].keys()
    assert run("evaluate", "--run", workdir, "--evals", "knn(k=1)") == 0
    check_export(workdir, tmp_path / "function", output)


def check_export(workdir, out, output):
    """A function without the library, of a batch of any size."""
    export = ["weights", "export", "--run", workdir, "--format", "stablehlo", "--out", out]
    assert run(*export, "--output", output) == 0
    described = json.loads((out / "meta.json").read_text())["input"]
    function = jax.export.deserialize((out / "function.stablehlo").read_bytes())
    inputs = np.zeros((3, *described["shape"][1:]), described["dtype"])
    made = function.call(load_file(out / "weights.safetensors"), inputs)
    assert len(made) == 3 and np.isfinite(made).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=THOROUGH) for name in ("words", "segment", "signal")]
)
def test_their_steps_are_measured(name, at, tmp_path, monkeypatch):
    monkeypatch.setitem(bench_step.SIDES, "cpu", (64, 128))  # products that take no time
    at(EXAMPLE)
    measured = tmp_path / "bench.json"
    bench = ["bench", "step", "--turns", 1, "--seconds", 0.01, "--out", measured]
    assert run(*bench, "--config", f"experiments.py:{name}") == 0
    assert json.loads(measured.read_text())["images_per_second"]


@pytest.mark.slow
@THOROUGH  # test_extensions.py builds each kind
@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_file_of_each_kind(all_of_them, at, tmp_path, capsys):
    """What `mae-jax init --extensions` writes runs as it is."""
    assert run("init", tmp_path / "mine", "--extensions") == 0
    at(tmp_path / "mine")
    sweep = ["sweep", "--config", "extended.py", "--workdir", tmp_path / "sweep"]
    masked = tmp_path / "sweep" / "masked" / "stripes" / "0"  # the first run of the sweep
    assert run("train", "--config", "extended.py", "--workdir", masked) == 0
    assert {"class_spread", "knn"} == results(masked)["mae"].keys()
    assert (masked / "figures" / "features.png").is_file()
    if not all_of_them:
        return
    task = ["--config", "extended.py:task", f"--config.init_from.path={masked}"]
    assert run("train", *task, "--workdir", tmp_path / "task") == 0
    spec = "classify|my_project.evaluator(classes=4)"
    assert run("evaluate", "--run", tmp_path / "task", "--evals", spec) == 0
    assert results(tmp_path / "task")["my_project.task"].keys() >= {"top1", "class_spread"}
    assert run(*sweep, "--only", "method/stripes/0") == 0  # in this process
    assert run(*sweep) == 0
    line = json.loads((tmp_path / "sweep" / "results.jsonl").read_text().splitlines()[1])
    assert line["row"] == "method" and line["metrics"]["class_spread"]["decimals"] == 3
    capsys.readouterr()


def test_a_missing_or_broken_module_is_one_line(at, tmp_path, capsys):
    project.init(tmp_path / "mine", extensions=True)
    at(tmp_path / "mine")
    broken = tmp_path / "mine" / "my_project" / "broken.py"
    broken.write_text("def make():\n    return 1 / 0\n")
    train = ["train", "--check", "--config", "extended.py"]
    cases = {
        "method.args.mask=my_project.absent": "no module 'absent' in my_project",
        "method.args.target=my_project.broken": f"{broken}, line 2: ZeroDivisionError",
        "evals.run=my_project.mask": "must return a mae_jax.evals.features.Evaluator",
        "evals.figures=my_project.target": "must return a mae_jax.figures.figure.Figure",
        "log.writers=my_project.figure": "must return a mae_jax.writers.writer.Writer",
        "data.train_transform=my_project.mask": "must return a mae_jax.data.transforms.Transform",
    }
    for change, said in cases.items():
        assert said in mistake(capsys, *train, f"--config.{change}"), change
