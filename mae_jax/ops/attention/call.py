"""What is known of a call of attention when it is traced, by which a kind is chosen or refused."""

from typing import Any, NamedTuple

import jax


class Call(NamedTuple):
    """Everything but the numbers."""

    platform: str
    """Of the mesh that computes it: 'cpu', 'gpu' or 'tpu'; '' where no mesh is set."""
    device: str
    """Of what make the devices are, e.g. 'NVIDIA H100 80GB HBM3'; '' where no mesh is set."""
    dtype: Any
    queries: int
    """T."""
    keys: int
    """S."""
    heads: int
    """H."""
    size: int
    """d, channels of a head."""
    bias: tuple[int, ...] | None = None
    """Its shape."""
    mask: tuple[int, ...] | None = None
    """Its shape."""


def call_of(query, key, bias, mask) -> Call:
    """The call with these arguments on the mesh of `jax.set_mesh` or `jax.sharding.
    use_abstract_mesh`, never on what this process happens to have.
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    platform = device.platform if device else ""
    return Call(
        platform,
        device.device_kind if device else "",
        query.dtype,
        query.shape[1],
        key.shape[1],
        *query.shape[2:],
        None if bias is None else bias.shape,
        None if mask is None else mask.shape,
    )
