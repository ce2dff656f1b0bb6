"""Parameters of one run as the start of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.checkpoint import Checkpoints, read_leaves
from mae_jax.engine.transfer import transfer
from mae_jax.types import Skips, TrainState, UserError


def state_of(**params):
    """A train state with these parameters."""
    tree = {"encoder": {name: jnp.asarray(values) for name, values in params.items()}}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, tree, {"moments": jnp.ones(3)}, {}, Skips(zero, zero))


def same(path, array):
    """Adapts nothing."""
    return array


def test_parameters_come_back_from_a_checkpoint_of_any_model(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for step in (1, 2):
        with Checkpoints(tmp_path, every=1) as checkpoints:
            checkpoints.save(state_of(kernel=kernel * step, bias=np.zeros(3, np.float32)), step)
    found = read_leaves(tmp_path, ("params",))
    assert found.keys() == {"params/encoder/kernel", "params/encoder/bias"}
    np.testing.assert_array_equal(found["params/encoder/kernel"], kernel * 2)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="there are no checkpoints in .*nothing"):
        read_leaves(tmp_path / "nothing", ("params",))
    with pytest.raises(UserError, match="there is no checkpoint yet in"):
        read_leaves(tmp_path, ("params",))


def test_what_fits_is_taken_and_the_rest_must_be_allowed_to_miss():
    params = {"encoder": {"kernel": jnp.zeros((2, 2))}, "head": {"kernel": jnp.ones((2, 5))}}
    saved = {"encoder/kernel": np.full((2, 2), 3.0), "decoder/kernel": np.zeros(9)}
    found = transfer(params, saved, missing="^head/", adapt=same)
    np.testing.assert_array_equal(found["encoder"]["kernel"], saved["encoder/kernel"])
    np.testing.assert_array_equal(found["head"]["kernel"], np.ones((2, 5)))
    with pytest.raises(UserError, match="has no head/kernel: .* it holds decoder, encoder"):
        transfer(params, saved, missing="^$", adapt=same)


def test_another_architecture_is_refused_in_one_line():
    params = {"encoder": {"kernel": jnp.zeros((2, 4))}}
    saved = {"encoder/kernel": np.zeros((2, 2))}
    message = r"another architecture: encoder/kernel is \[2, 2\] there and \[2, 4\] here"
    with pytest.raises(UserError, match=message):
        transfer(params, saved, missing="^$", adapt=same)
    double = lambda path, array: np.concatenate([array, array], axis=1)
    assert transfer(params, saved, missing="^$", adapt=double)["encoder"]["kernel"].shape == (2, 4)


def test_what_fits_already_may_be_of_other_images():
    saved = {"encoder/positions": np.arange(6.0).reshape(3, 2)}
    turned = lambda path, array: array[::-1] if path == "encoder/positions" else array
    params = {"encoder": {"positions": jnp.zeros((3, 2))}}
    found = transfer(params, saved, missing="^$", adapt=turned)["encoder"]["positions"]
    np.testing.assert_array_equal(found, saved["encoder/positions"][::-1])


def test_layouts_are_kept():
    mesh = jax.make_mesh((2,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    layout = jax.NamedSharding(mesh, jax.P("fsdp"))
    params = {"kernel": jax.device_put(jnp.zeros((4, 2)), layout)}
    found = transfer(params, {"kernel": np.ones((4, 2))}, missing="^$", adapt=same)
    assert found["kernel"].sharding == layout and found["kernel"].dtype == jnp.float32
