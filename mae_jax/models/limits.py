"""How large a network may be: a larger one would be traced for hours before its memory is known.
And which of its layers can be asked for.
"""

from collections.abc import Sequence

from mae_jax.types import UserError

MAX_WIDTH, MAX_DEPTH = 2**20, 1000


def check_size(name: str, *, width: int, depth: int, heads: int = 1) -> None:
    """Checks the size of a network.

    Args:
        name: of the network, for the message.
        width: of its widest layer.
        depth: number of blocks.
        heads: of its attention.

    Raises:
        UserError: it is not positive, or too large.
    """
    if min(width, depth, heads) < 1:
        raise UserError(f"{name}: width {width}, depth {depth} and heads {heads} must be positive")
    if width > MAX_WIDTH:
        raise UserError(f"{name}: width {width} may be at most {MAX_WIDTH}: lower it")
    if depth > MAX_DEPTH:
        raise UserError(f"{name}: depth {depth} may be at most {MAX_DEPTH} blocks: lower it")


def chosen(name: str, count: int, taps: Sequence[int] | None) -> list[int]:
    """Which of `count` layers are meant, counted from 0.

    Args:
        name: of such a layer, for the message.
        taps: numbers; negative ones count from the end; None: all.

    Raises:
        UserError: a layer that there is not.
    """
    taps = range(count) if taps is None else taps
    for number in taps:
        if not -count <= number < count:
            raise UserError(
                f"{name} {number} is not one of {count}: choose 0 to {count - 1}, or -1, the last"
            )
    return [number % count for number in taps]
