"""Packs images into ArrayRecord files as a TensorFlow Datasets (TFDS) data set.

Volumes become a set of another kind, see `volume_examples`.

Every image is decoded once, to check it and to measure the set; a folder's files are written
unchanged. TFDS writes the shards one by one, or Apache Beam writes them on several machines.
Finished shards are kept: an interrupted run loses only the shards in progress, and resumes there.

Images are ordered by a hash of their names. So a part of a split, e.g. 'train[:10%]', is a random
sample of it, and so is the held-out split.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mae_jax.data import classes, vocabulary
from mae_jax.data.examples import Examples, is_spec, open_examples
from mae_jax.data.files import expanded
from mae_jax.data.loader import cores
from mae_jax.data.names import check_for_labels_file
from mae_jax.data.prepared import STATISTICS
from mae_jax.data.shards import ORIGIN, TEMPORARY, TEXTS, UNFINISHED, VERSION
from mae_jax.data.statistics import usable
from mae_jax.data.volume_examples import Spacing, VolumeExamples
from mae_jax.types import UserError

_PAUSE = 10  # seconds between progress lines without a terminal


class Summary(NamedTuple):
    """A complete prepared data set."""

    folder: Path
    """Folder to open with the source `tfds`."""
    statistics: Mapping[str, Mapping[str, Any]]
    """Split -> its `Tally.summary`."""
    unreadable: int
    """Number of images left out."""
    found: bool
    """Whether the set was complete already."""
    noun: str = "images"
    """What its examples are called."""
    reader: str = "tfds"
    """Source that reads the set."""


def prepare(
    images: str | Path,
    out: Path,
    *,
    name: str,
    channels: int | None = None,
    held_out: float = 0.0,
    shard_megabytes: float = 256,
    workers: int = 0,
    beam: str | None = None,
    spacing: Spacing = None,
    crop_background: bool = False,
) -> Summary:
    """Writes OUT/NAME/1.0.0, a TFDS data set in ArrayRecord files; of volumes, a set that the
    source `volume_records` reads.

    Besides the files of TFDS, the set holds 'statistics.json', the `Tally.summary` of each split;
    'unreadable.json', the images left out, and why; 'source.json', the images and arguments;
    'vocabulary.json', the tokenizer of texts, which are packed as numbers of tokens; and
    'groups.npz', the groups of the examples, which `data.held_out` does not split. A complete set
    is left unchanged; an incomplete one is in OUT/NAME/unfinished.

    Args:
        images: a folder, with or without a sub-folder for each class (see the source `folder`); its
            files are packed unchanged. Or the spec string of any other source; images that it reads
            encoded are packed unchanged, others losslessly as PNG.
        out: parent folder of TFDS data sets.
        name: name of the data set: lower-case letters, digits and underscores.
        channels: channels to decode the images of a folder to when measuring them: 3 (color,
            default), 1 (gray) or 4. A source determines its own.
        held_out: share of the images, in [0, 1), in a second split 'test'. The choice depends on
            names only; slices of one file stay together.
        shard_megabytes: target size of a file, and of the memory to write it.
        workers: decoding threads; 0: one per core, at most 16, or a single one with Beam.
        beam: options of Apache Beam, e.g. 'runner=DirectRunner,direct_num_workers=4'; its machines
            must share the folders under the same paths.
        spacing: of volumes: mm along depth, height and width to resample to, 0 to keep an axis as
            it is; one number for all; or 'median', that of the volumes, axis by axis.
        crop_background: of volumes: whether to crop to the foreground, see
            `volume_crops.foreground_box`.

    Raises:
        UserError: an argument is invalid, no image is readable, OUT/NAME holds other images or
            arguments, or another process is writing it.
        OSError: a file cannot be read or written, e.g. the disk is full. Fix it and start again.
    """
    _check(name, held_out, shard_megabytes, workers, beam)
    if beam is not None and is_spec(str(images)):
        raise UserError(f"Beam reads folders, and {images} is a source: leave --beam out")
    examples = open_examples(images, channels, spacing=spacing, crop_background=crop_background)
    source, out = examples.source, expanded(out).absolute()
    root = out / name
    check_for_labels_file(source.class_names)
    for line in filter(None, (classes.counted(source), *source.notes)):
        print(line, file=sys.stderr, flush=True)
    done, unfinished = root / VERSION, root / UNFINISHED
    rows = shard_rows(examples, held_out, int(shard_megabytes * 2**20))
    origin = {
        **examples.origin,
        **{"channels": examples.channels, "held_out": held_out},
        "shard_megabytes": shard_megabytes,
    }
    found = done.exists()
    if found:
        _compare(done / ORIGIN, origin)
        shutil.rmtree(unfinished, ignore_errors=True)
    else:
        shown = contextlib.nullcontext() if beam else _progress(len(examples.sizes), examples.noun)
        with _locked(unfinished), shown as advance:
            _set_up(root, unfinished, origin)
            if source.vocabulary:
                source.vocabulary.save(unfinished / vocabulary.FILE)
            threads = workers or (1 if beam else min(16, cores()))
            shards = {
                split: [
                    examples.shard(
                        unfinished / f"{name}-{split}.array_record-{i:05d}-of-{len(parts):05d}",
                        part,
                        threads,
                        advance,
                    )
                    for i, part in enumerate(parts)
                ]
                for split, parts in rows.items()
            }
            examples.write(name, out, shards, beam)
            shutil.rmtree(unfinished)
    statistics = json.loads((done / STATISTICS).read_text(encoding="utf-8"))
    unreadable = sum(split["unreadable"] for split in statistics.values())
    return Summary(done, statistics, unreadable, found, examples.noun, examples.reader)


def describe(summary: Summary) -> str:
    """A report for users: number of images, images left out, and options to train on the set."""
    path, statistics = summary.folder, summary.statistics
    counts = " and ".join(f"{stats['images']} {split}" for split, stats in statistics.items())
    lines = [
        f"{path} is complete: {counts} {summary.noun}" + (", as it was" if summary.found else "")
    ]
    if summary.unreadable:
        lines += [f"left out {summary.unreadable} that cannot be read: {path / 'unreadable.json'}"]
    train = statistics["train"]
    for key, values in (("mean", train["mean"]), ("std", usable(train["std"]))):
        numbers = ", ".join(f"{value:.4g}" for value in values) + "," * (len(values) == 1)
        lines += [f"--config.method.args.{key}='({numbers})'"]
    channels = len(train["mean"])
    more = "" if channels == 3 or summary.reader != "tfds" else f", channels={channels}"
    if (path / vocabulary.FILE).exists():
        fields = [*(["label"] if train.get("classes") else []), *TEXTS]
        lines += [f'--config.data.fields="({",".join(map(repr, fields))})"']
    for split in statistics:
        source = f"{summary.reader}({str(path)!r}, split={split}{more})"
        lines += [f"--config.data.{split}={_quoted(source)}"]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Quotes text for a shell, in double quotes if possible."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def shard_rows(
    examples: Examples | VolumeExamples, held_out: float, shard_bytes: int
) -> dict[str, list[np.ndarray]]:
    """Assigns images to shards: split -> indices [n] of each shard, ordered by the hash of names.

    Args:
        examples: images; those of one group stay in one split.
        held_out: share of groups in 'test'.
        shard_bytes: target size of a shard, exceeded by at most one image.

    Raises:
        UserError: a split would be empty.
    """
    source = examples.source
    hashes, groups = (_hashes(map(of, examples)) for of in (source.name, source.group))
    order = np.argsort(hashes, kind="stable")
    tests = (groups / 2**64 < held_out)[order]
    splits = {"train": order[~tests], **({"test": order[tests]} if held_out else {})}
    for split, rows in splits.items():
        if not len(rows):
            raise UserError(f"held_out {held_out} of {len(order)} images leaves none for {split}")
        ends = np.cumsum(examples.sizes[rows])
        count = -(-int(ends[-1]) // shard_bytes)
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count, side="right")
        splits[split] = [part for part in np.split(rows, cuts) if len(part)]
    return splits


def _hashes(names: Iterable[str]) -> np.ndarray:
    """[N] uint64 hashes of names."""
    digests = (hashlib.sha256(os.fsencode(name)).digest()[:8] for name in names)
    return np.fromiter((int.from_bytes(digest, "big") for digest in digests), np.uint64)


def _check(name: str, held_out: float, shard_megabytes: float, workers: int, beam: str | None):
    """Raises UserError if an argument is invalid."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"name {name!r}: use lower-case letters, digits and _, a letter first")
    if not 0 <= held_out < 1:
        raise UserError(f"held_out {held_out}: give a share of the images, in [0, 1), e.g. 0.1")
    if shard_megabytes * 2**20 < 1:
        raise UserError(f"shard_megabytes {shard_megabytes}: give a number above 0, e.g. 256")
    if workers < 0:
        raise UserError(f"workers {workers}: give a number of threads, or 0 for one per core")
    beam_modules = [] if beam is None else ["apache_beam"]
    modules = ["tensorflow_datasets", "array_record", *beam_modules]
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{module} is not installed: pip install {module.replace('_', '-')}")


def _compare(path: Path, origin: Mapping[str, Any]) -> None:
    """Raises UserError if the set at `path` was made of other images or arguments."""
    if not path.exists():
        raise UserError(f"{path.parent} was not made by prepare: choose another name or out")
    old = json.loads(path.read_text(encoding="utf-8"))
    changes = [f"{k}: {old.get(k)} there, {v} now" for k, v in origin.items() if old.get(k) != v]
    if changes:
        raise UserError(
            f"{path.parent} holds other images or arguments ({'; '.join(changes)}): choose another "
            "name or out, or remove it"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder against other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing {folder.parent}: wait for it") from error
        yield


def _set_up(root: Path, unfinished: Path, origin: Mapping[str, Any]) -> None:
    """Prepares the folder for a new run, or to resume an interrupted one."""
    path = unfinished / ORIGIN
    if path.exists():
        _compare(path, origin)
    temporary = path.with_suffix(TEMPORARY)
    temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    for incomplete in root.glob(f"incomplete.*_{VERSION}"):  # folders of TFDS with finished shards
        for shard in incomplete.glob("*.array_record-*"):
            os.replace(shard, unfinished / shard.name)
        shutil.rmtree(incomplete)
    for file in unfinished.glob(f"*{TEMPORARY}"):
        file.unlink()


@contextlib.contextmanager
def _progress(total: int, noun: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, else periodic lines; yields the function that advances it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console)
    task = bar.add_task(noun, total=total)
    reported = time.monotonic()

    def advance(count: int) -> None:
        nonlocal reported
        bar.advance(task, count)
        if not console.is_terminal and time.monotonic() > reported + _PAUSE:
            reported = time.monotonic()
            print(f"{int(bar.tasks[0].completed)}/{total} {noun}", file=sys.stderr, flush=True)

    with bar if console.is_terminal else contextlib.nullcontext():
        yield advance
