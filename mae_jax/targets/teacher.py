"""Features of a frozen teacher as targets: its tokens of the whole image at the masked patches
(MILAN, arXiv 2208.06049; dBOT, arXiv 2209.03917). A teacher that moves is the target `ema`.

The teacher is loaded by a row of `init_from`, from a run or from published weights. It may have
another architecture than the encoder that learns, but not another patch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.models.encoder import Encoder
from mae_jax.spec import build, check_choice
from mae_jax.targets import Constants, Target, TargetContext, check_own_statistics
from mae_jax.types import Params, UserError

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher(Target):
    """Tokens of a frozen encoder; `make` documents the fields."""

    encoder: Encoder
    blocks: int
    normalize: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Width of the teacher."""
        return self.encoder.width

    def teachers(self) -> Mapping[str, Any]:
        """The teacher is the constant 'encoder'."""
        return {"encoder": self.encoder}

    def initial(self, images: jax.Array, patch: tuple[int, ...]) -> Constants:
        """'encoder': random parameters, until `init_from` loads others."""
        inputs = jnp.zeros((1, *images.shape[1:]))
        return {"encoder": self.encoder.init(jax.random.key(0), inputs)["params"]}

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Tokens [B, K, D] float32 of the patches that count in the loss.

        Raises:
            UserError: the teacher has another number of tokens than the image has patches.
        """
        inputs = context.inputs(images, self.mean, self.std)
        tokens = tokens_of(self.encoder, constants["encoder"], inputs, self.blocks)  # [B, L, D]
        length = context.length(images)
        if tokens.shape[1] != length:
            raise UserError(
                f"teacher: it has {tokens.shape[1]} tokens for an image of {length} patches: give "
                f"it the patch of method.args.encoder, {context.patch}"
            )
        tokens = context.take(tokens).astype(jnp.float32)  # [B, K, D]
        return standardized(tokens) if self.normalize else tokens


def tokens_of(encoder: Encoder, params: Params, inputs: jax.Array, blocks: int) -> jax.Array:
    """Tokens of all patches of whole images.

    Args:
        encoder: the network.
        params: its parameters.
        inputs: [B, *space, C] float32, normalized.
        blocks: 0: its output; otherwise the mean of the outputs of this many last blocks, at most
            `encoder.depth`.

    Returns:
        [B, L, D].

    Raises:
        UserError: blocks with outputs of different sizes.
    """
    variables = {"params": params}
    if not blocks:
        return encoder.apply(variables, inputs)[:, encoder.prefix :]
    taps = tuple(range(encoder.depth - blocks, encoder.depth))
    maps = encoder.apply(variables, inputs, taps=taps, method="maps")
    if len({one.shape for one in maps}) > 1:
        raise UserError(
            f"target: the last {blocks} blocks have outputs of different sizes: set blocks=0"
        )
    mean = sum(one.astype(jnp.float32) for one in maps) / len(maps)  # [B, *grid, D]
    return mean.reshape(len(mean), -1, mean.shape[-1])  # [B, L, D]


def standardized(tokens: jax.Array) -> jax.Array:
    """Each token [..., D] with mean 0 and variance 1: a layer norm without parameters."""
    mean, variance = (f(tokens, axis=-1, keepdims=True) for f in (jnp.mean, jnp.var))
    return (tokens - mean) * jax.lax.rsqrt(variance + EPSILON)


def make(
    encoder: str = "vit(B, patch=16)",
    *,
    blocks: int = 0,
    normalize: bool = True,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    dtype: str = "float32",
) -> Teacher:
    """Features of a frozen encoder at each masked patch. Load it with
    `init_from.teacher=dict(path=..., into='extra/target/encoder')`; without, it is random.

    Args:
        encoder: spec string of the teacher in quotes: teacher('vit(B, patch=16)').
        blocks: 0: its output; otherwise the mean of the outputs of this many last blocks, before
            any norm, as in data2vec.
        normalize: normalize each token by its own mean and standard deviation.
        mean, std: of the pixels in [0, 1] that the teacher was trained with; (): the method's.
        dtype: of its computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown encoder, more blocks than it has, or only one of mean and std.
    """
    check_choice("teacher: dtype", dtype, ("float32", "bfloat16"))
    network = build(encoder, "models", Encoder, dtype=jnp.dtype(dtype))
    if not 0 <= blocks <= network.depth:
        raise UserError(f"teacher(blocks={blocks}): {encoder} has {network.depth}")
    check_own_statistics("teacher", mean, std)
    return Teacher(
        encoder=network, blocks=blocks, normalize=normalize, mean=tuple(mean), std=tuple(std)
    )
