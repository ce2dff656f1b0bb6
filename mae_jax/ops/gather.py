"""Taking some tokens of each sequence, in the two ways between which accelerators differ."""

import jax
import jax.numpy as jnp

KINDS = ("take", "onehot")


def take_tokens(tokens: jax.Array, index: jax.Array, *, kind: str = "take") -> jax.Array:
    """Tokens at an index: the same numbers either way.

    Args:
        tokens: [B, L, D], or [L, D]: a table that all examples share.
        index: [B, K] int in [0, L).
        kind: 'take', a gather, or 'onehot', a product with a one-hot matrix, which TPUs may do
            faster and whose gradient is a product too, where a gather's is a scatter.

    Returns:
        [B, K, D].
    """
    shared = tokens.ndim == 2
    if kind == "onehot":
        # Matrix products need floats; bfloat16 represents 0 to 255 exactly.
        if tokens.dtype == jnp.uint8:
            return take_tokens(tokens.astype(jnp.bfloat16), index, kind=kind).astype(jnp.uint8)
        matrix = jax.nn.one_hot(index, tokens.shape[-2], dtype=tokens.dtype)
        formula = "bkl,ld->bkd" if shared else "bkl,bld->bkd"
        return jnp.einsum(formula, matrix, tokens, precision=jax.lax.Precision.HIGHEST)
    if shared:
        return jnp.take(tokens, index, axis=0, mode="clip")
    taken = jnp.take_along_axis(tokens, index[:, :, None], axis=1, mode="clip")
    # XLA for TPUs would normalize bytes first, and lay out four times the memory after it.
    return jax.lax.optimization_barrier(taken) if tokens.dtype == jnp.uint8 else taken
