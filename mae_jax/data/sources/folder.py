"""A folder of images, with or without one sub-folder for each class, read when asked for."""

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mae_jax.types import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class Folder:
    """Images under a folder; see `make`."""

    def __init__(
        self,
        root: Path,
        paths: list[Path],
        labels: list[int],
        class_names: list[str],
        channels: int,
    ):
        self.paths, self.labels, self.class_names = paths, labels, tuple(class_names)
        self.channels = channels
        self.num_examples = len(paths)
        names = "\n".join(path.relative_to(root).as_posix() for path in paths)
        self.digest = hashlib.sha256(names.encode()).hexdigest()[:16]

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [H, W, C] uint8 of each index, and 'label' if there are classes."""
        fields = {"image": [self.image(self.paths[i]) for i in indices]}
        if self.labels:
            fields["label"] = [self.labels[i] for i in indices]
        return fields

    def image(self, path: Path) -> np.ndarray:
        """One image, upright by its EXIF orientation.

        Raises:
            UserError: it cannot be read; names the file and the reason.
        """
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I;16"):  # convert() would clip at 255
                    upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
                pixels = np.asarray(upright.convert({1: "L", 3: "RGB"}[self.channels]))
        except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
            raise UserError(
                f"cannot read the image {path}: {error}; repair or remove it"
            ) from error
        return pixels.reshape(*pixels.shape[:2], self.channels)


def _raise(error: OSError) -> None:
    raise error


def make(path: str, *, channels: int = 3) -> Folder:
    """The images below a folder, in the order of their names.

    If all of them stand in direct sub-folders, these are the classes, in the order of their names.

    Args:
        path: the folder.
        channels: 3 (colour) or 1 (grey).

    Raises:
        UserError: no such folder, no images in it, or another number of channels.
    """
    root = Path(path).expanduser()
    if channels not in (1, 3):
        raise UserError(f"folder: channels {channels} is not supported: choose 1, 3")
    if not root.is_dir():
        raise UserError(f"there is no folder {str(root)!r}: give the path of a folder of images")
    try:
        paths = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(root, onerror=_raise, followlinks=True)
            for name in names
            if name.lower().endswith(EXTENSIONS)
        )
    except OSError as error:
        raise UserError(f"cannot read the folder {str(root)!r}: {error}") from error
    if not paths:
        raise UserError(f"no images in {str(root)!r}: looked for {', '.join(EXTENSIONS)}")
    parts = [path.relative_to(root).parts for path in paths]
    if any(len(part) == 1 for part in parts):
        return Folder(root, paths, [], [], channels)
    names = sorted({part[0] for part in parts})
    return Folder(root, paths, [names.index(part[0]) for part in parts], names, channels)
