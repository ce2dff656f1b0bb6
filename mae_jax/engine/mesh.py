"""Devices as a mesh with the axes 'data' and 'fsdp', and how arrays are laid out on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax.engine.paths import Rules, match, path_of
from mae_jax.types import Batch, UserError

REPLICATED: Rules = (("", "replicate"),)
FSDP: Rules = (("", "fsdp"),)
MAX_BATCH = 2**31 - 1
"""Rows are counted in int32."""


def make_mesh(
    *, data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over devices.

    Args:
        data: devices along which only the batch is split.
        fsdp: neighbouring devices along which the batch, the parameters and their moments are split
            (FSDP, arXiv 2304.11277; with data over 1, each group of them holds a copy). One of both
            may be -1: all that remain.
        devices: all of all processes if None.

    Raises:
        UserError: the two do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    sizes = [
        count // other if size == -1 and other > 0 else size
        for size, other in ((data, fsdp), (fsdp, data))
    ]
    if min(sizes) < 1 or sizes[0] * sizes[1] != count:
        raise UserError(
            f"mesh data={data}, fsdp={fsdp} does not cover {count} devices: their product must be "
            f"{count}, or one of them -1 and the other a divisor of it"
        )
    return jax.make_mesh(
        tuple(sizes), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def infer_shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """Chooses a layout for every leaf.

    Args:
        tree: arrays or shapes.
        rules: (regex, rule) pairs, the first that is found in a leaf's path wins; a rule is
            'replicate', or 'fsdp': split the largest axis that the fsdp axis divides, if any.

    Raises:
        UserError: a leaf that no rule matches, or an unknown rule.
    """

    def sharding(path, leaf):
        rule = match(rules, path_of(path))
        if rule not in ("replicate", "fsdp"):
            raise UserError(f"sharding rule {rule!r} is unknown: choose replicate, fsdp")
        return NamedSharding(mesh, _fsdp_spec(leaf.shape, mesh) if rule == "fsdp" else P())

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _fsdp_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    size = mesh.shape["fsdp"]
    divisible = [axis for axis, length in enumerate(shape) if length % size == 0]
    if size == 1 or not divisible:
        return P()
    axis = max(divisible, key=lambda i: shape[i])
    return P(*("fsdp" if i == axis else None for i in range(len(shape))))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """Global arrays from the rows that this process holds of each field."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def check_count(batch_size: int) -> None:
    """Raises UserError unless there can be so many images in a batch."""
    if not 1 <= batch_size <= MAX_BATCH:
        raise UserError(f"config.data.batch_size={batch_size} must be from 1 to {MAX_BATCH}")


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError unless a global batch splits evenly over the devices."""
    check_count(batch_size)
    parts = mesh.size * accumulate
    if batch_size % parts:
        raise UserError(
            f"config.data.batch_size={batch_size} is not divisible by {mesh.size} devices x "
            f"{accumulate} accumulation steps: use a multiple of {parts}"
        )
