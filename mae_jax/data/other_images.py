"""Other images for a run, as `--images FOLDER` gives them: read as the run's training set was."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mae_jax.data.files import expanded
from mae_jax.data.images import MODES, BadImage
from mae_jax.data.reading import spread
from mae_jax.data.shards import ORIGIN
from mae_jax.data.sources import Source
from mae_jax.spec import Call, is_extension, maker, parameters, parse
from mae_jax.types import UserError

PACKAGE = "data.sources"
FOLDER = ("channels", "window", "background", "max_pixels")
"""Options of sources that decode image files as the source `folder` does."""
LABELS = ("masks", "labels")
"""Options of sources that name labels, which other images need not have."""
APART = 1.05
"""Ratio of spacings above which a model reads volumes at another scale than in training."""


def source_like(source: str, images: str, shape: Sequence[int] | None) -> str:
    """The spec of the source that reads a folder as a run read its training set. What the
    arguments of that source's `make` are decides:

    - `path` first: the source itself, of this folder, with all options but those of labels.
    - options of `folder`, or images in one `file` or made without any: `folder`, with the channels
      of the run.
    - `images` first, those of another source: as that one.

    Args:
        source: spec of the training set, or its folder; '': not known.
        images: the folder, or a spec, which is returned unchanged.
        shape: [*space, C] of the run's images; None: not known.

    Raises:
        UserError: the training set is of another kind, or the run's images are none of files.
    """
    if "(" in images and not Path(images).exists():
        return images
    call = _call_of(source)
    known = parameters(call.name, PACKAGE)
    first = next(iter(known), "")
    if known.keys() >= {*FOLDER}:
        return _folder(call, images, shape)
    if first == "path":
        options = {k: v for k, v in call.kwargs.items() if k not in (first, *LABELS)}
        return _text(call.name, [images, *call.args[1:]], options)
    if first == "images":
        inner = [*call.args[:1], call.kwargs.get(first)][0]
        return source_like(inner, images, shape)
    needs = [p.name for p in known.values() if p.default is p.empty]
    if is_extension(call.name) or needs not in ([], ["file"]):
        raise UserError(
            f"{images}: the run's training set is {source}, and how such a source would read this "
            "folder is not known: give a source in place of the folder"
        )
    return _folder(call, images, shape)


def _call_of(source: str) -> Call:
    """The call of a source; that of `folder` for a folder, which need not be on this machine."""
    folder = Call("folder", (source,), {})
    try:
        call = parse(source)[0] if source else folder
    except UserError:
        return folder
    if is_extension(call.name) and "(" in source:
        return call
    try:
        maker(call.name, PACKAGE)
    except UserError:
        return folder
    return call


def _folder(call: Call, images: str, shape: Sequence[int] | None) -> str:
    """The spec of `folder`, with the options of a call and the channels of the run's images."""
    if shape and (len(shape) != 3 or shape[-1] not in MODES):
        example = f"array_file('images.npy', rank={len(shape) - 1})"
        example = f"volume({images!r})" if len(shape) == 4 else example
        raise UserError(
            f"{images}: the run's images are {list(shape)}, and folders are of 2-D images of "
            f"{', '.join(map(str, MODES))} channels: give a source, e.g. {example}"
        )
    known = {"channels": shape[-1]} if shape else {}
    options = known | {key: call.kwargs[key] for key in FOLDER if key in call.kwargs}
    return _text("folder", [images], options)


def _text(name: str, args: Sequence, kwargs: dict) -> str:
    values = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    return f"{name}({', '.join(values)})"


def spacing_notes(trained: str, source: Source) -> Iterator[str]:
    """A line if volumes are not spaced as those of a prepared training set, `volume_records`.

    Args:
        trained: spec of the training set. Nothing is known of it if it is not on this machine.
        source: the volumes, of which some are looked at.
    """
    wanted = _prepared_spacing(_call_of(trained))
    for index in spread(source.num_examples) if wanted else ():
        try:
            geometry = source.geometry(index)
        except BadImage:  # reading it reports the error
            continue
        if geometry is None or not geometry.measured:
            continue
        pairs = [pair for pair in zip(geometry.spacing, wanted, strict=True) if pair[1]]
        if any(max(a / b, b / a) > APART for a, b in pairs):
            yield (
                f"{source.name(index)} has voxels of {_words(geometry.spacing)} mm, and the run's "
                f"training set was resampled to {_words(wanted)} mm: prepare these in the same "
                "way, and give them as volume_records(...)"
            )
            return


def _prepared_spacing(call: Call) -> Sequence[float] | None:
    """mm along depth, height and width to which `mae-jax prepare` has resampled a set, 0 where it
    kept those of each volume; None: it did not, or there is no such set.
    """
    path = [*call.args, call.kwargs.get("path", "")][0]
    if call.name != "volume_records":
        return None
    try:
        return json.loads((expanded(path) / ORIGIN).read_text(encoding="utf-8"))["spacing"]
    except (OSError, ValueError, KeyError):
        return None


def _words(spacing: Sequence[float]) -> str:
    return " x ".join(f"{side:.4g}" for side in spacing)
