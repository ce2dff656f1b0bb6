"""Fine-tuning (arXiv 2111.06377, A.1): the whole encoder, or its last blocks, learns to classify;
mixed images, soft targets, and learning rates that fall from block to block towards the input.
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
from mae_jax.rules import Rules, freeze
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
        """The network."""
        return Classifier(self.encoder, self.classes, self.pool)

    def labels(self) -> Mapping[str, int]:
        """One label for each image."""
        return {"label": self.classes}

    def rules(self) -> Rules:
        """See `layer_rules`."""
        return layer_rules(self.encoder.depth, self.layer_decay, self.trainable)

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D], inputs of the head, and 'logits' [B, classes], both float32."""
        return ("features", "logits")

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        params = self.model.init(key, self.normalize(batch["image"]))["params"]
        return params, {"ema": params} if self.ema else {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Cross-entropy with soft targets, of mixed images."""
        mix_key, drop_key = jax.random.split(key)
        targets = augment.soft_targets(batch["label"], self.classes, self.smoothing)
        images, targets = augment.mixup_cutmix(
            mix_key,
            self.normalize(batch["image"]),
            targets,
            mixup_alpha=self.mixup,
            cutmix_alpha=self.cutmix,
        )
        variables = {"params": freeze(params, self.rules())}
        _, logits = self.model.apply(variables, images, True, rngs={"drop_path": drop_key})
        loss = -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))
        hit = jnp.argmax(logits, axis=1) == jnp.argmax(targets, axis=1)
        return Output(loss, extra, {"top1": jnp.mean(hit.astype(jnp.float32))})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """Those of the averaged weights, if there are any."""
        params = extra["ema"] if self.ema else params
        images = self.normalize(batch["image"])
        features, logits = self.model.apply({"params": params}, images)
        found = {"features": features, "logits": logits}
        return {name: found[name] for name in outputs}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Moves the averaged weights."""
        if not self.ema:
            return extra
        decay = jnp.float32(self.ema)
        return {"ema": jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, extra["ema"], params)}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The averaged weights start as the weights."""
        return {"ema": params} if self.ema else extra


def layer_rules(depth: int, layer_decay: float, trainable: int | str) -> Rules:
    """(regex, (lr factor, decay factor) or None) for an encoder of `depth` blocks and its head.
    What stands in front of a block in a convolutional encoder goes with it.

    The factor of block i is layer_decay ** (depth - i), of what comes before the first block
    layer_decay ** (depth + 1), of what follows the last 1. Biases, norms, positions and the class
    token are not decayed.

    Args:
        trainable: 'all'; a number of last blocks; or 'mlp': the MLP of the last block. The head and
            the norm in front of it always learn.
    """
    count = depth if trainable == "all" else 0 if trainable == "mlp" else trainable
    first = layer_decay ** (depth + 1)
    rules: list[tuple[str, tuple[float, float] | None]] = []

    def group(pattern: str, factor: float, trained: bool) -> None:
        if trained:
            rules.append((rf"{pattern}.*(bias|scale)$", (factor, 0.0)))
        rules.append((pattern, (factor, 1.0) if trained else None))

    if trainable == "mlp":
        group(rf"^encoder/block_{depth - 1}/(mlp|norm2)/", layer_decay, True)
    rules.append((r"^encoder/(cls_token|positions)$", (first, 0.0) if trainable == "all" else None))
    group(r"^encoder/embed", first, trainable == "all")
    for i in range(depth):
        group(rf"^encoder/(block|down)_{i}/", layer_decay ** (depth - i), i >= depth - count)
    group("", 1.0, True)
    return tuple(rules)


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
    """Fine-tuning.

    Args:
        encoder: spec string of the encoder that was pre-trained.
        classes: their number.
        pool: 'mean' of the patches with a norm of its own, or 'cls'.
        drop_path: rate of stochastic depth in the last block.
        layer_decay: factor of the learning rate from block to block, towards the input.
        trainable: 'all', the number of last blocks that learn, or 'mlp' for half a block.
        smoothing: of labels.
        mixup, cutmix: their alphas, 0 for none; where both are on, each has half of the batches.
        ema: decay of averaged weights, which then do the predicting; 0: none.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    if classes < 2 or not 0 < layer_decay <= 1 or not 0 <= smoothing < 1 or not 0 <= ema < 1:
        raise UserError(
            f"classes={classes} must be at least 2, layer_decay={layer_decay} in (0, 1], "
            f"smoothing={smoothing} and ema={ema} in [0, 1)"
        )
    shared = dict(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    fields = Finetuning.fields(**shared, drop_path=drop_path, final_norm=pool == "cls")
    network = fields["encoder"]
    if isinstance(network, ViT):
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
