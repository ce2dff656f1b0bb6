"""Features of a frozen teacher as targets: its tokens of the whole image at the masked patches
(MILAN, arXiv 2208.06049; dBOT, arXiv 2209.03917; data2vec, arXiv 2202.03555, whose teacher moves).

The teacher is loaded by a row of `init_from`, from a run or from published weights. It may have
another architecture than the encoder that learns, but not another patch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.ops import pixels
from mae_jax.spec import build, check_choice
from mae_jax.targets import Constants, Target, TargetContext
from mae_jax.types import UserError

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher(Target):
    """Tokens of a frozen encoder; `make` documents the fields."""

    encoder: nn.Module
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
        if self.mean:
            inputs = pixels.normalize(images, self.mean, self.std)
        else:
            inputs = context.normalize(images)
        tokens = self._tokens(constants["encoder"], inputs)  # [B, L, D]
        length = context.length(images)
        if tokens.shape[1] != length:
            raise UserError(
                f"teacher: it has {tokens.shape[1]} tokens for an image of {length} patches: give "
                f"it the patch of method.args.encoder, {context.patch}"
            )
        tokens = context.take(tokens).astype(jnp.float32)  # [B, K, D]
        return _standardized(tokens) if self.normalize else tokens

    def _tokens(self, params: Any, inputs: jax.Array) -> jax.Array:
        """Outputs [B, L, D] of the last norm, or the mean over the last blocks."""
        variables = {"params": params}
        if not self.blocks:
            return self.encoder.apply(variables, inputs)[:, self.encoder.prefix :]
        depth = self.encoder.depth
        taps = tuple(range(depth - self.blocks, depth))
        maps = self.encoder.apply(variables, inputs, taps=taps, method="maps")
        if len({one.shape for one in maps}) > 1:
            raise UserError(
                f"teacher(blocks={self.blocks}): its last blocks have outputs of different sizes: "
                "set blocks=0"
            )
        mean = sum(one.astype(jnp.float32) for one in maps) / len(maps)  # [B, *grid, D]
        return mean.reshape(len(mean), -1, mean.shape[-1])  # [B, L, D]


def _standardized(tokens: jax.Array) -> jax.Array:
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
    network = build(encoder, "models", nn.Module, dtype=jnp.dtype(dtype))
    if not 0 <= blocks <= network.depth:
        raise UserError(f"teacher(blocks={blocks}): {encoder} has {network.depth}")
    if bool(mean) != bool(std):
        raise UserError(f"teacher(mean={mean}, std={std}): give both, or neither")
    if mean:
        pixels.check_statistics(mean, std, "teacher: ")
    return Teacher(
        encoder=network, blocks=blocks, normalize=normalize, mean=tuple(mean), std=tuple(std)
    )
