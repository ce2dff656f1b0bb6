"""Linear probing (arXiv 2111.06377, A.1): the encoder is frozen, its features go through a
BatchNorm without parameters, and a linear classifier learns. Several learning rates are tried at
once, as heads side by side on the same features; the evaluator `probe` picks one of them.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.ops.norm import EPSILON
from mae_jax.rules import Rules, freeze
from mae_jax.types import Batch, Extra, Output, Params, UserError

MOMENTUM = 0.9
"""Of the running statistics; what PyTorch calls a momentum of 0.1."""

head_init = nn.initializers.normal(0.01)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbing(ImageMethod):
    """The task; `make` documents the fields."""

    classes: int
    lr_factors: tuple[float, ...]

    def labels(self) -> Mapping[str, int]:
        """One label for each image."""
        return {"label": self.classes}

    def rules(self) -> Rules:
        """The encoder stays as it is, and each head has a learning rate of its own."""
        heads = [(rf"^head_{i}/", (lr, 1.0)) for i, lr in enumerate(self.lr_factors)]
        return ((r"^encoder/", None), *heads)

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] as the encoder gives them, and 'head_logits' [B, heads, classes]; with
        one head also 'logits' [B, classes].
        """
        alone = ("logits",) if len(self.lr_factors) == 1 else ()
        return ("features", "head_logits", *alone)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters, and the running statistics of the features."""
        encoder_key, head_key = jax.random.split(key)
        images = self.normalize(batch["image"])
        width, keys = self.encoder.width, jax.random.split(head_key, len(self.lr_factors))
        heads = {
            f"head_{i}": {
                "kernel": head_init(keys[i], (width, self.classes)),
                "bias": jnp.zeros(self.classes),
            }
            for i in range(len(self.lr_factors))
        }
        params = {"encoder": self.encoder.init(encoder_key, images)["params"], **heads}
        return params, {"mean": jnp.zeros(width), "var": jnp.ones(width)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy, added over the heads, which so learn as if each were alone."""
        images = self.normalize(batch["image"])
        features = self.features(freeze(params, self.rules()), images)
        mean, var = features.mean(axis=0), features.var(axis=0)
        unbiased = var * len(features) / max(1, len(features) - 1)
        move = lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new
        extra = {"mean": move(extra["mean"], mean), "var": move(extra["var"], unbiased)}
        logits = self.logits(params, (features - mean) * jax.lax.rsqrt(var + EPSILON))
        labels = jnp.broadcast_to(batch["label"][:, None], logits.shape[:2])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        hits = jnp.argmax(logits, axis=2) == labels
        return Output(losses.mean(axis=0).sum(), extra, {"top1": hits.mean(axis=0).max()})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        features = self.features(params, self.normalize(batch["image"]))
        scaled = (features - extra["mean"]) * jax.lax.rsqrt(extra["var"] + EPSILON)
        logits = self.logits(params, scaled)
        found = {"features": features, "head_logits": logits, "logits": logits[:, 0]}
        return {name: found[name] for name in outputs}

    def logits(self, params: Params, features: jax.Array) -> jax.Array:
        """[B, heads, classes] of features [B, D]."""
        heads = [params[f"head_{i}"] for i in range(len(self.lr_factors))]
        logits = [features @ head["kernel"] + head["bias"] for head in heads]
        return jnp.concatenate([one[:, None] for one in logits], axis=1)  # no stack in jax2onnx


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 1000,
    pool: str = "cls",
    lr_factors: Sequence[float] = (1.0,),
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> LinearProbing:
    """Linear probing.

    Args:
        encoder: spec string of the encoder that was pre-trained.
        classes: their number.
        pool: 'cls' or 'mean' of the patches, after the encoder's norm.
        lr_factors: one head for each, times the learning rate of the schedule.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the encoder computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    if classes < 2 or not lr_factors or min(lr_factors) <= 0:
        raise UserError(f"classes={classes} must be at least 2, lr_factors={lr_factors} positive")
    return LinearProbing(
        **LinearProbing.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        classes=classes,
        lr_factors=tuple(lr_factors),
    )
