"""Images and their label images in two folders: which belong together, by the names of files."""

import array
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mae_jax.data.decoding import extensions
from mae_jax.data.files import Files, expanded, find, number
from mae_jax.data.names import printable
from mae_jax.types import UserError

LABELS = (".png", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".pgm", ".pbm", ".pnm")
"""Extensions of label images: formats without loss, of one channel."""

_NAMED = 3  # of the files without a partner


@dataclasses.dataclass(kw_only=True)
class Partners:
    """Pairs of files, in the order of the images; memory holds 13 bytes for each.

    Args:
        images: their files.
        labels: folder of the label images.
        suffixes: of the names of images and of label images, before the extensions.
    """

    images: Files
    labels: Path
    suffixes: tuple[str, str]
    notes: tuple[str, ...] = ()
    """A line each about files without a partner."""

    def __post_init__(self):
        self._places = array.array("i")  # of the images
        self._endings = array.array("B")  # of the label images, places in:
        self._known: list[str] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: int, ending: str) -> None:
        """Appends an image by its place in `images`, and the extension of its label image."""
        if ending not in self._known:
            self._known.append(ending)
        self._places.append(place)
        self._endings.append(self._known.index(ending))

    def name(self, index: int) -> str:
        """The path of the image, relative to its folder."""
        return self.images[self._places[index]]

    def image(self, index: int) -> Path:
        """The path of the image."""
        return self.images.root / self.name(index)

    def label(self, index: int) -> Path:
        """The path of the label image."""
        key, _ = _split(self.name(index), self.suffixes[0])
        return self.labels / f"{key}{self.suffixes[1]}{self._known[self._endings[index]]}"


def find_partners(
    images: str,
    labels: str,
    suffixes: tuple[str, str],
    listed: Sequence[str] | None,
    *,
    where: str = "pairs",
    endings: Sequence[str] = LABELS,
) -> Partners:
    """Images and label images of the same path below their folders, but for suffix and extension.

    Args:
        images, labels: the folders.
        suffixes: of the names of both, before the extensions.
        listed: the examples, without suffix and extension; None: all.
        where: the source, for messages.
        endings: extensions of the labels.

    Raises:
        UserError: no such folder, two files of one name, or no pair.
    """
    of_images = _files(where, images, suffixes[0], suffixes[1], extensions())
    of_labels = _files(where, labels, suffixes[1], suffixes[0], endings)
    image_keys = _keys(where, "image", of_images, suffixes[0])
    label_keys = _keys(where, "label", of_labels, suffixes[1])
    wanted = image_keys.keys() if listed is None else {*listed}
    pairs = Partners(images=of_images, labels=of_labels.root, suffixes=suffixes)
    for place, key in enumerate(image_keys):
        if key in wanted and key in label_keys:
            pairs.add(place, label_keys[key])
    alone = [
        key + suffixes[0] + ending
        for key, ending in image_keys.items()
        if key in wanted and key not in label_keys
    ]
    spare = [key for key in label_keys if listed is None and key not in image_keys]
    missing = [key for key in listed or () if key not in image_keys]
    found = (
        *_left_out("image", "a label", alone),
        *_left_out("label", "an image", spare),
        *_left_out("listed name", "an image", missing),
    )
    if not len(pairs):
        raise UserError(
            f"{where}: no image in {images!r} has a label in {labels!r} of the same name: "
            f"{'; '.join(found) or 'no name is listed'}; see suffixes and listed"
        )
    pairs.notes = (
        *(f"images: {note}" for note in of_images.notes if note not in of_images.no_classes),
        *(f"labels: {note}" for note in of_labels.notes if note not in of_labels.no_classes),
        *found,
    )
    return pairs


def listed_names(where: str, path: str) -> list[str] | None:
    """The lines of a text file that are not empty; None without a path.

    Raises:
        UserError: it cannot be read.
    """
    if not path:
        return None
    try:
        lines = expanded(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot read the names in listed={path!r}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _files(where: str, path: str, suffix: str, other: str, endings: Sequence[str]) -> Files:
    """Files whose names end in the suffix, and not in the longer one of their partners."""

    def wanted(file: Path) -> bool:
        partner = len(other) > len(suffix) and file.stem.endswith(other)
        fits = file.stem.endswith(suffix) and not partner
        return fits and file.name.lower().endswith(tuple(endings))

    few = ", ".join(f"*{suffix}{ending}" for ending in endings[:4])
    more = f" and {len(endings) - 4} others" if len(endings) > 4 else ""
    return find(where, path, wanted, few + more)


def _split(name: str, suffix: str) -> tuple[str, str]:
    """(key, extension): a path without its suffix and extension, which partners share."""
    stem, ending = os.path.splitext(name)
    return stem.removesuffix(suffix), ending


def _keys(where: str, what: str, files: Files, suffix: str) -> dict[str, str]:
    """Key -> extension of each file, in their order."""
    found = {}
    for place in range(len(files)):
        key, ending = _split(files[place], suffix)
        if key in found:
            raise UserError(
                f"{where}: two {what}s of one name, {key + suffix + found[key]!r} and "
                f"{files[place]!r}: remove one, or keep images and labels in folders of their own"
            )
        found[key] = ending
    return found


def _left_out(what: str, partner: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        some = ", ".join(map(printable, names[:_NAMED]))
        yield f"left out {number(len(names), what)} without {partner}: {some}{more}"
