"""Jigsaw puzzles (Noroozi and Favaro 2016, arXiv 1603.09246): nine tiles of an image are shuffled
by a permutation from a fixed set, and the network classifies which one. The paper's shifts between
color channels and its grayscale images, against chromatic aberration, are not included.
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
    """A dense layer shared by the tiles, then an MLP on the features of all nine."""

    hidden: int
    """Width of the features of each tile; the hidden layer of the MLP is 8 times as wide."""
    permutations: int
    """Number of classes."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """[B, 9, D] to logits [B, permutations] float32."""
        dense = lambda width, name: nn.Dense(
            width, kernel_init=dense_init, dtype=self.dtype, name=name
        )
        x = nn.gelu(dense(self.hidden, "tile")(features), approximate=False)  # [B, 9, hidden]
        x = x.reshape(len(x), -1)  # [B, 9 hidden]
        x = nn.gelu(dense(8 * self.hidden, "fc1")(x), approximate=False)
        return dense(self.permutations, "fc2")(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Jigsaw(TileMethod):
    """The method; `make` documents the fields."""

    orders: tuple[tuple[int, ...], ...]
    """The permutations: tile i of a shuffled image comes from cell orders[label][i]."""

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws one puzzle for each image.

        Args:
            key: source of randomness.
            images: [B, H, W, C] uint8.

        Returns:
            Shuffled tiles [B, 9, tile, tile, C] float32, normalized per tile; and the indices of
            their permutations, [B] int.

        Raises:
            UserError: tiles that do not fit into the images.
        """
        cut_key, label_key = jax.random.split(key)
        nine = tiles.cut(cut_key, images, self.tile)  # [B, 9, tile, tile, C]
        label = jax.random.randint(label_key, (len(images),), 0, len(self.orders))
        order = jnp.asarray(self.orders)[label]  # [B, 9]
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
    """Builds a jigsaw puzzle method.

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens of a tile, or in `predict` of an image: 'cls' or 'mean' of
            the patches.
        tile: side of a tile in pixels: a multiple of the encoder's patch, and less than a third of
            the image for gaps between tiles. The paper's is 64, which fits images of 224 pixels.
        permutations: number of permutations, at least 2; more make the task harder.
        hidden: width of the features of each tile; the layer over all nine is 8 times as wide.
        mean, std: of the pixels in [0, 1], one number or one per channel, for whole images in
            `predict`; tiles are normalized by their own.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if hidden < 1:
        raise UserError(f"hidden={hidden} must be positive")
    return Jigsaw(
        **Jigsaw.fields(encoder=encoder, tile=tile, pool=pool, mean=mean, std=std, dtype=dtype),
        head=PuzzleHead(hidden, permutations, jnp.dtype(dtype)),
        orders=tuple(map(tuple, tiles.permutations(permutations, seed=0).tolist())),
    )
