"""Segmentations as files: label images with a palette, overlays, and the names of the classes."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mae_jax.evals.full_size import Inference, inference, label_map, predictions, probabilities
from mae_jax.ops.palette import overlay, palette
from mae_jax.paths import check_empty
from mae_jax.predictions import Writer, file_names
from mae_jax.types import TrainState

READS = ("segmentation",)
OPTIONS = ("size", "long", "crop", "stride", "scales", "flip", "step", "weighting")
RANK = 2


def make(
    *,
    size: int = 512,
    long: int = 2048,
    crop: int = 0,
    stride: int = 0,
    scales: float | Sequence[float] = 1.0,
    flip: bool = False,
    step: int = 32,
    weighting: str = "uniform",
) -> Writer:
    """Writes `labels/NAME.png`, the class of each pixel at the original size as a PNG with a
    palette; `overlays/NAME.png`, the image with the classes in color; and `classes.json`, the
    number, name and color of each class.

    Args:
        size, long, crop, stride, scales, flip, step, weighting: see
            `mae_jax.evals.segmentation.make`.
    """
    how = inference(
        size=size,
        long=long,
        crop=crop,
        stride=stride,
        scales=scales,
        flip=flip,
        step=step,
        weighting=weighting,
    )
    return Writer(write=functools.partial(write, how=how))


def write(
    run, state: TrainState, out: Path, names: Mapping[str, Sequence[str]], *, how: Inference
) -> list[str]:
    """Writes the predictions for all images of the split 'train'.

    Args:
        run: a `mae_jax.run.Run` whose method offers 'segmentation'.
        state: its state.
        out: folder to create.
        names: field -> names of its classes.
        how: how images are given to the network.

    Raises:
        UserError: the folder has files already.
    """
    check_empty(out, "--out")
    count = run.method.labels()["segmentation"]
    colors, files = palette(count), file_names(run.data.source("train"))
    written = 0
    for index, image, labels in label_maps(run, state, how):
        for folder in ("labels", "overlays"):
            (out / folder / files[index]).parent.mkdir(parents=True, exist_ok=True)
        labeled = Image.fromarray(labels, "P")
        labeled.putpalette(colors.tobytes())
        labeled.save(out / "labels" / files[index])
        Image.fromarray(overlay(image, labels, colors)).save(out / "overlays" / files[index])
        written += 1
    rows = class_rows(count, names.get("segmentation", ()))
    (out / "classes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return [f"{out}: labels/ and overlays/ of {written} images, classes.json"]


def class_rows(count: int, names: Sequence[str]) -> list[dict]:
    """Number, name and color of each class, for `classes.json`.

    Args:
        count: number of classes.
        names: theirs; () if they are not known.
    """
    names = names or [f"class {number}" for number in range(count)]
    return [
        {"class": number, "name": name, "color": "#" + bytes(color).hex()}
        for number, (name, color) in enumerate(zip(names, palette(count).tolist(), strict=True))
    ]


def label_maps(
    run, state: TrainState, how: Inference
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Index, image [H, W, C] uint8 and predicted classes [H, W] uint8 of each image that can be
    read.
    """
    reduce = label_map if len(how.versions) == 1 else probabilities
    predict = run.predictor(state, ("segmentation",), reduce)
    for found in predictions(predict, run.data, how, split="train"):
        maps = found["map"] if reduce is label_map else found["probabilities"].argmax(-1)
        for index, (height, width), row, labels in zip(
            found["indices"], found["sizes"], found["rows"], maps, strict=True
        ):
            if row is not None:
                yield int(index), row["image"], labels[:height, :width].astype(np.uint8)
