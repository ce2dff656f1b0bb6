"""Predictions of a task for one image: classes, numbers, a map of classes, or objects."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.demo.images import picture
from mae_jax.demo.reconstruction import compiled
from mae_jax.explain.network import Network
from mae_jax.figures import detection
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.ops.palette import overlay, palette
from mae_jax.predictions import Writer, make_writer
from mae_jax.types import UserError

MOST = 10
"""Classes or objects in the list, at most."""
SCORE = 0.5
"""Of objects in the picture, at least."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model predicts for images."""

    title: str
    """What it is, for the page."""
    network: Network
    outputs: Sequence[str]
    """Outputs of the method that are shown."""
    show: Callable[[np.ndarray, Mapping[str, np.ndarray], Sequence[str]], dict[str, Any]]
    """(image [H, W, C] uint8, outputs of this image, names of the classes) -> see `predict` in
    `assets/page.js`."""
    compute: Callable
    """The compiled function (params, extra, batch) -> outputs."""

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """The prediction for an image [H, W, C] uint8."""
        network = self.network
        found = self.compute(network.params, network.extra, {"image": image[None]})
        rows = {name: np.asarray(x[0]) for name, x in found.items()}
        return {"rows": [], "pictures": [], "classes": []} | self.show(image, rows, self.names)

    @property
    def names(self) -> list[str]:
        """Of the classes or values, or their numbers."""
        ((field, count),) = self.network.method.labels().items()
        word = "value" if field == "value" else "class"
        return [*self.network.classes] or [f"{word} {number}" for number in range(count)]


def make_prediction(network: Network) -> Prediction:
    """What a model predicts.

    Raises:
        UserError: nothing.
    """
    method = network.method
    if not method.labels():
        raise UserError("the run has not learned a task: fine-tune it, or train a linear probe")
    offers = {*method.offers()}
    if {*OUTPUTS} <= offers:
        title, outputs, show = "Objects", OUTPUTS, show_objects
    elif "segmentation" in offers:
        title, outputs, show = "Class of each pixel", ("segmentation",), show_map
    else:
        writer = make_writer(method, network.kind, "")
        title, outputs = "Prediction", writer.reads
        show = lambda image, rows, names: show_values(writer, rows, names)

    def compute(params, extra, batch):
        return method.predict(params, extra, batch, outputs=tuple(outputs))

    return Prediction(
        title=title, network=network, outputs=outputs, show=show, compute=compiled(compute)
    )


def show_values(
    writer: Writer, rows: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """Classes with their probabilities, the most probable first, or the predicted values."""
    found = writer.predicted({name: x[None] for name, x in rows.items()})
    if "probability" not in found:
        values = np.atleast_1d(found["prediction"][0])
        return {
            "rows": [
                {"name": name, "text": f"{value:.4g}", "share": None}
                for name, value in zip(names, values, strict=True)
            ]
        }
    shares = found["probability"][0]
    best = np.argsort(-shares, kind="stable")[:MOST]
    return {
        "rows": [
            {"name": names[k], "text": f"{shares[k]:.1%}", "share": float(shares[k])} for k in best
        ]
    }


def show_map(
    image: np.ndarray, rows: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """The image under the colors of the predicted classes, and the share of each."""
    labels = rows["segmentation"].argmax(-1)  # [H, W]
    colors = palette(len(names))
    counts = np.bincount(labels.ravel(), minlength=len(names))
    present = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    share = lambda k: counts[k] / labels.size
    return {
        "rows": [
            {"name": names[k], "text": f"{share(k):.1%}", "share": float(share(k))}
            for k in present[:MOST]
        ],
        "pictures": [picture("predicted classes", overlay(image, labels, colors))],
        "classes": [{"name": names[k], "color": "#" + bytes(colors[k]).hex()} for k in present],
    }


def show_objects(
    image: np.ndarray, rows: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """The image with the objects, and their scores."""
    shown = np.flatnonzero(rows["det_valid"] & (rows["det_score"] >= SCORE))
    shown = shown[np.argsort(-rows["det_score"][shown], kind="stable")]
    boxes, scores, labels = (rows[name][shown] for name in ("det_box", "det_score", "det_label"))
    titles = [f"{names[k]} {x:.2f}" for k, x in zip(labels, scores, strict=True)]
    colors = palette(len(names) + 1)[1:][labels]
    drawn = detection.picture(image, boxes, titles, colors, rows["det_mask"][shown])
    label = f"objects with a score of at least {SCORE:g}"
    return {
        "rows": [
            {"name": names[k], "text": f"{x:.2f}", "share": float(x)}
            for k, x in zip(labels[:MOST], scores[:MOST], strict=True)
        ],
        "pictures": [picture(label if len(shown) else f"no {label}", drawn)],
    }
