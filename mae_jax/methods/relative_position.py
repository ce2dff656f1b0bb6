"""Relative position, or context prediction (Doersch et al. 2015, arXiv 1505.05192): from the
central tile of an image and one of its eight neighbors, the network classifies which neighbor it
is.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.methods.tiles import TileMethod
from mae_jax.models.transformer import dense_init
from mae_jax.ops import pixels, tiles
from mae_jax.spec import check_choice
from mae_jax.types import UserError


class PairHead(nn.Module):
    """An MLP with one hidden layer, on the concatenated features of both tiles."""

    hidden: int
    """Width of the hidden layer."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """[B, 2, D] to logits [B, 8] float32."""
        dense = lambda width, name: nn.Dense(
            width, kernel_init=dense_init, dtype=self.dtype, name=name
        )
        x = features.reshape(len(features), -1)  # [B, 2 D]
        x = nn.gelu(dense(self.hidden, "fc1")(x), approximate=False)
        return dense(8, "fc2")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RelativePosition(TileMethod):
    """The method; `make` documents the fields."""

    colors: str
    """Treatment of chromatic aberration: 'drop', 'project' or 'keep'."""

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws one pair of tiles from each image.

        Args:
            key: source of randomness.
            images: [B, H, W, C] uint8.

        Returns:
            The central tile and a random neighbor, [B, 2, tile, tile, C] float32; and the index of
            the neighbor, [B] int, from 0 to 7 in row-major order around the center.

        Raises:
            UserError: tiles that do not fit into the images, or images that are not RGB unless
                colors='keep'.
        """
        cut_key, label_key, color_key = jax.random.split(key, 3)
        nine = tiles.cut(cut_key, images, self.tile)  # [B, 9, tile, tile, C]
        label = jax.random.randint(label_key, (len(images),), 0, 8)
        cell = label + (label >= 4)  # skips cell 4, the center
        # [B, 1, tile, tile, C]
        neighbor = jnp.take_along_axis(nine, cell[:, None, None, None, None], axis=1)
        pairs = jnp.concatenate([nine[:, 4:5], neighbor], axis=1)  # [B, 2, tile, tile, C]
        if self.colors == "project":  # before the normalization, which may scale channels apart
            pairs = tiles.project_colors(pairs.astype(jnp.float32) / 255)
            return pixels.standardize(pairs, self.mean, self.std), label
        pairs = self.normalize(pairs)
        return tiles.drop_colors(color_key, pairs) if self.colors == "drop" else pairs, label


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    tile: int = 64,
    colors: str = "drop",
    hidden: int = 4096,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> RelativePosition:
    """Builds a relative position method.

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens of a tile, or in `predict` of an image: 'cls' or 'mean' of
            the patches.
        tile: side of a tile in pixels: a multiple of the encoder's patch, and less than a third of
            the image for gaps between tiles, e.g. 64 for images of 224 pixels.
        colors: against chromatic aberration, 'drop' keeps one channel of each tile and 'project'
            removes the green-magenta axis; 'keep' does not change colors.
        hidden: width of the hidden layer of the head.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    check_choice("colors", colors, ("drop", "project", "keep"))
    if hidden < 1:
        raise UserError(f"hidden={hidden} must be positive")
    return RelativePosition(
        **RelativePosition.fields(
            encoder=encoder, tile=tile, pool=pool, mean=mean, std=std, dtype=dtype
        ),
        head=PairHead(hidden, jnp.dtype(dtype)),
        colors=colors,
    )
