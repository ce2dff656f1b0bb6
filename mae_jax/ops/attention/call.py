"""The properties of an attention call known at tracing time, by which a kernel is chosen."""

from typing import Any, NamedTuple

import jax


class Call(NamedTuple):
    """Shapes, types and devices of an attention call."""

    platform: str
    """Platform of the mesh: 'cpu', 'gpu' or 'tpu'; '' where no mesh is set."""
    device: str
    """Device kind, e.g. 'NVIDIA H100 80GB HBM3'; '' where no mesh is set."""
    axes: tuple[str, ...]
    """Axis names of the mesh."""
    devices: int
    """Number of devices of the mesh."""
    dtype: Any
    """Type of the queries."""
    batch: int
    """Global batch size B."""
    queries: int
    """Number of queries T."""
    keys: int
    """Number of keys S."""
    heads: int
    """Number of heads H."""
    size: int
    """Channels per head d."""
    bias: tuple[int, ...] | None = None
    """Shape of the bias; None: no bias."""
    mask: tuple[int, ...] | None = None
    """Shape of the mask; None: no mask."""


def call_of(query, key, bias, mask) -> Call:
    """The call with these arguments on the mesh of `jax.set_mesh` or `jax.sharding.
    use_abstract_mesh`, whatever devices this process has.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    return Call(
        device.platform if device else "",
        device.device_kind if device else "",
        tuple(mesh.axis_names),
        mesh.size,
        query.dtype,
        query.shape[0],
        query.shape[1],
        key.shape[1],
        *query.shape[2:],
        None if bias is None else bias.shape,
        None if mask is None else mask.shape,
    )
