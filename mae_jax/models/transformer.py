"""Transformer blocks of Vision Transformers (arXiv 2010.11929), shared by encoders and decoders:
pre-norm, Xavier-uniform weights, and by default exact GELU and LayerNorm with epsilon 1e-6.
Parameters are float32. `dtype` is the type of matrix products and activations; softmax and
normalization statistics are always float32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.drop_path import drop_path
from mae_jax.models.limits import check_size, chosen
from mae_jax.models.norm import LayerNorm
from mae_jax.models.relative_positions import RelativePositions
from mae_jax.ops.activations import gelu, quick_gelu
from mae_jax.ops.attention import attention, attention_weights, check_attention, split
from mae_jax.ops.gather import KINDS
from mae_jax.ops.norm import EPSILON
from mae_jax.spec import check_choice
from mae_jax.types import UserError

dense_init = nn.initializers.xavier_uniform()  # as in the official MAE and the JAX ViT
token_init = nn.initializers.normal(0.02)

ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}
"""Activations of MLPs."""

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Rematerialization policies (arXiv 1604.06174), by the residuals that each block saves for the
backward pass: all; only the outputs of its dense layers; only its input. On CPUs, XLA recomputes
but saves no memory.
"""


class QKV(nn.Module):
    """Projects tokens to queries, keys and values by one dense layer."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skip: int = 0) -> list[jax.Array]:
        """[B, T, D] to queries [B, T - skip, D], keys [B, T, D] and values [B, T, D].

        Args:
            skip: number of first tokens that need no queries.
        """
        width = x.shape[-1]
        kernel = self.param("kernel", dense_init, (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (3 * width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        queries, keys, values = split(x @ kernel + bias, 3)  # of [B, T, 3 D]
        # Sliced after the product: slicing a kernel that is sharded over devices costs collectives.
        return [queries[:, skip:], keys, values]


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762)."""

    heads: int
    dtype: Any = jnp.float32
    attention: str = "auto"
    relative: tuple[int, int] | None = None
    """Rows and columns of patches that have a bias by relative position; None: there is none."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        skip: int = 0,
        weights: bool = False,
        *,
        bias=None,
        mask=None,
        nudge: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Tokens [B, T, D] to outputs [B, T - skip, D], and attention weights or None.

        Args:
            skip: number of first tokens that serve as keys and values only, without an output.
            weights: also return the attention weights [B, H, T - skip, T] float32.
            bias, mask: see `ops.attention.attention`.
            nudge: [B, H, T - skip, T] added to the attention weights, whose gradient is then that
                of the nudge. The outputs are computed from the weights, without a kernel.
        """
        width = x.shape[-1]
        qkv = QKV(self.dtype, name="qkv")(x, skip)
        # [B, T, D] to [B, T, H, d], of queries [B, T - skip, H, d]
        qkv = [y.reshape(*y.shape[:2], self.heads, width // self.heads) for y in qkv]
        if self.relative is not None:
            table = RelativePositions(self.relative, name="relative_positions")
            relative = table(x.shape[1], self.heads)[:, :, skip:]  # [1, H, T - skip, T]
            bias = relative if bias is None else bias + relative
        shown = attention_weights(*qkv[:2], bias=bias, mask=mask) if weights else None
        if nudge is None:
            x = attention(*qkv, bias=bias, mask=mask, kind=self.attention)  # [B, T - skip, H, d]
        else:
            nudged = attention_weights(*qkv[:2], bias=bias, mask=mask) + nudge
            x = jnp.einsum("bhts,bshd->bthd", nudged, qkv[2])  # [B, T - skip, H, d]
        x = x.reshape(*x.shape[:2], width)  # [B, T - skip, D]
        return nn.Dense(width, kernel_init=dense_init, dtype=self.dtype, name="proj")(x), shown


class Mlp(nn.Module):
    """The MLP of a block: two dense layers with an activation in between."""

    hidden: int
    dtype: Any = jnp.float32
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] to [B, T, D]."""
        width = x.shape[-1]
        x = nn.Dense(self.hidden, kernel_init=dense_init, dtype=self.dtype, name="fc1")(x)
        x = ACTIVATIONS[self.activation](x)  # [B, T, hidden]
        return nn.Dense(width, kernel_init=dense_init, dtype=self.dtype, name="fc2")(x)


class Block(nn.Module):
    """One pre-norm transformer block."""

    heads: int
    mlp_ratio: float = 4.0
    dtype: Any = jnp.float32
    drop_path: float = 0.0
    """Rate of stochastic depth in training (arXiv 1603.09382)."""

    attention: str = "auto"
    relative: tuple[int, int] | None = None
    activation: str = "gelu"
    epsilon: float = EPSILON

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        skip: int = 0,
        weights: bool = False,
        *,
        bias: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Tokens [B, T, D] to [B, T - skip, D], and attention weights or None; see `Attention`.

        Args:
            train: applies stochastic depth, which needs the random stream 'drop_path'.
            skip: number of first tokens whose outputs are not computed.
        """
        hidden = int(x.shape[-1] * self.mlp_ratio)
        y = LayerNorm(dtype=self.dtype, epsilon=self.epsilon, name="norm1")(x)
        rate = self.drop_path if train else 0
        rng = lambda: self.make_rng("drop_path")
        layer = Attention(self.heads, self.dtype, self.attention, self.relative, name="attention")
        y, shown = layer(y, skip, weights, bias=bias, mask=mask)
        x = x[:, skip:] + drop_path(rng, y, rate)  # [B, T - skip, D]
        y = LayerNorm(dtype=self.dtype, epsilon=self.epsilon, name="norm2")(x)
        mlp = Mlp(hidden, self.dtype, self.activation, name="mlp")
        return x + drop_path(rng, mlp(y), rate), shown


def block_class(remat: str) -> type[Block]:
    """`Block`, rematerialized by the policy of this name in `REMAT`."""
    if remat == "none":
        return Block
    # (2, 3, 4) are train, skip and weights. Static arguments must be positional, so callers pass
    # bias and mask, which are arrays, by keyword.
    return nn.remat(Block, policy=REMAT[remat], static_argnums=(2, 3, 4))


class Trunk(NamedTuple):
    """The outputs of a stack of blocks."""

    last: jax.Array
    """[B, T - skip, D], the output of the last block."""
    taps: list[jax.Array]
    """Outputs of the requested blocks, [B, T, D] each; of the last block [B, T - skip, D]."""
    weights: list[jax.Array]
    """Attention weights of the requested blocks, [B, heads, T, T] float32 each; of the last block
    [B, heads, T - skip, T]."""


def blocks(
    x: jax.Array,
    *,
    depth: int,
    heads: int,
    mlp_ratio: float = 4.0,
    dtype: Any = jnp.float32,
    drop_path: float = 0.0,
    attention: str = "auto",
    remat: str = "none",
    taps: Sequence[int] | None = (),
    weighted: Sequence[int] | None = (),
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    relative: tuple[int, int] | None = None,
    activation: str = "gelu",
    epsilon: float = EPSILON,
    skip: int = 0,
    train: bool = False,
) -> Trunk:
    """Applies a stack of transformer blocks. Call it inside of `nn.compact`: the blocks become the
    caller's submodules 'block_0', 'block_1', ...

    Args:
        x: tokens [B, T, D].
        depth, heads, mlp_ratio, dtype, attention, remat: see `models.vit.make`.
        drop_path: rate of the last block; it rises linearly from 0 in the first.
        taps, weighted: indices of the blocks whose outputs, or attention weights, are also
            returned; negative ones count from the end; None: all.
        bias, mask: for the attention of every block, see `ops.attention.attention`.
        activation, epsilon: of the MLPs, one of `ACTIVATIONS`; of the norms.
        relative: see `Attention`; each block has its own table.
        skip: number of first tokens whose outputs the last block does not compute.
        train: applies stochastic depth.

    Raises:
        UserError: an index of a block out of range.
    """
    taps, weighted = (chosen("block", depth, numbers) for numbers in (taps, weighted))
    block, outputs, shown = block_class(remat), {}, {}
    for i in range(depth):
        layer = block(
            heads=heads,
            mlp_ratio=mlp_ratio,
            dtype=dtype,
            drop_path=drop_path * i / max(1, depth - 1),
            attention=attention,
            relative=relative,
            activation=activation,
            epsilon=epsilon,
            name=f"block_{i}",
        )
        skipped = skip if i == depth - 1 else 0  # earlier blocks need all tokens as keys and values
        x, shown[i] = layer(x, train, skipped, i in weighted, bias=bias, mask=mask)
        outputs[i] = x
    return Trunk(x, [outputs[i] for i in taps], [shown[i] for i in weighted])


def check_shape(name: str, *, width: int, depth: int, heads: int) -> None:
    """Raises UserError unless these are valid sizes of a transformer."""
    check_size(name, width=width, depth=depth, heads=heads)
    if width % heads:
        raise UserError(f"{name}: width {width} must be a multiple of its {heads} heads")


def check_choices(
    name: str, shape: dict[str, int], *, attention: str, remat: str, gather: str, dtype: Any
) -> None:
    """Raises UserError unless these are valid options for a transformer of this width and heads."""
    check_attention(name, attention, width=shape["width"], heads=shape["heads"], dtype=dtype)
    check_choice(f"{name}: remat", remat, REMAT)
    check_choice(f"{name}: gather", gather, KINDS)
