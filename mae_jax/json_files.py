"""Reads JSON files that this package wrote, and that may have been damaged since."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mae_jax.errors import UserError


def parse_json(text: bytes, where: str, way_out: str, check: Callable[[Any], bool]) -> Any:
    """Parses JSON that this package wrote.

    Args:
        where: name of the file, for the message.
        way_out: advice for a damaged file.
        check: whether the content has the right structure.

    Raises:
        UserError: it is damaged.
    """
    try:
        content, reason = json.loads(text), "it holds something else"
    except (ValueError, RecursionError) as error:
        content, reason = None, str(error)
    if content is None or not check(content):
        raise UserError(f"{where} is damaged ({reason}): {way_out}")
    return content


def read_json(path: Path, way_out: str, check: Callable[[Any], bool]) -> Any:
    """The content of a JSON file, see `parse_json`."""
    return parse_json(path.read_bytes(), str(path), way_out, check)


def has(content: Any, *keys: str) -> bool:
    """Whether parsed JSON is an object with these keys."""
    return isinstance(content, dict) and {*keys} <= content.keys()
