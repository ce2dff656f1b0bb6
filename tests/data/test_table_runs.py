"""Runs on a table: balanced batches, a held-out part in groups, and classes that stay."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from configs import common
from mae_jax.restore import load_run
from mae_jax.run import build
from mae_jax.train import train
from mae_jax.types import UserError
from tests.helpers import tiny


def config_of(path):
    """A classifier of three classes on a table."""
    config = tiny.get_config()
    config.data.update(
        train=f"table({str(path)!r}, group=patient)",
        test="",
        held_out=0.25,
        sampling="balanced",
        fields=("label", "group"),
    )
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune", encoder=tiny.ENCODER, classes=3, dtype="float32"
    )
    config.schedule.epochs = 5.0
    config.evals.run = "classify(split=val)"
    return config


def write(path, names):
    """30 images of 10 patients in three classes of uneven size."""
    rng = np.random.default_rng(0)
    lines = ["file,label,patient"]
    for i in range(30):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path.parent / f"{i}.png")
        lines.append(f"{i}.png,{names[max(0, i % 6 - 3)]},p{i % 10}")
    path.write_text("\n".join(lines))


@pytest.mark.thorough
def test_a_run_on_a_table(tmp_path):
    path, workdir = tmp_path / "t.csv", tmp_path / "run"
    write(path, ("a", "b", "c"))
    config = config_of(path)
    data = build(config).data
    groups = [{*data.source(split).groups().tolist()} for split in ("train", "val")]
    assert not groups[0] & groups[1] and data.source("val").num_examples in (6, 7, 8, 9)
    whole = jax.device_get(train(config, workdir).params)
    steps = sorted(int(step.name) for step in (workdir / "checkpoints").iterdir())
    shutil.rmtree(workdir / "checkpoints" / str(steps[-1]))
    again = jax.device_get(train(config, workdir).params)
    assert len(steps) > 1 and steps[-1] > steps[-2]
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    load_run(workdir)
    write(path, ("z", "b", "c"))
    with pytest.raises(UserError, match="learned 'label' with the class 'a', where .* has 'b'"):
        load_run(workdir)
    with pytest.raises(UserError, match="fingerprints.train"):
        train(config, workdir)
