"""A folder of images, with or without one sub-folder for each class, read when asked for; with or
without masks and boxes in folders of their own.
"""

from pathlib import Path

import numpy as np

from mae_jax.data.files import Files, existing, find, read_bytes
from mae_jax.data.images import MODES, BadImage, Encoded, Window, check_window, decode_mask
from mae_jax.data.sources import Source
from mae_jax.types import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class Folder(Source):
    """Images of files; see `make`."""

    def __init__(
        self,
        files: Files,
        *,
        channels: int,
        window: Window | None,
        masks: Path | None,
        boxes: Path | None,
        max_boxes: int,
    ):
        self.files, self.channels, self.window = files, channels, window
        self.masks, self.boxes, self.max_boxes = masks, boxes, max_boxes
        self.num_examples, self.digest = len(files), files.digest
        self.class_names, self.empty_classes = files.class_names, files.empty_classes

    def name(self, index: int) -> str:
        """The path of the file, relative to the folder."""
        return self.files[index]

    def labels(self) -> np.ndarray:
        """[N] int32, without reading a file."""
        return self.files.labels()

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' of each index, still encoded; 'label' if there are classes; 'segmentation' and
        'box', 'box_label' if there are such folders.
        """
        names = [self.files[index] for index in indices]
        fields = {"image": [self._image(name) for name in names]}
        if self.class_names:
            fields["label"] = [self.files.label(index) for index in indices]
        if self.masks is not None:
            fields["segmentation"] = [
                decode_mask(read_bytes((self.masks / name).with_suffix(".png"))) for name in names
            ]
        if self.boxes is not None:
            pairs = [read_boxes(self.boxes, name, self.max_boxes) for name in names]
            fields["box"], fields["box_label"] = zip(*pairs, strict=True)
        return fields

    def _image(self, name: str) -> Encoded:
        return Encoded(read_bytes(self.files.root / name), self.channels, self.window)


def read_boxes(root: Path, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of an image, [count, 4] float32 (ymin, xmin, ymax, xmax) as shares of its height
    and width, zeros after the last, and their classes [count] int32, -1 after the last: from a text
    file in the YOLO format, a line "class x_center y_center width height" for each.
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
            "last four as shares of the image, in [0, 1]"
        ) from None
    if len(numbers) > count:
        raise BadImage(f"{len(numbers)} boxes in {path}: raise max_boxes of the source")
    boxes, labels = np.zeros((count, 4), np.float32), np.full(count, -1, np.int32)
    center, half = numbers[:, [2, 1]], numbers[:, [4, 3]] / 2
    boxes[: len(numbers)] = np.clip(np.concatenate([center - half, center + half], 1), 0, 1)
    labels[: len(numbers)] = numbers[:, 0]
    return boxes, labels


def make(
    path: str,
    *,
    channels: int = 3,
    window: Window | None = None,
    masks: str = "",
    boxes: str = "",
    max_boxes: int = 100,
) -> Folder:
    """The images below a folder, folder by folder in the order of their names.

    If all of them stand in sub-folders, the direct sub-folders are the classes, in the order of
    their names.

    Args:
        path: the folder.
        channels: 3 (colour), 1 (grey) or 4 (colour and alpha).
        window: (low, high), grey levels that become 0 and 255, for images of more than 8 bits; by
            default all of 16 bits.
        masks: a folder with a PNG of class numbers for each image, under the same name.
        boxes: a folder with a text file in the YOLO format for each image that has boxes.
        max_boxes: rows of 'box' and 'box_label'; those that an image does not need are empty.

    Raises:
        UserError: no such folder, no images in it, or another number of channels.
    """
    if channels not in MODES:
        raise UserError(f"folder: channels {channels} is not supported: choose 1, 3, 4")
    check_window("folder", window)
    if max_boxes < 1:
        raise UserError(f"folder: max_boxes {max_boxes} must be at least 1")
    for name, below in (("masks", masks), ("boxes", boxes)):
        if below and existing("folder", below).resolve().is_relative_to(Path(path).resolve()):
            raise UserError(f"folder: {name} {below!r} is inside {path!r}: move it beside it")
    wanted = lambda file: file.name.lower().endswith(EXTENSIONS)
    return Folder(
        find("folder", path, wanted, ", ".join(EXTENSIONS)),
        channels=channels,
        window=window,
        masks=existing("folder", masks) if masks else None,
        boxes=existing("folder", boxes) if boxes else None,
        max_boxes=max_boxes,
    )
