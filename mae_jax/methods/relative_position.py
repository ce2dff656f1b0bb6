"""Relative position (arXiv 1505.05192): given the tile at the center of an image and one of its
eight neighbors, say which neighbor it is.
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
    """A perceptron with one hidden layer, on the features of both tiles."""

    hidden: int
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

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pairs that the network is asked about.

        Args:
            images: [B, H, W, C] uint8.

        Returns:
            [B, 2, tile, tile, C] float32: the central tile and the neighbor; [B] int: which of
            the eight, row-major around the center.

        Raises:
            UserError: tiles that do not fit, or colors to be taken out of other than 3 channels.
        """
        cut_key, label_key, color_key = jax.random.split(key, 3)
        nine = tiles.cut(cut_key, images, self.tile)
        label = jax.random.randint(label_key, (len(images),), 0, 8)
        place = label + (label >= 4)  # 4 is the center
        other = jnp.take_along_axis(nine, place[:, None, None, None, None], axis=1)
        pairs = jnp.concatenate([nine[:, 4:5], other], axis=1)
        if self.colors == "project":
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
    """Relative position.

    Args:
        encoder: spec string of the encoder.
        pool: 'cls' or 'mean' of the sites of a tile, and of an image in `predict`.
        tile: side in pixels, a multiple of the encoder's patch, smaller than a third of the images
            for gaps between tiles: for images of 224 pixels 64.
        colors: against chromatic aberration 'drop' leaves each tile one channel, 'project' takes
            out the axis from magenta to green, 'keep' leaves colors alone.
        hidden: width of the layer between the features of both tiles and the answer.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
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
