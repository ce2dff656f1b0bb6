"""A method with a teacher: the encoder learns the features of another one, which stays as it is."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.types import Batch, Extra, Output, Params


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Distill(ImageMethod):
    """The method."""

    def loads(self) -> Mapping[str, str]:
        """The encoder and the teacher, each from weights of its own."""
        return {**super().loads(), "extra/teacher": "^positions$"}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Parameters for images of this size, and a teacher of the same architecture."""
        keys, images = jax.random.split(key), self.normalize(batch["image"])
        student, teacher = (self.encoder.init(key, images)["params"] for key in keys)
        return {"encoder": student}, {"teacher": teacher}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Squared error of the features."""
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
    """config.method.name='example.distill'"""
    fields = ImageMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    return Distill(**fields)
