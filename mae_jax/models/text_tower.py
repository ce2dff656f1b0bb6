"""A transformer that encodes texts as vectors, for methods that compare them with images: CLIP
(arXiv 2103.00020) and FLIP (arXiv 2212.00794).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.norm import LayerNorm
from mae_jax.models.transformer import ACTIVATIONS, blocks, check_choices, check_shape, token_init
from mae_jax.models.vit import SIZES
from mae_jax.spec import check_choice, nearest
from mae_jax.types import UserError

POOLS = ("first", "last", "mean")


class TextTower(nn.Module):
    """The encoder of texts; `make` documents the fields."""

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    pool: str = "last"
    causal: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-6
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: str = "none"

    @nn.compact
    def __call__(self, text: jax.Array, valid: jax.Array) -> jax.Array:
        """Encodes texts as features [B, D] float32.

        Args:
            text: [B, T] int32.
            valid: [B, T] bool; False for padding, to which no token attends. Features of a text
                without tokens have no meaning.
        """
        batch, length = text.shape
        table = self.param("table", token_init, (self.vocabulary, self.width))
        x = jnp.take(table, text, axis=0, mode="clip")  # [B, T, D]
        x = x + self.param("positions", token_init, (self.length, self.width))
        mask = valid[:, None, None, :]  # [B, 1, 1, T]
        if self.causal:
            mask = mask & jnp.tril(jnp.ones((length, length), bool))  # [B, 1, T, T]
        x = blocks(
            x.astype(self.dtype),
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype,
            attention=self.attention,
            remat=self.remat,
            activation=self.activation,
            epsilon=self.epsilon,
            mask=mask,
        ).last  # [B, T, D]
        x = LayerNorm(dtype=self.dtype, epsilon=self.epsilon, name="norm")(x).astype(jnp.float32)
        if self.pool == "mean":
            weights = valid[:, :, None].astype(jnp.float32)  # [B, T, 1]
            return jnp.sum(x * weights, axis=1) / jnp.maximum(weights.sum(axis=1), 1)
        if self.pool == "first":
            return x[:, 0]
        last = jnp.max(jnp.arange(length) * valid, axis=1)  # [B]
        return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]  # [B, 1, D] to [B, D]


def make(
    size: str | None = None,
    *,
    vocabulary: int,
    length: int,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: float = 4.0,
    pool: str = "last",
    causal: bool = False,
    activation: str = "gelu",
    epsilon: float = 1e-6,
    attention: str = "auto",
    remat: str = "none",
    dtype: Any = jnp.float32,
) -> TextTower:
    """Builds a text tower of a named size, or with the given width, depth and heads.

    Args:
        size: one of Ti, S, B, L, H, as of a vit.
        vocabulary: number of different tokens.
        length: number of tokens T of a text with its padding.
        width, depth, heads: channels, blocks and attention heads; they override the size's.
        mlp_ratio: ratio of the MLP's hidden width to `width`.
        pool: the token whose output are the features: the 'first', e.g. [CLS], or the 'last' one
            that is no padding, the end token; or the 'mean' of all tokens.
        causal: whether tokens attend only to themselves and earlier ones, as in CLIP.
        activation, epsilon: of the MLPs, one of `transformer.ACTIVATIONS`; of the norms.
        attention, remat, dtype: see `models.vit.make`.

    Raises:
        UserError: an unknown size or option, an incomplete shape, or an invalid value.
    """
    if size is not None and size not in SIZES:
        raise UserError(f"text_tower size {size!r} is unknown{nearest(size, SIZES)}")
    shape = dict(SIZES.get(size, {}))
    shape |= {k: v for k, v in dict(width=width, depth=depth, heads=heads).items() if v is not None}
    if len(shape) < 3:
        raise UserError("text_tower needs a size (Ti, S, B, L, H) or width, depth and heads")
    check_shape("text_tower", **shape)
    check_choices("text_tower", shape, attention=attention, remat=remat, gather="take", dtype=dtype)
    check_choice("text_tower: pool", pool, POOLS)
    check_choice("text_tower: activation", activation, ACTIVATIONS)
    if causal and pool == "first":
        raise UserError("text_tower: the first token of causal=True sees no other: set pool=last")
    if mlp_ratio * shape["width"] < 1 or epsilon <= 0:
        raise UserError(f"text_tower: mlp_ratio={mlp_ratio}, epsilon={epsilon} must be positive")
    return TextTower(
        vocabulary=vocabulary,
        length=length,
        mlp_ratio=mlp_ratio,
        pool=pool,
        causal=causal,
        activation=activation,
        epsilon=epsilon,
        attention=attention,
        remat=remat,
        dtype=dtype,
        **shape,
    )
