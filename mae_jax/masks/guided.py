"""Guided masks: a share of the masked patches has the highest scores of a guide, and the others are
random. The share changes over the run, from easy to hard in HPM (arXiv 2304.05919).
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Strategy
from mae_jax.ops import masking
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guided(Strategy):
    """Base class of guided strategies. The number of visible patches is the same at every share."""

    start: float
    """Share of the masked patches that the guide chooses at the first step, in [0, 1]."""
    end: float
    """The share at the end of the run; it changes linearly."""
    hint: float
    """Share of the chosen patches that stays visible, see `ops.masking.guided`."""

    @abc.abstractmethod
    def guide(self, context: MaskContext) -> jax.Array:
        """Scores [B, *grid] of patches, of which the highest are masked first. The grid may be
        finer than that of `context`.
        """

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        guide = pooled(self.guide(context), context.grid)
        guide = guide.reshape(context.batch, context.length)  # [B, *grid] to [B, L]
        count = self.count(context.step, context.total_steps, context.masked)
        return masking.guided(key, guide, count, hint=self.hint)

    def count(self, step: jax.Array | int, total_steps: int, masked: int) -> jax.Array:
        """Number of patches of `masked` that the guide chooses, a scalar."""
        progress = jnp.clip(step / total_steps, 0, 1)
        share = self.start + (self.end - self.start) * progress
        return jnp.floor(share * masked + masking.ROUNDING)


def pooled(scores: jax.Array, grid: tuple[int, ...]) -> jax.Array:
    """Means of scores [B, *fine] over the cells of a coarser grid, [B, *grid].

    Raises:
        UserError: the grid does not divide that of the scores.
    """
    fine = scores.shape[1:]
    if len(fine) != len(grid) or any(n % m for n, m in zip(fine, grid, strict=True)):
        sizes = [" x ".join(map(str, one)) for one in (fine, grid)]
        raise UserError(
            f"the mask has {sizes[1]} patches and its guide {sizes[0]}, which must be multiples: "
            "choose another patch for one of them"
        )
    for axis, (n, m) in enumerate(zip(fine, grid, strict=True), start=1):
        # [..., n, ...] to [..., m, n / m, ...] to [..., m, ...]
        cells = scores.reshape(*scores.shape[:axis], m, n // m, *scores.shape[axis + 1 :])
        scores = cells.mean(axis=axis + 1)
    return scores


def check_shares(name: str, **shares: float) -> None:
    """Raises UserError unless all are in [0, 1]."""
    for option, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"mask {name}: {option}={share} is outside [0, 1]")
