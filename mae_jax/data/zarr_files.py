"""OME-Zarr images of versions 0.1 to 0.5: their metadata, and their arrays (tensorstore).

Moore et al., OME-Zarr (2023). An image is a folder with the metadata 'multiscales', whose arrays
are levels of decreasing resolution; arrays are Zarr 2 (up to 0.4) or Zarr 3 (0.5).
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data.images import BadImage
from mae_jax.data.leftovers import is_leftover
from mae_jax.data.slices import reason

AXES = "tczyx"
"""Axes that an image may have, in this order."""
_CACHE = 2**26  # bytes of decoded chunks that an open image keeps, for parts that share one
_MILLIMETERS = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1, "centimeter": 10}
_MILLIMETERS |= {"meter": 1e3, "angstrom": 1e-7}


def attributes_of(folder: Path) -> dict[str, Any] | None:
    """The metadata of a Zarr group or array, with that of OME on top; None for another folder.

    Raises:
        ValueError: a file of metadata is damaged.
    """
    if (folder / "zarr.json").is_file():
        content = _read(folder / "zarr.json")
        attributes = content.get("attributes") or {}
        array = {"array": True} if content.get("node_type") == "array" else {}
        return {**attributes, **(attributes.get("ome") or {}), **array}
    if (folder / ".zarray").is_file():
        return {"array": True}
    if (folder / ".zattrs").is_file():
        return _read(folder / ".zattrs")
    return {} if (folder / ".zgroup").is_file() else None


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no object")
    return content


def find_images(root: Path) -> Iterator[tuple[str, str]]:
    """(name, '' or why its metadata cannot be read) of the images in a folder, sorted: their paths
    relative to it, '.' for the folder itself. Plates and series are descended into.
    """
    for folder, subfolders, _ in os.walk(root, followlinks=True):
        path, damage = Path(folder), ""
        try:
            attributes = attributes_of(path)
        except (OSError, ValueError) as error:
            attributes, damage = {"multiscales": []}, f"its metadata: {error}"
        if attributes and ("multiscales" in attributes or "array" in attributes):
            subfolders.clear()
        if attributes and "multiscales" in attributes:
            yield path.relative_to(root).as_posix(), damage
        subfolders[:] = sorted(n for n in subfolders if not is_leftover(n, folder=True))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ZarrImage:
    """One level of an image, opened."""

    array: Any
    """The tensorstore, with the axes of `axes`."""
    axes: str
    scale: dict[str, float]
    """Axis -> distance in mm of its positions; empty unless all of space have a unit."""
    channels: tuple[str, ...]
    """Labels of the channels; empty if they have none."""
    windows: tuple[tuple[float, float], ...]
    """Window of each channel as viewers show it; empty if they have none."""

    def sides(self, axes: str) -> tuple[int, ...]:
        """Sizes along axes; 1 for those that are missing."""
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        return tuple(int(sizes.get(axis, 1)) for axis in axes)

    def read(self, time: int, channels: Sequence[int], part: Sequence[slice]) -> np.ndarray:
        """Values [d, h, w, C] of a part [z, y, x] at one time.

        Raises:
            BadImage: a chunk is damaged.
        """
        planes = []
        for channel in channels:
            chosen = dict(zip(AXES, (time, channel, *part), strict=True))
            try:
                values = self.array[tuple(chosen[axis] for axis in self.axes)].read().result()
            except ValueError as error:
                raise BadImage(_short(error)) from error
            planes.append(values if "z" in self.axes else values[None])
        if "z" not in self.axes:
            planes = [plane[part[0]] for plane in planes]
        return np.stack(planes, -1)


def open_image(folder: Path, level: int) -> ZarrImage:
    """Opens a level of an image; -1 is the smallest.

    Raises:
        BadImage: it is no image, there is no such level, or it has other axes.
        Exception: errors of tensorstore, and of damaged metadata.
    """
    attributes = attributes_of(folder) or {}
    if not attributes.get("multiscales"):
        raise BadImage("its metadata hold no 'multiscales'")
    image = attributes["multiscales"][0]
    levels = image["datasets"]
    if not -1 <= level < len(levels):
        raise BadImage(f"it has no level {level}: it has {len(levels)}, from 0 on")
    axes = image.get("axes") or [*AXES]
    names = [one["name"] if isinstance(one, dict) else one for one in axes]
    ordered = [axis for axis in AXES if axis in names]
    if names != ordered or not {"y", "x"} <= {*names}:
        raise BadImage(
            f"its axes are {', '.join(map(str, names))}: some of t, c, z, y, x, in order"
        )
    array = _open_array(folder / levels[level]["path"])
    if len(array.shape) != len(names):
        raise BadImage(f"it has {len(names)} axes, and its array {len(array.shape)}")
    channels = (attributes.get("omero") or {}).get("channels") or []
    windows = [one.get("window") or {} for one in channels]
    return ZarrImage(
        array=array,
        axes="".join(names),
        scale=_scale(axes, image, levels[level]),
        channels=tuple(str(one.get("label", "")) for one in channels),
        windows=tuple((w["start"], w["end"]) for w in windows if {"start", "end"} <= w.keys()),
    )


def _scale(axes: Sequence[Any], image: dict, level: dict) -> dict[str, float]:
    """Axis -> mm; {} unless all axes of space have a known unit."""
    factors = np.ones(len(axes))
    transforms = [image.get("coordinateTransformations"), level.get("coordinateTransformations")]
    for one in (step for steps in transforms for step in steps or ()):
        if one.get("type") == "scale":
            factors = factors * np.array(one["scale"], float)
    found = {}
    for axis, factor in zip(axes, factors, strict=True):
        if isinstance(axis, dict) and axis["name"] in "zyx":
            found[axis["name"]] = factor * _MILLIMETERS.get(axis.get("unit"), np.nan)
    return found if np.isfinite(list(found.values())).all() else {}


def _open_array(folder: Path) -> Any:
    import tensorstore

    spec = {
        "driver": "zarr3" if (folder / "zarr.json").is_file() else "zarr",
        "kvstore": {"driver": "file", "path": str(folder)},
        "context": {"cache_pool": {"total_bytes_limit": _CACHE}},
        "recheck_cached_data": "open",
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError as error:
        raise BadImage(_short(error)) from error


def _short(error: ValueError) -> str:
    """The message of tensorstore without the places in its code."""
    return reason(error).partition(" [")[0]
