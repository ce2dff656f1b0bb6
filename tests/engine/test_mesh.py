"""Meshes, layouts by rules, and the checks of what fits on them: on 2 fake devices, and on
stand-ins for those of TPUs and of hosts with GPUs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mae_jax.engine.mesh import check_batch, infer_shardings, make_mesh, put_batch
from mae_jax.rules import map_rules
from mae_jax.types import UserError
from tests.helpers.chips import box, chips

FLAT = [(2, 2, 1), (2, 4, 1), (4, 4, 1), (4, 8, 1), (8, 8, 1), (8, 16, 1), (16, 16, 1)]
CUBES = [(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 4, 12), (4, 4, 16)]
# A v5p is a "TPU v5" where JAX compiles without one.
KINDS = {"TPU v4": CUBES, "TPU v5 lite": FLAT, "TPU v5": CUBES, "TPU v6 lite": FLAT}
KINDS |= {"TPU v5p": CUBES, "TPU7x": CUBES}


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


@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_meshes_cover_tpus_in_blocks(kind, slices):
    for shape in KINDS[kind]:
        if slices * math.prod(shape) > 256:
            continue
        devices = chips(kind, shape, cores=2 if kind == "TPU7x" else 1, slices=slices)
        size = len(devices) // slices
        for fsdp in {1, math.gcd(size, 8), size}:
            mesh = make_mesh(data=-1, fsdp=fsdp, devices=devices)
            assert dict(mesh.shape) == {"data": len(devices) // fsdp, "fsdp": fsdp}
            assert {device.id for device in mesh.devices.flat} == {*range(len(devices))}
            for group in mesh.devices:
                assert len({device.slice_index for device in group}) == 1
                assert box(group) == fsdp, (shape, [device.place for device in group])


@pytest.mark.parametrize("sizes", [(1, -1), (-1, 32)])
def test_an_fsdp_group_in_two_slices_is_refused(sizes):
    devices = chips("TPU v6 lite", (4, 4, 1), slices=2)
    with pytest.raises(UserError, match="fsdp=.* does not fit .* set config.mesh.fsdp=16, or a"):
        make_mesh(data=sizes[0], fsdp=sizes[1], devices=devices)


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_mesh_that_jax_does_not_place_is_one_line(monkeypatch, error):
    """JAX 0.10 raises either of them for (4, 4, 20) and (4, 4, 28); 0.12 places these."""

    def refuse(*args, **options):
        raise error("no factors")

    monkeypatch.setattr("mae_jax.engine.mesh.mesh_utils.create_device_mesh", refuse)
    with pytest.raises(UserError, match="JAX cannot arrange the mesh data=32, fsdp=10 on these"):
        make_mesh(fsdp=10, devices=chips("TPU v5p", (4, 4, 20)))


class Gpu:
    """A device of a host with GPUs."""

    platform = "gpu"

    def __init__(self, number, host):
        self.id = self.process_index = number
        self.host = host


@pytest.mark.parametrize("named", [True, False])
def test_fsdp_groups_stay_in_a_host_of_gpus(named):
    """Two hosts of four processes with a GPU each, in turns if it is known what shares a host."""
    host = (lambda i: i % 2) if named else (lambda i: i // 4)
    devices = [Gpu(i, host(i)) for i in range(8)]
    for device in devices if named else ():
        device.slice_index = device.host
    for fsdp in (2, 4):
        mesh = make_mesh(fsdp=fsdp, devices=devices[::-1])
        assert all(len({device.host for device in group}) == 1 for group in mesh.devices)
    assert make_mesh(data=1, fsdp=-1, devices=devices).shape["fsdp"] == 8


def test_fsdp_splits_the_largest_divisible_axis():
    tree = {
        "a": jnp.zeros((4, 6)),
        "b": jnp.zeros((3, 5)),
        "c": jnp.zeros(()),
        "d": jnp.zeros((7, 2)),
    }
    shardings = infer_shardings(tree, make_mesh(fsdp=2))
    specs = {name: sharding.spec for name, sharding in shardings.items()}
    assert specs == {"a": P(None, "fsdp"), "b": P(), "c": P(), "d": P(None, "fsdp")}


def test_the_first_rule_wins_and_every_leaf_needs_one():
    tree = {"x": {"kernel": 0, "bias": 0}, "y": {"kernel": 0}}
    values = map_rules(tree, (("x/kernel$", 1), ("kernel", 2), ("", 3)))
    assert values == {"x": {"kernel": 1, "bias": 3}, "y": {"kernel": 2}}
    with pytest.raises(UserError, match="no rule matches 'x/bias'"):
        map_rules(tree, (("kernel", 2),))


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
