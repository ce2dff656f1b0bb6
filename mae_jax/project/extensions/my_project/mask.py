"""A mask: whole columns of patches are masked or visible."""

import dataclasses

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Strategy
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns(Strategy):
    """Masks groups of neighboring columns of patches."""

    width: int
    """Number of neighboring columns that are masked or visible together."""

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """Scores [B, L]: one uniform number per group of columns, equal along all other axes."""
        columns = context.grid[-1]
        groups = jax.random.uniform(key, (context.batch, -(-columns // self.width)))  # [B, groups]
        scores = jnp.repeat(groups, self.width, axis=1)[:, :columns]  # [B, columns]
        ones = (1,) * (len(context.grid) - 1)  # [B, columns] -> [B, 1, ..., columns] -> [B, *grid]
        scores = jnp.broadcast_to(
            scores.reshape(context.batch, *ones, columns), (context.batch, *context.grid)
        )
        return scores.reshape(context.batch, context.length)  # [B, L]


def make(width: int = 1) -> Columns:
    """Makes the mask. In a config: method.args.mask='my_project.mask(width=2)'

    Args:
        width: number of neighboring columns that are masked or visible together.
    """
    if width < 1:
        raise UserError(f"width={width} must be at least 1")
    return Columns(width=width)
