"""Weights for patches of another side become those of a detector, and of nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.ops.posemb import sincos
from mae_jax.ops.resample import resample_patches, resample_positions
from mae_jax.types import Skips, TrainState, UserError
from mae_jax.weights.init_from import make_init_from
from tests.tasks.tiny.detect import ARGS
from tests.weights import models


def loaded(path, method, args, image):
    """The encoder of a new run that starts from the weights, whose parameters were zeros."""
    task = make_method(name=method, args=args)
    params = jax.eval_shape(lambda key, batch: task.init(key, batch)[0], jax.random.key(0),
                            {"image": task.example(image)["image"]})  # fmt: skip
    zero = jnp.int32(0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
    state = TrainState(zero, zeros, (), {}, Skips(zero, zero))
    config = ConfigDict(dict(name=method, args=args))
    start = make_init_from(
        ConfigDict(dict(path=str(path))), config=config, method=task, image=image
    )
    return traverse_util.flatten_dict(start.load(state).params["encoder"], sep="/")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An encoder with patches of 3 pixels, of images of 18."""
    model = models.mae("Ti", image=(18, 18, 3), patch=3, depth=1)
    weights.write_run(model, tmp_path_factory.mktemp("patches") / "run")
    return model, tmp_path_factory.getbasetemp() / "patches0" / "run"


def test_a_detector_resamples_patches_and_reports_it(run, caplog):
    model, path = run
    encoder = "vitdet(Ti, depth=1, patch=4, window=2, global_blocks=1, position_grid=4)"
    found = loaded(path, "tasks.detect", ARGS | dict(encoder=encoder), (16, 16, 3))
    kernel = model.params["encoder/embed/kernel"]
    np.testing.assert_array_equal(found["embed/kernel"], resample_patches(kernel, (3, 3), (4, 4)))
    for name in ("embed/bias", "block_0/attention/qkv/kernel", "block_0/norm1/scale"):
        np.testing.assert_array_equal(found[name], model.params[f"encoder/{name}"])
    # Positions that were computed for the 6 x 6 patches of pre-training.
    expected = resample_positions(jnp.asarray(sincos((6, 6), 192)), (6, 6), (4, 4), prefix=0)
    np.testing.assert_allclose(found["positions"], expected, atol=1e-6)
    (line,) = [row.message for row in caplog.records if "patch embedding" in row.message]
    assert "patches of 3 x 3 pixels: it is resampled to 4 x 4" in line


def test_other_tasks_refuse_them(run):
    args = dict(encoder="vit(Ti, depth=1, patch=4)", classes=2)
    with pytest.raises(UserError, match="another architecture: it is vit.*patch=3"):
        loaded(run[1], "tasks.finetune", args, (16, 16, 3))
