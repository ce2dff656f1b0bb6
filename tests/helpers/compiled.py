"""What tests compile, once in a process."""

import functools

import jax
import numpy as np


@functools.cache
def compiled(owner, name: str, **options):
    """A function of a method or network under jit: those that are equal share what is compiled,
    and op by op a network takes longer to compile than as a whole.

    Args:
        options: static arguments of the function.
    """
    return jax.jit(functools.partial(getattr(owner, name), **options))


def noise_like(init, *args, scale=0.1, seed=0):
    """What an `init` returns, with normal numbers: around 1 where the leaf is a 'scale', around 0
    elsewhere. Its shapes need no compiling, and kernels that are drawn do.

    Args:
        args: of `init`; a key first.
        scale: the standard deviation.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        middle = jax.tree_util.keystr(path[-1:], simple=True) == "scale"
        return (middle + scale * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, *args))
