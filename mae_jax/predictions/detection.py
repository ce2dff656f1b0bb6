"""Detections as files: one in the format of COCO, and pictures of the images with their objects."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mae_jax.evals.average_precision import corner_and_extent
from mae_jax.evals.detection import kept
from mae_jax.evals.full_size_objects import Detected, check_size, detect
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.ops.draw_objects import draw_objects
from mae_jax.ops.palette import palette
from mae_jax.paths import check_empty
from mae_jax.predictions import Writer, file_names
from mae_jax.types import TrainState, UserError

READS = OUTPUTS
OPTIONS = ("size", "batch_size")
RANK = 2


def make(*, size: int = 1024, batch_size: int = 1, score: float = 0.5) -> Writer:
    """Writes `detections.json`, a file in the format of COCO with 'images', 'categories' and, for
    each detection, an entry of 'annotations' with its 'score'; and `overlays/NAME.png`, the image
    with its objects.

    Args:
        size, batch_size: see `mae_jax.evals.detection.make`.
        score: of objects in overlays, at least; the file has them all.
    """
    check_size(size, batch_size)
    if not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise UserError(f"detection: score={score!r} is not in [0, 1]")
    return Writer(write=functools.partial(write, size=size, batch_size=batch_size, score=score))


def write(
    run,
    state: TrainState,
    out: Path,
    names: Mapping[str, Sequence[str]],
    *,
    size: int,
    batch_size: int,
    score: float,
) -> list[str]:
    """Writes the detections in all images of the split 'train'.

    Args:
        run: a `mae_jax.run.Run` whose method offers `READS`.
        state: its state.
        out: folder to create.
        names: field -> names of its classes.
        size, batch_size, score: see `make`.

    Raises:
        UserError: the folder has files already.
    """
    check_empty(out, "--out")
    count = run.method.labels()["box_label"]
    classes = names.get("box_label") or [f"class {number}" for number in range(count)]
    source = run.data.source("train")
    files, colors = file_names(source), palette(count + 1)[1:]
    images, annotations = [], []
    predict = run.predictor(state, OUTPUTS, kept)
    for found in detect(predict, run.data, size=size, batch_size=batch_size, split="train"):
        height, width = found.size
        name = source.name(found.index)
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
        annotations += _annotations(found, len(images), len(annotations) + 1)
        if found.row is not None:
            path = out / "overlays" / files[found.index]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_overlay(found, classes, colors, score)).save(path)
    categories = [{"id": place, "name": name} for place, name in enumerate(classes, start=1)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    out.mkdir(parents=True, exist_ok=True)
    (out / "detections.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    count = f"{len(images)} images and {len(annotations)} detections"
    return [f"{out}: overlays/ of {count}, detections.json"]


def _annotations(found: Detected, image: int, first: int) -> list[dict]:
    """Entries of COCO's format for the detections in an image."""
    rows = []
    for place, (box, score, label, mask) in enumerate(zip(*found.detections, strict=True)):
        rows.append(
            {
                "id": first + place,
                "image_id": image,
                "category_id": int(label) + 1,
                "bbox": corner_and_extent(box),
                "area": int(found.detections.bitmap(place).sum()),
                "iscrowd": 0,
                "score": float(score),
                "segmentation": {"size": [*mask["size"]], "counts": mask["counts"].decode()},
            }
        )
    return rows


def _overlay(
    found: Detected, classes: Sequence[str], colors: np.ndarray, score: float
) -> np.ndarray:
    """[H, W, 3] uint8: the image with the objects of at least this score, the best in front."""
    boxes, scores, labels, _ = found.detections
    shown = [place for place in np.argsort(-scores, kind="stable") if scores[place] >= score]
    return draw_objects(
        found.row["image"],
        boxes[shown],
        [f"{classes[labels[place]]} {scores[place]:.2f}" for place in shown],
        colors[labels[shown]],
        [found.detections.bitmap(place) for place in shown],
    )
