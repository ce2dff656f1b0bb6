"""A trained model in Python: its outputs for arrays of images, its network and parameters.

It needs neither the data nor the devices of the run that it is from.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.ops.pixels import normalize
from mae_jax.types import Extra, Method, Params, UserError
from mae_jax.workdir import read_config


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A method and its parameters, on the first device."""

    name: str
    """Of the method, e.g. 'mae' or 'tasks.finetune'."""
    method: Method
    params: Params
    """Nested dicts of arrays, as `method` takes them."""
    extra: Extra
    """Collections beside the parameters, such as averages."""
    image_shape: tuple[int, ...] | None
    """[*space, C] of the images it was trained on; None: not known."""
    transform: str
    """Spec string of the transforms for evaluation, see `preprocess`."""

    @property
    def encoder(self) -> nn.Module:
        """The encoder as a Flax module, see `mae_jax.models.encoder.Encoder`. Its parameters are
        `params["encoder"]`, and its inputs what `normalize` returns.
        """
        return self.method.encoder

    def normalize(self, images: np.ndarray) -> jax.Array:
        """Network inputs [N, *space, C] float32 for uint8 images [N, *space, C]."""
        return normalize(images, self.method.mean, self.method.std)

    def features(self, images: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
        """Features [N, D] float32 of whole images.

        Args:
            images: [N, *space, C] uint8, of sizes that the encoder's patches divide. Their channels
                are those of `image_shape`; an encoder with learned positions needs its size, too.
            batch_size: number of images computed at once.

        Raises:
            UserError: images of another type or shape.
        """
        return self.predict(images, "features", batch_size=batch_size)["features"]

    def predict(
        self, images: np.ndarray, *outputs: str, batch_size: int = 64
    ) -> dict[str, np.ndarray]:
        """Outputs for images, by name, [N, ...] each.

        Args:
            images, batch_size: see `features`.
            outputs: among those of `method.offers()`, e.g. 'features', 'logits' or 'features/2'.

        Raises:
            UserError: an output that the method does not have, or other images.
        """
        for output in outputs:
            self.method.check_output(self.name, output)
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        images = self._checked(np.asarray(images))
        parts = [self._predict(outputs, rows) for rows in _batches(images, batch_size)]
        return {
            name: np.concatenate([part[name] for part in parts])[: len(images)] for name in outputs
        }

    def preprocess(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Reads image files and applies `transform`: [N, *space, C] uint8.

        Raises:
            BadImage: a file is no image.
        """
        from mae_jax.data.images import Encoded, pixels_of
        from mae_jax.data.transforms import draw, make_transforms

        transforms = make_transforms(self.transform)
        images = []
        for path in paths:
            channels = self.image_shape[-1] if self.image_shape else 3
            example = {"image": Encoded(Path(path).read_bytes(), channels)}
            drawn = draw(transforms, np.zeros(1, np.uint64))
            for transform, values in zip(transforms, drawn, strict=True):
                example = transform.apply(example, values[0])
            images.append(pixels_of(example["image"]))
        return np.stack(images)

    def _checked(self, images: np.ndarray) -> np.ndarray:
        """Raises UserError unless the network can take these images."""
        channels = self.image_shape[-1] if self.image_shape else images.shape[-1]
        if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != channels:
            raise UserError(
                f"images of shape {list(images.shape)} and type {images.dtype}: give "
                f"[N, *space, {channels}] of uint8"
            )
        if not len(images):
            raise UserError("no images: give at least one")
        return images

    @functools.cached_property
    def _compiled(self) -> Callable:
        predict = functools.partial(jax.jit, static_argnames="outputs")(self.method.predict)
        return lambda outputs, images: predict(
            self.params, self.extra, {"image": images}, outputs=outputs
        )

    def _predict(self, outputs: Sequence[str], images: np.ndarray) -> Mapping[str, np.ndarray]:
        return jax.device_get(self._compiled(tuple(outputs), images))


def load(source: str | Path, *, options: weights.Options | None = None) -> Model:
    """Loads a trained model.

    Args:
        source: the workdir of a run, a folder of imported weights, weights in the layout of timm,
            Hugging Face or the official MAE code (.safetensors, .pth, a folder), or hf://org/name.
        options: what published weights do not say of themselves.

    Raises:
        UserError: there is no such model, it is damaged, or it is of another kind.
    """
    model, _ = weights.read(source, options)
    nested = lambda flat: traverse_util.unflatten_dict(flat, sep="/")
    if weights.is_run(source):
        transform = read_config(Path(source).expanduser()).data.eval_transform
    else:
        transform = weights.transform_of(model)
    return Model(
        name=model.method,
        method=make_method(name=model.method, args=model.args),
        params=jax.device_put(nested(model.params)),
        extra=jax.device_put(nested(model.extra)),
        image_shape=model.image,
        transform=transform,
    )


def _batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Batches of one size: the last one repeats its last image."""
    size = min(size, len(images))
    for start in range(0, len(images), size):
        rows = images[start : start + size]
        yield np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
