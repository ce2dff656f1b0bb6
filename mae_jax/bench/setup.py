"""The training step of a config without its data, on synthetic batches."""

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
"""Number of images of ImageNet-1k; only the learning rate schedule depends on it."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Setup(Learner):
    """A learner and the config that it was built from, see `make_setup`."""

    config: ConfigDict

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[*space, C] of an image; None if there is none."""
        return image_shape(self.example)

    @property
    def dtype(self) -> str:
        """Type of the network's computation, e.g. 'bfloat16'."""
        args = self.config.method.args
        return args.dtype if "dtype" in args else "float32"

    def batch(self) -> Batch:
        """A global batch of random images and labels, on the devices."""
        rng, labels = np.random.default_rng(0), self.method.labels()
        rows = {
            name: rng.integers(0, labels.get(name, 256 if x.dtype == np.uint8 else 2), x.shape)
            for name, x in self.abstract_batch().items()
        }
        return self.put({name: x.astype(self.example[name].dtype) for name, x in rows.items()})


def make_setup(
    config: ConfigDict, image_size: Sequence[int] = (), devices: Sequence[Any] | None = None
) -> Setup:
    """Builds a config without its data, which need not be on this machine.

    Args:
        image_size: (side,), (height, width), (height, width, channels) or (depth, height, width,
            channels); empty: the size after the config's training transform of color images or,
            without a transform, of the first training example.
        devices: see `make_mesh`.

    Raises:
        UserError: the config cannot be built, or the image size is unknown.
    """
    shape, rows = sized(config, image_size)
    if shape:
        values, _ = standardize.resolve(config.method.args, channels=shape[-1], origins=())
        config = standardize.applied(config, values)  # the values do not change the speed
    mesh = call_section(meshes.make_mesh, config.mesh, "mesh", devices=devices)
    meshes.check_batch(config.data.batch_size, mesh, config.accumulate)
    rows = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in rows.items()}
    learner = build_learner(
        config,
        mesh,
        num_examples=NUM_EXAMPLES,
        example=lambda method: rows or method.example(shape),
        sample=lambda count, fields: zeros(rows or learner.example, count),
    )
    return Setup(**vars(learner), config=config)


def sized(
    config: ConfigDict, image_size: Sequence[int] = ()
) -> tuple[tuple[int, ...] | None, Example]:
    """[*space, C] of the training images, and a training batch of one, {} if none was needed; see
    `make_setup`.
    """
    size = tuple(image_size)
    if len(size) > 4 or any(side < 1 for side in size):
        raise UserError(
            f"--image-size {' '.join(map(str, size))}: pass SIDE, HEIGHT WIDTH, HEIGHT WIDTH "
            "CHANNELS, or for volumes DEPTH HEIGHT WIDTH CHANNELS"
        )
    if size:
        size = size * 2 if len(size) == 1 else size
        return size if len(size) > 2 else (*size, 3), {}
    transforms = make_transforms(config.data.train_transform)
    if not transforms:
        rows = call_section(make_data, config.data, "data").example("train")
        return image_shape(rows), rows
    example = {
        "image": np.zeros((256, 256, 3), np.uint8),
        "segmentation": np.zeros((256, 256), int),
    }
    params = draw(transforms, np.zeros(1, np.uint64))
    for transform, row in zip(transforms, params, strict=True):
        example = transform.apply(example, row[0])
    return example["image"].shape, {}
