"""The options that decoders of patches share."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn


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
