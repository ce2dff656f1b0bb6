"""Fine-tuning (arXiv 2111.06377, A.1): trains a pre-trained encoder, or only its last blocks, with
a linear classification head. The recipe has mixup, CutMix, label smoothing, stochastic depth and
layer decay.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods.images import ImageMethod
from mae_jax.models.classifier import Classifier
from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.ops import augment
from mae_jax.rules import Rules, freeze, layer_rules
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Finetuning(ImageMethod):
    """The task; `make` documents the fields."""

    classes: int
    layer_decay: float
    trainable: int | str
    smoothing: float
    mixup: float
    cutmix: float
    ema: float

    @property
    def model(self) -> Classifier:
        """Encoder and linear head."""
        return Classifier(self.encoder, self.classes, self.pool)

    def labels(self) -> Mapping[str, int]:
        """The field 'label', with `classes` classes."""
        return {"label": self.classes}

    def rules(self) -> Rules:
        """See `layer_rules`."""
        return layer_rules(self.encoder.depth, self.layer_decay, self.trainable)

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D], the inputs of the head, and 'logits' [B, classes], both float32."""
        return ("features", "logits")

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels, and their EMA."""
        params = self.model.init(key, self.normalize(batch["image"]))["params"]
        return params, {"ema": params} if self.ema else {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy with soft targets, after mixup or CutMix. The metric 'top1' is the accuracy
        for the class with the largest target.
        """
        mix_key, drop_key = jax.random.split(key)
        targets = augment.soft_targets(batch["label"], self.classes, self.smoothing)
        images, targets = augment.mixup_cutmix(
            mix_key,
            self.normalize(batch["image"]),
            targets,
            mixup_alpha=self.mixup,
            cutmix_alpha=self.cutmix,
        )
        # Without gradients for frozen blocks, XLA skips their backward pass.
        variables = {"params": freeze(params, self.rules())}
        _, logits = self.model.apply(variables, images, True, rngs={"drop_path": drop_key})
        # Mean over the batch; targets and logits are [B, classes].
        loss = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))
        correct = jnp.argmax(logits, axis=1) == jnp.argmax(targets, axis=1)
        return Output(loss, extra, {"top1": jnp.mean(correct.astype(jnp.float32))})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`. Uses the EMA of the parameters if `ema` is on."""
        params = extra["ema"] if self.ema else params
        images = self.normalize(batch["image"])
        features, logits = self.model.apply({"params": params}, images)
        available = {"features": features, "logits": logits}
        return {name: available[name] for name in outputs}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Updates the EMA of the parameters."""
        if not self.ema:
            return extra
        decay = jnp.float32(self.ema)  # 1 - decay in float32 as well, so that the weights add to 1
        return {"ema": jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, extra["ema"], params)}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """Resets the EMA to the loaded parameters."""
        return {"ema": params} if self.ema else extra


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
        classes: number of classes, at least 2.
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
    if classes < 2 or not 0 < layer_decay <= 1 or not 0 <= smoothing < 1 or not 0 <= ema < 1:
        raise UserError(
            f"classes={classes} must be at least 2, layer_decay={layer_decay} in (0, 1], "
            f"smoothing={smoothing} and ema={ema} in [0, 1)"
        )
    shared = dict(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    fields = Finetuning.fields(**shared, drop_path=drop_path, final_norm=pool != "mean")
    network = fields["encoder"]
    if isinstance(network, ViT):  # as in the official code, positions are trained, too
        network = network.clone(learned_positions=True)
    return Finetuning(
        **fields | {"encoder": network},
        classes=classes,
        layer_decay=layer_decay,
        trainable=trainable_part(network, trainable),
        smoothing=smoothing,
        mixup=mixup,
        cutmix=cutmix,
        ema=ema,
    )
