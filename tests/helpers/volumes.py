"""One volume in files of different orientations, written by nibabel and pydicom."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import dicoms

nibabel = pytest.importorskip("nibabel")

LPS = np.array([-1, -1, 1])  # to and from RAS


def affine(spacing=(0.8, 1.25, 3.0), angle=0.2) -> np.ndarray:
    """[4, 4] an oblique placement in RAS+."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, c, s], [0, -s, c]]
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = turn * spacing, (-20, 7.5, 110)
    return placed


def save_nifti(path: Path, values, codes: str, kind="Nifti1Image", placed=None) -> np.ndarray:
    """Writes values [X, Y, Z] of a volume in RAS+ with the axes of `codes`; returns what is
    stored.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = affine() if placed is None else placed
    image = getattr(nibabel, kind)(values, placed)
    orient = nibabel.orientations
    wanted = orient.ornt_transform(orient.io_orientation(placed), orient.axcodes2ornt(codes))
    image = image.as_reoriented(wanted)
    nibabel.save(image, path)
    return np.asarray(image.dataobj)


def series(values, planes="axial", placed=None, slopes=(1,), **fields) -> list:
    """Data sets of the slices of a volume [X, Y, Z] in RAS+, as scanners write them: rows to the
    left and columns to the back (axial), or rows to the back and columns downward (sagittal).

    Args:
        values: integers from -1024 on; those of slices of a slope 2 should be even.
        slopes: RescaleSlope of the slices in turn.
        fields: more elements.
    """
    placed = affine() if placed is None else placed
    signs, axes = {"axial": ((-1, -1, 1), (2, 1, 0)), "sagittal": ((-1, -1, -1), (0, 2, 1))}[planes]
    flips = tuple(n for n in range(3) if signs[n] < 0)
    stored = np.flip(values, flips).transpose(axes)  # [slices, rows, columns]
    corner = [(n - 1) * (sign < 0) for n, sign in zip(values.shape, signs)]
    steps = (placed[:3, :3] * signs)[:, axes].T * LPS  # [3, 3], of slices, rows and columns
    sides = np.linalg.norm(steps, axis=1)
    first = (placed @ [*corner, 1])[:3] * LPS
    texts = lambda numbers: [f"{v:.12g}" for v in np.ravel(numbers)]
    common = dict(SeriesInstanceUID="1.2.3", InstanceNumber="1", RescaleIntercept="-1024")
    common |= dict(ImageOrientationPatient=texts(steps[[2, 1]] / sides[[2, 1], None]))
    common |= dict(PixelSpacing=texts(sides[1:]), ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    found = []
    for n, plane in enumerate(stored):
        slope = slopes[n % len(slopes)]
        pixels = ((plane + 1024) // slope).astype(np.uint16)
        place = dict(ImagePositionPatient=texts(first + n * steps[0]), RescaleSlope=str(slope))
        found.append(dicoms.dataset(pixels, **{**common, **place, **fields}))
    return found


def save_series(folder: Path, data: list, seed=0) -> None:
    """Writes data sets in files of shuffled names."""
    numbers = np.random.default_rng(seed).permutation(len(data))
    for number, one in zip(numbers, data):
        dicoms.write(folder / f"IM{number:04}", one)


def hounsfield(*shape, seed=0) -> np.ndarray:
    """Random even values [X, Y, Z] int16 from -1024 to 3000."""
    return (2 * np.random.default_rng(seed).integers(-512, 1500, shape)).astype(np.int16)
