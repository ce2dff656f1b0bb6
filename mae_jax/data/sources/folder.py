"""A folder of images, read on demand; optionally with a sub-folder for each class, and with masks
and boxes in separate folders.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.decoding import MAX_PIXELS, extensions
from mae_jax.data.fields import boxes_from_centers
from mae_jax.data.files import Files, existing, find, read_bytes
from mae_jax.data.images import BadImage, Encoded, Window
from mae_jax.data.label_images import ANNOTATED, convention, read_label
from mae_jax.data.orientation import turned_boxes
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.sources import Source
from mae_jax.spec import check_choice
from mae_jax.types import UserError


class Folder(Source):
    """Image files below a folder; see `make`."""

    reading = CHANGES

    def __init__(
        self,
        files: Files,
        decoder: Reading,
        *,
        masks: Path | None,
        boxes: Path | None,
        max_boxes: int,
        annotated: str,
    ):
        self.files, self.decoder = files, decoder
        self.masks, self.boxes, self.max_boxes = masks, boxes, max_boxes
        self.annotated = annotated
        self.num_examples, self.digest = len(files), files.digest
        self.names = {"label": files.class_names} if files.class_names else {}
        self.empty_classes = files.empty_classes
        self.notes = (*files.notes, *decoder.look(self._some()), *self._convention())

    def name(self, index: int) -> str:
        """Path of the file relative to the folder."""
        return self.files[index]

    def labels(self) -> np.ndarray | None:
        """[N] int32, from the names of the sub-folders; None without classes."""
        return self.files.labels() if self.names else None

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """Reads 'image', still encoded; 'label' if there are classes; 'segmentation', and 'box' and
        'box_label', if their folders were given.
        """
        names = [self.files[index] for index in indices]
        images = [self._image(name) for name in names]
        fields = {"image": images}
        if self.class_names:
            fields["label"] = [self.files.label(index) for index in indices]
        if self.masks is not None:
            fields["segmentation"] = list(map(self._mask, names, images))
        if self.boxes is not None:
            pairs = map(self._boxes, names, images)
            fields["box"], fields["box_label"] = zip(*pairs, strict=True)
        return fields

    def _image(self, name: str) -> Encoded:
        return self.decoder(read_bytes(self.files.root / name))

    def _mask(self, name: str, image: Encoded) -> np.ndarray:
        """Segmentation [H, W] of the upright image."""
        path = (self.masks / name).with_suffix(".png")
        return read_label(path, image, annotated=self.annotated)

    def _boxes(self, name: str, image: Encoded) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [max_boxes, 4] of the upright image, and their classes [max_boxes]."""
        boxes, labels = read_boxes(self.boxes, name, self.max_boxes)
        if self.annotated == "stored":
            boxes = turned_boxes(boxes, image.orientation)
        return boxes, labels

    def _some(self) -> Iterator[bytes]:
        """The bytes of a few files, spread over all of them."""
        for index in spread(self.num_examples):
            try:
                yield read_bytes(self.files.path(index))
            except (BadImage, OSError):  # reading it in training reports the error
                continue

    def _convention(self) -> Iterator[str]:
        if self.masks is not None or self.boxes is not None:
            yield from convention(self.annotated)


def read_boxes(root: Path, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the boxes of an image from a text file in the YOLO format, with a line
    "class x_center y_center width height" for each box.

    Args:
        root: folder of the text files.
        name: name of the image.
        count: rows to return.

    Returns:
        [count, 4] float32 (ymin, xmin, ymax, xmax) as fractions of height and width, padded with
        zeros; and classes [count] int32, padded with -1.

    Raises:
        BadImage: a line is invalid, or there are more than `count` boxes.
    """
    path = (root / name).with_suffix(".txt")
    lines = read_bytes(path).decode(errors="replace").splitlines() if path.exists() else []
    try:
        numbers = np.array([[float(v) for v in line.split()] for line in lines if line.strip()])
        numbers = numbers.reshape(len(numbers), 5)
        if not (np.abs(numbers[:, 1:] - 0.5) <= 0.51).all():  # also false of NaN
            raise ValueError
    except ValueError:
        raise BadImage(
            f"its boxes in {path}: lines should be 'class x_center y_center width height', the "
            "last four as fractions of the image, in [0, 1]"
        ) from None
    if len(numbers) > count:
        raise BadImage(f"{len(numbers)} boxes in {path}: raise max_boxes of the source")
    boxes, labels = np.zeros((count, 4), np.float32), np.full(count, -1, np.int32)
    boxes[: len(numbers)] = boxes_from_centers(numbers[:, 1:])
    labels[: len(numbers)] = numbers[:, 0]
    return boxes, labels


def make(
    path: str,
    *,
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
    masks: str = "",
    boxes: str = "",
    max_boxes: int = 100,
    annotated: str = "upright",
) -> Folder:
    """The images below a folder, folder by folder, sorted by name: all files with an extension that
    Pillow reads, see docs/data.md. Leftovers of systems, editors and network drives are left out.

    If all images are in sub-folders, the direct sub-folders are the classes, in the order of their
    names.

    Args:
        path: the folder.
        channels: 3 (color), 1 (gray) or 4 (color and alpha).
        window: (low, high), the values that become 0 and 255, for images of more than 8 bits per
            channel; None: the full range of their bits.
        background: color behind transparent pixels, unless channels is 4: a name, '#rrggbb', a gray
            level, or (red, green, blue).
        max_pixels: larger images are refused, since a small file may unpack to fill the memory.
        masks: a folder with a PNG of class numbers for each image, under the same name.
        boxes: a folder with a text file in the YOLO format for each image that has boxes.
        max_boxes: rows of 'box' and 'box_label', padded for images with fewer boxes.
        annotated: whether masks and boxes belong to the 'upright' image, as displayed, or to the
            image as 'stored', if Exif or TIFF gives an orientation.

    Raises:
        UserError: the folder is missing or has no images, or an option is invalid.
    """
    decoder = Reading(
        "folder", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    if max_boxes < 1:
        raise UserError(f"folder: max_boxes {max_boxes} must be at least 1")
    check_choice("folder: annotated", annotated, ANNOTATED)
    if annotated != "upright" and not (masks or boxes):
        raise UserError("folder: annotated needs masks or boxes: give one of them, or leave it out")
    for name, below in (("masks", masks), ("boxes", boxes)):
        if below and existing("folder", below).resolve().is_relative_to(Path(path).resolve()):
            raise UserError(f"folder: {name} {below!r} is inside {path!r}: move it beside it")
    endings = extensions()
    wanted = lambda file: file.name.lower().endswith(endings)
    return Folder(
        find("folder", path, wanted, f"{', '.join(endings[:8])} and {len(endings) - 8} others"),
        decoder,
        masks=existing("folder", masks) if masks else None,
        boxes=existing("folder", boxes) if boxes else None,
        max_boxes=max_boxes,
        annotated=annotated,
    )
