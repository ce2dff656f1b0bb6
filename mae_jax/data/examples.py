"""Examples that `mae-jax prepare` packs: the files of a folder unchanged, and of another source the
images that it reads encoded unchanged, and others losslessly as PNG.
"""

import dataclasses
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mae_jax.data.files import expanded
from mae_jax.data.images import MODES, BadImage, Encoded, pixels_of
from mae_jax.data.objects import OBJECTS
from mae_jax.data.shards import TEXTS, UNFINISHED, Part, Shard, make_builder, write
from mae_jax.data.sources import Source, folder
from mae_jax.data.sources.volume import Volumes
from mae_jax.data.statistics import histogram
from mae_jax.data.volume_examples import Spacing, VolumeExamples
from mae_jax.spec import build, parse
from mae_jax.types import UserError

_SAMPLE = 8  # examples encoded as PNG to estimate sizes, for the number of shards
_TRIES = 1000  # one of the first so many examples must be readable

Advance = Callable[[int], None] | None
Shards = Mapping[str, Sequence[Shard]]


class Examples:
    """What folders and sources share: their sets are those of TFDS."""

    noun, reader = "images", "tfds"
    source: Source

    def write(self, name: str, out: Path, shards: Shards, beam: str | None) -> None:
        """Writes the shards, and assembles the set OUT/NAME/1.0.0.

        Raises:
            UserError: no image of a split is readable, or Beam has no such runner.
        """
        builder = make_builder(name, out, self.source.class_names, shards)
        write(builder, out / name / UNFINISHED / "downloads", beam)


class FolderExamples(Examples):
    """The files of a folder."""

    def __init__(self, path: Path, channels: int):
        self.source, self.channels = folder.make(str(path), channels=channels), channels
        self.files = self.source.files
        self.sizes = np.fromiter((_size(path) for path in map(self.files.path, self)), np.int64)
        listing = hashlib.sha256(self.files.digest.encode() + self.sizes.tobytes())
        self.origin = {"images": len(self.files), "listing": listing.hexdigest()[:16]}

    def __iter__(self):
        return iter(range(len(self.files)))

    def shard(self, path: Path, rows: np.ndarray, threads: int, advance: Advance) -> Shard:
        """A shard of the examples in `rows` [n]; see `Shard`."""
        part = Part(self.files, rows)
        return Shard(path, part, self.channels, threads, advance, self.files.root)


class SourceExamples(Examples):
    """The examples of a source."""

    def __init__(self, text: str, source: Source, channels: int | None):
        self.source = source
        self._reasons: list[str] = []
        self.length = 0
        """Tokens of the texts; 0: there are none."""
        self.channels, self.sizes = self._inspect(text, channels)
        self.origin = {
            "source": text,
            "images": self.source.num_examples,
            "listing": self.source.digest,
        }
        self.groups = source.groups()
        if self.groups is not None:
            self.origin["groups"] = len(np.unique(self.groups))

    def __iter__(self):
        return iter(range(self.source.num_examples))

    def shard(self, path: Path, rows: np.ndarray, threads: int, advance: Advance) -> Shard:
        """A shard of the examples in `rows` [n]; see `Shard`."""
        shard = SourceShard(path, rows, self.channels, threads, advance, self.source)
        shard.length = self.length
        shard.groups = None if self.groups is None else self.groups[rows]
        return shard

    def _inspect(self, text: str, channels: int | None) -> tuple[int, np.ndarray]:
        """Number of channels, and estimated bytes [N] of the examples, from a sample of them."""
        count, sample = self.source.num_examples, []
        first = next((i for i in range(min(count, _TRIES)) if self._measure(i, sample)), None)
        if first is None:
            raise UserError(
                f"none of the first {min(count, _TRIES)} images of {text} can be read; the first "
                f"is {self.source.name(0)}: {self._reasons[0]}"
            )
        for i in np.unique(np.linspace(first, count - 1, _SAMPLE).astype(int)):
            self._measure(i, sample)
        fields, shape, _ = sample[0]
        if more := sorted(fields - {"image", "label", OBJECTS, *TEXTS}):
            raise UserError(
                f"a prepared set holds images, labels and captions only: {text} also has "
                f"{', '.join(more)}; leave them out"
            )
        if shape[2] not in MODES:
            raise UserError(
                f"images of {text} have {shape[2]} channels, and a prepared set holds 1, 3 or 4: "
                "train on the source itself"
            )
        if channels not in (None, shape[2]):
            raise UserError(
                f"channels {channels}: images of {text} have {shape[2]}; leave --channels out"
            )
        sizes = [len(data) for _, other, data in sample if other[2] in MODES]
        return shape[2], np.full(count, int(np.mean(sizes)), np.int64)

    def _measure(self, index: int, sample: list) -> bool:
        """Appends fields, shape and PNG of an example to `sample`. Returns False if the example is
        unreadable, and appends the reason to `_reasons`.
        """
        try:
            row = self.source.read(np.array([index]))
            pixels = pixels_of(row["image"][0]) if "image" in row else np.array(())
        except BadImage as error:
            self._reasons.append(str(error))
            return False
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise UserError(
                "a prepared set holds images [H, W, C] of uint8, and this source has "
                + (f"{pixels.shape} of {pixels.dtype}" if "image" in row else "none")
                + ": train on the source itself"
            )
        data = packed(row["image"][0]) if pixels.shape[2] in MODES else b""
        if "text" in row:
            self.length = len(row["text"][0])
        sample.append((set(row), pixels.shape, data))
        return True


@dataclasses.dataclass
class SourceShard(Shard):
    """A shard of examples of a source. `images` is the source, `files` are indices into it."""

    def _open(self, file: int):
        source: Source = self.images
        name, label, texts = source.name(int(file)), -1, {}
        try:
            row = source.read(np.array([file]))
            pixels = pixels_of(row["image"][0])
            if pixels.shape[2] != self.channels:
                raise BadImage(f"it has {pixels.shape[2]} channels, and the set {self.channels}")
        except BadImage as error:
            return (name, label, texts), b"", error
        if "label" in row:
            label = int(row["label"][0])
        texts = {field: row[field][0] for field in TEXTS if self.length}
        return (name, label, texts), packed(row["image"][0]), (pixels.shape, histogram(pixels))


def open_examples(
    images: str | Path,
    channels: int | None,
    *,
    spacing: Spacing = None,
    crop_background: bool = False,
) -> Examples | VolumeExamples:
    """Opens the examples to pack.

    Args:
        images: a folder, or the spec string of a source, e.g. "dicom('study', window=(0, 80))".
        channels: channels to decode the images of a folder to, None: 3. For a source, None or the
            channels that its images have.
        spacing, crop_background: of volumes, see `prepare`.

    Raises:
        UserError: the folder or the source cannot be opened, or its images cannot be packed.
    """
    text = str(images)
    options = dict(spacing=spacing, crop_background=crop_background)
    path, declared = _plain_folder(text) if is_spec(text) else (text, None)
    if path is None:
        source = build(text, "data.sources")
        if isinstance(source, Volumes) and not source.flat:
            return VolumeExamples(text, source, channels=channels, **options)
    if spacing is not None or crop_background:
        raise UserError(
            f"spacing and crop_background are options of volumes, and {text} holds images: leave "
            "them out, or give a source such as \"volume('scans', window=(-175, 250))\""
        )
    if path is None:
        return SourceExamples(text, source, channels)
    if None not in (declared, channels) and declared != channels:
        raise UserError(f"--channels {channels} contradicts {text}: leave one of them out")
    channels = declared if channels is None else channels
    return FolderExamples(expanded(path).absolute(), 3 if channels is None else channels)


def _plain_folder(text: str) -> tuple[str | None, int | None]:
    """Path and channels of a `folder` spec without other arguments; else (None, None)."""
    name, args, options = parse(text)[0] if len(parse(text)) == 1 else ("", (), {})
    options = {**dict(zip(("path",), args)), **options}
    if name != "folder" or len(args) > 1 or not {"path"} <= options.keys() <= {"path", "channels"}:
        return None, None
    build(text, "data.sources")  # checks the arguments
    return options["path"], options.get("channels")


def is_spec(text: str) -> bool:
    """Whether `text` is the spec string of a source, not a path."""
    return "(" in text and not expanded(text).exists()


def default_name(images: str | Path) -> str:
    """A name for the data set, after the folder or the path that a source reads."""
    text = str(images)
    path = Path(text).resolve()
    if is_spec(text) and (calls := parse(text)):
        arguments: Sequence[Any] = (*calls[0].args, *calls[0].kwargs.values(), calls[0].name)
        first = next(str(value) for value in arguments if isinstance(value, str))
        return default_name(first) if is_spec(first) else _name(Path(first))
    return _name(path)


def _name(path: Path) -> str:
    """The last part of a path, as the name of a data set."""
    return re.sub(r"\W+", "_", path.name.lower())


def packed(image: np.ndarray | Encoded) -> bytes:
    """The bytes of an image file to store: those of an encoded image, if no option changes its
    pixels, and otherwise a PNG.
    """
    if isinstance(image, Encoded) and image.window is None and image.background == (255, 255, 255):
        return image.data
    return encode_png(pixels_of(image))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes [H, W, C] uint8, C = 1, 3 or 4, as the bytes of a PNG file."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it is gone, which counts it as unreadable later."""
    return path.stat().st_size if path.exists() else 0
