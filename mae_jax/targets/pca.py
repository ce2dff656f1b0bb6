"""The largest principal components of patches as targets, an ablation of MAE (arXiv 2111.06377,
section 4.1: 96 coefficients).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, Target, TargetContext
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCA(Target):
    """Coordinates of a patch in the basis of its principal components."""

    keep: int
    """Number of components."""

    sample: ClassVar[int] = 1024
    drawable: ClassVar[bool] = True

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of components.

        Raises:
            UserError: more components than a patch has values.
        """
        size = math.prod(patch) * channels
        if self.keep > size:
            raise UserError(
                f"pca(keep={self.keep}): a patch has {size} values: keep at most {size}"
            )
        return self.keep

    def initial(self, images: jax.Array, patch: tuple[int, ...]) -> Constants:
        """See `constants`."""
        size = math.prod(patch) * images.shape[-1]
        return {
            "mean": jnp.zeros(size),
            "basis": jnp.zeros((size, self.keep)),
            "scale": jnp.ones(1),
        }

    def constants(self, sample: Mapping[str, np.ndarray], patch: tuple[int, ...]) -> Constants:
        """Computes the basis from all patches of the sample, as pixels in [0, 1].

        Returns:
            'mean' [P]; 'basis' [P, keep], orthonormal columns by descending variance, whose largest
            entries are positive; 'scale' [1], the root of the mean variance of the P values.
        """
        mean, covariance = moments(sample["image"], patch)
        variances, vectors = np.linalg.eigh(covariance)
        basis = vectors[:, ::-1][:, : self.keep]  # [P, keep]
        largest = np.abs(basis).argmax(axis=0)
        basis *= np.sign(basis[largest, np.arange(self.keep)])  # else the sign would be arbitrary
        scale = np.sqrt(np.maximum(variances.mean(), 1e-12))
        return {"mean": mean, "basis": basis, "scale": scale[None]}

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Coordinates [B, K, keep] float32, divided by 'scale': with all components kept, their
        mean square error is that of pixels divided by their standard deviation.
        """
        patches = context.take(patchify(images, context.patch)).astype(jnp.float32) / 255
        centered = patches - constants["mean"]  # [B, K, P]
        return jnp.matmul(centered, constants["basis"], precision="highest") / constants["scale"]

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """The patches [B, L, P] with these coordinates."""
        pixels = prediction * constants["scale"] @ constants["basis"].T + constants["mean"]
        return context.normalize(255 * pixels, pixels=math.prod(context.patch))


def moments(images: np.ndarray, patch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean [P] and covariance [P, P] float64 of all patches of images [N, *space, C] uint8, as
    pixels in [0, 1].
    """
    total = squares = count = 0
    for start in range(0, len(images), 32):  # so that float64 needs little memory
        x = patchify(images[start : start + 32], patch)  # [n, L, P]
        x = x.reshape(-1, x.shape[-1]) / 255.0
        total, squares, count = total + x.sum(axis=0), squares + x.T @ x, count + len(x)
    mean = total / count
    return mean, squares / count - np.outer(mean, mean)


def make(keep: int = 96) -> PCA:
    """Principal components of each masked patch, computed from training images at the start.

    Args:
        keep: number of components, at most the number of values of a patch.

    Raises:
        UserError: no component.
    """
    if keep < 1:
        raise UserError(f"pca(keep={keep}): keep at least 1 component")
    return PCA(keep=keep)
