"""Jigsaw puzzles (arXiv 1603.09246): nine tiles of an image are shuffled by one of a set of
permutations; say which. The paper's shifts between the channels and its gray images, which are to
hide chromatic aberration, are left out.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.methods.tiles import TileMethod
from mae_jax.models.transformer import dense_init
from mae_jax.ops import tiles
from mae_jax.types import UserError


class PuzzleHead(nn.Module):
    """A layer for each tile by itself, then a perceptron on all nine."""

    hidden: int
    """Width of what each tile contributes; the hidden layer of the perceptron is 8 times that."""
    permutations: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """[B, 9, D] to logits [B, permutations] float32."""
        dense = lambda width, name: nn.Dense(
            width, kernel_init=dense_init, dtype=self.dtype, name=name
        )
        x = nn.gelu(dense(self.hidden, "tile")(features), approximate=False)
        x = x.reshape(len(x), -1)  # [B, 9 hidden]
        x = nn.gelu(dense(8 * self.hidden, "fc1")(x), approximate=False)
        return dense(self.permutations, "fc2")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Jigsaw(TileMethod):
    """The method; `make` documents the fields."""

    orders: tuple[tuple[int, ...], ...]
    """The permutations: the tile at a place i of a shuffled image is from cell orders[label][i]."""

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The puzzles that the network is asked about.

        Args:
            images: [B, H, W, C] uint8.

        Returns:
            [B, 9, tile, tile, C] float32, shuffled tiles, each normalized by itself; [B] int: by
            which permutation.

        Raises:
            UserError: tiles that do not fit.
        """
        cut_key, label_key = jax.random.split(key)
        nine = tiles.cut(cut_key, images, self.tile)
        label = jax.random.randint(label_key, (len(images),), 0, len(self.orders))
        order = jnp.asarray(self.orders)[label]
        shuffled = jnp.take_along_axis(nine, order[:, :, None, None, None], axis=1)
        return tiles.normalize_tiles(shuffled.astype(jnp.float32) / 255), label


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    tile: int = 64,
    permutations: int = 100,
    hidden: int = 512,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Jigsaw:
    """Jigsaw puzzles.

    Args:
        encoder: spec string of the encoder.
        pool: 'cls' or 'mean' of the sites of a tile, and of an image in `predict`.
        tile: side in pixels, a multiple of the encoder's patch, smaller than a third of the images
            for gaps between tiles: for images of 224 pixels 64, as in the paper.
        permutations: how many there are to choose from, 2 or more: the more, the harder.
        hidden: width of what each tile contributes to the puzzle; the layer that sees all nine is 8
            times as wide.
        mean, std: of the pixels in [0, 1] of whole images, one number or one per channel; tiles are
            normalized by their own.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    if hidden < 1:
        raise UserError(f"hidden={hidden} must be positive")
    return Jigsaw(
        **Jigsaw.fields(encoder=encoder, tile=tile, pool=pool, mean=mean, std=std, dtype=dtype),
        head=PuzzleHead(hidden, permutations, jnp.dtype(dtype)),
        orders=tuple(map(tuple, tiles.permutations(permutations, seed=0).tolist())),
    )
