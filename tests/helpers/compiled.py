"""What tests compile, once in a process."""

import functools

import jax


@functools.cache
def compiled(owner, name: str, **options):
    """A function of a method or network under jit: those that are equal share what is compiled,
    and op by op a network takes longer to compile than as a whole.

    Args:
        options: static arguments of the function.
    """
    return jax.jit(functools.partial(getattr(owner, name), **options))
