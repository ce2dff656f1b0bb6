"""A method: denoising. The network reads an image with added noise and predicts the noise."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.ops.patches import patch_sides, patchify
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Denoising(ImageMethod):
    """Denoising; `make` documents the fields."""

    noise: float

    def head(self, images: jax.Array) -> nn.Dense:
        """A linear layer from tokens to the prod(patch) * C values of a patch of `images`."""
        sides = patch_sides(self.encoder.patch, images.ndim - 2)
        return nn.Dense(math.prod(sides) * images.shape[-1])

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initial parameters of the encoder and the head, for images of this shape."""
        keys, images = jax.random.split(key), self.normalize(batch["image"])
        tokens = jnp.zeros((1, 1, self.encoder.width))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "head": self.head(images).init(keys[1], tokens)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Mean squared error of the predicted noise."""
        images = self.normalize(batch["image"])
        noise = self.noise * jax.random.normal(key, images.shape)
        tokens = self.tokens(params, images + noise)[:, self.encoder.prefix :]  # [B, L, D]
        head = self.head(images)
        predicted = head.apply({"params": params["head"]}, tokens)  # [B, L, prod(patch) * C]
        error = jnp.square(predicted - patchify(noise, self.encoder.patch))
        return Output(error.mean(), extra, {})


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    noise: float = 0.5,
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Denoising:
    """Makes the method. In a config: method.name='my_project.method'

    Args:
        encoder: spec string of the encoder.
        noise: standard deviation of the noise; that of normalized images is about 1.
        pool: features are the 'cls' token or the 'mean' over the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: type of the computation, 'float32' or 'bfloat16'.
    """
    if noise <= 0:
        raise UserError(f"noise={noise} must be positive: try 0.5")
    fields = ImageMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    return Denoising(noise=noise, **fields)
