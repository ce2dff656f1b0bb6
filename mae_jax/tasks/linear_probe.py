"""Linear probing (arXiv 2111.06377, A.1): a linear classifier is trained on the features of a
frozen encoder, after a BatchNorm without affine parameters. One run can sweep learning rates, with
one head for each on the same features; the evaluator `probe` selects a head.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.models.limits import chosen
from mae_jax.ops.norm import EPSILON
from mae_jax.rules import Rules, freeze
from mae_jax.types import Batch, Extra, Output, Params, UserError

MOMENTUM = 0.9
"""Decay of the running statistics; PyTorch's momentum of 0.1 is one minus it."""

head_init = nn.initializers.normal(0.01)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbing(ImageMethod):
    """The task; `make` documents the fields."""

    classes: int
    lr_factors: tuple[float, ...]
    layer: int

    def labels(self) -> Mapping[str, int]:
        """The field 'label', with `classes` classes."""
        return {"label": self.classes}

    def rules(self) -> Rules:
        """The encoder is frozen, and each head has its own learning rate factor."""
        heads = [(rf"^head_{i}/", (lr, 1.0)) for i, lr in enumerate(self.lr_factors)]
        return ((r"^encoder/", None), *heads)

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] of the encoder, before BatchNorm; 'head_logits' [B, heads, classes];
        and, with one head only, 'logits' [B, classes].
        """
        single = ("logits",) if len(self.lr_factors) == 1 else ()
        return ("features", "head_logits", *single)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters, and the running statistics of the features."""
        encoder_key, head_key = jax.random.split(key)
        images = self.normalize(batch["image"])
        width, keys = self.feature_width, jax.random.split(head_key, len(self.lr_factors))
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
        """The sum of the heads' cross-entropies: heads share no trained parameters, so each trains
        as in a run with one head. The metric 'top1' is the accuracy of the best head.
        """
        images = self.normalize(batch["image"])
        features = self.features(freeze(params, self.rules()), images)  # [B, D]
        mean, var = features.mean(axis=0), features.var(axis=0)
        # As in PyTorch, running statistics hold the unbiased variance.
        unbiased = var * len(features) / max(1, len(features) - 1)
        move = lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new
        extra = {"mean": move(extra["mean"], mean), "var": move(extra["var"], unbiased)}
        logits = self.logits(params, (features - mean) * jax.lax.rsqrt(var + EPSILON))
        labels = jnp.broadcast_to(batch["label"][:, None], logits.shape[:2])  # [B, heads]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.argmax(logits, axis=2) == labels
        return Output(losses.mean(axis=0).sum(), extra, {"top1": correct.mean(axis=0).max()})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        features = self.features(params, self.normalize(batch["image"]))
        # [B, D], by the running statistics as in PyTorch's evaluation mode
        scaled = (features - extra["mean"]) * jax.lax.rsqrt(extra["var"] + EPSILON)
        logits = self.logits(params, scaled)
        available = {"features": features, "head_logits": logits, "logits": logits[:, 0]}
        return {name: available[name] for name in outputs}

    def tokens(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes normalized images as tokens [B, prefix + L, D] of the layer."""
        if self.layer == -1:
            return super().tokens(params, images)
        return self.layer_tokens(params, images, [self.layer])[0]

    def logits(self, params: Params, features: jax.Array) -> jax.Array:
        """Logits [B, heads, classes] from normalized features [B, D]."""
        heads = [params[f"head_{i}"] for i in range(len(self.lr_factors))]
        logits = [features @ head["kernel"] + head["bias"] for head in heads]  # [B, classes] each
        # Not jnp.stack, which jax2onnx does not support.
        return jnp.concatenate([x[:, None] for x in logits], axis=1)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 1000,
    pool: str = "cls",
    lr_factors: Sequence[float] = (1.0,),
    layer: int = -1,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> LinearProbing:
    """Builds the linear probing task.

    Args:
        encoder: spec string of the pre-trained encoder.
        classes: number of classes, at least 2.
        pool: features from the tokens after the final norm: 'cls' or 'mean' of the patches.
        lr_factors: factors of the scheduled learning rate, positive, with one head for each.
        layer: layer of the encoder whose tokens are used, after the final norm: -1 is the last one;
            others need an encoder that returns its layers, such as vit.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the encoder's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if classes < 2 or not lr_factors or min(lr_factors) <= 0:
        raise UserError(f"classes={classes} must be at least 2, lr_factors={lr_factors} positive")
    fields = LinearProbing.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    layers = fields["encoder"].layers
    if layer != -1 and not layers:
        raise UserError(f"layer={layer}: {encoder} returns no layers: leave it out, or use a vit")
    return LinearProbing(
        **fields,
        classes=classes,
        lr_factors=tuple(lr_factors),
        layer=chosen("layer", layers, [layer])[0] if layer != -1 else layer,
    )
