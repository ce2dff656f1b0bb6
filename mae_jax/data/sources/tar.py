"""Images in tar files with one file for each field, as the package `webdataset` reads them:
0001.jpg, 0001.cls, 0001.json. Members whose names are equal up to the first dot are one example.
"""

import glob
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.compact import Texts
from mae_jax.data.decoding import MAX_PIXELS, extensions
from mae_jax.data.files import expanded
from mae_jax.data.images import BadImage, Window
from mae_jax.data.labeling import Columns, Labeled, Labeling, labeled
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.table_files import check_columns, column_of, taken, texts
from mae_jax.types import UserError

_BLOCK = 512  # bytes; members begin at multiples of it
_JSON = "json."
"""Prefix of the columns that are keys of the .json member."""


PLACE = np.dtype([("shard", np.int32), ("offset", np.int64), ("size", np.int32)])
"""Where an image is."""


class Tar(Labeled):
    """Images in tar files; see `make`.

    Args:
        shards: the files.
        places: [N] of the type `PLACE`.
        keys: `pyarrow.Array` of N texts, names of the examples.
        labeling: their labels.
        decoder: makes images of the bytes of files.
        notes: lines to report.
    """

    reading = CHANGES

    def __init__(
        self,
        shards: Sequence[Path],
        places: np.ndarray,
        keys: Any,
        labeling: Labeling,
        decoder: Reading,
        *,
        notes: Sequence[str],
    ):
        super().__init__(len(places), labeling)
        self.shards, self.places, self.keys, self.decoder = shards, places, Texts(keys), decoder
        listing = hashlib.sha256(labeling.digest.encode() + places.tobytes())
        listing.update(" ".join(shard.name for shard in shards).encode())
        self.digest = listing.hexdigest()[:16]
        some = (self._bytes(index) for index in spread(len(places)))
        self.notes = (*notes, *labeling.notes, *decoder.look(some))

    def name(self, index: int) -> str:
        """'SHARD/KEY', without the extension of the shard."""
        return f"{self.shards[self.places[index]['shard']].stem}/{self.keys[index]}"

    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """'image', still encoded, and the fields of the labels."""
        images = [self.decoder(self._bytes(index)) for index in indices]
        return {"image": images, **self.labeling.read(indices)}

    def _bytes(self, index: int) -> bytes:
        shard, offset, size = self.places[index].tolist()
        with self.shards[shard].open("rb", buffering=0) as file:  # too many to keep all open
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise BadImage(f"{self.shards[shard]} has been cut off since it was opened")
        return data


def make(
    path: str,
    *,
    image: str = "",
    label: str | None = None,
    labels: str = "",
    value: str | Sequence[str] = (),
    order: Sequence[str | int] = (),
    classes: int | str | Sequence[str | int] | None = None,
    weight: str = "",
    group: str = "",
    missing_labels: str = "refuse",
    captions: str = "",
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Tar:
    """Images in uncompressed tar files: tar('shards/train-{000..099}.tar', label='json.kind').

    The headers of all members are read at the start, and images on demand. For large sets,
    `mae-jax prepare` packs them into files that open at once.

    Args:
        path: a file, a folder of .tar files, or a pattern with '*' or '{000..099}'.
        image: extension of the images, e.g. 'jpg'; '': any that Pillow reads.
        label: column of classes: the extension of a member that holds nothing else, 'cls' or
            'txt', or 'json.NAME', a key of the .json member. None: 'cls', unless labels, value or
            captions are given; '': none.
        labels, value, weight, group, captions: columns for these fields, see `table`, e.g.
            captions=txt or captions='json.caption'.
        order, classes, missing_labels: see `table`.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: there is no such file, or it is damaged; a column is missing; a label is invalid.
    """
    import pyarrow as pa

    decoder = Reading(
        "tar", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    spec = Columns(
        label="cls" if label is None and not (labels or value or captions) else label or "",
        labels=labels,
        value=value,
        order=order,
        classes=classes,
        weight=weight,
        group=group,
        missing_labels=missing_labels,
        captions=captions,
    )
    spec.check("tar")
    shards, endings = _shards(path), (f".{image.lstrip('.')}",) if image else extensions()
    places, keys, columns = _headers(shards, endings, spec.wanted)
    if not places:
        raise UserError(f"tar: no images in {path!r}: looked for {', '.join(endings[:8])}, ...")
    columns[""], rows = pa.array(keys, pa.large_string()), np.arange(len(keys), dtype=np.int32)
    use, lines = labeled("tar", spec, columns, rows)
    columns, rows = taken(columns, rows, use)
    if not len(rows):
        raise UserError(f"tar: {path} has no examples to use: {'; '.join(lines)}")
    return Tar(
        shards,
        np.array(places, PLACE)[rows],
        columns[""],
        Labeling("tar", spec, columns, rows),
        decoder,
        notes=lines,
    )


def _shards(path: str) -> list[Path]:
    """The tar files that a path or a pattern names."""
    text = str(expanded(path))
    if match := re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", text):
        before, first, last, after = match.groups()
        numbers = range(int(first), int(last) + 1)
        return [_existing(f"{before}{n:0{len(first)}d}{after}") for n in numbers]
    if os.path.isdir(text):
        text = os.path.join(glob.escape(text), "*.tar")
    found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
    if not found:
        raise UserError(f"tar: no file matches {path!r}: give a .tar file, or a pattern with '*'")
    return [_existing(file) for file in found]


def _headers(
    shards: Sequence[Path], endings: Sequence[str], wanted: Sequence[str]
) -> tuple[list[tuple[int, int, int]], list[str], dict[str, Any]]:
    """`PLACE` and name of all examples, and the columns that are wanted."""
    known: dict[str, None] = {}
    places, keys, cells = [], [], {name: [] for name in wanted}
    for number, shard in enumerate(shards):
        for key, place, row in _examples(shard, number, endings, wanted, known):
            places.append(place)
            keys.append(key)
            for name, column in cells.items():
                column.append(row.get(name))
    if places:
        check_columns("tar", shards[0], wanted, known)
    return places, keys, {name: _column(name, values) for name, values in cells.items()}


def _existing(file: str) -> Path:
    if not os.path.isfile(file):
        raise UserError(f"tar: there is no file {file!r}: give the path of a .tar file")
    return Path(file)


def _examples(
    shard: Path, number: int, endings: Sequence[str], wanted: Sequence[str], known: dict
) -> Iterator[tuple[str, tuple[int, int, int], dict[str, Any]]]:
    """Name, `PLACE` and cells of each example with an image; adds to `known` what columns exist."""
    current, place, row, seen, end = None, None, {}, set(), 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                stem, _, ending = name.partition(".")
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if not member.isfile() or not stem:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if key != current:
                    if place is not None:
                        yield current, place, row
                    current, place, row, seen = key, None, {}, set()
                if ending.lower() in seen:
                    raise UserError(
                        f"tar: {str(shard)!r} has two files {member.name!r} in one example, and "
                        "which image belongs to which text is not known: give them different names"
                    )
                seen.add(ending.lower())
                if f".{ending.lower()}" in endings and place is None:
                    place = (number, member.offset_data, member.size)
                elif ending == "json" and any(name.startswith(_JSON) for name in wanted):
                    row |= _object(shard, member.name, tar.extractfile(member).read())
                    known.update(dict.fromkeys(row))
                else:
                    known[ending] = None
                    if ending in wanted:
                        data = tar.extractfile(member).read()
                        row[ending] = _text(shard, member.name, data).strip()
            if place is not None:
                yield current, place, row
            tar.fileobj.seek(end)
            if tar.fileobj.read(_BLOCK).strip(b"\0"):  # a header that tarfile passes over
                raise tarfile.ReadError("it has been cut off")
    except (tarfile.TarError, OSError, ValueError) as error:
        at = f" at {current!r}" if current else ""
        raise UserError(
            f"tar: cannot read {str(shard)!r}{at}: {error}; it must be an uncompressed tar file"
        ) from error


def _text(shard: Path, name: str, data: bytes) -> str:
    """The text of a member, without a byte-order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"tar: {name!r} in {str(shard)!r} is not UTF-8 ({error}): write the tar file again "
            "with texts in UTF-8"
        ) from error


def _object(shard: Path, name: str, data: bytes) -> dict[str, Any]:
    """The columns of a .json member."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"tar: {name!r} in {str(shard)!r} is no JSON in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"tar: {name!r} in {str(shard)!r} should hold an object, {{column: value, ...}}"
        )
    return {f"{_JSON}{key}": value for key, value in content.items()}


def _column(name: str, values: Sequence[Any]) -> Any:
    """Cells of any type as a `pyarrow.Array` of texts, or of lists of texts."""
    try:
        return texts(column_of(values))
    except ValueError as error:
        raise UserError(f"tar: {name!r}: {error}") from error
