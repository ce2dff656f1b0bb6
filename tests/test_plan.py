"""What a run reports before it trains and after it has finished, on gray images."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax import evaluate, plan, train
from mae_jax.checks import explained_by_images
from mae_jax.config import load_config
from mae_jax.data.sources import Statistics
from mae_jax.data.sources.folder import Folder
from mae_jax.engine.checkpoint import OtherModel
from mae_jax.progress import Progress
from mae_jax.restore import load_run
from mae_jax.run import Run, build
from mae_jax.settings import make_eval_plan
from mae_jax.types import UserError
from mae_jax.workdir import recorded
from tests.helpers.commands import mistake, run


@pytest.fixture(scope="module")
def gray(root, tmp_path_factory):
    """A workdir of a run of two steps on gray images that were measured, with its last checkpoint,
    as if it had been told to stop there; the command; the changes in the config.
    """
    folder = tmp_path_factory.mktemp("gray")
    rng = np.random.default_rng(0)
    for number in range(16):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)
    source = f"folder({str(folder / 'images')!r}, channels=1)"
    changes = [f"data.train={source}", f"data.test={source}", "schedule.epochs=1.0"]
    changes += ["schedule.warmup_epochs=0.5", "evals.run=knn(k=1)", "evals.figures=auto"]
    command = ["train", "--config", root / "tests/helpers/tiny.py", "--workdir", folder / "run"]
    command += [f"--config.{change}" for change in changes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "statistics", Statistics((0.1307,), (0.3081,)))
        patch.setattr(train, "loop", only_the_last_step)
        patch.setattr(Run, "compile", lambda run: (None, COSTS))
        patch.setattr(evaluate, "finish", lambda *arguments: None)
        assert run(*command) == 0
    return folder, command, changes


def only_the_last_step(run, train_step, state, checkpoints, *more):
    """In place of the loop: nothing is compiled."""
    state = state.replace(step=jax.device_put(np.int32(run.plan.steps), state.step.sharding))
    checkpoints.save(state, run.plan.steps)
    return state


COSTS = dict(step_megabytes=1.0, image=[8, 12, 1], attention=[])


def config(root, changes, *more):
    return load_config(str(root / "tests" / "helpers" / "tiny.py"), [*changes, *more])


def test_measured_values_are_recorded_and_stay(root, gray):
    folder, _, changes = gray
    args = json.loads((folder / "run" / "config.json").read_text())["method"]["args"]
    assert (args["mean"], args["std"]) == ([0.1307], [0.3081])
    again = build(config(root, changes), recorded(folder / "run"))  # nothing is measured now
    assert again.config.method.args.mean == (0.1307,)
    assert again.notes == [
        "config.method.args: mean=(0.1307,) and std=(0.3081,) for images of 1 channel, as recorded "
        "in the workdir"
    ]
    fresh = build(config(root, changes))
    assert fresh.method.mean == (0.5,) and "nothing was measured" in fresh.notes[0]


def test_a_task_takes_the_values_of_its_start(root, gray):
    folder, _, changes = gray
    task = load_config(
        "tests/helpers/tiny_tasks.py:finetune",
        [*changes[:2], f"init_from.path={folder / 'run'}", "method.args.classes=2"],
    )
    made = build(task)
    assert made.method.mean == (0.1307,) and made.method.std == (0.3081,)
    assert f"as in {folder / 'run'}" in made.notes[0]


def test_a_finished_run_is_not_evaluated_again(capsys, gray, monkeypatch):
    folder, command, _ = gray
    finishing = []
    monkeypatch.setattr(evaluate, "finish", lambda *arguments: finishing.append(arguments))
    results, figures = folder / "run" / "results.json", folder / "run" / "figures"
    assert run(*command) == 0 and len(finishing) == 1, "it has all steps, but no results"
    evaluate.write_results(results, 2, {"mae": {"knn": 0.5}}, [], ended_by="knn(k=1)")
    assert run(*command) == 0 and len(finishing) == 2, "it has no figures"
    figures.mkdir()
    for name in ("curves.png", "reconstructions.png"):
        (figures / name).touch()
    evaluate.write_results(results, 2, {"mae": {"logistic": 0.25}}, [])  # by mae-jax evaluate
    before = results.read_bytes()
    capsys.readouterr()
    assert run(*command) == 0 and len(finishing) == 2
    said = capsys.readouterr().err
    assert f"finished: {folder / 'run'} has all 2 steps and their evaluation" in said
    assert results.read_bytes() == before
    assert run(*command[:-1], "--config.evals.run=knn(k=2)") == 0 and len(finishing) == 3


def test_an_evaluation_reports_what_it_does(capsys, root):
    data = build(config(root, [])).data
    with Progress(data, 2) as progress:
        for name in ("raw pixels", "mae"):
            progress.turn(name)
            progress.begin("knn")
            progress.reported -= 60  # a minute ago
            assert len(list(progress.eval("test"))) == 2  # 12 images, 8 in a batch
    assert capsys.readouterr().err.splitlines() == [
        "evaluating raw pixels (1 of 2): knn",
        "evaluating raw pixels (1 of 2): knn, test batch 1 of 2",
        "evaluating mae (2 of 2): knn",
        "evaluating mae (2 of 2): knn, test batch 1 of 2",
    ]


def test_baselines_are_left_out_where_the_config_says_so(root, monkeypatch):
    data = build(config(root, [])).data
    names = ["raw pixels", "random encoder", "mae"]
    run = SimpleNamespace(data=data, name="mae", representations=lambda _: dict.fromkeys(names))
    monkeypatch.setattr(evaluate, "run_evaluators", lambda *_: {"knn": 0.5})
    evaluators = make_eval_plan(every=0, run="knn", baselines=False).evaluators
    assert [*evaluate.evaluate(run, None, evaluators)] == names
    assert [*evaluate.evaluate(run, None, evaluators, baselines=False)] == ["mae"]


@pytest.mark.parametrize("command", ["features", "reconstruct", "evaluate", "export"])
def test_color_images_to_a_gray_run(capsys, gray, tmp_path, command):
    folder = gray[0]
    colors = f"folder({str(folder / 'images')!r})"
    words = ["weights", "export", "--format", "stablehlo"] if command == "export" else [command]
    more = {"evaluate": ["--evals", "knn(k=1)"]}.get(command, ["--out", tmp_path / "f.npz"])
    more = ["--out", tmp_path / "f.png"] if command == "reconstruct" else more
    said = mistake(capsys, *words, "--run", folder / "run", "--images", colors, *more)
    assert "1 channel" in said and "3" in said and "channels" in said, said
    assert "opt_state" not in said and "bias" not in said


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ((8, 12, 3), "runs/a was trained on images of 3 channel(s), and these have 1: read them"),
        ((16, 12, 1), "was trained on images of 16 x 12 pixels, and these have 8 x 12: positions"),
        ((8, 12, 1), "positions differ"),
        (None, "positions differ"),
    ],
)
def test_parameters_that_do_not_fit_name_the_images(root, gray, theirs, message):
    data = build(config(root, gray[2])).data
    with pytest.raises(UserError) as error, explained_by_images("runs/a", theirs, data):
        raise OtherModel("positions differ")
    assert message in str(error.value)


def test_other_splits_of_other_channels(capsys, root, gray, tmp_path):
    folder, command, _ = gray
    colors = f"--config.data.test=folder({str(folder / 'images')!r})"
    said = mistake(capsys, *command[:3], "--workdir", tmp_path / "run", *command[5:], colors)
    assert "1 channel(s) in config.data.train and 3 in config.data.test" in said


def test_check_prints_the_plan_and_writes_nothing(capsys, root, gray, tmp_path):
    command = [*gray[1][:3], "--workdir", tmp_path / "run", "--check", *gray[1][5:]]
    assert run(*command) == 0
    printed = capsys.readouterr().out
    for words in (
        "2 classes: a 8, b 8",
        "mae: 0.00 M parameters, 16 images, 2 cpu device(s), 2 steps of a batch of 8",
        "mean=(0.5,) and std=(0.25,)",
        # of 8 images of 8 x 12 bytes and a label of 4, each of the two devices has half
        "for the train state (parameters and moments) and 400 bytes for a batch",
    ):
        assert words in printed, printed
    assert not list(tmp_path.iterdir())
    odd = mistake(capsys, *command, "--config.evals.run=knn(k=17)")
    assert odd == "knn needs 17 training examples, and there are only 16: lower k"
    assert not list(tmp_path.iterdir())
    assert run(*gray[1], "--check") == 0 and "resuming from step 2" in capsys.readouterr().out
    there = [*gray[1], "--check", "--config.method.args.mask_ratio=0.5"]
    assert "mask_ratio: 0.75 there, 0.5 now" in mistake(capsys, *there)


def test_check_traces_the_loss(capsys, root, gray, tmp_path):
    options = ["--workdir", tmp_path / "run", "--check", f"--config.{gray[2][0]}"]
    config_ = root / "tests/helpers/tiny_methods.py"
    said = mistake(
        capsys, "train", "--config", f"{config_}:colorization", "--config.data.test=", *options
    )
    assert "colorization cannot learn colors from images of 1 channels" in said


@pytest.mark.parametrize(
    ("epochs", "warmup", "said"),
    [(2.0, 1.0, ""), (1.5, 1.0, "hardly falls"), (1.0, 1.0, "ends at its peak")],
)
def test_a_long_warm_up_is_reported(root, epochs, warmup, said):
    more = [f"schedule.epochs={epochs}", f"schedule.warmup_epochs={warmup}"]
    lines = plan.warm_up(build(config(root, [], *more)))
    assert bool(lines) == bool(said)
    assert all(said in line and "lower config.schedule.warmup_epochs=1" in line for line in lines)


def test_a_run_is_loaded_whatever_its_schedule_means_for_other_batches(gray, tmp_path):
    """Nor does its config need to name its examples, what is traced, or options of a compiler."""
    config_ = json.loads((gray[0] / "run" / "config.json").read_text())
    del config_["fingerprints"], config_["compiler"]
    config_["profile"], config_["schedule"]["min_lr"] = "20:22", config_["schedule"]["base_lr"]
    (tmp_path / "checkpoints").symlink_to(gray[0] / "run" / "checkpoints")
    (tmp_path / "config.json").write_text(json.dumps(config_))
    assert load_run(tmp_path)[0].data.num_examples == 16
