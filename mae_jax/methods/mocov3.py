"""MoCo v3 (arXiv 2104.02057): what the network predicts from one view of an image should match what
a slowly moving copy of it, the momentum encoder, says of the other view, better than what that says
of other images. There is no queue: the others are those of the global batch.

The patch embedding of a ViT stays as it was drawn, which is what makes training stable there.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.models.heads import ProjectionHead, check_widths
from mae_jax.models.vit import ViT
from mae_jax.ops import pixels, views
from mae_jax.ops.contrastive import info_nce
from mae_jax.rules import DECAY_MATRICES, Rules
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MoCoV3(ImageMethod):
    """The method; `make` documents the fields."""

    views: ClassVar[int] = 2
    rank: ClassVar[int | None] = 2

    projector: ProjectionHead
    predictor: ProjectionHead
    temperature: float
    momentum: float
    jitter: tuple[float, ...]
    blur: tuple[float, float]
    solarize: tuple[float, float]

    def rules(self) -> Rules:
        """Biases and norms are not decayed, and the patch embedding of a ViT does not learn."""
        frozen = ((r"^encoder/embed/", None),) if isinstance(self.encoder, ViT) else ()
        return (*frozen, *DECAY_MATRICES)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels, and the momentum
        encoder with its projector, which start as the same.

        Raises:
            UserError: the batch has no 'image2'.
        """
        keys = jax.random.split(key, 3)
        images, _ = views.two_views(batch, "mocov3")
        features = jnp.zeros((len(images), self.encoder.width))
        projected = jnp.zeros((len(images), self.projector.widths[-1]))
        base = {
            "encoder": self.encoder.init(keys[0], self.normalize(images))["params"],
            "projector": self.projector.init(keys[1], features)["params"],
        }
        predictor = self.predictor.init(keys[2], projected)["params"]
        return base | {"predictor": predictor}, {"momentum": base}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """InfoNCE of both directions, added; the metric 'found' is the share of queries whose key
        is the most similar.
        """
        strengths = zip(self.blur, self.solarize, strict=True)
        pairs = zip(jax.random.split(key), views.two_views(batch, "mocov3"), strengths, strict=True)
        images = views.interleave(  # [2 B, H, W, C]
            *(
                views.photometric(k, view, jitter=self.jitter, blur=blur, solarize=solarize)
                for k, view, (blur, solarize) in pairs
            )
        )
        images = pixels.standardize(images, self.mean, self.std)
        queries = self.queries(params, images)
        keys = self.project(extra["momentum"], images)
        losses, found = zip(
            *(
                info_nce(query, other, temperature=self.temperature)
                for query, other in zip(queries, reversed(keys), strict=True)
            )
        )
        return Output(sum(losses), extra, {"top1": sum(found) / 2})

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Moves the momentum encoder towards the parameters; its momentum rises to 1 on half a
        cosine.
        """
        progress = jnp.clip(step / self.total_steps, 0, 1)
        pace = (1 - self.momentum) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        base = {name: params[name] for name in extra["momentum"]}
        # In this form what does not learn does not drift either.
        move = lambda old, new: old + pace * (new - old)
        return {"momentum": jax.tree.map(move, extra["momentum"], base)}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The momentum encoder starts as the parameters."""
        base = {name: params[name] for name in extra["momentum"]}
        return {"momentum": base}

    def queries(self, params: Params, images: jax.Array) -> list[jax.Array]:
        """What is predicted from each of two interleaved views [2 B, H, W, C], normalized: two
        [B, predictor's last width] float32.
        """
        predict = lambda x: self.predictor.apply({"params": params["predictor"]}, x)
        return [predict(x) for x in self.project(params, images)]

    def project(self, params: Params, images: jax.Array) -> list[jax.Array]:
        """The projections of two interleaved views [2 B, H, W, C], normalized: two
        [B, projector's last width] float32. BatchNorm sees one view at a time, as in the authors'
        code.
        """
        project = lambda x: self.projector.apply({"params": params["projector"]}, x)
        return [project(x) for x in views.separate(self.features(params, images))]


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    projector: Sequence[int] = (4096, 4096, 256),
    predictor: Sequence[int] = (4096, 256),
    temperature: float = 0.2,
    momentum: float = 0.99,
    jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1),
    blur: Sequence[float] = (1.0, 0.1),
    solarize: Sequence[float] = (0.0, 0.2),
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> MoCoV3:
    """MoCo v3. Batches need two views of each image, and with accumulation of gradients a view is
    told apart from those of its part of the batch only.

    Args:
        encoder: spec string, e.g. 'vit(B, patch=16)' or 'convnext(T)'.
        projector, predictor: widths of their layers, the last the same; the authors' projector has
            three layers on a ViT and two, (4096, 256), on a convolutional network.
        temperature: of the cosine similarities.
        momentum: of the momentum encoder at the first step, in [0, 1]; it rises to 1 in the run.
        jitter: strengths of brightness, contrast, saturation and hue, see `views.photometric`.
        blur, solarize: probabilities in the first view and in the second.
        pool: 'cls' or 'mean': what is called features and goes into the projector.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    widths = {"projector": tuple(projector), "predictor": tuple(predictor)}
    for name, value in widths.items():
        check_widths(name, value)
    if projector[-1] != predictor[-1]:
        raise UserError(f"the last widths differ, but are compared: {widths}")
    if len(blur) != 2 or len(solarize) != 2:
        raise UserError(f"blur={blur} and solarize={solarize}: give one for each of the two views")
    views.check_strengths(jitter, (*blur, *solarize))
    if temperature <= 0 or not 0 <= momentum <= 1:
        raise UserError(
            f"temperature={temperature} must be positive, and momentum={momentum} in [0, 1]"
        )
    return MoCoV3(
        **MoCoV3.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        **{name: ProjectionHead(value, dtype=jnp.dtype(dtype)) for name, value in widths.items()},
        temperature=temperature,
        momentum=momentum,
        jitter=tuple(jitter),
        blur=tuple(blur),
        solarize=tuple(solarize),
    )
