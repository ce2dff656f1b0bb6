"""The Vision Transformer as backbone of detectors (ViTDet, arXiv 2203.16527): attention within
windows, except for a few global blocks, and decomposed relative positions (arXiv 2112.01526,
section 4.1) in all. It has neither class tokens nor a final norm. Other parameters have the names
of a ViT's and fit MAE's weights; the relative positions are new.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax.models.drop_path import drop_path
from mae_jax.models.encoder import Encoder
from mae_jax.models.limits import chosen
from mae_jax.models.norm import LayerNorm
from mae_jax.models.relative_positions import offsets_of
from mae_jax.models.transformer import QKV, REMAT, Mlp, check_choices, check_shape, dense_init
from mae_jax.models.vit import SIZES
from mae_jax.ops.attention import attention
from mae_jax.ops.interpolate import bilinear_matrix
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.ops.posemb import sincos, with_prefix
from mae_jax.ops.resample import resample_positions
from mae_jax.spec import nearest
from mae_jax.types import UserError

ROUND = 8
"""Queries and keys are padded to a multiple of these channels, which kernels need."""


class Attention(nn.Module):
    """Self-attention over a grid, with logits q k / sqrt(d) + q R[i - i'] + q C[j - j'] for a query
    at (i, j) and a key at (i', j'). All heads share the tables R and C.
    """

    heads: int
    grid: tuple[int, int]
    """Rows and columns for which the tables are; they are resized for other grids."""
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, D] to the same shape."""
        batch, rows, columns, width = x.shape
        size = width // self.heads
        qkv = QKV(self.dtype, name="qkv")(x.reshape(batch, rows * columns, width))
        # [B, h w, D] to [B, h, w, H, d]
        query, key, value = (y.reshape(batch, rows, columns, self.heads, size) for y in qkv)
        # The bias as more channels of queries and keys, so that kernels without bias serve, too:
        # the products of a query with all rows and columns, and the row and column of a key.
        by_row = jnp.einsum("bijhd,ikd->bijhk", query, self.table("rows", 0, rows, size))
        by_column = jnp.einsum("bijhd,jkd->bijhk", query, self.table("columns", 1, columns, size))
        more = rows + columns + -(size + rows + columns) % ROUND
        scale = math.sqrt(size + more)  # which the attention divides by
        zeros = jnp.zeros((*query.shape[:-1], more - rows - columns), query.dtype)
        query = [query * (scale / math.sqrt(size)), by_row * scale, by_column * scale, zeros]
        query = jnp.concatenate([y.astype(zeros.dtype) for y in query], axis=-1)
        at = np.zeros((rows, columns, 1, more), np.float32)
        at[..., :rows] = np.eye(rows)[:, None, None]
        at[..., rows : rows + columns] = np.eye(columns)[None, :, None]
        at = jnp.broadcast_to(jnp.asarray(at, key.dtype), (*key.shape[:-1], more))
        key = jnp.concatenate([key, at], axis=-1)  # [B, h, w, H, d + more]
        flat = lambda y: y.reshape(batch, rows * columns, self.heads, -1)
        x = attention(flat(query), flat(key), flat(value), kind=self.attention)
        x = x.reshape(batch, rows, columns, width)  # of [B, h w, H, d]
        return nn.Dense(width, kernel_init=dense_init, dtype=self.dtype, name="proj")(x)

    def table(self, name: str, axis: int, length: int, size: int) -> jax.Array:
        """R[i - i'] for all i and i' of an axis, [length, length, size]."""
        entries = 2 * self.grid[axis] - 1
        table = self.param(f"relative_{name}", nn.initializers.zeros, (entries, size))
        if self.grid[axis] != length:
            table = jnp.asarray(bilinear_matrix(2 * length - 1, entries)) @ table
        return jnp.einsum("oik,od->ikd", offsets_of(length), table, precision="highest")


class Block(nn.Module):
    """A pre-norm block on a map, with attention within windows or over all positions."""

    heads: int
    grid: tuple[int, int]
    """Rows and columns of a window, or of the map."""
    windows: bool
    mlp_ratio: float = 4.0
    dtype: Any = jnp.float32
    drop_path: float = 0.0
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[B, h, w, D] to the same shape; see `models.transformer.Block`."""
        rate, rng = self.drop_path if train else 0, lambda: self.make_rng("drop_path")
        y = LayerNorm(dtype=self.dtype, name="norm1")(x)
        layer = Attention(self.heads, self.grid, self.dtype, self.attention, name="attention")
        y = unpartition(layer(partition(y, self.grid)), y.shape) if self.windows else layer(y)
        x = x + drop_path(rng, y, rate)
        hidden = int(x.shape[-1] * self.mlp_ratio)
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        return x + drop_path(rng, Mlp(hidden, self.dtype, name="mlp")(y), rate)


def partition(x: jax.Array, window: tuple[int, int]) -> jax.Array:
    """Splits maps [B, h, w, D] into windows [B * windows, *window, D], row by row. Zeros below and
    to the right complete them; as published, they are keys like any other.
    """
    (batch, rows, columns, width), (height, wide) = x.shape, window
    x = jnp.pad(x, ((0, 0), (0, -rows % height), (0, -columns % wide), (0, 0)))
    x = x.reshape(batch, -(-rows // height), height, -(-columns // wide), wide, width)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, wide, width)


def unpartition(windows: jax.Array, shape: Sequence[int]) -> jax.Array:
    """The inverse of `partition` for maps of this shape [B, h, w, D]."""
    _, height, wide, width = windows.shape
    batch, rows, columns, _ = shape
    x = windows.reshape(batch, -(-rows // height), -(-columns // wide), height, wide, width)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # [B, windows, height, windows, wide, D]
    return x.reshape(batch, x.shape[1] * height, -1, width)[:, :rows, :columns]


class ViTDet(Encoder):
    """The backbone; `make` checks and documents its fields."""

    width: int
    depth: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0
    window: int = 14
    global_blocks: int = 4
    position_grid: int = 14
    grid: tuple[int, int] | None = None
    """Rows and columns of patches for which global blocks have tables; None: those at hand."""
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: str = "none"

    @property
    def architecture(self) -> tuple:
        """That of the ViT whose weights fit, with a class token that is not used."""
        return ("vit", self.width, self.depth, self.heads, self.patch, self.mlp_ratio, 1)

    def table(self, grid: tuple[int, ...]) -> np.ndarray:
        """The fixed positions [prefix + L, D] of a ViT with its weights."""
        return with_prefix(grid, self.width, self.prefix)

    @property
    def layers(self) -> int:
        """Every block is a layer."""
        return self.depth

    @property
    def global_indices(self) -> tuple[int, ...]:
        """The last block of each of `global_blocks` equal parts of the depth."""
        parts = self.global_blocks
        return tuple((i + 1) * self.depth // parts - 1 for i in range(parts))

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """Tokens [B, L, D] of whole images, without a norm; see `Encoder`."""
        if mask is not None:
            raise UserError("vitdet encodes whole images: pre-train a vit, whose weights it loads")
        images = images if normalize is None else normalize(images)
        return self.tokens_of(self.run(images, train=train)[-1])

    def layer_tokens(self, images: jax.Array, layers: Sequence[int]) -> list[jax.Array]:
        """Outputs of blocks [B, L, D], without a norm as that of the last; see `Encoder`."""
        outputs = self.run(images)
        return [self.tokens_of(outputs[layer]) for layer in layers]

    def tokens_of(self, x: jax.Array) -> jax.Array:
        """Tokens [B, L, D] of a map [B, h, w, D]."""
        return x.reshape(len(x), -1, self.width)

    def maps(
        self, images: jax.Array, *, train: bool = False, taps: Sequence[int] | None = (-1,)
    ) -> list[jax.Array]:
        """Outputs of blocks [B, h, w, D], by default of the last; see `Encoder`."""
        outputs = self.run(images, train=train)
        return [outputs[i] for i in chosen("block", self.depth, taps)]

    @nn.compact
    def run(self, images: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """The outputs of all blocks, [B, h, w, D] each."""
        grid = grid_of(images.shape[1:-1], self.patch)
        embed = nn.Dense(self.width, kernel_init=dense_init, dtype=self.dtype, name="embed")
        x = embed(patchify(images, self.patch))  # [B, L, D]
        # At the resolution of pre-training, and resampled in each step.
        old = (self.position_grid, self.position_grid)
        table = self.param("positions", lambda key: jnp.asarray(sincos(old, self.width)))
        positions = resample_positions(table, old, grid, prefix=0)  # [L, D]
        x = (x + positions.astype(x.dtype)).reshape(-1, *grid, self.width)
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT[self.remat], static_argnums=(2,))  # train
        outputs = []
        for i in range(self.depth):
            windows = i not in self.global_indices
            layer = block(
                heads=self.heads,
                grid=(self.window, self.window) if windows else self.grid or grid,
                windows=windows,
                mlp_ratio=self.mlp_ratio,
                dtype=self.dtype,
                drop_path=self.drop_path * i / max(1, self.depth - 1),
                attention=self.attention,
                name=f"block_{i}",
            )
            x = layer(x, train)
            outputs.append(x)
        return outputs


def make(
    size: str | None = None,
    *,
    patch: int = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: float = 4.0,
    window: int = 14,
    global_blocks: int = 4,
    position_grid: int = 14,
    drop_path: float = 0.0,
    attention: str = "auto",
    remat: str = "none",
    dtype: Any = jnp.float32,
) -> ViTDet:
    """Builds a ViTDet of a named size, or with the given width, depth and heads.

    Args:
        size: one of Ti, S, B, L, H; see `models.vit.SIZES`.
        patch: side of a patch in pixels.
        width, depth, heads: channels, blocks and attention heads; they override the size's.
        mlp_ratio: ratio of the MLP's hidden width to `width`.
        window: side of a window in patches.
        global_blocks: number of blocks with global attention, at equal distances.
        position_grid: side in patches of the images of pre-training, for which there are learned
            positions.
        drop_path: rate of stochastic depth in the last block, in [0, 1).
        attention: kernel, one of `ops.attention.CHOICES`; 'auto' chooses by the devices.
        remat: rematerialization, a name of `models.transformer.REMAT`.
        dtype: of matrix products and activations; parameters are float32.

    Raises:
        UserError: an unknown size or option, an incomplete shape, or an invalid value.
    """
    if size is not None and size not in SIZES:
        raise UserError(f"vitdet size {size!r} is unknown{nearest(size, SIZES)}")
    shape = dict(SIZES.get(size, {}))
    shape |= {k: v for k, v in dict(width=width, depth=depth, heads=heads).items() if v is not None}
    if len(shape) < 3:
        raise UserError("vitdet needs a size (Ti, S, B, L, H) or all of width, depth and heads")
    check_shape("vitdet", **shape)
    choices = dict(attention=attention, remat=remat, dtype=dtype)
    check_choices("vitdet", shape, gather="take", **choices)
    sides = dict(patch=patch, window=window, position_grid=position_grid)
    if min(sides.values()) < 1 or mlp_ratio * shape["width"] < 1:
        raise UserError(f"vitdet: {sides} and mlp_ratio={mlp_ratio} must be positive")
    if not 0 <= global_blocks <= shape["depth"]:
        raise UserError(
            f"vitdet: global_blocks={global_blocks} is outside [0, {shape['depth']}], its depth"
        )
    if not 0 <= drop_path < 1:
        raise UserError(f"vitdet: drop_path={drop_path} is outside [0, 1)")
    return ViTDet(
        **sides,
        mlp_ratio=mlp_ratio,
        global_blocks=global_blocks,
        drop_path=drop_path,
        **choices,
        **shape,
    )
