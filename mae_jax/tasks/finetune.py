"""Fine-tuning (arXiv 2111.06377, A.1): trains a pre-trained encoder, or only its last blocks, with
a linear head, for one or several classes, ordered classes or numbers per image. The recipe has
mixup, CutMix, label smoothing, stochastic depth and layer decay.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.methods.images import ImageMethod
from mae_jax.models.classifier import Classifier
from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.objectives import Objective, collections, make_objective, weighted
from mae_jax.ops import augment
from mae_jax.rules import Rules, freeze, layer_rules
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Finetuning(ImageMethod):
    """The task; `make` documents the fields."""

    objective: Objective
    layer_decay: float
    trainable: int | str
    smoothing: float
    mixup: float
    cutmix: float
    ema: float

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

    @property
    def model(self) -> Classifier:
        """Encoder and linear head."""
        objective = self.objective
        return Classifier(self.encoder, objective.width, self.pool, objective.biases)

    def labels(self) -> Mapping[str, int]:
        """The field of the objective, with `classes` classes."""
        return {self.objective.field: self.classes}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """An image and the labels of the objective."""
        return super().example(image_shape) | {self.objective.field: self.objective.example()}

    def rules(self) -> Rules:
        """See `layer_rules`."""
        return layer_rules(self.encoder.depth, self.layer_decay, self.trainable)

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D], the inputs of the head, and the objective's output: 'logits' or
        'multilabel_logits' [B, classes], or 'prediction' [B, values]; all float32.
        """
        return ("features", self.objective.output)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels, and their EMA."""
        params = self.model.init(key, self.normalize(batch["image"]))["params"]
        return params, collections(self.objective) | ({"ema": params} if self.ema else {})

    def constants(self, sample: Mapping[str, np.ndarray]) -> Extra:
        """The constants of the objective, from its labels, if it has any."""
        objective = self.objective
        return {"objective": objective.constants(sample[objective.field])} if self.sample else {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The objective's loss, with soft targets after mixup or CutMix where it has such; the mean
        over the batch, each example times its 'weight' if there are weights.
        """
        mix_key, drop_key = jax.random.split(key)
        objective, constants = self.objective, extra.get("objective", {})
        images, labels = self.normalize(batch["image"]), batch[objective.field]
        if objective.soft:
            targets = weighted(objective.targets(labels, constants, self.smoothing), batch)
            images, labels = augment.mixup_cutmix(
                mix_key, images, targets, mixup_alpha=self.mixup, cutmix_alpha=self.cutmix
            )
        # Without gradients for frozen blocks, XLA skips their backward pass.
        variables = {"params": freeze(params, self.rules())}
        _, outputs = self.model.apply(variables, images, True, rngs={"drop_path": drop_key})
        losses = objective.losses(outputs, labels, constants)  # [B]
        losses = losses if objective.soft else weighted(losses, batch)
        metrics = objective.metrics(outputs, labels, constants)
        return Output(jnp.mean(losses), extra, {k: jnp.mean(v) for k, v in metrics.items()})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`. Uses the EMA of the parameters if `ema` is on."""
        params = extra["ema"] if self.ema else params
        images, objective = self.normalize(batch["image"]), self.objective
        features, raw = self.model.apply({"params": params}, images)
        predictions = objective.predictions(raw, extra.get("objective", {}))
        available = {"features": features, objective.output: predictions}
        return {name: available[name] for name in outputs}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Updates the EMA of the parameters."""
        if not self.ema:
            return extra
        decay = jnp.float32(self.ema)  # 1 - decay in float32 as well, so that the weights add to 1
        moved = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, extra["ema"], params)
        return {**extra, "ema": moved}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """Resets the EMA to the loaded parameters."""
        return {**extra, "ema": params} if self.ema else extra


def trainable_part(network: Encoder, trainable: int | str) -> int | str:
    """`trainable` of `layer_rules`, checked for an encoder.

    Raises:
        UserError: a value that it cannot be.
    """
    trainable = int(trainable) if str(trainable).isdigit() else trainable
    if trainable not in ("all", "mlp") and trainable not in range(network.depth + 1):
        raise UserError(
            f"trainable {trainable!r}: choose 'all', 'mlp' or a number up to {network.depth}"
        )
    if trainable == "mlp" and not isinstance(network, ViT):
        raise UserError("trainable 'mlp' is for transformers: choose a number of blocks, or 'all'")
    return trainable


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 1000,
    objective: str = "classes",
    pool: str = "mean",
    drop_path: float = 0.1,
    layer_decay: float = 0.75,
    trainable: int | str = "all",
    smoothing: float = 0.1,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    ema: float = 0.0,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Finetuning:
    """Builds the fine-tuning task.

    Args:
        encoder: spec string of the pre-trained encoder.
        classes: number of classes; of objective='regression' the number of values.
        objective: spec string of what to learn, see `mae_jax.objectives`: 'classes' of the field
            'label', 'multilabel' of 'labels', 'regression' of 'value', or 'ordered' classes of
            'label'; with class weights 'classes(class_weights=balanced)'.
        pool: features from the tokens: 'mean' of the patches, followed by a LayerNorm, or 'cls'.
        drop_path: rate of stochastic depth in the last block, in [0, 1).
        layer_decay: factor of the learning rate per block towards the input, in (0, 1].
        trainable: 'all', the number of last blocks to train, or 'mlp', the MLP of the last block.
        smoothing: label smoothing, in [0, 1).
        mixup, cutmix: their alphas, 0 for off; if both are on, each has probability 1/2 per batch.
        ema: decay of the parameters' exponential moving average, used by `predict`; 0: no EMA.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the network's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if not 0 < layer_decay <= 1 or not 0 <= smoothing < 1 or not 0 <= ema < 1:
        raise UserError(
            f"layer_decay={layer_decay} in (0, 1], smoothing={smoothing}, ema={ema} in [0, 1): one "
            "of them is outside"
        )
    mixing = dict(smoothing=smoothing, mixup=mixup, cutmix=cutmix)
    shared = dict(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    fields = Finetuning.fields(**shared, drop_path=drop_path, final_norm=pool != "mean")
    network = fields["encoder"]
    if isinstance(network, ViT):  # as in the official code, positions are trained, too
        network = network.clone(learned_positions=True)
    return Finetuning(
        **fields | {"encoder": network},
        objective=make_objective(objective, classes, mixing),
        layer_decay=layer_decay,
        trainable=trainable_part(network, trainable),
        smoothing=smoothing,
        mixup=mixup,
        cutmix=cutmix,
        ema=ema,
    )
