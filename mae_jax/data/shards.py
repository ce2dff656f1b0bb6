"""Shards of a data set that is being prepared, and the TFDS builder that assembles them.

A shard is finished once its file exists: it is written under a temporary name, and renamed after
its counts are written. `Shard` and `Writer` can be pickled for other machines.
"""

import contextlib
import dataclasses
import errno
import io
import json
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data import vocabulary
from mae_jax.data.files import Files, read_bytes
from mae_jax.data.images import BadImage, Encoded
from mae_jax.data.packed_groups import write_groups
from mae_jax.data.statistics import Tally, histogram, write_reports
from mae_jax.types import UserError

ORIGIN = "source.json"
"""File with the images and arguments that a set was made of."""
VERSION = "1.0.0"
"""Version of every prepared set, which TFDS requires."""

UNFINISHED = "unfinished"
"""Sub-folder of a data set for its finished shards until all are."""
TEXTS = ("text", "text_valid")
"""Fields of texts, which are stored as they are in batches."""
TEMPORARY = ".tmp"
"""Suffix of incomplete files."""

_AHEAD = 4  # images a thread may be ahead of the writer
_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


class Part:
    """(name, label) of some files of a folder, generated lazily; labels are -1 without classes.

    Args:
        files: all files of the folder.
        rows: [n] int, indices of the files.
    """

    def __init__(self, files: Files, rows: np.ndarray):
        self.files, self.rows = files, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        labeled = bool(self.files.class_names)
        return ((self.files[i], self.files.label(i) if labeled else -1) for i in self.rows)


@dataclasses.dataclass
class Shard:
    """The examples of one shard, as a callable for TFDS' `ShardBasedBuilder`.

    Args:
        path: path of the finished file.
        files: (name, label) of each image; labels are -1 without classes.
        channels: channels to decode images to.
        threads: number of decoding threads.
        advance: called with the number of images just processed; dropped when pickled.
        images: folder of the images.
        length: tokens of the texts; 0: there are none.
        groups: [n] int, the group of each image; None: there are no groups.
    """

    path: Path
    files: Iterable[Any]
    channels: int
    threads: int
    advance: Callable[[int], None] | None
    images: Any
    length: int = 0
    groups: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "files": list(self.files), "advance": None}

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (key, example) of TFDS for each readable image, and writes the shard's counts.

        For a finished shard, yields as many empty examples, since TFDS only counts them.
        """
        if self.path.exists():
            tally = self.tally()
            self._advance(tally.images + len(tally.unreadable))
            texts = {field: np.zeros(self.length, np.int32) for field in TEXTS if self.length}
            empty = _example(b"", "", min(tally.labels), texts)
            yield from ((i, empty) for i in range(tally.images))
            return
        tally = Tally(self.channels)
        for place, ((name, label, texts), data, result) in enumerate(self._results()):
            if isinstance(result, BadImage):
                tally.unreadable[name] = str(result)
            else:
                tally.add(len(data), *result, label)
                tally.groups += [] if self.groups is None else [int(self.groups[place])]
                yield tally.images - 1, _example(data, name, label, texts)
            self._advance(1)
        temporary = self.counts.with_suffix(TEMPORARY)
        temporary.write_text(json.dumps(tally.to_json()), encoding="utf-8")
        os.replace(temporary, self.counts)

    @property
    def counts(self) -> Path:
        """Path of the file with the counts of the finished shard."""
        return self.path.with_name(f"{self.path.name}.json")

    def tally(self) -> Tally:
        """The counts of the finished shard."""
        return Tally.from_json(json.loads(self.counts.read_text(encoding="utf-8")))

    def _advance(self, count: int) -> None:
        if self.advance:
            self.advance(count)

    def _results(self):
        """Results of `_open` for all files, in order, prefetched by threads."""
        pending: deque = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for file in self.files:
                pending.append(pool.submit(self._open, file))
                if len(pending) > _AHEAD * self.threads:
                    yield pending.popleft().result()
            for future in pending:
                yield future.result()

    def _open(self, file: Any):
        """(name, label, fields of `TEXTS`) of a file, and its `_measure`."""
        name, label = file
        return (name, label, {}), *self._measure(name)

    def _measure(self, name: str):
        """The bytes of a file, and (shape, histogram) of its image or the `BadImage` error."""
        data = b""
        try:
            data = read_bytes(self.images / name)
            pixels = Encoded(data, self.channels).pixels()
        except BadImage as error:
            return data, error
        return data, (pixels.shape, histogram(pixels))


class Writer:
    """TFDS' writer of ArrayRecord files, made atomic."""

    def write(self, path, examples: Iterable[tuple[int, bytes]]) -> None:
        """Writes serialized examples to `path`, unless the file exists.

        Raises:
            OSError: the file cannot be written, e.g. because the disk is full.
        """
        from tensorflow_datasets.core import file_adapters, writer

        path = Path(path)
        if path.exists():
            return
        temporary = path.with_name(f"{uuid.uuid4().hex}{TEMPORARY}")
        tfds_writer = writer.ExampleWriter(file_adapters.FileFormat.ARRAY_RECORD)
        try:
            tfds_writer.write(temporary, examples)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except RuntimeError as error:  # the only type that array_record raises
            code = next((code for code in _CODES if os.strerror(code) in str(error)), None)
            if code is None:
                raise
            raise OSError(code, os.strerror(code), str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)


def _example(data: bytes, name: str, label: int, texts: Mapping[str, Any]) -> dict[str, Any]:
    labels = {"label": label} if label >= 0 else {}
    numbers = {field: values.astype(np.int32) for field, values in texts.items()}
    return {"image": data, **labels, **numbers, "filename": os.fsencode(name)}


def make_builder(
    name: str, out: Path, class_names: Sequence[str], shards: Mapping[str, Sequence[Shard]]
):
    """The TFDS builder of a data set from its shards.

    The set has the features 'image', 'filename', 'label' if there are classes, and `TEXTS` if there
    are texts, whose vocabulary is in the folder of the shards. Besides the files of TFDS, it holds
    'statistics.json', the `Tally.summary` of each split; 'unreadable.json', name and reason of each
    image left out; the `ORIGIN` of the shards; the vocabulary; and the groups, if there are any.

    Args:
        name: name of the data set.
        out: parent folder of TFDS data sets.
        class_names: names of the classes; empty for none.
        shards: split -> its shards, all in one folder.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_builder

    first = next(iter(shards.values()))[0]
    folder = first.path.parent

    class Builder(dataset_builder.ShardBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(VERSION)

        def _info(self):
            kinds = tfds.features
            label = {"label": kinds.ClassLabel(names=class_names)} if class_names else {}
            image = kinds.Image(shape=(None, None, first.channels))
            text = kinds.Tensor(shape=(first.length,), dtype=np.int32)
            texts = dict.fromkeys(TEXTS, text) if first.length else {}
            features = {"image": image, **label, **texts, "filename": kinds.Text()}
            return tfds.core.DatasetInfo(builder=self, features=kinds.FeaturesDict(features))

        def _shard_iterators_per_split(self, dl_manager):
            return shards

        def _example_writer(self):
            return Writer()

        def _download_and_prepare(self, dl_manager, download_config=None):
            # TFDS empties its folder when interrupted, so shards are moved into it at the end.
            final, self._data_dir = self._data_dir, str(folder)
            try:
                super()._download_and_prepare(dl_manager, download_config)
            finally:
                self._data_dir = final
            counts = {split: [part.tally() for part in parts] for split, parts in shards.items()}
            write_reports(Path(final), counts, class_names)
            # After Beam, TFDS lists the shards' lengths in the order '0', '1', '10', '11', '2'.
            infos = [
                info.replace(
                    shard_lengths=[tally.images for tally in counts[info.name]],
                    filename_template=info.filename_template.replace(data_dir=self.data_path),
                )
                for info in self.info.splits.values()
            ]
            self.info.set_splits(tfds.core.splits.SplitDict(infos))
            if first.groups is not None:
                files = [part for parts in shards.values() for part in parts]
                write_groups(Path(final), {file.path.name: file.tally().groups for file in files})
            for file in [part.path for parts in shards.values() for part in parts]:
                os.replace(file, Path(final, file.name))
            for name in (ORIGIN, *([vocabulary.FILE] if first.length else [])):
                shutil.copy(folder / name, final)

    Builder.name = name
    return Builder(data_dir=out, file_format="array_record")


def write(builder, downloads: Path, beam: str | None) -> None:
    """Writes a data set with TFDS, in this process or with Apache Beam.

    Args:
        builder: builder of the set, see `make_builder`.
        downloads: download folder, which TFDS requires.
        beam: None, or options of Beam, e.g. 'runner=FlinkRunner,parallelism=8'.

    Raises:
        UserError: Beam has no such runner, or no image is readable.
    """
    import tensorflow_datasets as tfds

    config = {}
    if beam is not None:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
        from apache_beam.runners.runner import create_runner

        options = PipelineOptions([f"--{option}" for option in beam.split(",") if option])
        try:
            runner = create_runner(options.view_as(StandardOptions).runner or "DirectRunner")
        except (ValueError, ImportError) as error:
            raise UserError(f"Beam cannot run with {beam!r}: {error}") from error
        config = {"beam_options": options, "beam_runner": runner}
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints that it downloads
        builder.download_and_prepare(
            download_dir=downloads, download_config=tfds.download.DownloadConfig(**config)
        )
