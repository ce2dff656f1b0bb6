"""A mean and a deviation that are not of pixels in [0, 1] are refused by every method and task."""

import inspect

import jax
import numpy as np
import pytest

from mae_jax.methods import make_method
from mae_jax.ops.pixels import check_statistics
from mae_jax.spec import maker
from mae_jax.types import UserError
from tests.helpers import plain_vit
from tests.helpers.commands import mistake, run
from tests.helpers.tiny_args import NAMES
from tests.weights.test_unusual import file_of

LINE = (
    r"mean=\(123.7, 116.3, 103.5\) is outside \[0, 1\]: pixels are in \[0, 1\] here: divide by "
    r"255, \(0.4851, 0.4561, 0.4059\)"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_and_task(name):
    known = inspect.signature(maker(name, "methods")).parameters
    if "mean" not in known:
        pytest.skip("it normalizes nothing")
    args = dict(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    args |= {"classes": 3} if "classes" in known else {}
    args |= {"crop": 480} if "crop" in known else {}
    args |= {"vocabulary": 8, "length": 4} if "vocabulary" in known else {}
    method = make_method(name=name.removeprefix("methods."), args=args, total_steps=10)
    images = np.zeros((2, 480, 480, 3), np.uint8)  # tiles and strides fit
    batch = {"image": images, "image2": images, "label": np.zeros(2, np.int32)}
    batch |= {"text": np.zeros((2, 4), np.int32), "text_valid": np.ones((2, 4), bool)}
    built = lambda key, batch: method.predict(
        *method.init(key, batch), batch, outputs=method.offers()
    )
    with pytest.raises(UserError, match=LINE):
        jax.eval_shape(built, jax.random.key(0), batch)


@pytest.mark.parametrize(
    ("mean", "std", "line"),
    [
        ((0.5,), (58.4,), r"std=\(58.4,\) is outside .*: divide by 255, \(0.229,\)$"),
        ((0.5,), (0.0,), r"std=\(0.0,\) must be positive, in \(0, 1\]"),
        ((-0.1,), (0.5,), r"mean=\(-0.1,\) is outside \[0, 1\]: write it for pixels in \[0, 1\]"),
        ((0.5,), (300.0,), r"std=\(300.0,\) is outside \[0, 1\]: write it"),
        ((float("nan"),), (0.5,), "should be finite numbers"),
        ((0.5,), (float("inf"),), "should be finite numbers"),
        (("a", "b"), (0.5,), r"mean=\('a', 'b'\) should be finite numbers"),
        ("0.5", (0.5,), "mean='0.5' should be finite numbers"),
        ((True,), (0.5,), "should be finite numbers"),
        ((), (0.5,), r"mean=\(\) should be finite numbers"),
        (0.5, (0.5,), "mean=0.5 should be finite numbers"),
    ],
)
def test_values_that_are_none(mean, std, line):
    with pytest.raises(UserError, match=line):
        check_statistics(mean, std)
    check_statistics((0.0, 1, 0.485), (1.0, 1e-3, 0.2))


def test_in_a_config_and_in_an_import(root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(root)
    command = "train", "--config", "tests/helpers/tiny.py", "--workdir", tmp_path / "run"
    option = "--config.method.args.mean=(123.7, 116.3, 103.5)"
    line = mistake(capsys, *command, option)
    assert "mean=(123.7, 116.3, 103.5) is outside [0, 1]" in line
    assert not list(tmp_path.glob("run/checkpoints/*"))
    path = file_of(tmp_path, plain_vit.random_arrays(depth=1))
    command = "weights", "import", path, "--heads", 3, "--out", tmp_path / "out"
    line = mistake(capsys, *command, "--mean", 0.5, "--std", 58.4)
    assert line.startswith("--std=(58.4,) is outside [0, 1]: ")
    assert run(*command, "--mean", 0.5, "--std", 0.229) == 0
