"""Semantic segmentation of images and volumes from a pre-trained encoder (arXiv 2111.06377, section
5 and A.4): a linear head, also on a frozen encoder; transposed convolutions, also of volumes; or
UperNet with an auxiliary head, whose weight is 0.4.

The loss is the mean cross-entropy over the valid pixels of the batch, at full resolution, if asked
for with Dice; MMSegmentation divides by all pixels, ignored ones included. With `accumulate`, it is
that of each part of a batch, and so are the statistics of BatchNorm.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.methods.images import ImageMethod
from mae_jax.models.segmenter import HEADS, Segmenter
from mae_jax.models.vit import ViT
from mae_jax.ops.dice import loss_of
from mae_jax.ops.interpolate import resize
from mae_jax.ops.patches import grid_of, one_or_all, patch_sides
from mae_jax.ops.photometric import photometric_distortion
from mae_jax.ops.pixels import standardize
from mae_jax.ops.resample import resample_positions
from mae_jax.ops.windows import mean_of_windows, pad_to_multiple
from mae_jax.rules import Rules, freeze, layer_rules
from mae_jax.spec import check_choice
from mae_jax.tasks.finetune import trainable_part
from mae_jax.types import IGNORE, Batch, Extra, Output, Params, UserError

AUXILIARY = 0.4
"""Weight of the auxiliary head's loss."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(ImageMethod):
    """The task; `make` documents the fields. The running statistics of BatchNorm are
    extra['batch_stats'].
    """

    classes: int
    head: str
    loss_kind: str
    crop: int | tuple[int, ...]
    width: int
    photometric: bool
    layer_decay: float
    trainable: int | str

    @property
    def rank(self) -> int | None:
        """UperNet is for images; other heads are for any number of dimensions."""
        return 2 if self.head == "upernet" or self.photometric else None

    @property
    def model(self) -> Segmenter:
        """The network."""
        return Segmenter(self.encoder, self.classes, self.head, self.width)

    def labels(self) -> Mapping[str, int]:
        """A class for each pixel."""
        return {"segmentation": self.classes}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Segmentations have the sides of the images."""
        rows = super().example(image_shape)
        return rows | {"segmentation": jax.ShapeDtypeStruct((1, *image_shape[:-1]), np.int32)}

    def rules(self) -> Rules:
        """See `layer_rules`; with trainable=0 nothing of the encoder learns."""
        frozen = [("^encoder/", None)] if self.trainable == 0 else []
        return (*frozen, *layer_rules(self.encoder.depth, self.layer_decay, self.trainable))

    def loads(self) -> Mapping[str, str]:
        """The encoder; relative positions start at zero."""
        return {"params/encoder": "^positions$|/relative_positions/"}

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] float32, 'tokens' [B, prefix + L, D], and 'segmentation', logits
        [B, *space, classes] float32, of images of any size.
        """
        return (*super().offers(), "segmentation")

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Parameters for crops, and running statistics."""
        names = ("params", "drop_path", "dropout")
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        variables = self.model.init(keys, self.crops(batch["image"]), True)
        return variables["params"], {k: variables[k] for k in ("batch_stats",) if k in variables}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The loss of `ops.dice`, 0 if no pixel has a class; 'accuracy' is the share of the pixels
        with a class that is predicted.
        """
        labels, names = batch["segmentation"], ("drop_path", "dropout")
        key, color_key = jax.random.split(key)
        images = self.crops(batch["image"], color_key if self.photometric else None)
        logits, moved = self.model.apply(
            {"params": freeze(params, self.rules()), **extra},
            images,
            True,
            rngs=dict(zip(names, jax.random.split(key), strict=True)),
            mutable=["batch_stats"],
        )
        logits = [resize(maps, images.shape[1:-1]) for maps in logits]  # [B, *space, classes] each
        losses = [loss_of(self.loss_kind)(maps, labels) for maps in logits]
        known = labels != IGNORE  # [B, *space]
        hits = known & (jnp.argmax(logits[0], axis=-1) == labels)
        loss = losses[0] + AUXILIARY * sum(losses[1:])
        return Output(loss, dict(moved), {"accuracy": hits.sum() / jnp.maximum(known.sum(), 1)})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`. With batch['windows'] [B, n, rank] int32, the first pixels of crops,
        logits are the mean over the crops at each pixel, by batch['weights'] [B, *crop] if given.
        """
        images, found = self.normalize(batch["image"]), {}
        if "segmentation" in outputs and "windows" in batch:
            found["segmentation"] = self.logits_of_windows(params, extra, images, batch)
        elif "segmentation" in outputs:
            found["segmentation"] = self.logits(params, extra, images)
        if {"features", "tokens"} & {*outputs}:
            found["tokens"] = self.tokens(params, images)
            found["features"] = self.pooled(found["tokens"])
        found |= self.of_layers(params, images, outputs)
        return {name: found[name] for name in outputs}

    def tokens(self, params: Params, images: jax.Array) -> jax.Array:
        """Those of normalized images of any size, padded as in `logits`."""
        images = self.padded(images)
        return super().tokens(self.fitted(params, images.shape[1:-1]), images)

    def layer_tokens(
        self, params: Params, images: jax.Array, layers: Sequence[int]
    ) -> list[jax.Array]:
        """Those of layers, as `tokens`."""
        images = self.padded(images)
        return super().layer_tokens(self.fitted(params, images.shape[1:-1]), images, layers)

    def logits(self, params: Params, extra: Extra, images: jax.Array) -> jax.Array:
        """[B, *space, classes] float32 of normalized images [B, *space, C] of any size, which are
        padded with the mean color, after the last pixels of each axis, up to whole patches.
        """
        space, images = images.shape[1:-1], self.padded(images)
        params = self.fitted(params, images.shape[1:-1])
        (logits,) = self.model.apply({"params": params, **extra}, images)
        return resize(logits, images.shape[1:-1])[(slice(None), *map(slice, space))]

    def logits_of_windows(
        self, params: Params, extra: Extra, images: jax.Array, batch: Batch
    ) -> jax.Array:
        """The same from crops alone, see `predict`; 0 where there is no crop."""
        space = images.shape[1:-1]
        crop, predict = self.crop_sides(len(space)), partial(self.logits, params, extra)
        images = pad_to_multiple(images, patch_sides(self.encoder.patch, len(space)), crop)
        how = (batch["windows"], crop, self.classes, batch.get("weights"))
        mean = mean_of_windows(predict, images, *how)
        return mean[(slice(None), *map(slice, space))]

    def padded(self, images: jax.Array) -> jax.Array:
        """Normalized images with zeros, the mean color, up to whole patches."""
        return pad_to_multiple(images, patch_sides(self.encoder.patch, images.ndim - 2))

    def crop_sides(self, rank: int) -> tuple[int, ...]:
        """Sides of a crop of images of `rank` dimensions.

        Raises:
            UserError: `crop` has another number of sides.
        """
        sides = one_or_all(self.crop)
        if len(sides) not in (1, rank):
            raise UserError(
                f"config.method.args.crop={self.crop} has {len(sides)} sides, and images have "
                f"{rank} dimensions: give one for each, or one number for all"
            )
        return sides * rank if len(sides) == 1 else sides

    def crops(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Normalized training images of uint8 ones; with a key, their colors are distorted.

        Raises:
            UserError: they are no crops.
        """
        space = images.shape[1:-1]
        if space != (crop := self.crop_sides(len(space))):
            wanted, given = (" x ".join(map(str, sides)) for sides in (crop, space))
            last = f"class_crop({self.crop})" if len(space) == 2 else f"random_crop({crop})"
            raise UserError(
                f"segmentation learns from crops of {wanted} pixels, and these are {given}: set "
                f"config.method.args.crop, or end config.data.train_transform in {last}"
            )
        if key is None:
            return self.normalize(images)
        colors = photometric_distortion(key, images.astype(jnp.float32) / 255)
        return standardize(colors, self.mean, self.std)

    def fitted(self, params: Params, space: tuple[int, ...]) -> Params:
        """The parameters, with learned positions resampled for images of another size than crops.

        Raises:
            UserError: the encoder has relative positions, which are for crops alone.
        """
        encoder, crop = self.encoder, self.crop_sides(len(space))
        if space == crop:
            return params
        if isinstance(encoder, ViT) and encoder.relative_positions:
            wanted, given = (" x ".join(map(str, sides)) for sides in (crop, space))
            raise UserError(
                f"with relative_positions=True images have to be {wanted}, and these are {given}: "
                "predict by sliding windows of that size"
            )
        if "positions" not in params["encoder"]:
            return params
        table = resample_positions(
            params["encoder"]["positions"],
            grid_of(crop, encoder.patch),
            grid_of(space, encoder.patch),
            prefix=encoder.prefix,
        )
        return {**params, "encoder": {**params["encoder"], "positions": table}}


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    classes: int = 150,
    head: str = "upernet",
    loss: str = "cross_entropy",
    crop: int | Sequence[int] = 512,
    width: int | None = None,
    photometric: bool = False,
    drop_path: float = 0.1,
    layer_decay: float = 0.65,
    trainable: int | str = "all",
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Segmentation:
    """Semantic segmentation.

    Args:
        encoder: spec string of the encoder that was pre-trained; a ViT's with
            relative_positions=True has BEiT's relative position bias, which fixes the size of
            images to that of crops.
        classes: their number, at most 255.
        head: 'upernet'; 'transposed', for volumes, too; or 'linear', which is resized.
        loss: spec string, 'cross_entropy' or 'dice_cross_entropy', see `ops.dice`.
        crop: side in pixels of training images, and of sliding windows, or one for each axis.
        width: of 'upernet'; None: 768, or 1024 for encoders of at least 1024.
        photometric: distort the colors of training images, see `ops.photometric`.
        drop_path: rate of stochastic depth in the last block; none in a frozen encoder.
        layer_decay: factor of the learning rate from block to block, towards the input.
        trainable: 'all', the number of last blocks that learn (0: the encoder is frozen), or 'mlp'
            for half a block.
        pool: of the output 'features', 'mean' or 'cls'.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    check_choice("head", head, HEADS)
    loss_of(loss)
    if not 2 <= classes <= IGNORE or not 0 < layer_decay <= 1:
        raise UserError(
            f"classes={classes} must be from 2 to {IGNORE}, layer_decay={layer_decay} in (0, 1]"
        )
    if width is not None and width < 1:
        raise UserError(f"width={width} must be positive")
    shared = dict(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    drop_path = 0.0 if trainable in (0, "0") else drop_path
    fields = Segmentation.fields(**shared, drop_path=drop_path, final_norm=head != "upernet")
    network, sides = fields["encoder"], one_or_all(crop)
    rank = max(len(sides), len(one_or_all(network.patch)))
    patch = patch_sides(network.patch, rank)
    sides = sides * rank if len(sides) == 1 else sides
    if len(sides) != rank or any(n < 1 or n % side for n, side in zip(sides, patch)):
        raise UserError(
            f"crop={crop} is not a positive multiple of {network.patch}, the patch of {encoder}"
        )
    if isinstance(network, ViT):
        network = network.clone(learned_positions=True)
    return Segmentation(
        **fields | {"encoder": network},
        classes=classes,
        head=head,
        loss_kind=loss,
        crop=crop if isinstance(crop, int) else tuple(crop),
        width=width or (1024 if network.width >= 1024 else 768),
        photometric=photometric,
        layer_decay=layer_decay,
        trainable=trainable_part(network, trainable),
    )
