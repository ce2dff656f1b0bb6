"""Reads captions of images from files: text files beside them, tables, and the JSON of COCO."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mae_jax.data.classes import shortened
from mae_jax.data.files import expanded, number
from mae_jax.data.names import composed
from mae_jax.data.sources import Source
from mae_jax.data.table_files import read_columns
from mae_jax.data.vocabulary import is_unicode
from mae_jax.types import UserError

_CHUNK = 4096  # cells that become Python objects at a time


def captions_of(
    source: Source, captions: str, *, image: str, caption: str, notes: list[str]
) -> Iterable[Sequence[str]]:
    """The captions of each example of a source, in order, without blank ones.

    Args:
        source: the examples.
        captions: '': those of the source's own column; a folder with a text file for each image; or
            a table, or a JSON file of COCO, which name the images.
        image, caption: columns of the table.
        notes: lines to report are appended.

    Raises:
        UserError: the file is damaged; at the end of the iteration: all captions are blank.
    """
    found = _read(source, captions, image, caption, notes)
    return _written(source, found, f" in {captions}" if captions else "")


def _read(
    source: Source, captions: str, image: str, caption: str, notes: list[str]
) -> Iterable[Sequence[str]]:
    """The captions of each example, blank ones included; see `captions_of`."""
    if not captions:
        if (own := source.captions()) is None:
            raise UserError(
                "captioned: the source has no column of captions: give captions=..., a folder of "
                "text files, a table or the JSON file of COCO; or name the column, e.g. "
                "table('photos.csv', captions=caption)"
            )
        return own
    path = expanded(captions)
    if path.is_dir():
        return _beside(source, path)
    by_name = _coco(path) or _table(path, image, caption)
    return _matched(source, path, by_name, notes)


def _written(
    source: Source, captions: Iterable[Sequence[str]], where: str
) -> Iterator[Sequence[str]]:
    """The captions of each example that are not blank.

    Raises:
        UserError: there are none, or one cannot be encoded as UTF-8.
    """
    count = 0
    for index, texts in enumerate(captions):
        texts = [text for text in texts if text.strip()]
        for text in texts:
            if not is_unicode(text):
                raise UserError(
                    f"captioned: a caption of {source.name(index)}{where} holds half of a "
                    f"character, a lone surrogate: {text[:80]!r}: remove it"
                )
        count += len(texts)
        yield texts
    if not count:
        raise UserError(
            f"captioned: no image has a caption: all{where} are missing or empty; name another "
            "column or file of captions, or leave captioned(...) out"
        )


def cells(column: Any) -> Iterator[Sequence[str]]:
    """The captions in each cell of a `pyarrow.Array` of texts or of lists of texts."""
    for start in range(0, len(column), _CHUNK):
        for cell in column.slice(start, _CHUNK).to_pylist():
            several = cell if isinstance(cell, list) else [cell]
            yield [text for text in several if text]


def _beside(source: Source, folder: Path) -> Iterator[Sequence[str]]:
    """The content of FOLDER/NAME.txt for each example NAME.jpg."""
    found = 0
    for index in range(source.num_examples):
        path = folder / PurePosixPath(source.name(index)).with_suffix(".txt")
        try:
            text = " ".join(path.read_text(encoding="utf-8-sig").split())
        except FileNotFoundError:
            yield ()
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"captioned: cannot read {str(path)!r}: {error}") from error
        found += 1
        yield (text,)
    if not found:
        raise UserError(
            f"captioned: no image has a text file in {str(folder)!r}; that of the first would be "
            f"{str(folder / PurePosixPath(source.name(0)).with_suffix('.txt'))!r}"
        )


def _matched(
    source: Source, path: Path, by_name: Mapping[str, Sequence[str]], notes: list[str]
) -> Iterator[Sequence[str]]:
    """The captions of each example by its name."""
    named, used = False, set()
    for index in range(source.num_examples):
        name = composed(source.name(index))
        named |= name in by_name
        if texts := by_name.get(name):
            used.add(name)
        yield texts or ()
    if by_name and not named:
        raise UserError(
            f"captioned: {path} names none of the images: it has "
            f"{shortened([repr(name) for name in [*by_name][:3]])}, and the first image is "
            f"{source.name(0)!r}"
        )
    if others := sum(map(bool, by_name.values())) - len(used):
        images = number(others, "image")
        notes.append(f"{path.name} has captions of {images} that are not in the source")


def _table(path: Path, image: str, caption: str) -> dict[str, list[str]]:
    """Name of an image -> its captions, from the rows of a table."""
    columns = read_columns("captioned", path, [image, caption])
    by_name: dict[str, list[str]] = {}
    for names, texts in zip(*(cells(columns[name]) for name in (image, caption)), strict=True):
        if names:
            name = composed(names[0].replace("\\", "/").removeprefix("./"))
            by_name.setdefault(name, []).extend(texts)
    return by_name


def _coco(path: Path) -> dict[str, list[str]] | None:
    """Name of an image -> its captions, of a JSON file of COCO; None: it is none."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None  # JSON lines
    if not isinstance(content, dict) or "annotations" not in content:
        return None
    try:
        names: dict[Any, str] = {}
        for row in content["images"]:
            name = composed(row["file_name"])
            if names.setdefault(row["id"], name) != name:
                raise UserError(
                    f"captioned: {path} has two images of the id {row['id']!r}, "
                    f"{names[row['id']]!r} and {name!r}, and which of them a caption describes is "
                    "not known: give each image an id of its own"
                )
        by_name: dict[str, list[str]] = {name: [] for name in names.values()}
        for row in content["annotations"]:
            texts, text = by_name[names[row["image_id"]]], row["caption"]
            texts += [text] if isinstance(text, str) else []  # null: the caption is missing
    except (KeyError, TypeError) as error:
        raise UserError(
            f"captioned: {path} should have the lists images (id, file_name) and annotations "
            f"(image_id, caption), as COCO's captions do: {error!r} is missing or wrong"
        ) from error
    return by_name
