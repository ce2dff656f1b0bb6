"""A run without its data: what a config trains, and made-up batches."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mae_jax import standardize
from mae_jax.data import make_data
from mae_jax.data.transforms import draw, make_transforms
from mae_jax.engine import mesh as meshes
from mae_jax.learner import Example, Learner, build_learner, zeros
from mae_jax.spec import call_section
from mae_jax.types import Batch, UserError, image_shape

NUM_EXAMPLES = 1_281_167
"""Of ImageNet-1k; only the schedule of the learning rate depends on it."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Setup(Learner):
    """What `make_setup` makes of a config."""

    config: ConfigDict

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[*space, C] of an image; None if there is none."""
        return image_shape(self.example)

    @property
    def dtype(self) -> str:
        """What the network computes in."""
        args = self.config.method.args
        return args.dtype if "dtype" in args else "float32"

    def batch(self) -> Batch:
        """A global batch of noise, on the devices; labels are drawn too."""
        rng, labels = np.random.default_rng(0), self.method.labels()
        rows = {
            name: rng.integers(0, labels.get(name, 256 if x.dtype == np.uint8 else 2), x.shape)
            for name, x in self.abstract_batch().items()
        }
        return self.put({name: x.astype(self.example[name].dtype) for name, x in rows.items()})


def make_setup(
    config: ConfigDict, image_size: Sequence[int] = (), devices: Sequence[Any] | None = None
) -> Setup:
    """Builds what a config names, but for its data, which may not be here.

    Args:
        image_size: (side,), (height, width), these and the channels, or (depth, height, width,
            channels); empty: what the config's training transform makes of color images, or where
            it has none, the first training example.
        devices: see `make_mesh`.

    Raises:
        UserError: anything in the config that cannot be built, or an image size that is not known.
    """
    shape, rows = sized(config, image_size)
    if shape:
        values, _ = standardize.resolve(config.method.args, channels=shape[-1], origins=())
        config = standardize.applied(config, values)  # nothing here depends on them
    mesh = call_section(meshes.make_mesh, config.mesh, "mesh", devices=devices)
    meshes.check_batch(config.data.batch_size, mesh, config.accumulate)
    rows = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in rows.items()}
    learner = build_learner(
        config,
        mesh,
        num_examples=NUM_EXAMPLES,
        example=lambda method: rows or method.example(shape),
        sample=lambda count: zeros(rows or learner.example, count),
    )
    return Setup(**vars(learner), config=config)


def sized(
    config: ConfigDict, image_size: Sequence[int] = ()
) -> tuple[tuple[int, ...] | None, Example]:
    """[*space, C] of what a network is trained on, and a training batch of one, {} if it was not
    necessary to make one; see `make_setup`.
    """
    size = tuple(image_size)
    if len(size) > 4 or any(side < 1 for side in size):
        raise UserError(
            f"--image-size {' '.join(map(str, size))}: write a side, a height and a width, or "
            "these and the number of channels; of volumes the depth before them"
        )
    if size:
        size = size * 2 if len(size) == 1 else size
        return size if len(size) > 2 else (*size, 3), {}
    transforms = make_transforms(config.data.train_transform)
    if not transforms:
        rows = call_section(make_data, config.data, "data").example("train")
        return image_shape(rows), rows
    made = {"image": np.zeros((256, 256, 3), np.uint8), "segmentation": np.zeros((256, 256), int)}
    params = draw(transforms, np.zeros(1, np.uint64))
    for transform, row in zip(transforms, params, strict=True):
        made = transform.apply(made, row[0])
    return made["image"].shape, {}
