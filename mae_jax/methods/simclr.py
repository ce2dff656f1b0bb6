"""SimCLR (arXiv 2002.05709): of all images in the global batch, a view of one should look most like
the other view of the same.
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
        """Fresh parameters for images of this size and number of channels.

        Raises:
            UserError: the batch has no 'image2'.
        """
        keys = jax.random.split(key)
        images, _ = views.two_views(batch, "simclr")
        features = jnp.zeros((len(images), self.encoder.width))
        return {
            "encoder": self.encoder.init(keys[0], self.normalize(images))["params"],
            "projector": self.projector.init(keys[1], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """NT-Xent; the metric 'found' is the share of views whose other view is the most similar.

        BatchNorm in the projector sees both views together, as in the authors' code.
        """
        images = views.interleave(*views.two_views(batch, "simclr"))  # [2 B, H, W, C]
        images = views.photometric(key, images, jitter=self.jitter, blur=self.blur, solarize=0)
        projected = self.project(params, pixels.standardize(images, self.mean, self.std))
        loss, found = nt_xent(*views.separate(projected), temperature=self.temperature)
        return Output(loss, extra, {"top1": found})

    def project(self, params: Params, images: jax.Array) -> jax.Array:
        """Normalized images [N, H, W, C] to [N, projector's last width] float32."""
        features = self.features(params, images)
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
    """SimCLR. Batches need two views of each image, and with accumulation of gradients a view is
    told apart from those of its part of the batch only.

    Args:
        encoder: spec string, e.g. 'vit(B, patch=16)' or 'convnext(T)'.
        projector: widths of its layers, the last that of what is compared.
        temperature: of the cosine similarities. 0.1 at ImageNet, 0.5 at CIFAR.
        jitter: strengths of brightness, contrast, saturation and hue, see `views.photometric`.
        blur: probability that a view is blurred; the paper's is 0 at CIFAR.
        pool: 'cls' or 'mean': what is called features and goes into the projector.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
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
