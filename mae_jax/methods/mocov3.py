"""MoCo v3 (Chen et al. 2021, arXiv 2104.02057): the prediction from one view of an image must match
the momentum encoder's embedding of the other view, against those of the other images of the global
batch (InfoNCE without a queue).

The patch embedding of a ViT is frozen at its random initialization, which stabilizes its training.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.models.heads import ProjectionHead, check_widths
from mae_jax.models.vit import ViT
from mae_jax.ops import ema, pixels, views
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
        """Biases and norms are not decayed, and the patch embedding of a ViT is frozen."""
        frozen = ((r"^encoder/embed/", None),) if isinstance(self.encoder, ViT) else ()
        return (*frozen, *DECAY_MATRICES)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels, and the momentum
        encoder and projector as a copy of them.

        Raises:
            UserError: the batch has no 'image2'.
        """
        keys = jax.random.split(key, 3)
        images, _ = views.two_views(batch, "mocov3")
        features = jnp.zeros((len(images), self.feature_width))  # only its shape matters
        projected = jnp.zeros((len(images), self.projector.widths[-1]))
        base = {
            "encoder": self.encoder.init(keys[0], self.normalize(images))["params"],
            "projector": self.projector.init(keys[1], features)["params"],
        }
        predictor = self.predictor.init(keys[2], projected)["params"]
        return base | {"predictor": predictor}, {"momentum": base}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The sum of InfoNCE in both directions. The metric 'top1' is the fraction of queries whose
        most similar key is their positive.
        """
        # As in BYOL, the two views differ in their probabilities of blur and solarization.
        strengths = zip(self.blur, self.solarize, strict=True)
        pairs = zip(jax.random.split(key), views.two_views(batch, "mocov3"), strengths, strict=True)
        images = views.interleave(  # [2 B, H, W, C]
            *(
                views.photometric(k, view, jitter=self.jitter, blur=blur, solarize=solarize)
                for k, view, (blur, solarize) in pairs
            )
        )
        images = pixels.standardize(images, self.mean, self.std)
        queries = self.queries(params, images)  # [B, D] of each view
        keys = self.project(extra["momentum"], images)  # [B, D] of each view
        # Each view's queries are compared with the keys of the other view.
        losses, accuracies = zip(
            *(
                info_nce(query, other, temperature=self.temperature)
                for query, other in zip(queries, reversed(keys), strict=True)
            )
        )
        return Output(sum(losses), extra, {"top1": sum(accuracies) / 2})

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Updates the momentum encoder, an exponential moving average of the parameters. Its
        momentum rises from `momentum` to 1 by a half-cosine schedule.
        """
        progress = jnp.clip(step / self.total_steps, 0, 1)
        rate = (1 - self.momentum) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        base = {name: params[name] for name in extra["momentum"]}
        return {"momentum": ema.move(extra["momentum"], base, rate)}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The momentum encoder starts as the parameters."""
        base = {name: params[name] for name in extra["momentum"]}
        return {"momentum": base}

    def queries(self, params: Params, images: jax.Array) -> list[jax.Array]:
        """Predictions from two interleaved, normalized views [2 B, H, W, C]: one array
        [B, last width of the predictor] float32 for each view.
        """
        predict = lambda x: self.predictor.apply({"params": params["predictor"]}, x)
        return [predict(x) for x in self.project(params, images)]

    def project(self, params: Params, images: jax.Array) -> list[jax.Array]:
        """Projections of two interleaved, normalized views [2 B, H, W, C]: one array
        [B, last width of the projector] float32 for each view. BatchNorm normalizes each view
        separately, as in the authors' code.
        """
        project = lambda x: self.projector.apply({"params": params["projector"]}, x)
        # The encoder runs once on both views, [2 B, D], and the projector on each, [B, D].
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
    """Builds MoCo v3. Batches need two views of each image. With gradient accumulation, the
    negatives are those of the microbatch, not of the whole batch.

    Args:
        encoder: spec string, e.g. 'vit(B, patch=16)' or 'convnext(T)'.
        projector, predictor: widths of their layers, with equal last widths. The authors' projector
            has three layers for ViTs and two, (4096, 256), for convolutional networks.
        temperature: divides the cosine similarities, positive.
        momentum: initial momentum of the momentum encoder, in [0, 1]; it rises to 1 over the run.
        jitter: strengths of brightness, contrast, saturation and hue, see `views.photometric`.
        blur, solarize: probabilities for the first and for the second view.
        pool: features from the tokens, the input of the projector: 'cls' or 'mean' of the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    widths = {"projector": tuple(projector), "predictor": tuple(predictor)}
    for name, value in widths.items():
        check_widths(name, value)
    if projector[-1] != predictor[-1]:
        raise UserError(f"the last widths must be equal, as their outputs are compared: {widths}")
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
