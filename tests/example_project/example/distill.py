"""A method with a teacher: the encoder learns to predict the features of a frozen encoder."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.types import Batch, Extra, Output, Params


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Distill(ImageMethod):
    """Feature distillation; `extra` holds the parameters of the teacher."""

    def loads(self) -> Mapping[str, str]:
        """The encoder and the teacher, each loaded from its own weights."""
        return {**super().loads(), "extra/teacher": "^positions$"}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initial parameters for images of this shape, and a teacher of the same architecture."""
        keys, images = jax.random.split(key), self.normalize(batch["image"])
        student, teacher = (self.encoder.init(key, images)["params"] for key in keys)
        return {"encoder": student}, {"teacher": teacher}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Mean squared error between the features of the encoder and the teacher."""
        images = self.normalize(batch["image"])
        target = self.features({"encoder": extra["teacher"]}, images)  # [B, D]
        error = jnp.square(self.features(params, images) - target)
        return Output(error.mean(), extra, {})


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Distill:
    """Makes the method. In a config: method.name='example.distill'"""
    fields = ImageMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    return Distill(**fields)
