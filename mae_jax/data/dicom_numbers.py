"""Numbers of DICOM headers, which are texts of any content, lists, or missing."""

import math
from typing import TYPE_CHECKING

from mae_jax.data.images import BadImage

if TYPE_CHECKING:
    import pydicom


def integer(header: "pydicom.Dataset", keyword: str, default: int | None = None) -> int:
    """A whole number of a header.

    Args:
        default: if it is missing or empty; None: it is needed.

    Raises:
        BadImage: it is missing and needed, or is no whole number.
    """
    value = number(header, keyword)
    if value is None:
        if default is None:
            raise BadImage(f"it has no {keyword}")
        return default
    if not value.is_integer():
        raise BadImage(f"its {keyword} is {value:g}, which is no whole number")
    return int(value)


def number(header: "pydicom.Dataset", keyword: str) -> float | None:
    """A number of a header, the first one if there are several; None if it is missing or empty.

    Raises:
        BadImage: it is something else.
    """
    try:
        value = header.get(keyword)
        if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
            value = value[0] if len(value) else None
        if value is None or value == "":
            return None
        found = float(value)
    except Exception as error:  # pydicom raises errors of several kinds on what is no number
        raise BadImage(f"its {keyword} is no number ({' '.join(str(error).split())})") from error
    if not math.isfinite(found):
        raise BadImage(f"its {keyword} is {found}")
    return found
