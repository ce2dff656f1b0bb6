"""UperNet (arXiv 1807.10221), the head of dense prediction that BEiT and MAE report: pooling of the
coarsest map at several scales (arXiv 1612.01105), a top-down path over the pyramid (arXiv
1612.03144), and their fusion at the finest map. Beside it, the fully convolutional head that helps
in training.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.conv_norm import ConvNorm
from mae_jax.ops.interpolate import adaptive_pool, resize

BINS = (1, 2, 3, 6)
"""Rows and columns of parts over which the coarsest map is averaged."""
DROPOUT = 0.1
"""Probability that a channel is dropped before the classifier."""

classifier_init = nn.initializers.normal(0.01)


class PixelClassifier(nn.Module):
    """Dropout of whole channels, and a linear layer at each site."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[B, H, W, C] to logits [B, H, W, classes] float32."""
        dropout = nn.Dropout(DROPOUT, broadcast_dims=(1, 2), deterministic=not train)
        dense = nn.Dense(self.classes, kernel_init=classifier_init, name="fc")
        return dense(dropout(x).astype(jnp.float32))  # float32, or close classes would tie


class PyramidPooling(nn.Module):
    """Adds what is around each site, at several scales."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[B, h, w, C] to [B, h, w, width]."""
        conv = lambda kernel, name: ConvNorm(self.width, kernel, self.dtype, name=name)
        pooled = [conv(1, f"pool_{bins}")(adaptive_pool(x, bins), train) for bins in BINS]
        pooled = [resize(part, x.shape[1:3]) for part in pooled]  # [B, h, w, width] each
        return conv(3, "fuse")(jnp.concatenate([x, *pooled], axis=-1), train)


class UperNet(nn.Module):
    """The head."""

    classes: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], train: bool = False) -> jax.Array:
        """Maps [B, h, w, C] of a pyramid, the finest first, to logits [B, H, W, classes] float32 of
        the size of the finest.
        """
        conv = lambda kernel, name: ConvNorm(self.width, kernel, self.dtype, name=name)
        x = PyramidPooling(self.width, self.dtype, name="pooling")(maps[-1], train)
        fine = maps[0].shape[1:3]
        outputs = [resize(x, fine)]
        for i in reversed(range(len(maps) - 1)):
            lateral = conv(1, f"lateral_{i}")(maps[i], train)
            x = lateral + resize(x, lateral.shape[1:3])  # [B, h, w, width]
            outputs.append(resize(conv(3, f"output_{i}")(x, train), fine))
        x = jnp.concatenate(outputs[::-1], axis=-1)  # [B, H, W, levels * width], the finest first
        x = conv(3, "fuse")(x, train)
        return PixelClassifier(self.classes, name="classifier")(x, train)


class FCN(nn.Module):
    """A fully convolutional head (arXiv 1411.4038) of one layer."""

    classes: int
    width: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[B, h, w, C] to logits [B, h, w, classes] float32."""
        x = ConvNorm(self.width, 3, self.dtype, name="conv")(x, train)
        return PixelClassifier(self.classes, name="classifier")(x, train)
