"""Meshes, layouts by rules, and the checks of what fits on them (2 fake devices)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mae_jax.engine.mesh import check_batch, infer_shardings, make_mesh, put_batch
from mae_jax.engine.paths import map_rules
from mae_jax.types import UserError


@pytest.mark.parametrize(
    "sizes, shape", [((-1, 1), (2, 1)), ((1, 2), (1, 2)), ((-1, 2), (1, 2)), ((1, -1), (1, 2))]
)
def test_meshes_cover_all_devices(sizes, shape):
    mesh = make_mesh(data=sizes[0], fsdp=sizes[1])
    assert (mesh.shape["data"], mesh.shape["fsdp"]) == shape


@pytest.mark.parametrize("sizes", [(3, 1), (1, 1), (-1, 3), (-1, 0), (0, 1), (-1, -1), (3, -1)])
def test_meshes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(UserError, match="does not cover 2 devices"):
        make_mesh(data=sizes[0], fsdp=sizes[1])


def test_fsdp_splits_the_largest_divisible_axis():
    tree = {
        "a": jnp.zeros((4, 6)),
        "b": jnp.zeros((3, 5)),
        "c": jnp.zeros(()),
        "d": jnp.zeros((7, 2)),
    }
    shardings = infer_shardings(tree, make_mesh(fsdp=2), (("", "fsdp"),))
    specs = {name: sharding.spec for name, sharding in shardings.items()}
    assert specs == {"a": P(None, "fsdp"), "b": P(), "c": P(), "d": P(None, "fsdp")}


def test_the_first_rule_wins_and_every_leaf_needs_one():
    tree = {"x": {"kernel": 0, "bias": 0}, "y": {"kernel": 0}}
    values = map_rules(tree, (("x/kernel$", 1), ("kernel", 2), ("", 3)))
    assert values == {"x": {"kernel": 1, "bias": 3}, "y": {"kernel": 2}}
    with pytest.raises(UserError, match="no rule matches 'x/bias'"):
        map_rules(tree, (("kernel", 2),))
    with pytest.raises(UserError, match="choose replicate, fsdp"):
        infer_shardings({"x": jnp.zeros(2)}, make_mesh(), (("", "tensor"),))


def test_batches_are_split_over_all_devices():
    rows = np.arange(24, dtype=np.uint8).reshape(4, 6)
    placed = put_batch({"image": rows}, make_mesh(data=-1, fsdp=2))["image"]
    assert placed.addressable_shards[0].data.shape == (2, 6)
    np.testing.assert_array_equal(placed, rows)


@pytest.mark.parametrize("size, accumulate", [(3, 1), (0, 1), (6, 2)])
def test_batches_that_do_not_split_are_refused(size, accumulate):
    reason = "is not divisible by 2 devices" if size else "must be from 1 to 2147483647"
    with pytest.raises(UserError, match=f"config.data.batch_size={size} {reason}"):
        check_batch(size, make_mesh(), accumulate)
    check_batch(8, make_mesh(), 2)


def test_two_devices_are_there():
    assert jax.device_count() == 2
