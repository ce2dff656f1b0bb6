"""Contrastive tuning of a trained encoder, as in MAE-CT (arXiv 2304.10520) and MIM-Refiner (arXiv
2402.10093): NNCLR (arXiv 2104.14548) on two views of each image. The positive of an image is the
nearest neighbor of its projection among the last projections, which a queue holds.

First only the heads learn, and then also the upper blocks of the encoder, with layer decay. The
lower blocks keep their weights.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.models.heads import ProjectionHead, check_widths
from mae_jax.ops import views
from mae_jax.ops.contrastive import enqueue, nearest, nnclr, unit
from mae_jax.rules import Rules, freeze, layer_rules
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ContrastiveTuning(ImageMethod):
    """The method; `make` documents the fields."""

    views: ClassVar[int] = 2

    projector: ProjectionHead
    predictor: ProjectionHead
    temperature: float
    queue: int
    head_share: float
    tuned_share: float
    layer_decay: float

    @property
    def first_step(self) -> int:
        """The step from which on the encoder learns."""
        return round(self.head_share * self.total_steps)

    def rules(self) -> Rules:
        """The upper blocks and the final norm of the encoder learn from `first_step` on, with layer
        decay; its other parts never. The heads learn from the start, without weight decay.
        """
        count = math.ceil(self.tuned_share * self.encoder.depth)
        rules = layer_rules(self.encoder.depth, self.layer_decay, count)[:-2]  # without the rest
        rules += ((r"^encoder/.*(bias|scale)$", (1.0, 0.0)), (r"^encoder/", (1.0, 1.0)))
        later = [(regex, factors and (*factors, self.first_step)) for regex, factors in rules]
        return (*later, ("", (1.0, 0.0)))

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels, and the queue with
        random directions.

        Raises:
            UserError: the batch has no 'image2'.
        """
        keys = jax.random.split(key, 4)
        images, _ = views.two_views(batch, "contrastive_tuning")
        width = self.projector.widths[-1]
        features = jnp.zeros((len(images), self.feature_width))  # only its shape matters
        projected = jnp.zeros((len(images), width))
        params = {
            "encoder": self.encoder.init(keys[0], self.normalize(images))["params"],
            "projector": self.projector.init(keys[1], features)["params"],
            "predictor": self.predictor.init(keys[2], projected)["params"],
        }
        return params, {"queue": unit(jax.random.normal(keys[3], (self.queue, width)))}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The mean of the losses for both orders of the views. The metric 'top1' is the fraction of
        neighbors whose most similar prediction is that of their image.

        The queue then starts with the projections of the first views, as in NNCLR.
        """
        images = views.interleave(*views.two_views(batch, "contrastive_tuning"))  # [2 B, H, W, C]
        # Without gradients for the lower blocks, XLA skips their backward pass.
        params = freeze(params, self.rules())
        features = self.features(params, self.normalize(images))  # [2 B, D]
        project = lambda x: self.projector.apply({"params": params["projector"]}, x)
        predict = lambda x: self.predictor.apply({"params": params["predictor"]}, x)
        # BatchNorm normalizes each view separately.
        projected = [project(x) for x in views.separate(features)]  # [B, Z] each
        predicted = [predict(x) for x in projected]  # [B, Z] each
        losses, accuracies = zip(
            *(
                nnclr(nearest(x, extra["queue"]), other, temperature=self.temperature)
                for x, other in zip(projected, reversed(predicted), strict=True)
            )
        )
        queue = enqueue(extra["queue"], projected[0])
        return Output(sum(losses) / 2, {"queue": queue}, {"top1": sum(accuracies) / 2})


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    projector: Sequence[int] = (2048, 2048, 256),
    predictor: Sequence[int] = (4096, 256),
    temperature: float = 0.15,
    queue: int = 65536,
    head_share: float = 0.5,
    tuned_share: float = 0.5,
    layer_decay: float = 0.65,
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> ContrastiveTuning:
    """Builds contrastive tuning. Batches need two views of each image, and `init_from` the weights
    of a trained encoder. With gradient accumulation, the negatives are those of the microbatch.

    Args:
        encoder: spec string of the trained encoder.
        projector, predictor: widths of their layers, with equal last widths.
        temperature: divides the cosine similarities, positive.
        queue: number of projections that may be neighbors.
        head_share: fraction of the steps, from the first one, in which only the heads learn.
        tuned_share: fraction of the encoder's blocks, from the last one, that learn afterwards;
            rounded up to whole blocks.
        layer_decay: factor of the learning rate per block towards the input, in (0, 1].
        pool: features from the tokens, the input of the projector: 'mean' of the patches or 'cls'.
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
    if temperature <= 0 or queue < 1:
        raise UserError(f"temperature={temperature} must be positive, and queue={queue} at least 1")
    if not (0 <= head_share <= 1 and 0 < tuned_share <= 1 and 0 < layer_decay <= 1):
        raise UserError(
            f"head_share={head_share} must be in [0, 1], tuned_share={tuned_share} and "
            f"layer_decay={layer_decay} in (0, 1]"
        )
    return ContrastiveTuning(
        **ContrastiveTuning.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        **{name: ProjectionHead(value, dtype=jnp.dtype(dtype)) for name, value in widths.items()},
        temperature=temperature,
        queue=queue,
        head_share=head_share,
        tuned_share=tuned_share,
        layer_decay=layer_decay,
    )
