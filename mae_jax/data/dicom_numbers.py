"""Parses numbers in DICOM headers, which may be missing, lists, or arbitrary text."""

import math
from typing import TYPE_CHECKING

from mae_jax.data.images import BadImage

if TYPE_CHECKING:
    import pydicom


def integer(header: "pydicom.Dataset", keyword: str, default: int | None = None) -> int:
    """An integer in a header.

    Args:
        header: data set.
        keyword: name of the element.
        default: value if the element is missing or empty; None: the element is required.

    Raises:
        BadImage: the element is required and missing, or is not an integer.
    """
    value = number(header, keyword)
    if value is None:
        if default is None:
            raise BadImage(f"it has no {keyword}")
        return default
    if not value.is_integer():
        raise BadImage(f"its {keyword} is {value:g}, which is not an integer")
    return int(value)


def number(header: "pydicom.Dataset", keyword: str) -> float | None:
    """A number in a header, the first one of a list; None if it is missing or empty.

    Raises:
        BadImage: the element is not a finite number.
    """
    try:
        value = header.get(keyword)
        if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
            value = value[0] if len(value) else None
        if value is None or value == "":
            return None
        parsed = float(value)
    except Exception as error:  # pydicom raises errors of several kinds on other values
        raise BadImage(f"its {keyword} is not a number ({' '.join(str(error).split())})") from error
    if not math.isfinite(parsed):
        raise BadImage(f"its {keyword} is {parsed}")
    return parsed
