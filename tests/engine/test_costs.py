"""What a step costs, where it can be counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from mae_jax.engine.costs import compile_step
from mae_jax.engine.mesh import batch_sharding, make_mesh
from mae_jax.engine.optim import make_optimizer
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.types import Output
from tests.helpers.plain_method import PlainMethod

WIDTH = 256


class Product(PlainMethod):
    """Two products with matrices of WIDTH x WIDTH, one of them of the encoder."""

    def init(self, key, batch):
        """Both matrices."""
        kernel = jnp.ones((WIDTH, WIDTH))
        return {"encoder": {"kernel": kernel}, "head": {"kernel": kernel}}, {}

    def loss(self, params, extra, batch, key, step):
        """The sum of what comes out."""
        x = batch["image"].reshape(-1, WIDTH).astype(jnp.float32)
        x = jnp.sin(x @ params["encoder"]["kernel"]) @ params["head"]["kernel"]
        return Output(jnp.sum(x**2), extra, {})


@pytest.mark.parametrize("parts", [1, 4])
def test_arithmetic_and_parameters_are_those_of_two_products(parts):
    mesh, method, size = make_mesh(data=2), Product(), 4096
    batch = {
        "image": jax.ShapeDtypeStruct((size, 1, 1, WIDTH), jnp.uint8, sharding=batch_sharding(mesh))
    }
    tx = make_optimizer(schedule=lambda step: 1e-3)
    initial_state, abstract_state = plan_state(mesh, method, tx, batch, seed=0)
    step = make_train_step(mesh, abstract_state, method, tx, seed=0, accumulate=parts)
    compiled, costs = compile_step(step, abstract_state, batch, parts=parts)
    assert costs["parameters"] == 2 * WIDTH**2 and costs["encoder_parameters"] == WIDTH**2
    # Forward twice; backward to both kernels and to what lies between: five products.
    by_hand = 5 * 2 * WIDTH**2 / 1e9
    assert by_hand < costs["gflops_per_image"] < 1.1 * by_hand
    # On each of two devices: parameters and two moments, and half of the images, at the least.
    assert costs["step_megabytes"] > (3 * 2 * WIDTH**2 * 4 + size * WIDTH / 2) / 1e6
    state, metrics = compiled(
        initial_state(),
        {
            "image": jax.device_put(
                jnp.ones((size, 1, 1, WIDTH), jnp.uint8), batch["image"].sharding
            )
        },
    )
    assert int(state.step) == 1 and jnp.isfinite(metrics["loss"])
