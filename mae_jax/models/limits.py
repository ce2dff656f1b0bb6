"""Limits on the size of networks, and checks of layer indices. A network beyond the limits would be
traced for hours before its memory is known.
"""

from collections.abc import Sequence

from mae_jax.types import UserError

MAX_WIDTH, MAX_DEPTH = 2**20, 1000


def check_size(name: str, *, width: int, depth: int, heads: int = 1) -> None:
    """Checks the size of a network.

    Args:
        name: name of the network, for the message.
        width: number of channels of its widest layer.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        UserError: a number that is not positive or exceeds its limit.
    """
    if min(width, depth, heads) < 1:
        raise UserError(f"{name}: width {width}, depth {depth} and heads {heads} must be positive")
    if width > MAX_WIDTH:
        raise UserError(f"{name}: width {width} may be at most {MAX_WIDTH}: lower it")
    if depth > MAX_DEPTH:
        raise UserError(f"{name}: depth {depth} may be at most {MAX_DEPTH} blocks: lower it")


def chosen(name: str, count: int, taps: Sequence[int] | None) -> list[int]:
    """Resolves indices of layers to numbers in [0, count).

    Args:
        name: what the layers are called in the message, e.g. 'block'.
        count: number of layers.
        taps: indices; negative ones count from the end; None: all layers.

    Raises:
        UserError: an index out of range.
    """
    taps = range(count) if taps is None else taps
    for number in taps:
        if not -count <= number < count:
            raise UserError(
                f"{name} {number} is not one of {count}: choose 0 to {count - 1}, or -1, the last"
            )
    return [number % count for number in taps]
