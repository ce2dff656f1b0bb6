"""What masked autoencoders share: masks and targets by their specs, the loss, and pictures."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax import masks
from mae_jax.methods.images import ImageMethod
from mae_jax.ops import losses, pictures
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patch_sides, patchify
from mae_jax.spec import build, check_choice
from mae_jax.targets import Target, TargetContext
from mae_jax.types import Batch, Extra, Output, Params, Pictures, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedMethod(ImageMethod):
    """A method that predicts the masked patches of images. What its target learns from data is
    extra['target'].
    """

    strategy: masks.Strategy
    mask_ratio: float
    target: Target
    loss_kind: str
    """One of the target's losses."""
    loss_on: str
    """'masked' patches only, or 'all'."""

    @property
    def sample(self) -> int:
        """Number of training examples that the target's constants need."""
        return self.target.sample

    @property
    @abc.abstractmethod
    def model(self) -> nn.Module:
        """The network, of which the encoder is the part 'encoder'."""

    @property
    @abc.abstractmethod
    def unit(self) -> int | tuple[int, ...]:
        """Side of a patch in pixels, or one for each axis: what is masked as a whole."""

    @abc.abstractmethod
    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """Parameters for images [B, *space, C] uint8."""

    @abc.abstractmethod
    def reconstruct(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, L, V] of all patches of images [B, *space, C] uint8."""

    def reconstruct_for_loss(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, K, V] of the patches that `take` takes."""
        return self.reconstruct(params, images, mask)

    def take(self, patches: jax.Array, mask: Mask) -> jax.Array:
        """Of [B, L, ...] the patches [B, K, ...] that are predicted for the loss."""
        return patches

    def in_loss(self, mask: Mask) -> jax.Array:
        """[B, K] bool: which of these count in the loss."""
        return mask.mask if self.loss_on == "masked" else jnp.ones_like(mask.mask)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Parameters for images of this shape."""
        images = batch["image"]
        params = self.init_params(key, images, self.draw_mask(key, images))
        return params, self.extra(self.target.initial(self.sides(images), images.shape[-1]))

    def constants(self, sample: Mapping[str, np.ndarray]) -> Extra:
        """Those of the target; without a sample, they stay as they start."""
        if not self.sample:
            return {}
        return self.extra(self.target.constants(sample, self.sides(sample["image"])))

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The error of predictions under a mask of its own for every example."""
        images = batch["image"]
        mask = self.draw_mask(key, images, step)
        prediction = self.reconstruct_for_loss(params, images, mask)
        return Output(self.error(prediction, extra, images, mask), extra, {})

    def error(
        self, prediction: jax.Array, extra: Extra, images: jax.Array, mask: Mask
    ) -> jax.Array:
        """The loss of predictions [B, K, V] of `reconstruct_for_loss`."""
        context = TargetContext(
            patch=self.sides(images),
            take=lambda patches: self.take(patches, mask),
            normalize=self.normalize,
        )
        target = self.target.make(extra.get("target", {}), images, context)
        errors = self.target.errors(prediction, target, self.loss_kind)
        return losses.masked_mean(errors, self.in_loss(mask))

    def pictures(self) -> Pictures | None:
        """See `ops.pictures.reconstructions`; None for targets that are no pixels."""
        return self.draw if self.target.drawable else None

    def draw(
        self,
        params: Params,
        extra: Extra,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        mask: Mask | None = None,
    ) -> dict[str, jax.Array]:
        """What `pictures` returns, for a mask that is given, or drawn by a key (one of its own
        without it).
        """
        images = batch["image"]
        if mask is None:
            mask = self.draw_mask(jax.random.key(0) if key is None else key, images)
        raw = self.reconstruct(params, images, mask).astype(jnp.float32)
        patches = patchify(self.normalize(images), self.unit)
        predicted = self.target.to_pixels(extra.get("target", {}), raw, patches)
        relative = predicted is not raw and raw.shape == predicted.shape
        return pictures.reconstructions(
            images,
            predicted,
            mask.mask,
            patch=self.unit,
            mean=self.mean,
            std=self.std,
            relative=raw if relative else None,
        )

    def draw_mask(self, key: jax.Array, images: jax.Array, step: jax.Array | int = 0) -> Mask:
        """One mask per example of images [B, *space, C]."""
        context = masks.MaskContext(
            grid=grid_of(images.shape[1:-1], self.unit),
            batch=len(images),
            step=step,
            total_steps=self.total_steps,
            images=images,
        )
        return masks.sample(key, self.strategy, context, self.mask_ratio)

    def sides(self, images: jax.Array) -> tuple[int, ...]:
        """Side of a patch along each axis of images [B, *space, C]."""
        return patch_sides(self.unit, images.ndim - 2)

    @staticmethod
    def extra(constants: Any) -> Extra:
        """The collections that hold a target's constants; none if it has none."""
        return {"target": constants} if constants else {}


def masked_options(
    *, mask: str, mask_ratio: float, target: str, loss: str, loss_on: str
) -> dict[str, Any]:
    """Fields of a `MaskedMethod` from options of its `make`, checked.

    Raises:
        UserError: a value that cannot be.
    """
    predicted = build(target, "targets", Target)
    check_choice("loss", loss, predicted.losses)
    check_choice("loss_on", loss_on, ("masked", "all"))
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio {mask_ratio} is outside [0, 1): the paper's is 0.75")
    if mask_ratio == 0 and loss_on == "masked":
        raise UserError("mask_ratio 0 masks nothing to learn from: raise it, or set loss_on=all")
    return dict(
        strategy=build(mask, "masks", masks.Strategy),
        mask_ratio=mask_ratio,
        target=predicted,
        loss_kind=loss,
        loss_on=loss_on,
    )
