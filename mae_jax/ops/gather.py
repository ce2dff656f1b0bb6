"""Gathers tokens by index, as a gather or as a product with a one-hot matrix. Which of them is
faster depends on the accelerator.
"""

import jax
import jax.numpy as jnp

KINDS = ("take", "onehot")


def take_tokens(tokens: jax.Array, index: jax.Array, *, kind: str = "take") -> jax.Array:
    """Gathers K tokens of each sequence. Both kinds return the same numbers.

    Args:
        tokens: [B, L, D], or [L, D] for a table shared by all examples.
        index: [B, K] int in [0, L).
        kind: 'take', a gather, whose gradient is a scatter; or 'onehot', a product with a one-hot
            matrix, whose gradient is a product too. TPUs may compute products faster.

    Returns:
        [B, K, D].
    """
    shared = tokens.ndim == 2
    if kind == "onehot":
        # Matrix products need floats; bfloat16 represents the integers 0 to 255 exactly.
        if tokens.dtype == jnp.uint8:
            return take_tokens(tokens.astype(jnp.bfloat16), index, kind=kind).astype(jnp.uint8)
        matrix = jax.nn.one_hot(index, tokens.shape[-2], dtype=tokens.dtype)  # [B, K, L]
        formula = "bkl,ld->bkd" if shared else "bkl,bld->bkd"
        return jnp.einsum(formula, matrix, tokens, precision=jax.lax.Precision.HIGHEST)
    if shared:
        return jnp.take(tokens, index, axis=0, mode="clip")
    taken = jnp.take_along_axis(tokens, index[:, :, None], axis=1, mode="clip")
    # Without the barrier, XLA on TPUs converts all bytes to float before the gather, which moves
    # four times the memory.
    return jax.lax.optimization_barrier(taken) if tokens.dtype == jnp.uint8 else taken
