"""An encoder: MLP blocks on the tokens of patches, which share only the mean over all tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.encoder import Encoder
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.ops.posemb import sincos


class PatchMLP(Encoder):
    """A patch embedding, fixed sine-cosine positions, and `depth` residual MLP blocks."""

    width: int
    depth: int
    patch: int = 4
    dtype: Any = jnp.float32

    @property
    def architecture(self) -> tuple:
        """Values that must be equal for parameters to fit."""
        return ("patch_mlp", self.width, self.depth, self.patch)

    @nn.compact
    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """Encodes images [B, *space, C] as tokens [B, K, D] of the visible patches."""
        if normalize is not None:
            images = normalize(images)
        positions = jnp.asarray(sincos(grid_of(images.shape[1:-1], self.patch), self.width))
        x = nn.Dense(self.width, dtype=self.dtype, name="embed")(patchify(images, self.patch))
        x = x + positions.astype(x.dtype)  # [B, L, D]
        if mask is not None:
            x = take_tokens(x, mask.keep)  # [B, K, D]
        for i in range(self.depth):
            y = nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            y = y + y.mean(axis=1, keepdims=True)  # mixes the tokens, [B, K, D]
            y = nn.gelu(nn.Dense(2 * self.width, dtype=self.dtype, name=f"fc1_{i}")(y))
            x = x + nn.Dense(self.width, dtype=self.dtype, name=f"fc2_{i}")(y)
        return x


def make(*, width: int = 64, depth: int = 2, patch: int = 4, dtype: Any = jnp.float32) -> PatchMLP:
    """Makes the encoder. In a config: method.args.encoder='my_project.encoder(width=64, depth=2)'

    Args:
        width: D, channels of a token.
        depth: number of blocks.
        patch: side of a patch in pixels.
        dtype: type of the computation; parameters are float32.
    """
    return PatchMLP(width=width, depth=depth, patch=patch, dtype=dtype)
