"""Base class of masked autoencoders: masks, targets, the loss on masked patches, and pictures."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax import masks
from mae_jax.methods.images import ImageMethod
from mae_jax.ops import losses, pictures
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.spec import build, check_choice
from mae_jax.targets import Target, TargetContext
from mae_jax.types import Batch, Extra, Output, Params, Pictures, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedMethod(ImageMethod):
    """A method that predicts the masked patches of images. The constants of its target, if any, are
    extra['target'], those of its mask extra['mask'].

    In shapes, L is the number of patches, K the number of patches predicted for the loss (not of
    visible ones, as in `Mask`), and V the number of values predicted for each.
    """

    strategy: masks.Strategy
    mask_ratio: float
    """Fraction of masked patches, in [0, 1)."""
    target: Target
    loss_kind: str
    """One of `target.losses`, with arguments if it is one of `ops.losses`."""
    loss_on: str
    """Patches that count in the loss: 'masked' or 'all'."""

    def __post_init__(self):
        """Completes the target, which may depend on the encoder."""
        object.__setattr__(self, "target", self.target.for_encoder(self.encoder))

    @property
    def sample(self) -> int:
        """Number of training examples that the target's constants need."""
        return self.target.sample

    @property
    @abc.abstractmethod
    def model(self) -> nn.Module:
        """The network, with the encoder as its submodule 'encoder'."""

    @property
    @abc.abstractmethod
    def unit(self) -> int | tuple[int, ...]:
        """Side of a masked patch in pixels, or one side for each axis."""

    @abc.abstractmethod
    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """Initializes parameters for images [B, *space, C] uint8."""

    @abc.abstractmethod
    def reconstruct(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, L, V] of all patches of images [B, *space, C] uint8."""

    def reconstruct_for_loss(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, K, V] of the patches that `take` selects. By default all: K = L."""
        return self.reconstruct(params, images, mask)

    def take(self, patches: jax.Array, mask: Mask) -> jax.Array:
        """Selects the patches that `reconstruct_for_loss` predicts: [B, L, ...] to [B, K, ...]."""
        return patches

    def in_loss(self, mask: Mask) -> jax.Array:
        """Which of the K patches count in the loss, [B, K] bool."""
        return mask.mask if self.loss_on == "masked" else jnp.ones_like(mask.mask)

    def encoders(self) -> Mapping[str, Any]:
        """The method's own encoder, and the networks of its target and of its mask."""
        networks = {"target": self.target.teachers(), "mask": self.strategy.teachers()}
        return super().encoders() | {
            f"extra/{part}/{name}": network
            for part, named in networks.items()
            for name, network in named.items()
        }

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters, and constants of target and mask, for images of this shape."""
        images = batch["image"]
        guides = self.strategy.initial(images)
        mask = self.draw_mask(key, images, extra=self.extra(mask=guides))
        params = self.init_params(key, images, mask)
        target = self.target.initial(images, self.sides(images))
        target = self.target.start(target, params["encoder"])
        return params, self.extra(target=target, mask=guides)

    def constants(self, sample: Mapping[str, np.ndarray]) -> Extra:
        """Computes the target's constants; without a sample, their initial values are final."""
        if not self.sample:
            return {}
        return self.extra(target=self.target.constants(sample, self.sides(sample["image"])))

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The mean error of the predictions, under a new random mask for every example."""
        images = batch["image"]
        mask = self.draw_mask(key, images, step, extra)
        prediction = self.reconstruct_for_loss(params, images, mask)  # [B, K, V]
        target = self.targets(extra, images, mask)  # [B, K, V]
        loss = self.mean_error(prediction, target, self.scored(batch, mask))
        return Output(loss, extra, self.target.metrics(target))

    def error(self, prediction: jax.Array, extra: Extra, batch: Batch, mask: Mask) -> jax.Array:
        """The loss of predictions [B, K, V] by `reconstruct_for_loss`, a scalar."""
        target = self.targets(extra, batch["image"], mask)
        return self.mean_error(prediction, target, self.scored(batch, mask))

    def scored(self, batch: Batch, mask: Mask) -> jax.Array:
        """What counts in the loss: [B, K] bool, or [B, K, V] for single values. By default that of
        `in_loss`.
        """
        return self.in_loss(mask)

    def targets(self, extra: Extra, images: jax.Array, mask: Mask) -> jax.Array:
        """Targets [B, K, V] of the patches that `take` selects."""
        context = self.target_context(images, lambda patches: self.take(patches, mask))
        return self.target.make(extra.get("target", {}), images, context)

    def mean_error(self, prediction: jax.Array, target: jax.Array, scored: jax.Array) -> jax.Array:
        """The mean error of predictions over what counts, see `scored`, a scalar."""
        errors = self.target.errors(prediction, target, self.loss_kind)  # [B, K, ...]
        return losses.masked_mean(errors, scored)

    def target_context(
        self, images: jax.Array, take: Callable[[jax.Array], jax.Array]
    ) -> TargetContext:
        """The context of the target for images [B, *space, C]; for `take` see `TargetContext`."""
        return TargetContext(patch=self.sides(images), take=take, normalize=self.normalize)

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Updates the target's constants, e.g. a moving average of the encoder."""
        if "target" not in extra:
            return extra
        progress = jnp.clip(step / self.total_steps, 0, 1)
        constants = self.target.after_update(extra["target"], params["encoder"], progress)
        return {**extra, "target": constants}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The target's constants for the loaded encoder."""
        if "target" not in extra:
            return extra
        return {**extra, "target": self.target.start(extra["target"], params["encoder"])}

    def pictures(self) -> Pictures | None:
        """See `ops.pictures.reconstructions`; None for targets that cannot be drawn."""
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
        """Draws reconstructions, see `pictures`, under the given mask, or one sampled by `key`."""
        images = batch["image"]
        if mask is None:  # a fixed key by default: pictures of different steps have equal masks
            key = jax.random.key(0) if key is None else key
            mask = self.draw_mask(key, images, extra=extra)
        raw = self.reconstruct(params, images, mask).astype(jnp.float32)  # [B, L, V]
        return self.drawn(raw, extra, images, mask.mask)

    def drawn(
        self, raw: jax.Array, extra: Extra, images: jax.Array, masked: jax.Array
    ) -> dict[str, jax.Array]:
        """Draws predictions, see `pictures`.

        Args:
            raw: [B, L, V] float32, of all patches.
            extra: collections.
            images: [B, *space, C] uint8.
            masked: [B, L] bool.
        """
        constants, context = extra.get("target", {}), self.target_context(images, lambda x: x)
        show = lambda values: self.target.to_pixels(constants, values, images, context)
        exact = self.target.exact
        return pictures.reconstructions(
            images,
            show(raw),
            masked,
            patch=self.unit,
            mean=self.mean,
            std=self.std,
            relative=raw if self.target.relative else None,
            target=None if exact else show(self.target.make(constants, images, context)),
        )

    def draw_mask(
        self,
        key: jax.Array,
        images: jax.Array,
        step: jax.Array | int = 0,
        extra: Extra | None = None,
    ) -> Mask:
        """Samples one mask per example of images [B, *space, C].

        Args:
            step: number of the step, for strategies that change over the run.
            extra: collections; None: for strategies without constants.
        """
        context = self.mask_context(images, step, extra or {})
        return masks.sample(key, self.strategy, context, self.mask_ratio)

    def mask_context(
        self, images: jax.Array, step: jax.Array | int, extra: Extra
    ) -> masks.MaskContext:
        """The context of the mask of images [B, *space, C]."""
        return masks.MaskContext(
            grid=grid_of(images.shape[1:-1], self.unit),
            batch=len(images),
            step=step,
            total_steps=self.total_steps,
            images=images,
            normalize=self.normalize,
            constants=extra.get("mask", {}),
        )

    def sides(self, images: jax.Array) -> tuple[int, ...]:
        """Side of a patch along each axis of images [B, *space, C]."""
        return patch_sides(self.unit, images.ndim - 2)

    def values(self, images: jax.Array) -> int:
        """Number of values V to predict for each patch of images [B, *space, C]."""
        return self.target.width(self.sides(images), images.shape[-1])

    @staticmethod
    def extra(**constants: Any) -> Extra:
        """Collections with constants, by name; those without any are left out."""
        return {name: values for name, values in constants.items() if values}


def masked_options(
    *, mask: str, mask_ratio: float, target: str, loss: str, loss_on: str
) -> dict[str, Any]:
    """Checks options of a `make` function and builds the fields of a `MaskedMethod`.

    Args:
        mask, target: spec strings.
        mask_ratio: fraction of masked patches, in [0, 1).
        loss: one of the target's losses, with arguments if it is one of `ops.losses`.
        loss_on: 'masked' or 'all'.

    Raises:
        UserError: an unknown or invalid value.
    """
    predicted = build(target, "targets", Target)
    if loss.partition("(")[0] in losses.ERRORS.keys() & set(predicted.losses):
        losses.error_of(loss)  # checks its arguments
    else:
        check_choice("loss", loss, predicted.losses)
    check_choice("loss_on", loss_on, ("masked", "all"))
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio {mask_ratio} is outside [0, 1): the paper's is 0.75")
    if mask_ratio == 0 and loss_on == "masked":
        raise UserError("mask_ratio 0 masks nothing to learn from: raise it, or set loss_on=all")
    return dict(
        strategy=masks.make_strategy(mask),
        mask_ratio=mask_ratio,
        target=predicted,
        loss_kind=loss,
        loss_on=loss_on,
    )
