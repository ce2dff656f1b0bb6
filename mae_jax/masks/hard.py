"""Masks of the patches that the method predicts to be hard to reconstruct (HPM, arXiv 2304.05919),
for methods that make such predictions: `methods.hpm`.
"""

import dataclasses

import jax

from mae_jax.masks import MaskContext
from mae_jax.masks.guided import Guided, check_shares
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hard(Guided):
    """Masks a share of patches with the highest predicted losses, and others at random."""

    def guide(self, context: MaskContext) -> jax.Array:
        """Losses that the method predicts, [B, *grid].

        Raises:
            UserError: the method predicts none.
        """
        if context.guide is None:
            raise UserError(
                "mask hard: this method does not predict which patches are hard: set "
                "method.name=hpm, or choose another mask"
            )
        return context.guide()


def make(*, start: float = 0.0, end: float = 0.5) -> Hard:
    """Masks hard patches, a share of all masked ones that grows over the run.

    Args:
        start, end: share of the masked patches with the highest predicted losses, in [0, 1], at the
            start and at the end of the run; the others are random.

    Raises:
        UserError: a share outside of [0, 1].
    """
    check_shares("hard", start=start, end=end)
    return Hard(start=start, end=end, hint=0.0)
