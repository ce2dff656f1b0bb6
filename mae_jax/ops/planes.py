"""Pictures of volumes: the three planes through a voxel, at the proportions of its spacing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NAMES = ("axial", "coronal", "sagittal")
GAP = 2
"""Pixels between two planes."""


def planes(
    volume: Any, at: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> list[np.ndarray]:
    """The axial, coronal and sagittal plane of a volume in RAS+, upright: in the axial plane the
    front is up, in the others the head is; right of the body is on the right, and in the sagittal
    plane the front is.

    Args:
        volume: [D, H, W, C], indexed by slices of its first axes: depth is upward, height is to the
            front, width is to the right.
        at: (depth, height, width) of the voxel in which the planes meet.
        spacing: distances of voxels along depth, height and width. Pixels are repeated so that
            those of a picture are squares of the smallest one.

    Returns:
        [rows, columns, C] each, of the type of the volume.
    """
    found = []
    for axis, place in enumerate(at):
        part = [slice(None)] * 3
        part[axis] = slice(place, place + 1)
        plane = np.asarray(volume[tuple(part)]).squeeze(axis)[::-1]  # the first row is at the top
        sides = [step for n, step in enumerate(spacing) if n != axis]
        for n, step in enumerate(sides):
            plane = np.take(plane, _repeated(plane.shape[n], step / min(spacing)), axis=n)
        found.append(plane)
    return found


def _repeated(length: int, factor: float) -> np.ndarray:
    """Indices of the nearest of `length` pixels in a picture that is larger by a factor."""
    count = max(1, round(length * factor))
    return ((np.arange(count) + 0.5) * length / count).astype(int)


def joined(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [h, w, C] uint8 side by side in one [H, W, C], on white, aligned at the top."""
    rows = max(len(picture) for picture in pictures)
    columns = sum(picture.shape[1] + GAP for picture in pictures) - GAP
    found, at = np.full((rows, columns, pictures[0].shape[2]), 255, np.uint8), 0
    for picture in pictures:
        found[: len(picture), at : at + picture.shape[1]] = picture
        at += picture.shape[1] + GAP
    return found


def same_size(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """[n, H, W, C] uint8: pictures [h, w, C], with white below and to the right of smaller ones."""
    sides = np.max([picture.shape[:2] for picture in pictures], axis=0)
    found = np.full((len(pictures), *sides, pictures[0].shape[2]), 255, np.uint8)
    for row, picture in zip(found, pictures, strict=True):
        row[: picture.shape[0], : picture.shape[1]] = picture
    return found


def fullest(mask: np.ndarray) -> tuple[int, int, int]:
    """(depth, height, width) of the planes with most of a mask [D, H, W] bool; where several have
    as much, the one closest to the middle.
    """
    found = []
    for axis, length in enumerate(mask.shape):
        counts = mask.sum(tuple(n for n in range(3) if n != axis))
        best = np.flatnonzero(counts == counts.max())
        found.append(int(best[np.abs(best - length // 2).argmin()]))
    return tuple(found)
