"""Linear probing (arXiv 2111.06377, A.1): a linear classifier is trained on the features of a
frozen encoder, after a BatchNorm without affine parameters. One run can sweep learning rates, with
one head for each on the same features; the evaluator `probe` selects a head. With another objective
the head learns several classes, ordered classes or numbers per image.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.models.limits import chosen
from mae_jax.objectives import Objective, collections, make_objective, weighted
from mae_jax.ops.norm import EPSILON
from mae_jax.rules import Rules, freeze
from mae_jax.types import Batch, Extra, Output, Params, UserError

MOMENTUM = 0.9
"""Decay of the running statistics; PyTorch's momentum of 0.1 is one minus it."""

head_init = nn.initializers.normal(0.01)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbing(ImageMethod):
    """The task; `make` documents the fields."""

    objective: Objective
    lr_factors: tuple[float, ...]
    layer: int

    @property
    def feature_width(self) -> int:
        """Number of values of an image's features, those of the layer."""
        width = self.encoder.width if self.layer == -1 else self.encoder.layer_width(self.layer)
        return super().feature_width // self.encoder.width * width

    @property
    def classes(self) -> int:
        """Number of classes, or of values in a regression."""
        return self.objective.classes

    @property
    def sample(self) -> int:
        """Number of labels that the constants of the objective need."""
        return self.objective.sample

    @property
    def sample_fields(self) -> tuple[str, ...]:
        """The field of the objective."""
        return (self.objective.field,)

    def labels(self) -> Mapping[str, int]:
        """The field of the objective, with `classes` classes."""
        return {self.objective.field: self.classes}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """An image and the labels of the objective."""
        return super().example(image_shape) | {self.objective.field: self.objective.example()}

    def criterion(self) -> tuple[str, ...]:
        """That of the objective."""
        return self.objective.criterion

    def rules(self) -> Rules:
        """The encoder is frozen, and each head has its own learning rate factor."""
        heads = [(rf"^head_{i}/", (lr, 1.0)) for i, lr in enumerate(self.lr_factors)]
        return ((r"^encoder/", None), *heads)

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] of the encoder, before BatchNorm; 'head_logits' [B, heads, classes], or
        'head_' and the name of another output of the objective; with one head also that output.
        """
        output = self.objective.output
        return ("features", f"head_{output}", *((output,) if len(self.lr_factors) == 1 else ()))

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters, and the running statistics of the features."""
        encoder_key, head_key = jax.random.split(key)
        images, objective = self.normalize(batch["image"]), self.objective
        width, keys = self.feature_width, jax.random.split(head_key, len(self.lr_factors))
        columns = 1 if objective.biases else objective.width
        heads = {
            f"head_{i}": {
                "kernel": head_init(keys[i], (width, columns)),
                "bias": jnp.array(objective.biases or jnp.zeros(objective.width), jnp.float32),
            }
            for i in range(len(self.lr_factors))
        }
        params = {"encoder": self.encoder.init(encoder_key, images)["params"], **heads}
        extra = {"mean": jnp.zeros(width), "var": jnp.ones(width)}
        return params, extra | collections(objective)

    def constants(self, sample: Mapping[str, np.ndarray]) -> Extra:
        """The constants of the objective, from its labels, if it has any."""
        objective = self.objective
        return {"objective": objective.constants(sample[objective.field])} if self.sample else {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The sum of the heads' losses: heads share no trained parameters, so each trains as in a
        run with one head. Metrics such as 'top1' are those of the best head.
        """
        images, objective = self.normalize(batch["image"]), self.objective
        features = self.features(freeze(params, self.rules()), images)  # [B, D]
        mean, var = features.mean(axis=0), features.var(axis=0)
        # As in PyTorch, running statistics hold the unbiased variance.
        unbiased = var * len(features) / max(1, len(features) - 1)
        move = lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new
        extra = extra | {"mean": move(extra["mean"], mean), "var": move(extra["var"], unbiased)}
        outputs = self.outputs(params, (features - mean) * jax.lax.rsqrt(var + EPSILON))
        labels, constants = batch[objective.field][:, None], extra.get("objective", {})
        losses = weighted(objective.losses(outputs, labels, constants), batch)  # [B, heads]
        metrics = objective.metrics(outputs, labels, constants)
        best = jnp.min if objective.lower_is_better else jnp.max
        metrics = {name: best(values.mean(axis=0)) for name, values in metrics.items()}
        return Output(losses.mean(axis=0).sum(), extra, metrics)

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        features = self.features(params, self.normalize(batch["image"]))
        # [B, D], by the running statistics as in PyTorch's evaluation mode
        scaled = (features - extra["mean"]) * jax.lax.rsqrt(extra["var"] + EPSILON)
        raw = self.outputs(params, scaled)
        heads = self.objective.predictions(raw, extra.get("objective", {}))  # [B, heads, ...]
        name = self.objective.output
        available = {"features": features, f"head_{name}": heads, name: heads[:, 0]}
        return {name: available[name] for name in outputs}

    def tokens(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes normalized images as tokens [B, prefix + L, D] of the layer."""
        if self.layer == -1:
            return super().tokens(params, images)
        return self.layer_tokens(params, images, [self.layer])[0]

    def outputs(self, params: Params, features: jax.Array) -> jax.Array:
        """Outputs [B, heads, width] of the heads from normalized features [B, D]."""
        heads = [params[f"head_{i}"] for i in range(len(self.lr_factors))]
        # [B, width] each; one score [B, 1] plus the biases [width] where outputs share it
        outputs = [features @ head["kernel"] + head["bias"] for head in heads]
        # Not jnp.stack, which jax2onnx does not support.
        return jnp.concatenate([x[:, None] for x in outputs], axis=1)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 1000,
    objective: str = "classes",
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
        classes: number of classes; of objective='regression' the number of values.
        objective: spec string of what to learn, see `mae_jax.tasks.finetune.make`.
        pool: features from the tokens after the final norm: 'cls' or 'mean' of the patches.
        lr_factors: factors of the scheduled learning rate, positive, with one head for each.
        layer: layer of the encoder whose tokens are used, after the final norm: -1 is the last one;
            others need an encoder that returns its layers, such as vit.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the encoder's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if not lr_factors or min(lr_factors) <= 0:
        raise UserError(f"lr_factors={lr_factors} must be positive, one for each head")
    made = make_objective(objective, classes)
    if len(lr_factors) > 1 and not made.criterion:
        raise UserError(
            f"lr_factors={lr_factors}: objective {objective!r} has no criterion by which the "
            "evaluator probe could select a head: set config.method.args.lr_factors=(1.0,)"
        )
    fields = LinearProbing.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    layers = fields["encoder"].layers
    if layer != -1 and not layers:
        raise UserError(f"layer={layer}: {encoder} returns no layers: leave it out, or use a vit")
    return LinearProbing(
        **fields,
        objective=made,
        lr_factors=tuple(lr_factors),
        layer=chosen("layer", layers, [layer])[0] if layer != -1 else layer,
    )
