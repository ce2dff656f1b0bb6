"""Targets that masked autoencoders predict, one per file. Its `make(**options)` returns a `Target`.

A config selects one by a spec string: target='pixels(normalize=False)'.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from mae_jax.ops import losses
from mae_jax.ops.patches import grid_of
from mae_jax.ops.pixels import check_statistics, normalize
from mae_jax.types import Params, UserError

Constants = Any
"""A pytree of arrays that a target computes from data before training; {} if none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetContext:
    """The functions and sizes of the method that targets use."""

    patch: tuple[int, ...]
    """Side of a patch in pixels along each axis."""
    take: Callable[[jax.Array], jax.Array]
    """Gathers the K patches that are predicted for the loss: [B, L, ...] to [B, K, ...]. Call it
    early, on bytes if possible, so that nothing is computed for the other patches."""
    normalize: Callable[..., jax.Array]
    """Normalizes uint8 images, or patches with pixels=prod(patch), to the encoder's inputs."""

    def length(self, images: jax.Array) -> int:
        """Number of patches L of images [B, *space, C]."""
        return math.prod(grid_of(images.shape[1:-1], self.patch))

    def inputs(self, images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
        """Normalizes images [B, *space, C] uint8 for another network: by the mean and std of its
        pixels, or as the encoder's inputs if these are ().
        """
        return normalize(images, mean, std) if mean else self.normalize(images)


def check_own_statistics(name: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Checks optional mean and std of the pixels of a target's network; () and () pass.

    Args:
        name: of the target, for the message.

    Raises:
        UserError: only one of them, or values that are no statistics of pixels in [0, 1].
    """
    if bool(mean) != bool(std):
        raise UserError(f"{name}(mean={mean}, std={std}): give both, or neither")
    if mean:
        check_statistics(mean, std, f"{name}: ")


class Target(abc.ABC):
    """Base class of prediction targets. Subclasses are frozen, `kw_only` dataclasses."""

    sample: ClassVar[int] = 0
    """Number of training examples that `constants` reads."""
    losses: ClassVar[tuple[str, ...]] = tuple(losses.ERRORS)
    """Supported values of the method's option `loss`: names in `ops.losses`, which may have
    arguments, or kinds of its own, for which it overrides `errors`."""
    drawable: ClassVar[bool] = False
    """Whether `to_pixels` is defined."""
    exact: ClassVar[bool] = False
    """Whether `to_pixels` restores the original pixels from the targets; if not, pictures show the
    targets, too."""
    relative: ClassVar[bool] = False
    """Whether predictions are pixels normalized by statistics of their patch; pictures then show
    them before `to_pixels`, too."""

    def for_encoder(self, encoder: Any) -> "Target":
        """The target for a method with this encoder (a Flax module). The same by default."""
        return self

    @abc.abstractmethod
    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of values V to predict for each patch with these sides and channels."""

    @abc.abstractmethod
    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Computes the targets of the patches that `context.take` gathers.

        Args:
            constants: result of `constants`.
            images: [B, *space, C] uint8.
            context: see `TargetContext`.

        Returns:
            [B, K, V], usually float32, without gradients. Another shape needs other `errors`.
        """

    def initial(self, images: jax.Array, patch: tuple[int, ...]) -> Constants:
        """Constants with their final shapes; also with their final values if `sample` is 0.

        Args:
            images: [B, *space, C] uint8, of which only the shape counts.
            patch: side of a patch in pixels along each axis.
        """
        return {}

    def teachers(self) -> Mapping[str, Any]:
        """Constants that are the arrays of another network, which `init_from` may load into
        'extra/target/NAME': name -> its Flax module, a `models.encoder.Loadable`.
        """
        return {}

    def constants(self, sample: Mapping[str, np.ndarray], patch: tuple[int, ...]) -> Constants:
        """Computes constants from training examples, e.g. a basis or a codebook. Called once,
        outside of jit.
        """
        return {}

    def start(self, constants: Constants, params: Params) -> Constants:
        """Constants that depend on the encoder's parameters, before the first step: called when
        these are initialized, and again when `init_from` has loaded them.
        """
        return constants

    def after_update(self, constants: Constants, params: Params, progress: jax.Array) -> Constants:
        """Constants after an optimizer step, e.g. a moving average.

        Args:
            constants: the constants before.
            params: the encoder's parameters after the step.
            progress: share of the run, in [0, 1).
        """
        return constants

    def metrics(self, target: jax.Array) -> dict[str, jax.Array]:
        """Scalars to log with the loss.

        Args:
            target: result of `make`.
        """
        return {}

    def errors(self, prediction: jax.Array, target: jax.Array, kind: str) -> jax.Array:
        """Errors [B, K, ...] float32; the loss is their mean.

        Args:
            prediction: [B, K, V].
            target: result of `make`.
            kind: one of `losses`.
        """
        return losses.errors(prediction, target, kind)

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """Converts predictions to pixels, for pictures.

        Args:
            constants: result of `constants`.
            prediction: [B, L, V] float32, of all patches; or the result of `make` for them.
            images: [B, *space, C] uint8, the originals.
            context: see `TargetContext`; it takes all L patches.

        Returns:
            [B, L, P] float32, normalized like the encoder's inputs.
        """
        raise NotImplementedError
