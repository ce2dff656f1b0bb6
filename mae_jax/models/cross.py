"""The decoder of CrossMAE (arXiv 2401.14391): queries of the patches to predict attend to the
encoder's tokens, and not to each other.

So any subset of the patches can be predicted, at a cost in proportion to its size, and one patch's
prediction does not depend on which others are predicted.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.decoder import PatchDecoder
from mae_jax.models.norm import LayerNorm
from mae_jax.models.positions import positions
from mae_jax.models.transformer import REMAT, Mlp, dense_init, token_init
from mae_jax.ops.attention import attention, split
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask


class CrossAttention(nn.Module):
    """Multi-head attention of queries to the tokens of another sequence."""

    heads: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, tokens: jax.Array) -> jax.Array:
        """Queries from x [B, M, D], keys and values from tokens [B, T, E], to outputs [B, M, D]."""
        width = x.shape[-1]
        dense = lambda size, name: nn.Dense(
            size, kernel_init=dense_init, dtype=self.dtype, name=name
        )
        qkv = [dense(width, "q")(x), *split(dense(2 * width, "kv")(tokens), 2)]
        # [B, M or T, D] to [B, M or T, H, d]
        qkv = [y.reshape(*y.shape[:2], self.heads, width // self.heads) for y in qkv]
        y = attention(*qkv, kind=self.attention).reshape(x.shape)  # [B, M, H, d] to [B, M, D]
        return dense(width, "proj")(y)


class CrossBlock(nn.Module):
    """A pre-norm block of cross-attention and an MLP, without self-attention."""

    heads: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, tokens: jax.Array) -> jax.Array:
        """[B, M, D] to [B, M, D], with the encoder's tokens [B, T, E], which are normalized."""
        y = LayerNorm(dtype=self.dtype, name="norm1")(x)
        x = x + CrossAttention(self.heads, self.dtype, self.attention, name="attention")(y, tokens)
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        return x + Mlp(4 * x.shape[-1], self.dtype, name="mlp")(y)


class CrossDecoder(PatchDecoder):
    """The cross-attention decoder, called like `models.mae.Decoder`."""

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        mask: Mask | None,
        grid: tuple[int, ...],
        values: int,
        masked_only: bool = False,
    ) -> jax.Array:
        """Predicts every patch, or only those of `mask.masked`, which may be a subset.

        Args:
            tokens: [B, T, E] from the encoder, or [depth, B, T, E]: others for each block.
            mask: the mask that the encoder applied; not needed to predict all patches.
            grid: number of patches along each axis.
            values: number of values V to predict for each patch.
            masked_only: predict only the patches of `mask.masked`.

        Returns:
            [B, L, V] in image order; with `masked_only`, [B, M, V] in the order of `mask.masked`.
        """
        x = positions(self, grid).patches.astype(self.dtype)  # [L, D]
        if masked_only:
            x = take_tokens(x, mask.masked, kind=self.gather)  # [B, M, D]
        x = x + self.param("mask_token", token_init, (1, 1, self.width)).astype(x.dtype)
        x = jnp.broadcast_to(x, (tokens.shape[-3], *x.shape[1:]))  # [1, L, D] to [B, L, D]
        block = CrossBlock
        if self.remat != "none":
            block = nn.remat(CrossBlock, policy=REMAT[self.remat])
        for i in range(self.depth):
            layer = block(self.heads, self.dtype, self.attention, name=f"block_{i}")
            x = layer(x, tokens[i] if tokens.ndim == 4 else tokens)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        return nn.Dense(values, kernel_init=dense_init, dtype=self.dtype, name="predict")(x)


class KeyMix(nn.Module):
    """Mixes the tokens of several encoder blocks with learned weights, one mix for each block of
    the decoder ("inter-block attention").

    The paper normalizes each mix by a LayerNorm of its own. Here it is the encoder's final norm,
    which has the same effect: scale and bias can be absorbed by the keys' and values' projection.
    """

    depths: tuple[int, ...]
    """The tokens that are mixed, see `Encoder.fused`."""
    mixes: int
    """Number of blocks of the decoder."""

    @nn.compact
    def __call__(self, states: list[jax.Array]) -> jax.Array:
        """N arrays [B, T, E] to [mixes, B, T, E]."""
        init = nn.initializers.normal(1 / math.sqrt(len(states)))
        weights = self.param("weights", init, (self.mixes, len(states)))
        # [N, B, T, E]. Not jnp.stack, which jax2onnx does not support.
        stacked = jnp.concatenate([x[None] for x in states])
        # [mixes, N], [N, B, T, E] -> [mixes, B, T, E]
        return jnp.einsum("mn,nbte->mbte", weights.astype(states[0].dtype), stacked)


class Fusion(nn.Module):
    """Multi-level feature fusion (MFF, arXiv 2308.00261): the weighted mean of the tokens of
    several encoder blocks, each but the last in a learned projection.
    """

    depths: tuple[int, ...]
    """The tokens that are fused, see `Encoder.fused`."""

    @nn.compact
    def __call__(self, states: list[jax.Array]) -> jax.Array:
        """N arrays [B, T, E] to [B, T, E]."""
        weights = jax.nn.softmax(self.param("weights", nn.initializers.ones, (len(states),)))
        width, dtype = states[0].shape[-1], states[0].dtype
        dense = lambda name: nn.Dense(width, kernel_init=dense_init, dtype=dtype, name=name)
        terms = [dense(f"project_{i}")(x) for i, x in enumerate(states[:-1])] + states[-1:]
        return sum(w * x for w, x in zip(weights.astype(dtype), terms, strict=True))
