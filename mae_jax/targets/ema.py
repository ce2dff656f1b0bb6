"""Features of a moving average of the encoder itself as targets (data2vec, Baevski et al. 2022,
arXiv 2202.03555): the normalized mean of the top blocks' outputs on the whole image.

In the paper the encoder predicts them with mask tokens, here a decoder does, as in MAE.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mae_jax.models.encoder import Encoder
from mae_jax.ops import ema
from mae_jax.targets import Constants, Target, TargetContext
from mae_jax.targets.teacher import standardized, tokens_of
from mae_jax.types import Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMA(Target):
    """Tokens of the averaged encoder; `make` documents the fields."""

    blocks: int
    decay: float
    end: float
    encoder: Encoder | None = None
    """The method's encoder, see `for_encoder`."""

    def for_encoder(self, encoder: Encoder) -> "EMA":
        """The target with this encoder.

        Raises:
            UserError: the encoder has fewer blocks than `blocks`.
        """
        if self.blocks > encoder.depth:
            raise UserError(
                f"ema(blocks={self.blocks}): the encoder has {encoder.depth}: choose 0, for its "
                f"output, to {encoder.depth}"
            )
        return dataclasses.replace(self, encoder=encoder)

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Width of the encoder."""
        return self.encoder.width

    def start(self, constants: Constants, params: Params) -> Constants:
        """The average starts as the encoder's parameters."""
        return {"encoder": params}

    def after_update(self, constants: Constants, params: Params, progress: jax.Array) -> Constants:
        """Moves the average. Its decay rises linearly from `decay` to `end` over the run."""
        rate = 1 - self.decay + progress * (self.decay - self.end)
        return {"encoder": ema.move(constants["encoder"], params, rate)}

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Tokens [B, K, D] float32, each of mean 0 and variance 1."""
        inputs = context.normalize(images)
        tokens = tokens_of(self.encoder, constants["encoder"], inputs, self.blocks)  # [B, L, D]
        return standardized(context.take(tokens).astype(jnp.float32))

    def metrics(self, target: jax.Array) -> dict[str, jax.Array]:
        """'target_std', the mean over features of their standard deviation over all patches of the
        batch: 0 if the targets have collapsed to one vector.
        """
        return {"target_std": target.std(axis=(0, 1)).mean()}


def make(*, blocks: int = 6, decay: float = 0.999, end: float = 0.9999) -> EMA:
    """Features of a moving average of the encoder, at each masked patch.

    Args:
        blocks: the target is the mean of the outputs of this many last blocks, the paper's 6 of 12;
            0: the encoder's output.
        decay: of the average at the start, in [0, 1].
        end: decay at the end of the run, which it approaches linearly, in [decay, 1]; equal to
            `decay`: constant.

    Raises:
        UserError: a value out of range.
    """
    if blocks < 0 or not 0 <= decay <= end <= 1:
        raise UserError(
            f"ema(blocks={blocks}, decay={decay}, end={end}): blocks must be at least 0, and "
            "0 <= decay <= end <= 1"
        )
    return EMA(blocks=blocks, decay=decay, end=end)
