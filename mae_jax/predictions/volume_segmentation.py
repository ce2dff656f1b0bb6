"""Segmentations of volumes as files in the space of the originals: NIfTI labels, pictures of three
planes, and the names of the classes.
"""

import dataclasses
import functools
import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mae_jax.data.images import BadImage
from mae_jax.data.volume_geometry import MILLIMETERS, VolumeGeometry, to_original
from mae_jax.evals.sliding import Sliding, label_blocks, logits_of, sliding, unreadable, volumes
from mae_jax.ops.palette import overlay, palette
from mae_jax.ops.planes import fullest, joined, planes
from mae_jax.paths import check_empty
from mae_jax.predictions import Writer, file_names
from mae_jax.predictions.segmentation import class_rows
from mae_jax.types import TrainState, UserError

logger = logging.getLogger(__name__)

READS = ("segmentation",)
OPTIONS = ("crop", "overlap", "weighting", "fill", "batch_size")
RANK = 3


def make(
    *,
    crop: int | Sequence[int] = 0,
    overlap: float = 0.5,
    weighting: str = "gaussian",
    fill: int = 0,
    batch_size: int = 4,
) -> Writer:
    """Writes `labels/NAME.nii.gz`, the class of each voxel, with the axes, the shape, the affine
    and the unit of the file that was read. Of a DICOM series, the axes are columns, rows and
    slices in the order of their positions. Volumes without geometry become `labels/NAME.npy`.
    Beside them, `overlays/NAME.png`, three planes with the classes in color, and `classes.json`.

    Args:
        crop, overlap, weighting, fill, batch_size: see `mae_jax.evals.volume_segmentation.make`;
            crop=0: the size of volumes after `config.data.eval_transform`.
    """
    how = sliding(
        crop=crop or 1, overlap=overlap, weighting=weighting, fill=fill, batch_size=batch_size
    )
    return Writer(write=functools.partial(write, how=how._replace(crop=crop)))


def write(
    run, state: TrainState, out: Path, names: Mapping[str, Sequence[str]], *, how: Sliding
) -> list[str]:
    """Writes the predictions for all volumes of the split 'train'.

    Args:
        run: a `mae_jax.run.Run` whose method offers 'segmentation'.
        state: its state.
        out: folder to create.
        names: field -> names of its classes.
        how: how windows slide over volumes.

    Raises:
        UserError: the folder has files already, or nibabel is not installed.
    """
    check_empty(out, "--out")
    source, classes = run.data.source("train"), run.method.labels()["segmentation"]
    colors, files = palette(classes), file_names(source, "")
    how = how if how.crop else how._replace(crop=run.data.example("eval")["image"].shape[1:-1])
    predict, written = run.predictor(state, READS, logits_of), 0
    for index, row in volumes(run.data, "train"):
        image = row["image"]
        labels = np.empty(image.shape[:-1], np.uint8)
        try:
            for part, block in label_blocks(predict, image, how):
                labels[part] = block
            shown = picture(image, labels, colors, source.geometry(index))
        except BadImage as error:
            logger.warning(unreadable(run.data, "train", index, error))
            continue
        for folder in ("labels", "overlays"):
            (out / folder / files[index]).parent.mkdir(parents=True, exist_ok=True)
        save(out / "labels" / files[index], labels, source.geometry(index))
        Image.fromarray(shown).save(out / "overlays" / f"{files[index]}.png")
        written += 1
    out.mkdir(parents=True, exist_ok=True)
    rows = class_rows(classes, names.get("segmentation", ()))
    (out / "classes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return [f"{out}: labels/ and overlays/ of {written} volumes, classes.json"]


def picture(
    image, labels: np.ndarray, colors: np.ndarray, geometry: VolumeGeometry | None
) -> np.ndarray:
    """[H, W, 3] uint8: the three planes with most voxels of the classes from 1 on, with classes in
    color.

    Args:
        image: [D, H, W, C], an array or `data.lazy.Lazy`.
        labels: [D, H, W] int.
        colors: [classes, 3] uint8.
        geometry: of the volume; None: cubic voxels.
    """
    at, spacing = fullest(labels > 0), geometry.spacing if geometry else (1.0, 1.0, 1.0)
    pictures = zip(planes(image, at, spacing), planes(labels[..., None], at, spacing), strict=True)
    return joined([overlay(_bytes(one), classes[..., 0], colors) for one, classes in pictures])


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(image).astype(np.uint8)


def save(path: Path, labels: np.ndarray, geometry: VolumeGeometry | None) -> Path:
    """Writes labels in the space of the file that a volume was read from.

    Args:
        path: without an ending.
        labels: [D, H, W] uint8, as the volume was read.
        geometry: of the volume; None: an .npy is written.

    Returns:
        The path that was written.
    """
    if geometry is None:
        np.save(path := path.with_name(f"{path.name}.npy"), labels)
        return path
    affine = geometry.affine
    # Slices in the order of their positions, as the affine has them.
    stored = to_original(labels, dataclasses.replace(geometry, order=()))
    if geometry.order:  # DICOM's [slice, row, column] to NIfTI's habit
        stored, affine = stored.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]
    nibabel = _nibabel()
    in_unit = np.vstack([affine[:3] / MILLIMETERS[geometry.unit], affine[3:]])  # as in the file
    image = nibabel.Nifti1Image(stored, in_unit)
    image.header.set_xyzt_units(geometry.unit)
    nibabel.save(image, path := path.with_name(f"{path.name}.nii.gz"))
    return path


def _nibabel():
    try:
        return importlib.import_module("nibabel")
    except ImportError as error:
        raise UserError(
            "volume_segmentation: predictions are written by nibabel, which is not installed: "
            "pip install 'mae_jax[medical]'"
        ) from error
