"""What is known of a call of attention when it is traced, by which a kind is chosen or refused."""

from typing import Any, NamedTuple

import jax


class Call(NamedTuple):
    """Everything but the numbers."""

    platform: str
    """Platform of the mesh: 'cpu', 'gpu' or 'tpu'; '' where no mesh is set."""
    device: str
    """Device kind, e.g. 'NVIDIA H100 80GB HBM3'; '' where no mesh is set."""
    axes: tuple[str, ...]
    """Names of the mesh's axes."""
    devices: int
    """Size of the mesh."""
    dtype: Any
    batch: int
    """B, over all devices."""
    queries: int
    """T."""
    keys: int
    """S."""
    heads: int
    """H."""
    size: int
    """d, channels of a head."""
    bias: tuple[int, ...] | None = None
    """Shape of the bias, if there is one."""
    mask: tuple[int, ...] | None = None
    """Shape of the mask, if there is one."""


def call_of(query, key, bias, mask) -> Call:
    """The call with these arguments on the mesh of `jax.set_mesh` or `jax.sharding.
    use_abstract_mesh`, never on what this process happens to have.
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
