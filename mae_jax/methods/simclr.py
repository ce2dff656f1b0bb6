"""SimCLR (Chen et al. 2020, arXiv 2002.05709): the projections of two augmented views of an image
are pulled together, and pushed away from those of the other images of the global batch (NT-Xent).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.models.heads import ProjectionHead, check_widths
from mae_jax.ops import pixels, views
from mae_jax.ops.contrastive import nt_xent
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SimCLR(ImageMethod):
    """The method; `make` documents the fields."""

    views: ClassVar[int] = 2
    rank: ClassVar[int | None] = 2

    projector: ProjectionHead
    temperature: float
    jitter: tuple[float, ...]
    blur: float

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels.

        Raises:
            UserError: the batch has no 'image2'.
        """
        keys = jax.random.split(key)
        images, _ = views.two_views(batch, "simclr")
        features = jnp.zeros((len(images), self.feature_width))  # only its shape matters
        return {
            "encoder": self.encoder.init(keys[0], self.normalize(images))["params"],
            "projector": self.projector.init(keys[1], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """NT-Xent. The metric 'top1' is the fraction of views whose most similar candidate is the
        other view of their image.

        BatchNorm in the projector normalizes both views together, as in the authors' code.
        """
        images = views.interleave(*views.two_views(batch, "simclr"))  # [2 B, H, W, C]
        images = views.photometric(key, images, jitter=self.jitter, blur=self.blur, solarize=0)
        # [2 B, last width of the projector]
        projected = self.project(params, pixels.standardize(images, self.mean, self.std))
        loss, accuracy = nt_xent(*views.separate(projected), temperature=self.temperature)
        return Output(loss, extra, {"top1": accuracy})

    def project(self, params: Params, images: jax.Array) -> jax.Array:
        """Projects normalized images [N, H, W, C] to [N, last width of the projector] float32."""
        features = self.features(params, images)  # [N, D]
        return self.projector.apply({"params": params["projector"]}, features)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    projector: Sequence[int] = (2048, 128),
    temperature: float = 0.1,
    jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
    blur: float = 0.5,
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> SimCLR:
    """Builds SimCLR. Batches need two views of each image. With gradient accumulation, the
    negatives are those of the microbatch, not of the whole batch.

    Args:
        encoder: spec string, e.g. 'vit(B, patch=16)' or 'convnext(T)'.
        projector: widths of its layers; the last is the size of the embeddings in the loss.
        temperature: divides the cosine similarities, positive. 0.1 on ImageNet, 0.5 on CIFAR.
        jitter: strengths of brightness, contrast, saturation and hue, see `views.photometric`.
        blur: probability that a view is blurred; the paper's is 0 on CIFAR.
        pool: features from the tokens, the input of the projector: 'cls' or 'mean' of the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    check_widths("projector", tuple(projector))
    views.check_strengths(jitter, (blur,))
    if temperature <= 0:
        raise UserError(f"temperature={temperature} must be positive: the paper's is 0.1")
    return SimCLR(
        **SimCLR.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        projector=ProjectionHead(tuple(projector), last_scale=True, dtype=jnp.dtype(dtype)),
        temperature=temperature,
        jitter=tuple(jitter),
        blur=blur,
    )
