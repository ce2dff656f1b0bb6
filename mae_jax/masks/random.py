"""Random masking (arXiv 2111.06377, section 3)."""

import dataclasses

import jax

from mae_jax.masks import MaskContext, Strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Random(Strategy):
    """Masks patches uniformly at random, without replacement."""

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        return jax.random.uniform(key, (context.batch, context.length))


def make() -> Random:
    """Random masking: every patch has the same probability of being masked."""
    return Random()
