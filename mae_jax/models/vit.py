"""The Vision Transformer (arXiv 2010.11929) as masked autoencoders use it (arXiv 2111.06377).

Pre-norm blocks, exact GELU, LayerNorm with epsilon 1e-6, Xavier-uniform weights, fixed sine-cosine
positions and a class token. Given a mask it sees the visible patches only, which is what makes
MAE pre-training cheap. Parameters are float32; `dtype` is what the matrix products run in, while
softmax and normalisation statistics stay in float32.

What costs time or memory can be chosen, and changes no number beyond rounding: the kernel of
`attention`, what the backward pass computes again (`remat`), and how visible patches are taken
(`gather`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.drop_path import drop_path
from mae_jax.models.limits import check_size
from mae_jax.models.norm import LayerNorm
from mae_jax.ops import gather as gathers
from mae_jax.ops.activations import gelu
from mae_jax.ops.attention import attention, check_attention, split
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.ops.posemb import with_class_token
from mae_jax.spec import check_choice, nearest
from mae_jax.types import UserError

SIZES = {
    "Ti": dict(width=192, depth=12, heads=3),
    "S": dict(width=384, depth=12, heads=6),
    "B": dict(width=768, depth=12, heads=12),
    "L": dict(width=1024, depth=24, heads=16),
    "H": dict(width=1280, depth=32, heads=16),
}

dense_init = nn.initializers.xavier_uniform()
token_init = nn.initializers.normal(0.02)

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What the backward pass finds saved of each block: everything; the results of its dense layers;
its input alone (arXiv 1604.06174). XLA's CPU backend computes again, but saves no memory by it.
"""


class QueriesKeysValues(nn.Module):
    """One dense layer for all three. The first tokens may need no queries."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: int = 0) -> list[jax.Array]:
        """[B, T, D] to queries [B, T - skip, D] and keys and values [B, T, D]."""
        width = x.shape[-1]
        kernel = self.param("kernel", dense_init, (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (3 * width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        queries, keys, values = split(x @ kernel + bias, 3)
        # Skipped after the product: a slice of a kernel that is split over devices costs permutes.
        return [queries[:, skip:], keys, values]


class Attention(nn.Module):
    """Multi-head self-attention. Queries, keys and values come from one product."""

    heads: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, skip: int = 0) -> jax.Array:
        """[B, T, D] to [B, T - skip, D]: the first `skip` tokens are only looked at."""
        width = x.shape[-1]
        parts = QueriesKeysValues(self.dtype, name="qkv")(x, skip)
        parts = [y.reshape(*y.shape[:2], self.heads, width // self.heads) for y in parts]
        x = attention(*parts, kind=self.attention)
        x = x.reshape(*x.shape[:2], width)
        return nn.Dense(width, kernel_init=dense_init, dtype=self.dtype, name="proj")(x)


class Mlp(nn.Module):
    """Two dense layers with an exact GELU between."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] to [B, T, D]."""
        width = x.shape[-1]
        x = nn.Dense(self.hidden, kernel_init=dense_init, dtype=self.dtype, name="fc1")(x)
        x = gelu(x)
        return nn.Dense(width, kernel_init=dense_init, dtype=self.dtype, name="fc2")(x)


class Block(nn.Module):
    """One pre-norm transformer block."""

    heads: int
    mlp_ratio: float = 4.0
    dtype: Any = jnp.float32
    drop_path: float = 0.0
    """Probability that an example skips a branch, in training (stochastic depth, 1603.09382)."""

    attention: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, skip: int = 0) -> jax.Array:
        """[B, T, D] to [B, T - skip, D]: of the first `skip` tokens nothing is wanted."""
        hidden = int(x.shape[-1] * self.mlp_ratio)
        y = LayerNorm(dtype=self.dtype, name="norm1")(x)
        rate = self.drop_path if train else 0
        rng = lambda: self.make_rng("drop_path")
        y = Attention(self.heads, self.dtype, self.attention, name="attention")(y, skip)
        x = x[:, skip:] + drop_path(rng, y, rate)
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        return x + drop_path(rng, Mlp(hidden, self.dtype, name="mlp")(y), rate)


def block_class(remat: str) -> type[Block]:
    """`Block`, or one that saves less for the backward pass: a name of `REMAT`."""
    if remat == "none":
        return Block
    return nn.remat(Block, policy=REMAT[remat], static_argnums=(2, 3))


class ViT(nn.Module):
    """The encoder."""

    width: int
    depth: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0
    mask_tokens: bool = False
    """Keep hidden patches in the sequence as a learned token: the paper's ablation."""
    drop_path: float = 0.0
    """Of the last block; it rises from 0 in the first."""
    learned_positions: bool = False
    """Sine-cosine positions are where parameters start, for patches and the class token."""
    final_norm: bool = True
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: str = "none"
    gather: str = "take"

    @property
    def stem(self) -> int:
        """Side in pixels of what the first layer sees at once; a convolutional encoder's is not
        its `patch`.
        """
        return self.patch

    @property
    def architecture(self) -> tuple:
        """What must be the same for parameters to fit: not how it is trained or computed."""
        return ("vit", self.width, self.depth, self.heads, self.patch, self.mlp_ratio)

    @nn.compact
    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """Encodes whole images, or their visible patches.

        Args:
            images: [B, H, W, C] float, or uint8 with `normalize`; any aspect and number of
                channels.
            mask: which patches are visible; None: all.
            train: paths are dropped; needs the random stream 'drop_path'.
            normalize: for images that are uint8, see `MAE`.

        Returns:
            [B, 1 + K, D] tokens after the final norm: the class token, then the visible patches in
            the order of `mask.keep` (with `mask_tokens`, or without a mask: all L in image order).
        """
        patches = patchify(images, self.patch)  # [B, L, patch * patch * C]
        first, positions = self.positions(grid_of(images.shape[1:3], self.patch))
        if mask is not None and not self.mask_tokens:
            patches = gathers.take_tokens(patches, mask.keep, kind=self.gather)
            positions = gathers.take_tokens(positions, mask.keep, kind=self.gather)
        if normalize is not None:
            patches = normalize(patches, pixels=self.patch**2)
        x = nn.Dense(self.width, kernel_init=dense_init, dtype=self.dtype, name="embed")(patches)
        if mask is not None and self.mask_tokens:
            token = self.param("mask_token", token_init, (1, 1, self.width))
            x = jnp.where(mask.mask[:, :, None], token.astype(x.dtype), x)
        x = x + positions.astype(x.dtype)
        x = prepend(self.param("cls_token", token_init, (1, 1, self.width)) + first, x)
        for i in range(self.depth):
            rate = self.drop_path * i / max(1, self.depth - 1)
            options = (self.heads, self.mlp_ratio, self.dtype, rate, self.attention)
            x = block_class(self.remat)(*options, name=f"block_{i}")(x, train, 0)
        return LayerNorm(dtype=self.dtype, name="norm")(x) if self.final_norm else x

    def positions(self, grid: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
        """Those of the class token [D], which starts at zero, and of the patches [L, D]."""
        start = jnp.asarray(with_class_token(grid, self.width))
        if self.learned_positions:
            start = self.param("positions", lambda key: start)
        return start[0], start[1:]


def prepend(token: jax.Array, x: jax.Array) -> jax.Array:
    """Puts a token [1, 1, D] in front of every sequence of x [B, T, D]."""
    token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, x.shape[2]))
    return jnp.concatenate([token, x], axis=1)


def make(
    size: str | None = None,
    *,
    patch: int = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: float = 4.0,
    mask_tokens: bool = False,
    drop_path: float = 0.0,
    learned_positions: bool = False,
    final_norm: bool = True,
    attention: str = "auto",
    remat: str = "none",
    gather: str = "take",
    dtype: Any = jnp.float32,
) -> ViT:
    """A ViT of a named size, or of free width, depth and heads (each also overrides the size's).

    Args:
        size: one of Ti, S, B, L, H.
        patch: side of a patch in pixels.
        drop_path: rate of stochastic depth in the last block, in [0, 1).
        attention: kind of kernel, of `ops.attention.CHOICES`; 'auto': what suits the devices.
        remat: what the backward pass finds saved, a name of `REMAT`: 'none' is fast, 'dots' and
            'full' save memory.
        gather: 'take' or 'onehot', see `ops.gather`.

    Raises:
        UserError: unknown size, an incomplete shape, heads that do not divide the width, or a
            choice that there is not.
    """
    if size is not None and size not in SIZES:
        raise UserError(f"vit size {size!r} is unknown{nearest(size, SIZES)}")
    shape = dict(SIZES.get(size, {}))
    shape |= {k: v for k, v in dict(width=width, depth=depth, heads=heads).items() if v is not None}
    if len(shape) < 3:
        raise UserError("vit needs a size (Ti, S, B, L, H) or all of width, depth and heads")
    check_shape("vit", **shape)
    choices = dict(attention=attention, remat=remat, gather=gather, dtype=dtype)
    check_choices("vit", shape, **choices)
    if patch < 1 or mlp_ratio * shape["width"] < 1:
        raise UserError(f"vit: patch={patch} and mlp_ratio={mlp_ratio} must be positive")
    if not 0 <= drop_path < 1:
        raise UserError(f"vit: drop_path={drop_path} is outside [0, 1)")
    return ViT(
        patch=patch,
        mlp_ratio=mlp_ratio,
        mask_tokens=mask_tokens,
        drop_path=drop_path,
        learned_positions=learned_positions,
        final_norm=final_norm,
        **choices,
        **shape,
    )


def check_shape(name: str, *, width: int, depth: int, heads: int) -> None:
    """Raises UserError unless this is a transformer that can be built."""
    check_size(name, width=width, depth=depth, heads=heads)
    if width % heads or width % 4:
        raise UserError(
            f"{name}: width {width} must be a multiple of its {heads} heads and, for sine-cosine "
            "positions, of 4"
        )


def check_choices(
    name: str, shape: dict[str, int], *, attention: str, remat: str, gather: str, dtype: Any
) -> None:
    """Raises UserError unless a transformer of this width and heads can be computed like this."""
    check_attention(name, attention, width=shape["width"], heads=shape["heads"], dtype=dtype)
    check_choice(f"{name}: remat", remat, REMAT)
    check_choice(f"{name}: gather", gather, gathers.KINDS)
