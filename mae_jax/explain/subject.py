"""What views explain: a trained model, the images that are shown, and a larger sample of images for
statistics.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mae_jax import weights
from mae_jax.data import Data
from mae_jax.explain.network import Network, Statistics, make_network, statistics
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.restore import open_run
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model and images."""

    network: Network
    against: Network | None
    """A model to compare with."""
    images: np.ndarray
    """[N, H, W, C] uint8, the images that are shown."""
    sample: np.ndarray
    """[M, H, W, C] uint8, those of `images` among them."""
    labels: np.ndarray | None
    """[M] int32, classes of the sample; None: it has none."""
    shown: np.ndarray
    """[N] numbers of `images` in the sample."""
    class_names: Sequence[str]
    """Of `labels`; () if they are not known."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = grid_of(self.images.shape[1:3], self.network.encoder.patch)
        return rows, columns

    @property
    def positions(self) -> np.ndarray:
        """Row and column of the first pixel of each patch, [L, 2]."""
        sides = patch_sides(self.network.encoder.patch, 2)
        return np.stack(np.indices(self.grid), axis=-1).reshape(-1, 2) * sides

    @property
    def center(self) -> int:
        """Number of the patch in the center, which is shown before any click."""
        rows, columns = self.grid
        return rows // 2 * columns + columns // 2

    @property
    def pool(self) -> str:
        """'cls' or 'mean': how the method pools tokens, up to several class tokens side by side."""
        return "mean" if self.network.method.pool == "mean" else "cls"

    @functools.cached_property
    def patches(self) -> np.ndarray:
        """Last tokens of the patches of `images`, [N, L, D] float32."""
        tokens = np.asarray(self.network.compute(self.images), np.float32)
        return tokens[:, self.network.encoder.prefix :]

    @functools.cached_property
    def statistics(self) -> Statistics:
        """Of the sample."""
        return statistics(self.network, self.sample)

    @functools.cached_property
    def against_statistics(self) -> Statistics:
        """Of the sample, of the other model."""
        return statistics(self.against, self.sample)

    def layer_names(self) -> list[str]:
        """'block 1', 'block 2', ... of the layers in `statistics`."""
        count = len(self.statistics.features["mean"])
        return [f"{self.network.layer_word} {number + 1}" for number in range(count)]

    def titles(self) -> list[str]:
        """'image 1', or 'image 1: boot' where the class is known, of `images`."""
        titles = [f"image {number + 1}" for number in range(len(self.images))]
        if self.labels is None:
            return titles
        return [
            f"{title}: {class_name(self.class_names, label)}" if label >= 0 else title
            for title, label in zip(titles, self.labels[self.shown], strict=True)
        ]


def class_name(names: Sequence[str], number: int) -> str:
    """The name of a class, or its number."""
    return names[number] if 0 <= number < len(names) else f"class {number}"


def load(
    source: str,
    *,
    images: str | None,
    against: str | None,
    count: int,
    sample: int,
    on_error: str | None = None,
) -> Subject:
    """Loads a model and images.

    Args:
        source, against: of the model and of one to compare with, see `mae_jax.weights.read`.
        images: a folder or a source; None: the run's test set, or its training set if it has none.
        count: number of images to show.
        sample: number of images for statistics, at least `count`.
        on_error: 'raise' or 'skip' for unreadable images; None: as in the run's config.

    Raises:
        UserError: no such model, or images that it does not take or that are not 2-D.
    """
    models = {name: weights.read(name)[0] for name in (source, against) if name is not None}
    data = open_data(source, models[source], images, on_error)
    split = "test" if "test" in data.sources else "train"
    shape = data.example("eval", split)["image"].shape[1:]
    if len(shape) != 3:
        raise UserError(f"explain draws images of 2 dimensions, and these are {list(shape)}")
    networks = {name: make_network(name, model, shape) for name, model in models.items()}
    rows = [
        {name: batch[name][batch["valid"]] for name in {"image", "label"} & batch.keys()}
        for batch in data.eval(split, limit=sample)
    ]
    joined = {name: np.concatenate([one[name] for one in rows]) for name in rows[0]}
    everything = joined["image"]
    if len(everything) < 2:
        raise UserError(f"explain needs at least 2 images, and {len(everything)} can be read")
    shown = np.unique(np.linspace(0, len(everything) - 1, count).round().astype(int))
    return Subject(
        network=networks[source],
        against=None if against is None else networks[against],
        images=everything[shown],
        sample=everything,
        labels=joined.get("label"),
        shown=shown,
        class_names=tuple(data.source(split).names.get("label", ())),
    )


def open_data(source: str, model: weights.Model, images: str | None, on_error: str | None) -> Data:
    """The images of a run, or those of `load`."""
    path = Path(source).expanduser()
    with tempfile.TemporaryDirectory() as folder:
        if not weights.is_run(source):
            if images is None:
                raise UserError(f"{source} holds weights without images: give --images FOLDER")
            path = Path(folder) / "weights"
            weights.write_run(model._replace(params={}, extra={}), path)  # for its config alone
        return open_run(path, images=images, on_error=on_error).data
