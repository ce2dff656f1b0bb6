"""A folder of images to ArrayRecord files, by TensorFlow Datasets (TFDS): its builder, its writer.

Every image is decoded once, to check it and to measure the set; what is written is the file as it
is. TFDS writes the shards one after the other, or Apache Beam does, on as many machines as it has.
A finished shard is not written again: a run that was cut off has lost the one it was at (with
Beam, the ones), and goes on there.

Images are in the order of a hash of their names, so that a part of a split, e.g. 'train[:10%]', is
like the whole of it, and so is the part that is held out.
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

from mae_jax.data import classes
from mae_jax.data.examples import FolderExamples, SourceExamples, is_spec, open_examples
from mae_jax.data.files import expanded
from mae_jax.data.loader import cores
from mae_jax.data.names import check_for_labels_file
from mae_jax.data.prepared import STATISTICS
from mae_jax.data.shards import ORIGIN, TEMPORARY, VERSION, make_builder, write
from mae_jax.data.statistics import usable
from mae_jax.types import UserError

_PAUSE = 10  # seconds between two lines of progress, where there is no terminal


class Summary(NamedTuple):
    """What `prepare` has made, or found made."""

    folder: Path
    """What the source `tfds` opens."""
    statistics: Mapping[str, Mapping[str, Any]]
    """Split -> see `Tally.summary`."""
    unreadable: int
    """Number of images that were left out."""
    found: bool
    """Whether there was nothing to do."""


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
) -> Summary:
    """Writes OUT/NAME/1.0.0, a TFDS data set in ArrayRecord files.

    Beside the files of TFDS it holds 'statistics.json', see `Tally.summary`, for each split;
    'unreadable.json', the images left out, and why; 'source.json', what it was made of. A set that
    is complete is left as it is. Until then, all is in OUT/NAME/unfinished.

    Args:
        images: a folder, with a sub-folder for each class or without, see the source `folder`: its
            files are packed as they are. Or the spec string of any other source: its images are
            packed as PNG files of the pixels that it gives.
        out: where TFDS keeps data sets.
        name: of the data set: small letters, digits and underscores.
        channels: what the images of a folder are decoded to, to measure them: 3 (color, default), 1
            (gray) or 4. A source decides for itself.
        held_out: the share of images in a second split, 'test'; which, depends on their names only.
            Slices of one file are in the same split.
        shard_megabytes: size of a file to aim at; as much memory is needed.
        workers: threads that decode; 0: one for each core, at most 16, or a single one with Beam.
        beam: options of Apache Beam, e.g. 'runner=DirectRunner,direct_num_workers=4'; all of its
            machines have to see the folders under the same paths.

    Raises:
        UserError: an argument cannot be, no image can be read, OUT/NAME is of other images or
            arguments, or somebody else is writing it.
        OSError: a file cannot be read or written, the disk is full. Mend it, and start again.
    """
    _check(name, held_out, shard_megabytes, workers, beam)
    if beam is not None and is_spec(str(images)):
        raise UserError(f"Beam reads folders, and {images} is a source: leave --beam out")
    examples, out = open_examples(images, channels), expanded(out).absolute()
    source, root = examples.source, out / name
    check_for_labels_file(source.class_names)
    for line in filter(None, (classes.counted(source), *source.notes)):
        print(line, file=sys.stderr, flush=True)
    done, unfinished = root / VERSION, root / "unfinished"
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
        shown = contextlib.nullcontext() if beam else _progress(len(examples.sizes))
        with _alone(unfinished), shown as advance:
            _go_on(root, unfinished, origin)
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
            builder = make_builder(name, out, source.class_names, shards)
            write(builder, unfinished / "downloads", beam)
            shutil.rmtree(unfinished)
    statistics = json.loads((done / STATISTICS).read_text(encoding="utf-8"))
    unreadable = sum(split["unreadable"] for split in statistics.values())
    return Summary(done, statistics, unreadable, found)


def describe(summary: Summary) -> str:
    """For people: what there is, what is not, and how to train on it."""
    path, statistics = summary.folder, summary.statistics
    counts = " and ".join(f"{found['images']} {split}" for split, found in statistics.items())
    lines = [f"{path} is complete: {counts} images" + (", as it was" if summary.found else "")]
    if summary.unreadable:
        lines += [f"left out {summary.unreadable} that cannot be read: {path / 'unreadable.json'}"]
    train = statistics["train"]
    for key, values in (("mean", train["mean"]), ("std", usable(train["std"]))):
        numbers = ", ".join(f"{value:.4g}" for value in values) + "," * (len(values) == 1)
        lines += [f"--config.method.args.{key}='({numbers})'"]
    channels = len(train["mean"])
    more = "" if channels == 3 else f", channels={channels}"
    for split in statistics:
        source = f"tfds({str(path)!r}, split={split}{more})"
        lines += [f"--config.data.{split}={_quoted(source)}"]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """For a shell: in double quotes if that will do."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def shard_rows(
    examples: FolderExamples | SourceExamples, held_out: float, shard_bytes: int
) -> dict[str, list[np.ndarray]]:
    """Which images go where: split -> for each shard [n] int, in the order of their names' hashes.

    Args:
        examples: images; their groups are not split.
        held_out: share of groups in 'test'.
        shard_bytes: shards have at most one image more than that.

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
    """[N] uint64, of names."""
    digests = (hashlib.sha256(os.fsencode(name)).digest()[:8] for name in names)
    return np.fromiter((int.from_bytes(digest, "big") for digest in digests), np.uint64)


def _check(name: str, held_out: float, shard_megabytes: float, workers: int, beam: str | None):
    """Raises UserError if an argument cannot be."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(f"name {name!r}: start with a small letter; small letters, digits and _")
    if not 0 <= held_out < 1:
        raise UserError(f"held_out {held_out}: give a share of the images, in [0, 1), e.g. 0.1")
    if shard_megabytes * 2**20 < 1:
        raise UserError(f"shard_megabytes {shard_megabytes}: give a number above 0, e.g. 256")
    if workers < 0:
        raise UserError(f"workers {workers}: give a number of threads, or 0 for one a core")
    beam_modules = [] if beam is None else ["apache_beam"]
    modules = ["tensorflow_datasets", "array_record", *beam_modules]
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{module} is not installed: pip install {module.replace('_', '-')}")


def _compare(path: Path, origin: Mapping[str, Any]) -> None:
    """Raises UserError if what was or is being written is of other images or arguments."""
    if not path.exists():
        raise UserError(f"{path.parent} is a data set of somebody else: choose another name or out")
    old = json.loads(path.read_text(encoding="utf-8"))
    changes = [f"{k}: {old.get(k)} there, {v} now" for k, v in origin.items() if old.get(k) != v]
    if changes:
        raise UserError(
            f"{path.parent} is of other images or arguments ({'; '.join(changes)}): choose another "
            "name or out, or remove it"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"somebody else is writing {folder.parent}: wait for it") from error
        yield


def _go_on(root: Path, unfinished: Path, origin: Mapping[str, Any]) -> None:
    """Makes of what a run has left behind what another can go on with."""
    path = unfinished / ORIGIN
    if path.exists():
        _compare(path, origin)
    temporary = path.with_suffix(TEMPORARY)
    temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    for left in root.glob(f"incomplete.*_{VERSION}"):  # TFDS' own, with the shards at the end
        for shard in left.glob("*.array_record-*"):
            os.replace(shard, unfinished / shard.name)
        shutil.rmtree(left)
    for file in unfinished.glob(f"*{TEMPORARY}"):
        file.unlink()


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line now and then elsewhere; gives the function that moves it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console)
    task = bar.add_task("images", total=total)
    said = time.monotonic()

    def advance(count: int) -> None:
        nonlocal said
        bar.advance(task, count)
        if not console.is_terminal and time.monotonic() > said + _PAUSE:
            said = time.monotonic()
            print(f"{int(bar.tasks[0].completed)}/{total} images", file=sys.stderr, flush=True)

    with bar if console.is_terminal else contextlib.nullcontext():
        yield advance
