"""Predictions of maps at the original size of each image: whole images or sliding windows, at one
or several scales. The segmentation evaluator and `mae-jax predict` share it.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.data.images import cut
from mae_jax.data.order import evaluated
from mae_jax.data.transforms.pad import FILL
from mae_jax.evals.buckets import (
    Bucket,
    EvalSize,
    buckets,
    padded,
    padded_labels,
    resize_matrix,
    windows,
)
from mae_jax.evals.features import EvalData, Predict
from mae_jax.evals.sliding import WEIGHTINGS, weights
from mae_jax.spec import check_choice
from mae_jax.types import IGNORE, Batch, UserError

BYTES = 2**28
"""Of the logits of one batch on a device, at the original size of its images, at most."""


class Inference(NamedTuple):
    """How images are given to the network, and logits brought back to their original size."""

    rule: EvalSize
    crop: int
    """Side of sliding windows; 0: whole images."""
    stride: int
    scales: tuple[float, ...]
    flip: bool
    weighting: str = "uniform"

    @property
    def versions(self) -> list[tuple[float, bool]]:
        """(scale, mirrored) of each time that the network sees an image."""
        return [
            (s, flip) for s in self.scales for flip in ((False, True) if self.flip else (False,))
        ]


def inference(
    *,
    size: int = 512,
    long: int = 2048,
    crop: int = 0,
    stride: int = 0,
    scales: float | Sequence[float] = 1.0,
    flip: bool = False,
    step: int = 32,
    weighting: str = "uniform",
) -> Inference:
    """Checks the options of `mae_jax.evals.segmentation.make`, which documents them."""
    every = (scales,) if isinstance(scales, int | float) else tuple(scales)
    if min(size, long, crop, stride) < 0 or step < 1:
        raise UserError(
            f"segmentation: size={size}, long={long}, crop={crop}, stride={stride} must not be "
            f"negative, and step={step} at least 1"
        )
    if stride > crop or (size and long and long < size):
        raise UserError(
            f"segmentation: stride={stride} may be at most crop={crop}, and size={size} at most "
            f"long={long}"
        )
    if not every or not all(isinstance(s, int | float) and 0 < s <= 8 for s in every):
        raise UserError(
            f"segmentation: scales={scales!r} must be factors in (0, 8], e.g. (0.75, 1)"
        )
    check_choice("weighting", weighting, WEIGHTINGS)
    stride = stride or max(1, round(crop * 2 / 3))
    return Inference(EvalSize(size, long, step), crop, stride, every, flip, weighting)


def class_names(data: EvalData, split: str) -> Sequence[str]:
    """The names of the classes of a split.

    Raises:
        UserError: it does not name them.
    """
    names = data.source(split).names.get("segmentation", ())
    if not names:
        raise UserError(f"segmentation: config.data.{split} does not name its classes")
    return names


def predictions(
    predict: Predict,
    data: EvalData,
    how: Inference,
    *,
    split: str = "test",
    limit: int | None = None,
    names: Sequence[str] = (),
) -> Iterator[dict[str, np.ndarray]]:
    """Outputs of one of the functions `count`, `probabilities` and `label_map` for all images of a
    split, batch by batch. Beside them 'indices' [n] of the examples, -1 on padding, 'sizes' [n, 2]
    (height, width), and 'rows', the examples of this process.

    Args:
        predict: a predictor with one of these as `reduce`.
        limit: use at most so many images, spread over the split.
        names: of the classes; empty: examples have no labels.
    """
    sizes = data.sizes(split)
    if sizes.shape[1] != 2:
        raise UserError(
            "segmentation is of images [H, W, C]; of volumes it is volume_segmentation(crop=...)"
        )
    indices, devices = evaluated(len(sizes), limit), jax.device_count()
    readable = indices[sizes[indices].all(axis=1)]
    channels = data.example("eval", split)["image"].shape[-1]
    for bucket in buckets(sizes[readable], how.rule):
        pixels = bucket.labels[0] * bucket.labels[1]
        each = max(1, min(64, BYTES // (4 * pixels * (len(names) or IGNORE))))
        size = devices * min(each, -(-len(bucket.indices) // devices))
        groups = [
            readable[bucket.indices[i : i + size]] for i in range(0, len(bucket.indices), size)
        ]
        for indices, rows in zip(groups, data.originals(split, groups, size), strict=True):
            if names:
                _check_labels(rows, data.source(split), indices, names)
            make = functools.partial(
                make_batch, rows, bucket, how, channels=channels, labeled=bool(names)
            )
            found = _averaged(predict, make, how)
            filled = np.append(indices, np.full(size - len(indices), -1))
            yield {**found, "indices": filled, "sizes": sizes[filled], "rows": rows}


def _averaged(predict: Predict, make: Callable, how: Inference) -> dict[str, np.ndarray]:
    """The outputs for a batch; the mean of the probabilities of all versions.

    Args:
        make: (scale, flip) -> batch.
    """
    results = []
    for scale, flip in how.versions:
        found = predict(make(scale=scale, flip=flip))
        results.append({name: np.asarray(x) for name, x in found.items()})
    if len(results) == 1:
        return results[0]
    mean = np.mean([result["probabilities"] for result in results], axis=0, dtype=np.float32)
    return results[0] | {"probabilities": mean}


def _check_labels(rows: list, source: Any, indices: Sequence[int], names: Sequence[str]) -> None:
    """Raises UserError if a label is none of the classes."""
    mine = indices[jax.process_index() * len(rows) :]
    for row, index in zip(rows, mine):
        values = np.unique(row["segmentation"]) if row is not None else np.zeros(1)
        wrong = values[((values < 0) | (values >= len(names))) & (values != IGNORE)]
        if wrong.size:
            raise UserError(
                f"{source.name(int(index))} has the label {int(wrong[0])}, and the {len(names)} "
                f"classes are 0 to {len(names) - 1}; {IGNORE} is ignored"
            )


def make_batch(
    rows: Sequence[Mapping[str, np.ndarray] | None],
    bucket: Bucket,
    how: Inference,
    *,
    channels: int,
    scale: float = 1.0,
    flip: bool = False,
    labeled: bool = True,
) -> dict[str, np.ndarray]:
    """A batch of the compiled shape of a bucket.

    Args:
        rows: examples with 'image' [H, W, C] and, if `labeled`, 'segmentation' [H, W]; None on
            padding.
        channels: of the images; a process may have padding alone.
        scale: of the size.
        flip: whether to mirror the images; the results are mirrored back.
    """
    inside = tuple(max(1, round(n * scale / how.rule.step)) * how.rule.step for n in bucket.inputs)
    size = tuple(max(n, how.crop) for n in inside)
    fill = outside(channels)
    batch = {
        "image": np.full((len(rows), *size, channels), fill, np.uint8),
        "rows": np.zeros((len(rows), bucket.labels[0], size[0]), np.float32),
        "columns": np.zeros((len(rows), bucket.labels[1], size[1]), np.float32),
        "segmentation": np.full((len(rows), *bucket.labels), IGNORE, np.int32),
        "valid": np.array([row is not None for row in rows]),
    }
    for place, row in enumerate(rows):
        if row is None:
            continue
        height, width = row["image"].shape[:2]
        image = cut(row["image"], (0, 0, height, width), inside, "bilinear")
        batch["image"][place] = padded(image[:, ::-1] if flip else image, size, fill)
        batch["rows"][place] = resize_matrix(height, inside[0], bucket.labels[0], size[0])
        columns = resize_matrix(width, inside[1], bucket.labels[1], size[1])
        columns[:, : inside[1]] = columns[:, : inside[1]][:, :: -1 if flip else 1]
        batch["columns"][place] = columns
        if labeled:
            batch["segmentation"][place] = padded_labels(row["segmentation"], bucket.labels)
    if how.crop:
        corners = windows(size, how.crop, how.stride)
        batch["windows"] = np.repeat(corners[None], len(rows), axis=0)
        if how.weighting != "uniform":
            share = weights((how.crop, how.crop), how.weighting)
            batch["weights"] = np.repeat(share[None], len(rows), axis=0)
    return batch


def outside(channels: int) -> np.ndarray:
    """[C] uint8: the color of pixels outside an image, which networks see as about zero: ImageNet's
    mean, or the middle of the range for images of other than three channels.
    """
    return np.array(FILL if channels == 3 else (128,) * channels, np.uint8)


def added(batch: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the fields that `make_batch` adds to a batch of the data."""
    count, height, width = batch["image"].shape[:3]
    square = lambda side: jax.ShapeDtypeStruct((count, side, side), np.float32)
    return {"rows": square(height), "columns": square(width)}


def resized(outputs: Mapping[str, jax.Array], batch: Batch) -> jax.Array:
    """Logits [B, H, W, K] at the (padded) original sizes of the images."""
    logits = outputs["segmentation"]  # [B, h, w, K]
    precise = dict(precision="highest", preferred_element_type=jnp.float32)
    logits = jnp.einsum("bHh,bhwk->bHwk", batch["rows"], logits, **precise)
    return jnp.einsum("bWw,bHwk->bHWk", batch["columns"], logits, **precise)


def probabilities(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """'probabilities' [B, H, W, K] float32 at the original size, and the labels beside them."""
    kept = {name: batch[name] for name in ("segmentation", "valid")}
    return {"probabilities": jax.nn.softmax(resized(outputs, batch)), **kept}


def label_map(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """'map' [B, H, W] uint8: the class of each pixel at the original size."""
    return {"map": resized(outputs, batch).argmax(-1).astype(jnp.uint8)}
