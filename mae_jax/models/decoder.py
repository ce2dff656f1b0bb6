"""The options that decoders of patches share."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.positions import check_positions
from mae_jax.models.transformer import check_choices, check_shape


class PatchDecoder(nn.Module):
    """A transformer that predicts patches from the tokens of an encoder. The paper on masked
    autoencoders (arXiv 2111.06377) uses these sizes for every encoder.
    """

    width: int = 512
    depth: int = 8
    heads: int = 16
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: str = "none"
    gather: str = "take"
    positions: str = "sincos"
    """One of `models.positions.KINDS`."""


def decoder_fields(
    *,
    width: int,
    depth: int,
    heads: int,
    attention: str,
    remat: str,
    gather: str,
    dtype: str,
    positions: str = "sincos",
) -> dict[str, Any]:
    """Checks the options of a decoder and returns the fields of `PatchDecoder`.

    Args:
        width, depth, heads: channels, blocks and attention heads.
        attention, remat, gather: see `models.vit.make`.
        dtype: name of the type of its computations.
        positions: one of `models.positions.KINDS`.

    Raises:
        UserError: an unknown or invalid value.
    """
    shape = dict(width=width, depth=depth, heads=heads)
    check_shape("decoder", **shape)
    choices = dict(attention=attention, remat=remat, gather=gather, dtype=jnp.dtype(dtype))
    check_choices("decoder", shape, **choices)
    check_positions("decoder", positions)
    return shape | choices | dict(positions=positions)
