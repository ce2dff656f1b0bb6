"""The contrastive loss of `clip` over two processes against one process with two devices: the
negatives of a pair are those of the global batch, wherever they are. tests/methods/test_clip.py has
two devices against one.
"""

import pytest

from mae_jax.config import load_config
from mae_jax.train import train
from tests.helpers import jobs
from tests.helpers.runs import whole_log

CONFIG = "tests/helpers/tiny_methods.py:clip"
OPTIONS = ["schedule.epochs=0.75", "schedule.warmup_epochs=0.25", "evals.run=", "evals.figures="]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_two_devices(root, tmp_path):
    """Of three steps, the last of which see whole images."""
    folder = tmp_path / "two"
    command = ["train", "--config", CONFIG, "--workdir", folder / "run"]
    children = jobs.start(folder, *command, *(f"--config.{option}" for option in OPTIONS))
    config = load_config(str(root / CONFIG), OPTIONS)
    train(config, tmp_path / "one")
    for ended in jobs.wait(folder, children):
        assert ended.code == 0, ended.error
    found, expected = (whole_log(path) for path in (folder / "run", tmp_path / "one"))
    assert [line["step"] for line in expected] == [1, 2, 3]
    for two, one in zip(found, expected, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        assert (two["top1"], two["temperature"]) == (one["top1"], pytest.approx(one["temperature"]))
