"""What to say when a device has no memory left."""

import contextlib
import re

import jax

from mae_jax.types import UserError


@contextlib.contextmanager
def explained(advice: str):
    """Turns a device's lack of memory inside into one line.

    Args:
        advice: which setting to lower.

    Raises:
        UserError: memory ran out; other errors pass.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        whose = "this machine" if isinstance(error, MemoryError) else "a device"
        wanted = re.search(r"allocat\w+ ([\d.]+ ?\w+)", text)
        asked = f", which wanted {wanted[1]} at once" if wanted else ""
        raise UserError(f"the memory of {whose} is not enough{asked}: {advice}") from error
