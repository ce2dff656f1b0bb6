"""Codes of a trained tokenizer as targets, predicted by classification (BEiT, Bao et al. 2021,
arXiv 2106.08254). The tokenizer is a run of the method `vqvae` with the same patch.

A row of `init_from` loads it. A tokenizer that is not loaded is random, which is reported at the
start.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mae_jax.models import tokenizer
from mae_jax.models.tokenizer import Tokenizer
from mae_jax.ops import codebook
from mae_jax.ops.patches import grid_of, patch_sides, patchify
from mae_jax.targets import Constants, Target, TargetContext, check_own_statistics
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQ(Target):
    """Codes of a tokenizer with K codes; `make` documents the fields."""

    tokenizer: Tokenizer
    mean: tuple[float, ...]
    std: tuple[float, ...]

    losses: ClassVar[tuple[str, ...]] = ("cross_entropy",)
    drawable: ClassVar[bool] = True

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of codes.

        Raises:
            UserError: the tokenizer has another patch.
        """
        side = self.tokenizer.encoder.patch
        if patch_sides(side, len(patch)) != patch:
            raise UserError(
                f"vq: the tokenizer has patches of {side} pixels, and the method of "
                f"{' x '.join(map(str, patch))}: give method.args.encoder patch={side}, or train a "
                "tokenizer with the method's patch"
            )
        return self.tokenizer.codes

    def teachers(self) -> Mapping[str, Any]:
        """The tokenizer is the constant 'tokenizer'."""
        return {"tokenizer": self.tokenizer}

    def initial(self, images: jax.Array, patch: tuple[int, ...]) -> Constants:
        """'tokenizer': random parameters and 'codes' [K, Z], until `init_from` loads others."""
        keys, tokenizer = jax.random.split(jax.random.key(0)), self._network(images)
        params = tokenizer.init(keys[0], jnp.zeros((1, *images.shape[1:])))["params"]
        codes = jax.random.normal(keys[1], (tokenizer.codes, tokenizer.code_width))
        return {"tokenizer": {**params, "codes": codes}}

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Codes [B, K] int32 of the patches that count in the loss."""
        inputs = context.inputs(images, self.mean, self.std)
        vectors = self._apply(constants, images, inputs, method="encode")  # [B, L, Z]
        codes = codebook.nearest(vectors, constants["tokenizer"]["codes"])  # [B, L]
        return context.take(codes[:, :, None])[:, :, 0]

    def errors(self, prediction: jax.Array, target: jax.Array, kind: str) -> jax.Array:
        """Cross-entropy [B, K] in nats, of logits [B, K, V]."""
        logarithms = jax.nn.log_softmax(prediction.astype(jnp.float32))  # [B, K, V]
        return -jnp.take_along_axis(logarithms, target[:, :, None], axis=2)[:, :, 0]

    def metrics(self, target: jax.Array) -> dict[str, jax.Array]:
        """The use of the codebook by the batch, see `codebook.usage`."""
        return codebook.usage(target, self.tokenizer.codes)

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """Decodes the most probable codes, or codes [B, L], to patches [B, L, P]."""
        index = prediction if prediction.ndim == 2 else prediction.argmax(axis=2)  # [B, L]
        vectors = constants["tokenizer"]["codes"][index]  # [B, L, Z]
        grid = grid_of(images.shape[1:-1], context.patch)
        decoded = self._apply(constants, images, vectors, grid, method="decode")  # [B, *space, C]
        if self.mean:
            shares = decoded * jnp.asarray(self.std) + jnp.asarray(self.mean)  # pixels in [0, 1]
            decoded = context.normalize(255 * shares)
        return patchify(decoded, context.patch)

    def _network(self, images: jax.Array) -> Tokenizer:
        """The tokenizer for images with as many channels as `images`."""
        return self.tokenizer.clone(channels=images.shape[-1])

    def _apply(self, constants: Constants, images: jax.Array, *args, method: str) -> jax.Array:
        """Calls a method of the tokenizer."""
        params = {k: v for k, v in constants["tokenizer"].items() if k != "codes"}
        return self._network(images).apply({"params": params}, *args, method=method)


def make(
    encoder: str,
    *,
    codes: int = 512,
    code_width: int = 32,
    decoder_width: int = 256,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    dtype: str = "float32",
) -> VQ:
    """Codes of a tokenizer at each masked patch, with the loss 'cross_entropy'. Load the tokenizer
    with `init_from.tokenizer=dict(path=..., into='extra/target/tokenizer')`; without, it is random.

    Args:
        encoder: spec string of the tokenizer's encoder in quotes, as in its run of `vqvae`.
        codes, code_width, decoder_width: as in its run.
        mean, std: of the pixels in [0, 1] that it was trained with; (): the method's.
        dtype: of its computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown encoder, a size out of range, or only one of mean and std.
    """
    check_own_statistics("vq", mean, std)
    sizes = dict(codes=codes, code_width=code_width, decoder_width=decoder_width)
    network = tokenizer.make(encoder, **sizes, dtype=dtype)
    return VQ(tokenizer=network, mean=tuple(mean), std=tuple(std))
