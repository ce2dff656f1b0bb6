"""The images of a folder whose features are nearest to those of another image."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.progress import track

from mae_jax.data import Data
from mae_jax.data.random import permute
from mae_jax.data.resizing import thumbnail
from mae_jax.data.sources import Source
from mae_jax.demo.images import picture
from mae_jax.demo.reconstruction import compiled
from mae_jax.engine.log import console
from mae_jax.explain.network import Network
from mae_jax.explain.subject import class_name

MOST = 8
"""Images that are shown."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Neighbors:
    """Features of images, to search for the nearest."""

    network: Network
    names: Sequence[str]
    """Of the N images."""
    pictures: Sequence[np.ndarray]
    """N small images [h, w, C] uint8."""
    digests: Sequence[bytes]
    """Of their pixels."""
    features: np.ndarray
    """[N, D] float32 of length 1."""
    compute: Callable
    """The compiled function (params, extra, images [B, H, W, C]) -> features [B, D]."""

    def __call__(self, image: np.ndarray) -> list[dict[str, Any]]:
        """The nearest to an image [H, W, C] uint8 by the cosine of their features, as in `nearest`
        in `assets/page.js`. The image itself is left out.
        """
        network = self.network
        (query,) = unit(self.compute(network.params, network.extra, image[None]))
        cosines, own = self.features @ query, digest(image)
        order = [k for k in np.argsort(-cosines, kind="stable") if self.digests[k] != own]
        return [
            {
                "name": self.names[k],
                "text": f"{cosines[k]:.3f}",
                "picture": picture(self.names[k], self.pictures[k]),
            }
            for k in order[:MOST]
        ]


def make_neighbors(network: Network, data: Data, split: str, limit: int) -> Neighbors:
    """Computes the features of images, and reports progress.

    Args:
        network: of the model.
        data: the images.
        split: 'train' or 'test'.
        limit: number of images, at most, spread over the split.
    """
    method, source = network.method, data.source(split)

    def features(params, extra, images):
        return method.predict(params, extra, {"image": images}, outputs=("features",))["features"]

    compute = compiled(features)
    order, position = order_of(source.num_examples, limit), 0
    names, pictures, digests, rows = [], [], [], []
    steps = data.eval_steps(split, limit)
    batches = data.eval(split, limit)
    for batch in track(batches, "features of images", steps, console=console, transient=True):
        found = unit(compute(network.params, network.extra, batch["image"]))
        known = titles(source, batch, order[position:])
        for k in np.flatnonzero(batch["valid"]):
            names.append(known[k])
            pictures.append(thumbnail(batch["image"][k]))
            digests.append(digest(batch["image"][k]))
            rows.append(found[k])
        position += len(batch["valid"])
    return Neighbors(
        network=network,
        names=names,
        pictures=pictures,
        digests=digests,
        features=np.stack(rows),
        compute=compute,
    )


def order_of(size: int, limit: int) -> np.ndarray:
    """Numbers of the examples that `Data.eval` reads of so many, in its order."""
    order = np.arange(min(size, limit))
    return order if len(order) == size else permute(order, size, 0)


def titles(source: Source, batch: Mapping[str, np.ndarray], order: np.ndarray) -> list[str]:
    """Names of the examples of a batch, 'a/1.png', with their classes if these are known.

    Args:
        source: of the examples.
        batch: see `Data.eval`.
        order: their numbers in the source, at least those that are no padding.
    """
    names = [source.name(int(number)) for number in order[: len(batch["valid"])]]
    if "label" not in batch:
        return names
    classes = source.names.get("label", ())
    return [
        f"{class_name(classes, int(label))}, {name}" if label >= 0 else name
        for name, label in zip(names, batch["label"], strict=False)
    ]


def unit(features: Any) -> np.ndarray:
    """Features [B, D] divided by their lengths, float32."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def digest(image: np.ndarray) -> bytes:
    """A checksum (CRC-32) of pixels, to find an image again."""
    return zlib.crc32(np.ascontiguousarray(image).tobytes()).to_bytes(4)
