"""Object detection and instance segmentation from a pre-trained encoder: Mask R-CNN (arXiv
1703.06870) on a ViT with windows and a simple feature pyramid (ViTDet, arXiv 2203.16527), or on an
encoder with stages.

The loss is the sum of five: objectness and boxes of the proposals, class and box of the detections,
and their masks. With `accumulate`, those of the second stage are means over the sample of each
microbatch.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.methods.images import ImageMethod
from mae_jax.models.encoder import Encoder
from mae_jax.models.mask_rcnn import MaskRCNN
from mae_jax.models.vit import ViT
from mae_jax.models.vitdet import ViTDet
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.ops.resample import resample_positions
from mae_jax.rules import Rules, freeze, layer_rules
from mae_jax.types import Adapt, Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detection(ImageMethod):
    """The task; `make` documents the fields."""

    rank: ClassVar[int | None] = 2

    classes: int
    size: int
    objects: int
    mask_size: int
    layer_decay: float
    masks: bool
    heads: Mapping[str, Any]
    """Fields of `MaskRCNN`."""

    @property
    def model(self) -> MaskRCNN:
        """The network."""
        return MaskRCNN(self.encoder, self.classes, masks=self.masks, **self.heads)

    def labels(self) -> Mapping[str, int]:
        """A class for each box."""
        return {"box_label": self.classes}

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Objects beside the image: 'box', 'box_label' and, with masks, 'box_mask'."""
        count, side = self.objects, self.mask_size
        objects = {
            "box": jax.ShapeDtypeStruct((1, count, 4), np.float32),
            "box_label": jax.ShapeDtypeStruct((1, count), np.int32),
            "box_mask": jax.ShapeDtypeStruct((1, count, side, side), np.uint8),
        }
        if not self.masks:
            del objects["box_mask"]
        return super().example(image_shape) | objects

    def rules(self) -> Rules:
        """See `layer_rules`."""
        return layer_rules(self.encoder.depth, self.layer_decay, "all")

    def loads(self) -> Mapping[str, str]:
        """The encoder; relative positions start at zero, and learned ones as sine and cosine."""
        return {"params/encoder": "^positions$|/relative_(rows|columns)$"}

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """See `ImageMethod.adapt`. Positions of class tokens are dropped, and learned ones are
        resampled to `position_grid`, from which the network resamples them in each step.
        """
        resample, encoder = super().adapt(shape, old), self.encoder
        if not isinstance(encoder, ViTDet):
            return resample

        def fitted(path: str, array: np.ndarray):
            if path != "positions":
                return resample(path, array)
            side = math.isqrt(len(array))
            grid = grid_of(old[:-1], encoder.patch) if old else (side, side)
            if len(array) - math.prod(grid) not in (0, 1):
                grid = (side, side)  # of a detector, whose images are larger than in pre-training
            patches = array[len(array) - math.prod(grid) :]  # [L, D], without class tokens
            new = (encoder.position_grid, encoder.position_grid)
            return resample_positions(jnp.asarray(patches), grid, new, prefix=0)

        return fitted

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] float32, 'tokens' [B, L, D], and `ops.boxes.OUTPUTS`, with masks of 28
        x 28.
        """
        return (*super().offers(), *OUTPUTS)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Parameters for images of `size`."""
        keys = dict(zip(("params", "drop_path"), jax.random.split(key), strict=True))
        image = batch["image"]
        objects = {
            name: jnp.zeros((len(image), *x.shape[1:]), x.dtype)
            for name, x in self.example(image.shape[1:]).items()
            if name != "image"
        }
        inputs = self.inputs_of({"image": image, **objects})
        return self.model.init(keys, *inputs, key, True, method="losses")["params"], {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The sum of the losses, which are the metrics."""
        drop_key, key = jax.random.split(key)
        losses = self.model.apply(
            {"params": freeze(params, self.rules())},
            *self.inputs_of(batch),
            key,
            True,
            rngs={"drop_path": drop_key},
            method="losses",
        )
        return Output(sum(losses.values()), extra, losses)

    def inputs_of(self, batch: Batch) -> tuple[jax.Array | None, ...]:
        """Normalized images, boxes in pixels, classes, masks if any, and which are no padding.

        Raises:
            UserError: images of another size.
        """
        images = self.normalize(batch["image"])
        if images.shape[1:3] != (self.size, self.size):
            raise UserError(
                f"detection learns from images of {self.size} x {self.size} pixels, and these are "
                f"{images.shape[1]} x {images.shape[2]}: set config.method.args.size, or end "
                f"config.data.train_transform in large_scale_jitter({self.size})"
            )
        labels = batch["box_label"]
        valid = labels >= 0  # NO_BOX is negative
        boxes = batch["box"] * self.size  # [B, n, 4] in pixels
        masks = batch["box_mask"] if self.masks else None
        return images, boxes, jnp.where(valid, labels, 0), masks, valid

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`. With batch['image_size'] [B, 2] float32, boxes end at this height and width
        in pixels, below and right of which images are padded.
        """
        images, found = self.normalize(batch["image"]), {}
        if {*OUTPUTS} & {*outputs}:
            space = jnp.array(images.shape[1:3], jnp.float32)
            sizes = batch.get("image_size", jnp.broadcast_to(space, (len(images), 2)))
            objects, masks = self.model.apply({"params": params}, images, sizes, method="detect")
            boxes = objects.boxes / jnp.tile(space, 2)
            values = (boxes, objects.scores, objects.labels, objects.valid, masks)
            found |= dict(zip(OUTPUTS, values, strict=True))
        if {"features", "tokens"} & {*outputs}:
            found["tokens"] = self.tokens(params, images)
            found["features"] = self.pooled(found["tokens"])
        found |= self.of_layers(params, images, outputs)
        return {name: found[name] for name in outputs}


def make(
    *,
    encoder: str = "vitdet(B)",
    classes: int = 80,
    size: int = 1024,
    objects: int = 100,
    mask_size: int = 112,
    masks: bool = True,
    cascade: bool = False,
    width: int = 256,
    hidden: int = 1024,
    head_convs: int = 4,
    anchor_scale: float = 8.0,
    proposals: int = 1000,
    sample: int = 512,
    detections: int = 100,
    drop_path: float = 0.1,
    layer_decay: float = 0.7,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> Detection:
    """Object detection and instance segmentation.

    Args:
        encoder: spec string: 'vitdet(B)' with the weights of a vit, or an encoder of four stages,
            as convnext(T).
        classes: their number.
        size: side in pixels of the square input, in training and, for a vitdet, in detection.
        objects: of an image in training, at most; of the source, too.
        mask_size: side of their masks, as in the source.
        masks: False for sets of boxes alone: the mask of a detection is its box.
        cascade: three box heads, each of which refines the boxes of the one before (arXiv
            1712.00726).
        width: of the pyramid and of the convolutions in the heads.
        hidden: width of the box head's last hidden layer.
        head_convs: number of convolutions in each head.
        anchor_scale: sides of anchors in strides of their level.
        proposals: of an image, of which the second stage decides; before overlapping ones are
            suppressed, as many of each level, and in training twice as many.
        sample: of proposals on which the second stage is trained.
        detections: of an image, at most.
        drop_path: rate of stochastic depth in the last block.
        layer_decay: factor of the learning rate from block to block, towards the input.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    check_numbers(
        layer_decay,
        anchor_scale,
        classes=classes,
        size=size,
        objects=objects,
        mask_size=mask_size,
        width=width,
        hidden=hidden,
        head_convs=head_convs,
        proposals=proposals,
        sample=sample,
        detections=detections,
    )
    shared = dict(encoder=encoder, pool="mean", mean=mean, std=std, dtype=dtype)
    fields = Detection.fields(**shared, drop_path=drop_path)
    heads = dict(
        stages=3 if cascade else 1,
        width=width,
        hidden=hidden,
        head_convs=head_convs,
        anchor_scale=anchor_scale,
        proposals_before=(2 * proposals, proposals),
        proposals_after=proposals,
        roi_sample=sample,
        max_detections=detections,
    )
    return Detection(
        **fields | {"encoder": fitted_encoder(fields["encoder"], encoder, size)},
        classes=classes,
        size=size,
        objects=objects,
        mask_size=mask_size,
        masks=masks,
        layer_decay=layer_decay,
        heads=heads,
    )


def check_numbers(layer_decay: float, anchor_scale: float, **counts: int) -> None:
    """Raises UserError if a count is no positive integer, or another number outside its range."""
    wrong = [f"{name}={n!r}" for name, n in counts.items() if type(n) is not int or n < 1]
    if wrong or anchor_scale <= 0 or not 0 < layer_decay <= 1:
        wrong = wrong or [f"anchor_scale={anchor_scale}, layer_decay={layer_decay}"]
        raise UserError(
            f"detection: {', '.join(wrong)}: counts must be positive integers, anchor_scale "
            "positive, and layer_decay in (0, 1]"
        )


def fitted_encoder(network: Encoder, text: str, size: int) -> Encoder:
    """The encoder for square inputs of this side: a ViTDet's global blocks get tables for its grid.

    Args:
        text: its spec string, for messages.

    Raises:
        UserError: its patch does not divide the side, or it has no pyramid.
    """
    sides = patch_sides(network.patch, 2)
    if any(size % side for side in sides):
        raise UserError(f"size={size} is not a multiple of {network.patch}, the patch of {text}")
    if isinstance(network, ViT):
        other = text.replace("vit", "vitdet", 1)
        raise UserError(f"detection: {text} has a map for each block: write {other}")
    if isinstance(network, ViTDet):
        return network.clone(grid=tuple(size // side for side in sides))
    return network
