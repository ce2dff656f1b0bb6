"""A task: semantic segmentation, with logits of patches resized to pixels. It ignores label 255."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from mae_jax.data.fields import IGNORE
from mae_jax.methods.images import ImageMethod
from mae_jax.types import Batch, Extra, Output, Params


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Segment(ImageMethod):
    """Segmentation."""

    classes: int

    def labels(self) -> Mapping[str, int]:
        """Batch field that the loss reads -> number of its classes."""
        return {"segmentation": self.classes}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Segmentations have the shape of the images, without channels."""
        rows = super().example(image_shape)
        return rows | {"segmentation": jax.ShapeDtypeStruct((1, *image_shape[:-1]), np.int32)}

    def offers(self) -> tuple[str, ...]:
        """'segmentation': logits [B, *space, classes]."""
        return (*super().offers(), "segmentation")

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initial parameters of the encoder and the head."""
        keys, images = jax.random.split(key), self.normalize(batch["image"])
        features = jnp.zeros((1, self.encoder.width))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "head": nn.Dense(self.classes).init(keys[1], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Mean cross-entropy over the pixels that have a class."""
        labels = batch["segmentation"]
        known = labels != IGNORE
        errors = optax.softmax_cross_entropy_with_integer_labels(
            self.logits(params, batch), jnp.where(known, labels, 0)
        )
        return Output(jnp.sum(errors * known) / jnp.maximum(known.sum(), 1), extra, {})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """The named outputs, see `offers`."""
        others = [name for name in outputs if name != "segmentation"]
        more = {"segmentation": self.logits(params, batch)} if "segmentation" in outputs else {}
        return super().predict(params, extra, batch, outputs=others) | more

    def logits(self, params: Params, batch: Batch) -> jax.Array:
        """Logits [B, *space, classes], resized from those of the patches."""
        images = self.normalize(batch["image"])
        variables = {"params": params["encoder"]}
        depth = self.encoder.depth
        (x,) = self.encoder.apply(variables, images, taps=(depth - 1,), method="maps")  # last block
        x = nn.Dense(self.classes).apply({"params": params["head"]}, x)  # [B, *grid, classes]
        return jax.image.resize(x, (*images.shape[:-1], self.classes), "linear")


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 11,
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Segment:
    """Makes the task. In a config: method.name='example.segment'"""
    fields = ImageMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    return Segment(classes=classes, **fields)
