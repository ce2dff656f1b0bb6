"""What a decoder predicts of each masked patch: one kind a file, whose `make(**options)` returns a
`Target`. A config names one by a spec string: target='pixels(normalize=False)'.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from mae_jax.ops import losses

Constants = Any
"""A tree of arrays; {} for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetContext:
    """What a target needs to know of the batch and of the method."""

    patch: tuple[int, ...]
    """Side of a patch along each axis."""
    take: Callable[[jax.Array], jax.Array]
    """Of an array [B, L, ...] the patches that are scored, [B, K, ...]: take early, and bytes where
    possible, so that nothing is computed for the others."""
    normalize: Callable[..., jax.Array]
    """(images, or patches with pixels=prod(patch)) uint8 -> float32, as the encoder sees them."""


class Target(abc.ABC):
    """What a decoder predicts: derive a frozen, `kw_only` dataclass from it."""

    sample: ClassVar[int] = 0
    """Number of training examples that `constants` needs."""
    losses: ClassVar[tuple[str, ...]] = tuple(losses.ERRORS)
    """Values of the method's option `loss` that this target can be compared by."""
    drawable: ClassVar[bool] = False
    """Whether `to_pixels` is defined."""

    @abc.abstractmethod
    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of values that are predicted for each patch of these sides."""

    @abc.abstractmethod
    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """The target of each scored patch.

        Args:
            constants: of `constants`.
            images: [B, *space, C] uint8.
            context: of the batch.

        Returns:
            [B, K, V], usually float32, without gradients.
        """

    def initial(self, patch: tuple[int, ...], channels: int) -> Constants:
        """Constants of the right shapes, with any values; the right ones where `sample` is 0."""
        return {}

    def constants(self, sample: Mapping[str, np.ndarray], patch: tuple[int, ...]) -> Constants:
        """Constants from training examples, e.g. a basis or a codebook. Called once, not traced."""
        return {}

    def errors(self, prediction: jax.Array, target: jax.Array, kind: str) -> jax.Array:
        """Errors [B, K, ...] float32, of which the loss is the mean.

        Args:
            prediction: [B, K, width].
            target: of `make`.
            kind: one of `losses`.
        """
        return losses.errors(prediction, target, kind)

    def to_pixels(
        self, constants: Constants, prediction: jax.Array, patches: jax.Array
    ) -> jax.Array:
        """Predictions as pixels, for pictures.

        Args:
            prediction: [B, L, width] float32, of all patches.
            patches: [B, L, P] float32, the true pixels as the encoder sees them.

        Returns:
            [B, L, P] float32 in the range of `patches`; `prediction` itself if it is that.
        """
        raise NotImplementedError
