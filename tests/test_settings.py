"""What a config alone determines is checked before any data are opened, and before memory is."""

import dataclasses

import pytest

from mae_jax.config import load_config
from mae_jax.run import build
from mae_jax.settings import make_evaluators
from mae_jax.types import UserError
from tests.helpers.commands import mistake


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evals.run=logistic(limit=0)", "logistic: limit=0 must be at least 1"),
        ("evals.run=knn(limit=-1)", "knn: limit=-1 must be at least 1"),
        ("evals.run=classify(limit=0)", "classify: limit=0 must be at least 1"),
        ("evals.run=robustness(limit=0)", "robustness: limit=0 must be at least 1"),
        ("evals.run=knn(limit=5, k=6)", "k=6 neighbors of limit=5 training examples"),
        ("evals.run=knn(temperature=1e999)", "must be finite in float32"),
        ("evals.run=knm", "did you mean 'knn'?"),
        ("evals.every=-1", "config.evals.every=-1 must be 0"),
        ("log.every=0", "config.log.every=0 must be at least 1"),
        ("checkpoint.every=0", "config.checkpoint: every=0, keep=2: need every >= 1 and keep >= 2"),
        ("checkpoint.every=-1", "need every >= 1"),
        ("checkpoint.keep=0", "keep >= 2"),
        ("schedule.epochs=0.0", "epochs=0.0 must be positive"),
        ("schedule.warmup_epochs=11.0", "warmup_epochs=11.0 is longer than the run"),
        ("schedule.base_lr=0.0", "base_lr=0.0 must be positive"),
        ("mesh.fsdp=3", "does not cover 2 devices"),
        ("accumulate=3", "is not divisible by 2 devices x 3"),
        ("profile=20", "write FIRST:LAST"),
        ("compiler.gpu=fast", "config.compiler.gpu: 'fast' is not an option: write xla_NAME=VALUE"),
        ("schedule.min_lr=0.1", "min_lr=0.1 is above the peak learning rate, 0.00313"),
        ("evals.run=knn(k=1)|knn(k=2)", "knn is there twice, and its metrics would overwrite each"),
        ("evals.run=probe", "probe: there is no 'val' split: config.data.held_out is 0"),
        ("data.test=folder(/photos)", "and a path in quotes, folder('photos/a')"),
        ("max_skipped=0", "config.max_skipped=0 must be at least 1"),
        (f"seed={2**70}", "config: seed=1180591620717411303424 is too large"),
        ("data.batch_size=0", "config.data.batch_size=0 must be from 1 to"),
        ("method.args.mean=0.5", "write a tuple, such as (0.5,), or auto"),
        ("method.args.loss=huber", "choose mse, l1"),
        ("method.args.mean=(0.5, 2.0)", "config.method.args.mean=(0.5, 2.0) is outside [0, 1]"),
        ("method.args.std=(0.0,)", "config.method.args.std=(0.0,) must be positive"),
        ("optimizer.b1=1.0", "must be in [0, 1)"),
        ("data.train_transform=flop", "did you mean 'flip'?"),
        ("data.eval_transform=resize(0)", "size 0 should be a positive number"),
        ("data.subset=half", "write share(...) or per_class(...)"),
        ("data.held_out=1.0", "held_out 1.0: give a share in (0, 1)"),
        ("data.test=foldr('x')", "did you mean 'folder'?"),
        ("data.test=folder('x', chanels=1)", "did you mean 'channels'?"),
        (
            "method.args.encoder=vit(width=16, depth=1000000, heads=2)",
            "depth 1000000 may be at most",
        ),
        (
            "method.args.encoder=convnext(widths=(8,), depths=(1000000,))",
            "depth 1000000 may be at most",
        ),
        ("method.args.encoder=vit(Ti, mlp_ratio=1e300)", "1e+300 may be at most 2147483647"),
        ("method.args.decoder_depth=1000000", "decoder: depth 1000000 may be at most"),
        ("method.args.decoder_width=4000000000", "decoder_width: 4000000000 may be at most"),
    ],
)
def test_mistakes_are_found_before_data_are_opened(root, override, message):
    missing = "data.train=folder('nowhere')"
    with pytest.raises(UserError) as error:
        build(load_config(str(root / "tests" / "helpers" / "tiny.py"), [missing, override]))
    assert message in str(error.value), error.value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "method.args.encoder=vit(width=100000, depth=4, heads=4, patch=4)",
            "the model needs 1.92 TB on each of 2 devices, which share the memory, and",
        ),
        ("method.args.decoder_width=100000", "the model needs 480 GB on each of 2 devices"),
        ("data.batch_size=2000000000", "a batch of 2000000000 images"),
        (
            "data.train_transform=random_resized_crop(10000); data.batch_size=100000",
            "config.data.train_transform needs 5 TB on each of 2 devices",
        ),
        (
            "data.eval_transform=resize(10000); data.batch_size=100000",
            "config.data.eval_transform needs 5 TB on each of 2 devices",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_made(capsys, root, tmp_path, override, message):
    arguments = ["--config", root / "tests/helpers/tiny.py", "--workdir", tmp_path / "run"]
    changes = [f"--config.{change}" for change in override.split("; ")]
    said = mistake(capsys, "train", *arguments, *changes)
    assert message in said and " are free: " in said
    assert not (tmp_path / "run").exists()


def test_evaluators_that_do_not_fit_are_refused_before_training(root, monkeypatch):
    config = load_config(str(root / "tests" / "helpers" / "tiny.py"), ["evals.run=logistic"])
    made = build(config)
    # 32 examples of width 16 in 10 classes: 32 * 26 + 16^2 + 20 * 17 * 10 numbers of 4 bytes
    needed = 4 * (32 * 26 + 256 + 3400)
    monkeypatch.setattr("mae_jax.engine.memory.free_memory", lambda: needed)
    made.check_evaluators(made.evals.evaluators)
    monkeypatch.setattr("mae_jax.engine.memory.free_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"logistic of 32 training examples needs 18 kB .*limit=8"):
        made.check_evaluators(made.evals.evaluators)
    # One that reads fields of the data alone, and no output of the model.
    (logistic,) = made.evals.evaluators
    made.check_evaluators([dataclasses.replace(logistic, outputs=(), memory=lambda n, d, c: d)])


def test_a_test_set_that_evaluators_lack_is_missed_before_data_are_opened(root):
    more = ["data.train=folder('nowhere')", "data.test=", "evals.run=knn"]
    with pytest.raises(UserError, match="knn: there is no 'test' split"):
        build(load_config(str(root / "tests" / "helpers" / "tiny.py"), more))


@pytest.mark.parametrize(
    "text",
    [
        "logistic(l2=1.0)",
        "logistic(l2=(1, 0.1))",
        "knn(k=1)|logistic",
        "knn(k=(1, 3))",
        "robustness(kinds=fog, severities=1)",
        "robustness(kinds=(fog, snow), severities=(1, 2))",
    ],
)
def test_one_value_or_several(text):
    assert make_evaluators(text)
