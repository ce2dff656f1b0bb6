"""Digests and shapes of every leaf of a tree, to verify checkpoints."""

from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.rules import path_of


def digest(tree: Any) -> dict[str, jax.Array]:
    """A 32-bit digest of every leaf: the sum of its words, each times an odd number that depends
    on its position, modulo 2^32.

    Integer sums do not depend on their order, so every mesh computes the same digest, on the
    devices. A single changed word always changes the digest.

    Args:
        tree: arrays of 1, 2 or 4 bytes per element.

    Returns:
        path -> uint32 scalar.
    """

    def leaf_digest(x):
        bits = (
            jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
            if x.dtype != bool
            else x
        )
        index = jnp.zeros(x.shape, jnp.uint32)  # position in row-major order
        for axis, length in enumerate(x.shape):
            index = index * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        return jnp.sum(bits.astype(jnp.uint32) * (2 * index + 1), dtype=jnp.uint32)

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(path): leaf_digest(leaf) for path, leaf in leaves}


def shapes_of(tree: Any) -> dict[str, list[int]]:
    """The shape of every leaf: path -> shape."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(path): list(leaf.shape) for path, leaf in leaves}
