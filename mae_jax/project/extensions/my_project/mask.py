"""A mask: whole columns of patches are masked."""

import dataclasses

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Strategy
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns(Strategy):
    """Masks columns."""

    width: int
    """Neighboring columns that are masked or visible together."""

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """One random number a group of columns, the same along all other axes."""
        columns = context.grid[-1]
        groups = jax.random.uniform(key, (context.batch, -(-columns // self.width)))
        scores = jnp.repeat(groups, self.width, axis=1)[:, :columns]  # [B, columns]
        ones = (1,) * (len(context.grid) - 1)
        scores = jnp.broadcast_to(
            scores.reshape(context.batch, *ones, columns), (context.batch, *context.grid)
        )
        return scores.reshape(context.batch, context.length)


def make(width: int = 1) -> Columns:
    """mask='my_project.mask(width=2)'"""
    if width < 1:
        raise UserError(f"width={width} must be at least 1")
    return Columns(width=width)
