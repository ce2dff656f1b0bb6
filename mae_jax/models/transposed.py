"""A light head for dense prediction: the map of tokens to pixels or voxels by transposed
convolutions whose kernels do not overlap, as in Primus (Wald et al. 2025, arXiv 2503.01835).
"""

import math
from typing import Any

import jax
from flax import linen as nn

from mae_jax.models.norm import LayerNorm
from mae_jax.models.transformer import dense_init
from mae_jax.models.upernet import classifier_init
from mae_jax.ops.activations import gelu
from mae_jax.ops.patches import unpatchify


class TransposedHead(nn.Module):
    """A stage for each step of `stages`. All but the last halve the channels, to `LEAST` at least,
    and are followed by a LayerNorm over channels and a GELU. Sites are not mixed, as the encoder
    has done that.
    """

    classes: int
    patch: tuple[int, ...]
    """Side of a patch along each axis."""
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """A map [B, *grid, D] to logits [B, *space, classes] float32."""
        steps, width = stages(self.patch), x.shape[-1]
        for number, sides in enumerate(steps):
            last = number == len(steps) - 1
            width = self.classes if last else max(LEAST, width // 2)
            grid, layer = x.shape[1:-1], f"up_{number}"
            # A kernel as large as its stride sees one site: a dense layer on each site, whose
            # outputs are the pixels of a patch. [B, *grid, prod(sides) * width]
            features = math.prod(sides) * width
            if last:
                x = nn.Dense(features, kernel_init=classifier_init, name=layer)(x)
            else:
                x = nn.Dense(features, kernel_init=dense_init, dtype=self.dtype, name=layer)(x)
            x = unpatchify(x.reshape(len(x), -1, features), sides, grid)  # [B, *space, width]
            if not last:
                x = gelu(LayerNorm(dtype=self.dtype, name=f"norm_{number}")(x))
        return x


LEAST = 16
"""Smallest number of channels between two stages."""


def stages(patch: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Factors by which each stage enlarges the axes of a map: prime factors of the patch, the
    largest first. Where axes have fewer factors, the last stages leave them as they are: (4, 8, 8)
    is reached by (2, 2, 2), (2, 2, 2) and (1, 2, 2), so that thick slices are not cut further when
    the pixels in their planes are.
    """
    factors = [_primes(side) for side in patch]
    count = max(1, *map(len, factors))
    return list(zip(*(some + [1] * (count - len(some)) for some in factors), strict=True))


def _primes(number: int) -> list[int]:
    """Prime factors, the largest first."""
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found, number = [factor, *found], number // factor
        factor += 1
    return found
