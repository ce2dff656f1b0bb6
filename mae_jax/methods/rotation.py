"""Rotation prediction (RotNet, Gidaris et al. 2018, arXiv 1803.07728): the network classifies by
which multiple of 90 degrees an image was rotated.

As in the paper, each step includes all four rotations of every image, which works better than one
random rotation. A batch of B images therefore costs as much as 4 B images.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.models.transformer import dense_init
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rotation(ImageMethod):
    """The method; `make` documents the fields."""

    rank: ClassVar[int | None] = 2

    head: nn.Dense

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels."""
        keys = jax.random.split(key)
        images = self.normalize(rotations(batch["image"])[:, 0])
        features = jnp.zeros((len(images), self.feature_width))  # only its shape matters
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "head": self.head.init(keys[1], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy over the four classes, for all four rotations of each image."""
        rotated = rotations(batch["image"])  # [B, 4, S, S, C]
        label = jnp.broadcast_to(jnp.arange(4), rotated.shape[:2]).reshape(-1)  # [4 B]
        images = self.normalize(rotated)
        features = self.features(params, images.reshape(-1, *images.shape[2:]))  # [4 B, D]
        logits = self.head.apply({"params": params["head"]}, features).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        return Output(loss, extra, {"top1": jnp.mean(jnp.argmax(logits, axis=1) == label)})


def rotations(images: jax.Array) -> jax.Array:
    """Rotates images [B, S, S, C] of any type counterclockwise by 0, 90, 180 and 270 degrees:
    [B, 4, S, S, C].

    Raises:
        UserError: images that are not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise UserError(
            f"images of {height} x {width} are not square and change their shape with a quarter "
            f"turn: crop them, e.g. train_transform=random_resized_crop({min(height, width)})"
        )
    # Axis 1, not concatenated rows: all rotations of an image stay on its device.
    return jnp.stack([jnp.rot90(images, turns, axes=(1, 2)) for turns in range(4)], axis=1)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Rotation:
    """Builds a rotation prediction method.

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens: 'cls' or 'mean' of the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    return Rotation(
        **Rotation.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        head=nn.Dense(4, kernel_init=dense_init, dtype=jnp.dtype(dtype)),
    )
