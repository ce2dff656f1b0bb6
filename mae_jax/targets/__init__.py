"""Targets that masked autoencoders predict, one per file. Its `make(**options)` returns a `Target`.

A config selects one by a spec string: target='pixels(normalize=False)'.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from mae_jax.ops import losses
from mae_jax.ops.patches import grid_of

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


class Target(abc.ABC):
    """Base class of prediction targets. Subclasses are frozen, `kw_only` dataclasses."""

    sample: ClassVar[int] = 0
    """Number of training examples that `constants` reads."""
    losses: ClassVar[tuple[str, ...]] = tuple(losses.ERRORS)
    """Supported values of the method's option `loss`."""
    drawable: ClassVar[bool] = False
    """Whether `to_pixels` is defined."""
    exact: ClassVar[bool] = False
    """Whether `to_pixels` restores the original pixels from the targets; if not, pictures show the
    targets, too."""
    relative: ClassVar[bool] = False
    """Whether predictions are pixels normalized by statistics of their patch; pictures then show
    them before `to_pixels`, too."""

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
            [B, K, V], usually float32, without gradients.
        """

    def initial(self, images: jax.Array, patch: tuple[int, ...]) -> Constants:
        """Constants with their final shapes; also with their final values if `sample` is 0.

        Args:
            images: [B, *space, C] uint8, of which only the shape counts.
            patch: side of a patch in pixels along each axis.
        """
        return {}

    def teachers(self) -> Mapping[str, Any]:
        """Constants that are the parameters of an encoder, which `init_from` may load into
        'extra/target/NAME': name -> its Flax module.
        """
        return {}

    def constants(self, sample: Mapping[str, np.ndarray], patch: tuple[int, ...]) -> Constants:
        """Computes constants from training examples, e.g. a basis or a codebook. Called once,
        outside of jit.
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
            prediction: [B, L, V] float32, of all patches.
            images: [B, *space, C] uint8, the originals.
            context: see `TargetContext`; it takes all L patches.

        Returns:
            [B, L, P] float32, normalized like the encoder's inputs.
        """
        raise NotImplementedError
