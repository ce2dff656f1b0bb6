"""A task: a linear classifier on the features of a frozen, pre-trained encoder."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.rules import DECAY_MATRICES, Rules
from mae_jax.types import Batch, Extra, Output, Params


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classify(ImageMethod):
    """A linear classifier; `make` documents the fields."""

    classes: int

    def labels(self) -> Mapping[str, int]:
        """Batch field that the loss reads -> number of its classes."""
        return {"label": self.classes}

    def rules(self) -> Rules:
        """Freezes the encoder; decays the weights of matrices."""
        return (("^encoder/", None), *DECAY_MATRICES)

    def offers(self) -> tuple[str, ...]:
        """'features' and 'tokens' of the encoder; 'logits' [B, classes]."""
        return (*super().offers(), "logits")

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initial parameters; `init_from` may load those of the encoder."""
        keys, images = jax.random.split(key), self.normalize(batch["image"])
        features = jnp.zeros((1, self.feature_width))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "head": nn.Dense(self.classes).init(keys[1], features)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Mean cross-entropy; the metric 'top1' is the accuracy on the batch."""
        logits = self.logits(params, batch)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        return Output(loss, extra, {"top1": jnp.mean(logits.argmax(axis=1) == batch["label"])})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """The named outputs, see `offers`."""
        others = [name for name in outputs if name != "logits"]
        found = super().predict(params, extra, batch, outputs=others)
        return found | ({"logits": self.logits(params, batch)} if "logits" in outputs else {})

    def logits(self, params: Params, batch: Batch) -> jax.Array:
        """Logits [B, classes]."""
        features = self.features(params, self.normalize(batch["image"]))  # [B, D]
        return nn.Dense(self.classes).apply({"params": params["head"]}, features)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 10,
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Classify:
    """Makes the task. In a config: method.name='my_project.task'

    Args:
        encoder: spec string of the pre-trained encoder.
        classes: number of classes.
        pool: features are the 'cls' token or the 'mean' over the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: type of the computation, 'float32' or 'bfloat16'.
    """
    fields = ImageMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    return Classify(classes=classes, **fields)
