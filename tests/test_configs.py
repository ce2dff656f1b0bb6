"""Every experiment for ImageNet is one that can be built: nothing of it is computed here."""

import jax
import jax.numpy as jnp
import pytest

from mae_jax.config import load_config
from mae_jax.engine.optim import DECAY_MATRICES, make_optimizer, make_plan
from mae_jax.run import make_evaluators, make_method
from mae_jax.spec import call_section

EXPERIMENTS = {
    "bigan:B/8": 64,
    "colorization:T": 224,
    "conv_mae:T": 224,
    "conv_mae:T,original": 224,
    "finetune:B/16": 224,
    "finetune:L/16,repository": 224,
    "jigsaw:T": 255,
    "linear_probe:B/16": 224,
    "mae:L/16": 224,
    "mocov3:S/16": 224,
    "mocov3:B/16": 224,
    "relative_position:T": 255,
    "rotation:T": 224,
    "simclr:T": 224,
    "simclr:B/16": 224,
    "supervised:B/16": 224,
    "vae:B/8": 64,
}
"""Config and argument -> side of its training images in pixels."""


@pytest.mark.parametrize(("name", "side"), EXPERIMENTS.items())
def test_an_experiment_fits_together(name, side):
    file, _, arg = name.partition(":")
    config = load_config(f"configs/{file}.py:{arg}")
    assert f"({side}" in config.data.train_transform
    plan = call_section(
        make_plan,
        config.schedule,
        "schedule",
        batch_size=config.data.batch_size,
        num_examples=1_281_167,
    )
    method = call_section(make_method, config.method, "method", total_steps=plan.steps)
    views = ["image", "image2"][: config.data.views]
    batch = {view: jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8) for view in views}
    batch["label"] = jax.ShapeDtypeStruct((2,), jnp.int32)
    params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
    output = jax.eval_shape(method.loss, params, extra, batch, jax.random.key(0), 0)
    assert output.loss.shape == () and output.loss.dtype == jnp.float32
    rules = getattr(method, "rules", DECAY_MATRICES)
    tx = call_section(
        make_optimizer, config.optimizer, "optimizer", schedule=plan.schedule, rules=rules
    )
    jax.eval_shape(tx.init, params)
    assert make_evaluators(config.evals.run)
