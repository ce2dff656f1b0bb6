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
from mae_jax.predictions import make_writer
from mae_jax.types import Extra, Method, Params, UserError
from mae_jax.workdir import read_classes, read_config

Images = np.ndarray | Sequence[str | Path]
"""Images [N, *space, C] uint8, or paths of files."""


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
    class_names: Mapping[str, Sequence[str]]
    """Field of labels -> names of its classes; {} if not known."""

    @property
    def encoder(self) -> nn.Module:
        """The encoder as a Flax module, see `mae_jax.models.encoder.Encoder`. Its parameters are
        `params["encoder"]`, and its inputs what `normalize` returns.
        """
        return self.method.encoder

    def normalize(self, images: np.ndarray) -> jax.Array:
        """Network inputs [N, *space, C] float32 for uint8 images [N, *space, C]."""
        return normalize(images, self.method.mean, self.method.std)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or values that it predicts, in their order; () if not known."""
        (*_, field) = ("", *self.method.labels())
        return tuple(self.class_names.get(field, ()))

    def features(self, images: Images, *, batch_size: int = 64) -> np.ndarray:
        """Features [N, D] float32 of whole images.

        Args:
            images: [N, *space, C] uint8, of sizes that the encoder's patches divide. Their channels
                are those of `image_shape`; an encoder with learned positions needs its size, too.
                Or paths of image files, which are read and transformed a batch at a time, see
                `preprocess`.
            batch_size: number of images computed at once.

        Raises:
            UserError: images of another type or shape.
        """
        return self.predict(images, "features", batch_size=batch_size)["features"]

    def predict(self, images: Images, *outputs: str, batch_size: int = 64) -> dict[str, np.ndarray]:
        """Outputs for images, by name, [N, ...] each.

        Args:
            images, batch_size: see `features`.
            outputs: among those of `method.offers()`, e.g. 'features', 'logits' or 'features/2'.
                None: 'probability' [N, K] float32 and 'prediction', [N] int of one class per image
                or [N, K] bool of several; of a regression 'prediction' [N] or [N, V] float32 alone.
                `classes` has the names.

        Raises:
            UserError: an output that the method does not have, or other images.
        """
        if not outputs:
            rank = len(self.image_shape) - 1 if self.image_shape else None
            writer = make_writer(self.method, self.name, "", rank=rank)
            if writer.predicted is None:
                raise UserError(f"{self.name}: name outputs: {', '.join(self.method.offers())}")
            return writer.predicted(self.predict(images, *writer.reads, batch_size=batch_size))
        for output in outputs:
            self.method.check_output(self.name, output)
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        parts: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
        for rows in self._batches(images, batch_size):
            # The first batch has the largest size; others repeat their last image up to it.
            size = min(batch_size, len(images))
            padded = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
            found = jax.device_get(self._compiled(outputs, padded))
            for name in outputs:
                parts[name].append(found[name][: len(rows)])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def preprocess(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Reads image files and applies `transform`: [N, *space, C] uint8.

        Raises:
            BadImage: a file is no image.
        """
        from mae_jax.data.images import Encoded
        from mae_jax.data.transforms import make_transforms, transformed

        transforms = make_transforms(self.transform)
        channels = self.image_shape[-1] if self.image_shape else 3
        encoded = (Encoded(Path(path).read_bytes(), channels) for path in paths)
        return np.stack([transformed(image, transforms) for image in encoded])

    def _batches(self, images: Images, size: int) -> Iterator[np.ndarray]:
        """Images [n, *space, C] of at most `size` rows at a time; files are read when needed."""
        if isinstance(images, (str, Path)):
            raise UserError(f"{images}: give several paths, e.g. [{str(images)!r}]")
        files = isinstance(images, (list, tuple)) and isinstance((*images, None)[0], (str, Path))
        images = images if files else self._checked(np.asarray(images))
        for start in range(0, len(images), size):
            rows = images[start : start + size]
            yield self._checked(self.preprocess(rows)) if files else rows

    def _checked(self, images: np.ndarray) -> np.ndarray:
        """Raises UserError unless the network can take these images."""
        if not len(images):
            raise UserError("no images: give at least one")
        channels = self.image_shape[-1] if self.image_shape else images.shape[-1]
        if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != channels:
            raise UserError(
                f"images of shape {list(images.shape)} and type {images.dtype}: give "
                f"[N, *space, {channels}] of uint8"
            )
        return images

    @functools.cached_property
    def _compiled(self) -> Callable:
        predict = functools.partial(jax.jit, static_argnames="outputs")(self.method.predict)
        return lambda outputs, images: predict(
            self.params, self.extra, {"image": images}, outputs=outputs
        )


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
    if weights.is_run(path := weights.folder_of(source)):
        transform, names = read_config(path).data.eval_transform, read_classes(path)
    else:
        names, transform = {}, weights.transform_of(model)
    return Model(
        name=model.method,
        method=make_method(name=model.method, args=model.args),
        params=jax.device_put(nested(model.params)),
        extra=jax.device_put(nested(model.extra)),
        image_shape=model.image,
        transform=transform,
        class_names=names,
    )
