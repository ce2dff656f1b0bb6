"""How large a network may be: a larger one would be traced for hours before its memory is known."""

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
