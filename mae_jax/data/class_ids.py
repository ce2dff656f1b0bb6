"""The numbers in label images, and the classes that they mean: 0, 1, ... and `fields.IGNORE`."""

from collections.abc import Mapping, Sequence

import numpy as np

from mae_jax.data.fields import IGNORE
from mae_jax.data.files import expanded
from mae_jax.data.images import BadImage
from mae_jax.types import UserError

MAX_ID = 65535
"""The largest number that label images hold."""

CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The numbers in *_labelIds.png of the 19 classes that are evaluated, in their order."""

Ids = Mapping[int, int] | str | None
Classes = int | str | Sequence[str] | None

_SHOWN = 8


class ClassIds:
    """Turns the numbers of label images into classes.

    Args:
        where: the source, for messages.
        classes: how many classes, their names, or a text file with a name on each line. None: as
            many as `ids` has.
        reduce_zero_label: 0 is no class, and 1 the first, as in ADE20K.
        ids: number in the file -> class, or 255 for none; all others mean none. 'cityscapes' is
            those of its *_labelIds.png. None: numbers are classes.

    Raises:
        UserError: an argument is not like that.
    """

    def __init__(self, where: str, *, classes: Classes, reduce_zero_label: bool, ids: Ids):
        if ids == "cityscapes":
            classes = tuple(CITYSCAPES.values()) if classes is None else classes
            ids = {number: place for place, number in enumerate(CITYSCAPES)}
        if ids is not None:
            _check_ids(where, ids)
            if reduce_zero_label:
                raise UserError(
                    f"{where}: ids say what 0 means: leave reduce_zero_label out, or ids"
                )
            if classes is None:
                classes = max((place for place in ids.values() if place != IGNORE), default=-1) + 1
        self.names = class_names(where, classes)
        count = len(self.names)
        if ids is not None and not all(place < count or place == IGNORE for place in ids.values()):
            raise UserError(
                f"{where}: ids {dict(ids)!r} name a class that is not in 0 ... {count - 1}"
            )
        self._known = f"the classes are {'1' if reduce_zero_label else '0'} ... {{}}".format(
            count if reduce_zero_label else count - 1
        )
        self._table = np.full(MAX_ID + 2, IGNORE, np.uint8)  # the last is all larger numbers
        self._allowed = np.full(MAX_ID + 2, ids is not None)
        if ids is not None:
            self._table[list(ids)] = list(ids.values())
        else:
            first = int(reduce_zero_label)
            self._table[first : first + count] = np.arange(count)
            self._allowed[[*range(first + count), IGNORE]] = True
            self._table[IGNORE] = IGNORE

    def __call__(self, mask: np.ndarray, what: str) -> np.ndarray:
        """The classes [H, W] uint8 of the numbers [H, W] in a label image.

        Args:
            what: the label image, for messages.

        Raises:
            BadImage: a number is no class, or none at all.
        """
        if mask.dtype.kind not in "bui":
            raise BadImage(f"{what} holds {mask.dtype}: whole numbers, of classes, are needed")
        if mask.dtype.itemsize == 1 and mask.dtype.kind != "i":
            places = mask.astype(np.uint8)
        else:
            places = mask.astype(np.int64)
            places = np.where(places < 0, MAX_ID + 1, np.minimum(places, MAX_ID + 1))
        if not self._allowed[places].all():
            wrong = np.unique(mask[~self._allowed[places]]).tolist()
            raise BadImage(
                f"{what} holds {shown(wrong)}: {self._known}, and {IGNORE} is ignored; give "
                "classes=..., reduce_zero_label=True, or ids={number: class, ...}"
            )
        return self._table[places]


def shown(numbers: Sequence[float]) -> str:
    """'0, 1, 2 and 5 more'."""
    more = len(numbers) - _SHOWN
    text = ", ".join(map(str, numbers[:_SHOWN]))
    return f"{text} and {more} more" if more > 0 else text


def _check_ids(where: str, ids) -> None:
    whole = lambda value, high: type(value) is int and 0 <= value <= high
    valid = isinstance(ids, Mapping) and len(ids) > 0
    if not valid or not all(whole(k, MAX_ID) and whole(v, IGNORE) for k, v in ids.items()):
        raise UserError(
            f"{where}: ids={ids!r} should be 'cityscapes', or a number in [0, {MAX_ID}] -> class "
            f"or {IGNORE} for each, such as {{0: 0, 255: 1}}"
        )


def class_names(where: str, classes: Classes, *, most: int = IGNORE) -> tuple[str, ...]:
    """Names of the classes; their numbers if there are none.

    Args:
        where: the source, for messages.
        classes: how many, their names, or a text file with a name on each line.
        most: how many there may be.

    Raises:
        UserError: it is not like that.
    """
    if isinstance(classes, str):
        try:
            lines = expanded(classes).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(
                f"{where}: cannot read the names in classes={classes!r}: {error}"
            ) from error
        classes = tuple(line.strip() for line in lines if line.strip())
    elif classes is None:
        raise UserError(f"{where}: reduce_zero_label needs classes=..., how many there are")
    elif type(classes) is int:
        classes = tuple(map(str, range(classes))) if 0 < classes <= most else ()
    if not 0 < len(classes) <= most or len({*classes}) < len(classes):
        raise UserError(
            f"{where}: classes should be 1 to {most}, a number, different names, or a text file "
            f"with a name on each line; found {len(classes)}"
        )
    return tuple(classes)
