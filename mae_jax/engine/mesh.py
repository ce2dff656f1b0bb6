"""The device mesh with the axes 'data' and 'fsdp', and the shardings of arrays on it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax.types import Batch, UserError

MAX_BATCH = 2**31 - 1
"""Largest batch size: rows are counted in int32."""


def make_mesh(*, data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices of all processes. `data` or `fsdp` may be -1: all remaining devices.

    Args:
        data: number of groups of devices. Each holds a copy of the parameters and a part of the
            batch.
        fsdp: number of neighboring devices in a group, over which the batch, the parameters and
            their moments are sharded (FSDP, arXiv 2304.11277).
        devices: devices to use, e.g. of a topology to compile for; None: `jax.devices()`.

    Raises:
        UserError: data * fsdp is not the number of devices, or an fsdp group does not fit in a TPU
            slice.
    """
    devices = jax.devices() if devices is None else list(devices)
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
    return Mesh(_arranged(devices, *sizes), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def _arranged(devices: Sequence[Any], data: int, fsdp: int) -> np.ndarray:
    """Arranges devices as [data, fsdp], with neighbors in an fsdp group: a block of chips on a TPU,
    host after host elsewhere.
    """
    slice_of = lambda device: getattr(device, "slice_index", 0)  # not all platforms have one
    if devices[0].platform != "tpu":  # a GPU host counts as a slice, which jax.make_mesh refuses
        by_host = lambda device: (slice_of(device), device.process_index, device.id)
        return np.array(sorted(devices, key=by_host), object).reshape(data, fsdp)
    slices = len({slice_of(device) for device in devices})
    if data % slices:
        most = len(devices) // slices
        raise UserError(
            f"mesh fsdp={fsdp} does not fit in one of {slices} slices of {most} devices: set "
            f"config.mesh.fsdp={most}, or a divisor of it, and config.mesh.data=-1"
        )
    # Chips form a grid or torus, and a group may need a part of one of its axes.
    shape, split = (data // slices, fsdp), dict(allow_split_physical_axes=True)
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(shape, devices, **split)
        return mesh_utils.create_hybrid_device_mesh(shape, (slices, 1), devices, **split)
    except (ValueError, TypeError) as error:  # JAX 0.10 loses a factor of sizes such as 10 and 14
        raise UserError(
            f"JAX cannot arrange the mesh data={data}, fsdp={fsdp} on these chips ({error}): set "
            "config.mesh.fsdp to another divisor of the number of chips, and config.mesh.data=-1"
        ) from error


def platform_of(mesh: Mesh) -> str:
    """'cpu', 'gpu' or 'tpu': the platform of the mesh's devices, which may differ from JAX's."""
    return mesh.devices.flat[0].platform


def on_mesh(mesh: Mesh) -> Callable[[Callable], Callable]:
    """A decorator for functions to compile for a mesh. Inside, code can query the mesh, and kernels
    that XLA does not partition can shard their work over it.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def on_it(*args, **kwargs):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return function(*args, **kwargs)

        return on_it

    return decorate


def replicated(mesh: Mesh) -> NamedSharding:
    """A replicated sharding: every device holds the full array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows are split over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def infer_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for every leaf, an array or a shape: its largest axis that is divisible by the
    mesh's fsdp axis is split over it; without such an axis it is replicated.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _fsdp_spec(leaf.shape, mesh)), tree)


def _fsdp_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    size = mesh.shape["fsdp"]
    divisible = [axis for axis, length in enumerate(shape) if length % size == 0]
    if size == 1 or not divisible:
        return P()
    axis = max(divisible, key=lambda i: shape[i])
    return P(*("fsdp" if i == axis else None for i in range(len(shape))))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """Builds global arrays from this process's rows of each field."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def check_count(batch_size: int) -> None:
    """Raises UserError unless a batch size is in range."""
    if not 1 <= batch_size <= MAX_BATCH:
        raise UserError(f"config.data.batch_size={batch_size} must be from 1 to {MAX_BATCH}")


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError unless a global batch splits evenly over devices and microbatches."""
    check_count(batch_size)
    parts = mesh.size * accumulate
    if batch_size % parts:
        raise UserError(
            f"config.data.batch_size={batch_size} is not divisible by {mesh.size} devices x "
            f"{accumulate} accumulation steps: use a multiple of {parts}"
        )
