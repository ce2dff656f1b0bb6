"""Images and their label images, for segmentation: files of two folders, matched by their names."""

import hashlib
import os
from collections.abc import Iterator

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.class_ids import Classes, ClassIds, Ids, shown
from mae_jax.data.decoding import MAX_PIXELS
from mae_jax.data.fields import IGNORE
from mae_jax.data.files import read_bytes
from mae_jax.data.images import BadImage, Encoded, Window, decode_mask
from mae_jax.data.label_images import ANNOTATED, convention, read_label
from mae_jax.data.partners import Partners, find_partners, listed_names
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.sources import Source
from mae_jax.spec import check_choice
from mae_jax.types import UserError


class Pairs(Source):
    """Images and label images; see `make`.

    Args:
        files: the pairs.
        decoder: makes images of the bytes of files.
        class_ids: makes classes of the numbers in label images.
        annotated: which image the label images belong to.
    """

    reading = CHANGES

    def __init__(self, files: Partners, decoder: Reading, class_ids: ClassIds, *, annotated: str):
        self.files, self.decoder, self.annotated = files, decoder, annotated
        self.class_ids, self.names = class_ids, {"segmentation": class_ids.names}
        self.num_examples = len(files)
        names = hashlib.sha256()
        for index in range(self.num_examples):
            names.update(os.fsencode(files.name(index)) + b"\n")
        self.digest = names.hexdigest()[:16]
        self.notes = (
            *files.notes,
            *decoder.look(self._some()),
            *convention(annotated, "labels"),
        )

    def name(self, index: int) -> str:
        """The path of the image, relative to its folder."""
        return self.files.name(index)

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' of each index, still encoded, and 'segmentation' [H, W] uint8."""
        pairs = [self._pair(int(index)) for index in indices]
        return {"image": [pair[0] for pair in pairs], "segmentation": [pair[1] for pair in pairs]}

    def _pair(self, index: int) -> tuple[Encoded, np.ndarray]:
        image, path = self.decoder(read_bytes(self.files.image(index))), self.files.label(index)
        mask = read_label(path, image, annotated=self.annotated)
        return image, self.class_ids(mask, f"its label {path}")

    def _some(self) -> Iterator[bytes]:
        """The bytes of a few images, spread over all of them."""
        for index in spread(self.num_examples):
            try:
                yield read_bytes(self.files.image(index))
            except (BadImage, OSError):  # reported when it is read for training
                continue


def _check_numbers(files: Partners, classes: Classes, max_pixels: int) -> None:
    """Raises UserError where numbers that are classes themselves are likely to be misread."""
    numbers: set[int] = set()
    for index in spread(len(files)):
        try:
            mask = decode_mask(read_bytes(files.label(index)), max_pixels)
        except (BadImage, OSError):  # reported when it is read for training
            continue
        numbers.update(np.unique(mask).tolist())
    found = shown(sorted(numbers))
    if classes is None:
        raise UserError(
            "pairs: give classes=..., how many there are, their names, or a file of names; the "
            f"labels that were looked at hold {found or 'nothing'}, of which {IGNORE} is ignored"
        )
    if numbers in ({IGNORE}, {0, IGNORE}):
        raise UserError(
            f"pairs: the labels that were looked at hold {found} only, and {IGNORE} is ignored: "
            "give ids={0: 0, 255: 1} for masks of two classes"
        )


def make(
    images: str,
    labels: str,
    *,
    classes: Classes = None,
    ids: Ids = None,
    reduce_zero_label: bool = False,
    suffixes: tuple[str, str] = ("", ""),
    listed: str = "",
    annotated: str = "upright",
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Pairs:
    """Images and label images of one channel, or of a palette, whose numbers are classes, e.g.
    pairs('images', 'masks', classes=('background', 'cell'), ids={0: 0, 255: 1}).

    Both have the same path below their folders but for suffix and extension. What has no partner
    is left out, counted and named at the start.

    - PASCAL VOC: pairs('JPEGImages', 'SegmentationClass', classes=21,
      listed='ImageSets/Segmentation/train.txt')
    - ADE20K: pairs('images/training', 'annotations/training', classes=150, reduce_zero_label=True)
    - Cityscapes: pairs('leftImg8bit/train', 'gtFine/train', ids=cityscapes,
      suffixes=('_leftImg8bit', '_gtFine_labelIds'))

    Args:
        images, labels: folders.
        classes: how many, their names, or a text file with a name on each line; may be left out
            where `ids` says it.
        ids: number in the label image, up to 65535 -> class, or 255 for none; all other numbers
            mean none. 'cityscapes' is that of its 19 classes. None: numbers are classes, and 255
            is none.
        reduce_zero_label: 0 is no class, and 1 the first, as in ADE20K.
        suffixes: of the names of images and of label images, before the extension.
        listed: a text file with the names of the examples, one a line, without suffix and
            extension; empty: all.
        annotated: which image labels belong to, where Exif or TIFF names an orientation: the
            'upright' one, as people see it, or the one as 'stored'.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: no such folder, no pair in them, or an option that cannot be.
    """
    decoder = Reading(
        "pairs", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    check_choice("pairs: annotated", annotated, ANNOTATED)
    files = find_partners(images, labels, tuple(suffixes), listed_names("pairs", listed))
    if ids is None:
        _check_numbers(files, classes, max_pixels)
    class_ids = ClassIds("pairs", classes=classes, reduce_zero_label=reduce_zero_label, ids=ids)
    return Pairs(files, decoder, class_ids, annotated=annotated)
