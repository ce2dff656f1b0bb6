"""The texts of a batch, for methods of images and texts: fields 'text' [B, T] int32, 0 for padding,
and 'text_valid' [B, T], 0 for padding. An example without text has no valid token.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mae_jax.types import Batch, UserError

FIELDS = ("text", "text_valid")
"""Fields of a batch with texts."""


def example(length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the fields of one text of `length` tokens."""
    types = {"text": np.int32, "text_valid": np.bool_}
    return {name: jax.ShapeDtypeStruct((1, length), kind) for name, kind in types.items()}


def of_batch(name: str, batch: Batch, length: int) -> tuple[jax.Array, jax.Array]:
    """Tokens [B, T] int32 of the texts, and which are no padding, [B, T] bool.

    Args:
        name: name of the method, for messages.
        length: T of the method.

    Raises:
        UserError: the batch has no texts, or texts of another length.
    """
    if not set(FIELDS) <= set(batch):
        raise UserError(
            f"{name} learns from images and texts: use a source that has them, and "
            "config.data.fields=('text', 'text_valid')"
        )
    text, valid = (batch[field] for field in FIELDS)
    if text.shape[1:] != (length,):
        raise UserError(
            f"{name}: texts have the shape {list(text.shape[1:])} and config.method.args.length="
            f"{length}: make them equal, e.g. with the argument length of the source"
        )
    return text, valid.astype(bool)


def check(name: str, *, vocabulary: int, length: int, ratios: Mapping[str, Any]) -> None:
    """Raises UserError unless these are valid sizes of texts, and shares in [0, 1).

    Args:
        name: name of the method, for messages.
        ratios: name -> value.
    """
    if vocabulary < 2 or length < 1:
        raise UserError(
            f"{name}: vocabulary={vocabulary} must be at least 2, and length={length} at least 1: "
            "they are those of the source"
        )
    for key, ratio in ratios.items():
        if not 0 <= ratio < 1:
            raise UserError(f"{name}: {key}={ratio} is outside [0, 1)")
