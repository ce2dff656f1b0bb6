"""CIE Lab colors, and their quantization in the ab plane for colorization as classification (Zhang,
Isola and Efros 2016, arXiv 1603.08511).

sRGB follows IEC 61966-2-1, with values in [0, 1]. Lab has the white point D65 and the 2 degree
observer: L in [0, 100], a and b within about [-108, 99]. Matrix and constants are those of
scikit-image's `rgb2lab`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

GRID = 10
"""Side of a bin of the ab plane."""

# The matrix from linear sRGB to CIE XYZ, and the white point in XYZ.
XYZ_OF_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: jax.Array) -> jax.Array:
    """Converts sRGB to Lab.

    Args:
        rgb: [..., 3] float in [0, 1].

    Returns:
        (L, a, b) [..., 3] of the same type.
    """
    return _to_lab(rgb, jnp)


def lab_to_rgb(lab: jax.Array) -> jax.Array:
    """Converts Lab to sRGB, clipped to [0, 1] outside of the sRGB gamut.

    Args:
        lab: [..., 3] float.

    Returns:
        [..., 3] of the same type, in [0, 1].
    """
    y = (lab[..., 0] + 16) / 116
    # Outside of the gamut z may be negative; scikit-image clips it at 0, too.
    ratios = (lab[..., 1] / 500 + y, y, jnp.maximum(y - lab[..., 2] / 200, 0))
    xyz = jnp.stack(
        [w * jnp.where(t > 0.2068966, t**3, (t - 16 / 116) / 7.787) for w, t in zip(WHITE, ratios)],
        axis=-1,
    )
    linear = _mix(xyz, np.linalg.inv(XYZ_OF_RGB), jnp)
    # The maximum keeps the gradient of the power finite where `where` selects the other branch.
    curve = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear > 0.0031308, curve, 12.92 * linear), 0, 1)


def _to_lab(rgb, xp):
    """`rgb_to_lab` for the array module `xp`, jax.numpy or numpy."""
    curve = ((xp.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4
    xyz = _mix(xp.where(rgb > 0.04045, curve, rgb / 12.92), XYZ_OF_RGB, xp)
    x, y, z = (
        xp.where(t > 0.008856, xp.cbrt(xp.maximum(t, 0.008856)), 7.787 * t + 16 / 116)
        for t in (xyz[..., i] / white for i, white in enumerate(WHITE))
    )
    return xp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _mix(values, matrix, xp):
    """Multiplies [..., 3] by a 3 x 3 matrix. The sums are explicit because accelerators would round
    the factors of a matrix product to bfloat16 or TF32.
    """
    rows = [[float(weight) for weight in row] for row in matrix]
    return xp.stack([sum(w * values[..., i] for i, w in enumerate(row)) for row in rows], axis=-1)


@functools.cache
def bins() -> np.ndarray:
    """Centers of the bins of the ab plane: [261, 2] float32, multiples of 10, read-only.

    A bin is a square of side 10 around multiples of 10 that contains at least one 8-bit sRGB color.
    The paper's 313 bins also include squares at the border of the gamut without any color. It is
    enough to enumerate the faces of the RGB cube: when L alone changes, any color leaves the gamut
    through a face, with the same a and b.
    """
    levels = np.arange(256) / 255
    one, two = (axis.ravel() for axis in np.meshgrid(levels, levels))
    reach = 15  # squares on each side of 0, more than the gamut covers
    filled = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
    for axis in range(3):
        for end in (0.0, 1.0):
            face = np.insert(np.stack([one, two], axis=-1), axis, end, axis=-1)
            nearest = np.rint(_to_lab(face, np)[:, 1:] / GRID).astype(int)  # [256^2, 2]
            filled[tuple(nearest.T + reach)] = True
    centers = (np.argwhere(filled) - reach).astype(np.float32) * GRID
    centers.setflags(write=False)
    return centers


def encode_soft(
    ab: jax.Array, centers: jax.Array, *, neighbors: int = 5, sigma: float = 5.0
) -> tuple[jax.Array, jax.Array]:
    """The paper's soft encoding: the nearest bins of each color, weighted by a Gaussian of their
    distance.

    Args:
        ab: colors [..., 2] float32.
        centers: centers of the Q bins, [Q, 2].
        neighbors: number of bins that encode a color.
        sigma: standard deviation of the Gaussian.

    Returns:
        Indices of the bins [..., neighbors] int32, nearest first (ties go to the lower index), and
        their weights [..., neighbors], which sum to 1.
    """
    centers = jnp.asarray(centers)
    squared = (ab[..., :1] - centers[:, 0]) ** 2 + (ab[..., 1:] - centers[:, 1]) ** 2  # [..., Q]
    # The barrier prevents a second, fused computation, whose rounding could miss the minimum below.
    squared = jax.lax.optimization_barrier(squared)
    numbers = jnp.arange(len(centers))
    indices, least = [], []
    # Not jax.lax.top_k, which gathers the distances of all devices on each device.
    for _ in range(neighbors):
        least.append(squared.min(axis=-1, keepdims=True))
        number = jnp.where(squared == least[-1], numbers, len(centers)).min(axis=-1, keepdims=True)
        indices.append(number)
        squared = jnp.where(numbers == number, jnp.inf, squared)
    # The softmax of these exponents equals the Gaussians divided by their sum.
    exponents = -jnp.concatenate(least, axis=-1) / (2 * sigma**2)
    return jnp.concatenate(indices, axis=-1), jax.nn.softmax(exponents, axis=-1)


def histogram(indices: jax.Array, weights: jax.Array, count: int) -> jax.Array:
    """Frequencies [count] of the bins in softly encoded images; they sum to 1.

    Args:
        indices, weights: [B, ..., neighbors] from `encode_soft`.
        count: number of bins.
    """
    # Not a scatter-add, whose order of summation, and so the last bits, varies on accelerators.
    # Each image is summed first: short float32 sums, and no row leaves its device.
    axes = tuple(range(1, indices.ndim))
    hits = jnp.where(indices[..., None] == jnp.arange(count), weights[..., None], 0)
    return hits.sum(axis=axes).mean(axis=0) / (weights[0].size // weights.shape[-1])


def class_weights(prior: jax.Array, uniform: float) -> jax.Array:
    """Class rebalancing: weights [Q] that favor rare colors (equation 4 of the paper).

    They are proportional to 1 / ((1 - uniform) prior + uniform / Q), with mean 1 under the prior.

    Args:
        prior: [Q], frequencies of the bins.
        uniform: lambda of the paper, in (0, 1], 0.5 there; with 1 all weights are 1.
    """
    weights = 1 / ((1 - uniform) * prior + uniform / len(prior))
    return weights / jnp.sum(prior * weights)


def annealed_mean(logits: jax.Array, centers: jax.Array, *, temperature: float = 0.38) -> jax.Array:
    """The annealed mean of a distribution over bins (equation 5 of the paper).

    Args:
        logits: [..., Q].
        centers: centers of the Q bins, [Q, 2].
        temperature: sharpens the distribution before the mean: 1 returns its mean, and towards 0
            its mode.

    Returns:
        ab [..., 2] float32.
    """
    probability = jax.nn.softmax(logits.astype(jnp.float32) / temperature, axis=-1)  # [..., Q]
    return jnp.stack([jnp.sum(probability * centers[:, i], axis=-1) for i in range(2)], axis=-1)
