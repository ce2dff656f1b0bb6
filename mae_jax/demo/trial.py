"""What the page shows of a trained model: images in, dicts for JSON out. Their keys are documented
in `assets/page.js`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax import weights
from mae_jax.data import Data
from mae_jax.data.transforms import Transform
from mae_jax.demo.images import MAX_BYTES, base64_of, decoded
from mae_jax.demo.neighbors import Neighbors, make_neighbors, order_of, titles
from mae_jax.demo.prediction import Prediction, make_prediction
from mae_jax.demo.reconstruction import Reconstruction, make_reconstruction
from mae_jax.explain import heat
from mae_jax.explain.network import Network, make_network
from mae_jax.explain.subject import open_data
from mae_jax.ops.patches import grid_of
from mae_jax.spec import parse
from mae_jax.types import UserError
from mae_jax.workdir import read_config

EXAMPLES = 8
"""Images to choose from."""
LIMIT = 2000
"""Images among which the nearest are searched, at most."""
SHADES = 33
"""Colors of errors."""
OPTIONS = ("window", "background")
"""Options of a source that decoding needs."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A trained model to try."""

    network: Network
    shape: tuple[int, int, int]
    """[H, W, C] of the images that it takes."""
    transforms: Sequence[Transform]
    """Of images for evaluation."""
    options: Mapping[str, Any]
    """Of decoding, see `data.images.Encoded`."""
    examples: Mapping[str, np.ndarray]
    """Images [H, W, C] uint8 to choose from, by name."""
    reconstruction: Reconstruction | None
    prediction: Prediction | None
    neighbors: Neighbors | None
    absent: Mapping[str, str]
    """Title of what does not apply -> the reason."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches on the page."""
        if self.reconstruction is not None:
            return self.reconstruction.grid
        return grid_of(self.shape[:-1], self.network.encoder.patch)

    def info(self) -> dict[str, Any]:
        """The content of the page that does not depend on an image."""
        name, kind, spec = self.network.described
        if "://" not in name:  # others may see the page; a link's name says more than its target's
            name = Path(os.path.abspath(name)).name
        height, width, _ = self.shape
        masked, neighbors = self.reconstruction, self.neighbors
        count = 0 if neighbors is None else len(neighbors.names)
        return {
            "title": f"Try {name}",
            "facts": f"{name}, method {kind}, encoder {spec}, images of {height} x {width} pixels. "
            "Images of other sizes are resized and cropped as in the run's evaluation.",
            "image": list(self.shape),
            "grid": list(self.grid),
            "colors": ["#" + bytes(x).hex() for x in heat.palette(heat.SEQUENTIAL, SHADES)],
            "examples": [
                {"name": name, "pixels": base64_of(image)} for name, image in self.examples.items()
            ],
            "reconstruct": None
            if masked is None
            else {
                "strategies": [*masked.strategies],
                "ratios": [*masked.ratios],
                "ratio": masked.ratio,
            },
            "predict": None if self.prediction is None else {"title": self.prediction.title},
            "nearest": None
            if neighbors is None
            else {"text": f"Of {count} images, by the cosine of their features."},
            "absent": dict(self.absent),
            "max_bytes": MAX_BYTES,
        }

    def open(self, data: bytes) -> dict[str, Any]:
        """The pixels of an image file.

        Raises:
            UserError: see `demo.images.decoded`.
        """
        image = decoded(data, self.shape, self.transforms, self.options)
        return {"pixels": base64_of(image)}

    def image(self, pixels: bytes) -> np.ndarray:
        """[H, W, C] uint8 of its bytes.

        Raises:
            UserError: another number of bytes.
        """
        if len(pixels) != np.prod(self.shape):
            raise UserError(f"{len(pixels)} bytes of pixels: images are of {list(self.shape)}")
        return np.frombuffer(pixels, np.uint8).reshape(self.shape)

    def warm_up(self) -> None:
        """Computes everything once, so that later calls need not compile, but for masks of other
        ratios; see `Reconstruction.warm_up`.
        """
        image = np.zeros(self.shape, np.uint8)
        if self.reconstruction is not None:
            hidden = np.zeros(0, bool)
            for strategy in self.reconstruction.strategies:
                ratio = self.reconstruction.ratio
                hidden = self.reconstruction.sample(image, strategy, ratio, 0)
            self.reconstruction.draw(image, hidden)
        for function in (self.prediction, self.neighbors):
            if function is not None:
                function(image)


def load(source: str, *, images: str | None = None, on_error: str | None = None) -> Trial:
    """Loads a model and images.

    Args:
        source: of the model, see `mae_jax.weights.read`.
        images: a folder or a source, for examples and nearest images; None: the run's test set, or
            its training set if it has none.
        on_error: 'raise' or 'skip' for unreadable images; None: as in the run's config.

    Raises:
        UserError: no such model, or images that it does not take or that are not 2-D.
    """
    model, _ = weights.read(source)
    data = open_data(source, model, images, on_error)
    split = "test" if "test" in data.sources else "train"
    shape = data.example("eval", split)["image"].shape[1:]
    if len(shape) != 3:
        raise UserError(f"demo shows images of 2 dimensions, and these are {list(shape)}")
    network, absent = make_network(source, model, shape), {}
    made = attempt(
        "Reconstruction", lambda: make_reconstruction(network, model.args, shape), absent
    )
    reconstruction, refused = made or (None, {})
    absent |= {
        f"Mask {name}": reason.removeprefix(f"mask {name}: ") for name, reason in refused.items()
    }
    prediction = attempt("Prediction", lambda: make_prediction(network), absent)
    if "features" not in network.method.offers():
        absent["Nearest images"] = "the method has no features of images"
        neighbors = None
    else:
        neighbors = make_neighbors(network, data, split, LIMIT)
    return Trial(
        network=network,
        shape=shape,
        transforms=data.transforms["eval"],
        options=options_of(source, images),
        examples=examples_of(data, split),
        reconstruction=reconstruction,
        prediction=prediction,
        neighbors=neighbors,
        absent=absent,
    )


def attempt(title: str, function: Callable[[], Any], absent: dict[str, str]) -> Any:
    """What a function returns; None if it does not apply, with the reason in `absent`."""
    try:
        return function()
    except UserError as error:
        absent[title] = str(error)
        return None


def examples_of(data: Data, split: str) -> dict[str, np.ndarray]:
    """Images [H, W, C] uint8 to choose from, spread over a split, by name."""
    source, batch = data.source(split), next(iter(data.eval(split, limit=EXAMPLES)))
    order = order_of(source.num_examples, EXAMPLES)
    names = titles(source, batch, order)
    return {names[k]: batch["image"][k] for k in range(len(order)) if batch["valid"][k]}


def options_of(source: str, images: str | None) -> dict[str, Any]:
    """Options of decoding an image: those of the source of images."""
    path = Path(source).expanduser()
    text = images if images is not None and "(" in images else ""
    if not text and weights.is_run(source):
        text = read_config(path).data.train
    try:
        calls = parse(text)
    except UserError:  # a folder that is named by its path alone
        calls = []
    return {k: v for call in calls[:1] for k, v in call.kwargs.items() if k in OPTIONS}
