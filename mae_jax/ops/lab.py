"""CIE Lab, and colours as classes of its ab plane, as colorization uses them (Zhang, Isola and
Efros 2016, arXiv 1603.08511).

sRGB is that of IEC 61966-2-1 with values in [0, 1]. Lab is of the white point D65 seen under 2
degrees: L in [0, 100], a and b within about [-108, 99]. Matrix and constants have the digits of
scikit-image's `rgb2lab`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

GRID = 10
"""Side of a bin of the ab plane."""

# From linear sRGB to CIE XYZ, and the XYZ of white.
XYZ_OF_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: jax.Array) -> jax.Array:
    """sRGB in [0, 1] to Lab.

    Args:
        rgb: [..., 3] float.

    Returns:
        [..., 3], L, a and b, of the same type.
    """
    return _to_lab(rgb, jnp)


def lab_to_rgb(lab: jax.Array) -> jax.Array:
    """Lab to sRGB, clipped to [0, 1] where it is no colour of sRGB.

    Args:
        lab: [..., 3] float.

    Returns:
        [..., 3] of the same type.
    """
    y = (lab[..., 0] + 16) / 116
    # Out of the gamut z may fall below 0, the darkest there is; scikit-image stops there too.
    ratios = (lab[..., 1] / 500 + y, y, jnp.maximum(y - lab[..., 2] / 200, 0))
    xyz = jnp.stack(
        [w * jnp.where(t > 0.2068966, t**3, (t - 16 / 116) / 7.787) for w, t in zip(WHITE, ratios)],
        axis=-1,
    )
    linear = _mix(xyz, np.linalg.inv(XYZ_OF_RGB), jnp)
    # The power sees no value of the other branch, where its gradient would be infinite or nan.
    curve = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.clip(jnp.where(linear > 0.0031308, curve, 12.92 * linear), 0, 1)


def _to_lab(rgb, xp):
    """`rgb_to_lab` with the arrays of jax.numpy or numpy."""
    curve = ((xp.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4
    xyz = _mix(xp.where(rgb > 0.04045, curve, rgb / 12.92), XYZ_OF_RGB, xp)
    x, y, z = (
        xp.where(t > 0.008856, xp.cbrt(xp.maximum(t, 0.008856)), 7.787 * t + 16 / 116)
        for t in (xyz[..., i] / white for i, white in enumerate(WHITE))
    )
    return xp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _mix(values, matrix, xp):
    """[..., 3] times a 3 x 3 matrix. Sums are written out: in a matrix product accelerators would
    round the factors to bfloat16 or tf32.
    """
    rows = [[float(weight) for weight in row] for row in matrix]
    return xp.stack([sum(w * values[..., i] for i, w in enumerate(row)) for row in rows], axis=-1)


@functools.cache
def bins() -> np.ndarray:
    """Centres of the bins of the ab plane: [261, 2] float32, multiples of 10, read-only.

    The plane is cut into squares of side 10 around the multiples of 10; a bin is a square into
    which at least one 8-bit sRGB colour falls. The paper has 313: its list also has squares around
    the gamut in which there is no colour. Only the faces of the RGB cube are enumerated: from any
    colour on, a change of L alone leaves the gamut through a face, at the same a and b.
    """
    levels = np.arange(256) / 255
    one, two = (axis.ravel() for axis in np.meshgrid(levels, levels))
    reach = 15  # squares on each side of 0, more than there are colours for
    filled = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
    for axis in range(3):
        for end in (0.0, 1.0):
            face = np.insert(np.stack([one, two], axis=-1), axis, end, axis=-1)
            nearest = np.rint(_to_lab(face, np)[:, 1:] / GRID).astype(int)
            filled[tuple(nearest.T + reach)] = True
    centres = (np.argwhere(filled) - reach).astype(np.float32) * GRID
    centres.setflags(write=False)
    return centres


def encode_soft(
    ab: jax.Array, centres: jax.Array, *, neighbours: int = 5, sigma: float = 5.0
) -> tuple[jax.Array, jax.Array]:
    """The paper's soft encoding: the nearest bins of every colour, weighted by a Gaussian of their
    distance.

    Args:
        ab: [..., 2] float32.
        centres: [Q, 2] of the bins.
        neighbours: bins that share a colour.
        sigma: standard deviation of the Gaussian.

    Returns:
        Which bins they are [..., neighbours] int32, the nearest first (of two that are as near, the
        one with the lower number), and their weights [..., neighbours], which sum to 1.
    """
    centres = jnp.asarray(centres)
    squared = (ab[..., :1] - centres[:, 0]) ** 2 + (ab[..., 1:] - centres[:, 1]) ** 2
    # Computed once: a second computation, fused elsewhere, might differ from its own minimum.
    squared = jax.lax.optimization_barrier(squared)
    numbers = jnp.arange(len(centres))
    indices, least = [], []
    # Not jax.lax.top_k, which collects the distances of all devices on each of them.
    for _ in range(neighbours):
        least.append(squared.min(axis=-1, keepdims=True))
        number = jnp.where(squared == least[-1], numbers, len(centres)).min(axis=-1, keepdims=True)
        indices.append(number)
        squared = jnp.where(numbers == number, jnp.inf, squared)
    # A softmax of these exponents is the Gaussians divided by their sum.
    exponents = -jnp.concatenate(least, axis=-1) / (2 * sigma**2)
    return jnp.concatenate(indices, axis=-1), jax.nn.softmax(exponents, axis=-1)


def histogram(indices: jax.Array, weights: jax.Array, count: int) -> jax.Array:
    """Shares [count] of the bins among softly encoded images; they sum to 1.

    Args:
        indices, weights: [B, ..., neighbours] of `encode_soft`.
        count: number of bins.
    """
    # Sums of comparisons, since accelerators scatter in any order, with other last bits each time.
    # Image by image, so that the float32 sums stay short, and rows stay on their devices.
    places = tuple(range(1, indices.ndim))
    hits = jnp.where(indices[..., None] == jnp.arange(count), weights[..., None], 0)
    return hits.sum(axis=places).mean(axis=0) / (weights[0].size // weights.shape[-1])


def class_weights(prior: jax.Array, uniform: float) -> jax.Array:
    """Weights [Q] that make rare colours count: the paper's equation 4.

    They are proportional to 1 / ((1 - uniform) prior + uniform / Q), and 1 on average under the
    prior.

    Args:
        prior: [Q], the shares of the bins.
        uniform: in (0, 1], the paper's lambda, 0.5 there; 1: all weights are 1.
    """
    weights = 1 / ((1 - uniform) * prior + uniform / len(prior))
    return weights / jnp.sum(prior * weights)


def annealed_mean(logits: jax.Array, centres: jax.Array, *, temperature: float = 0.38) -> jax.Array:
    """One colour of a distribution over bins: the paper's equation 5, the mean of the distribution
    sharpened by a temperature, between its mean (1) and its mode (towards 0).

    Args:
        logits: [..., Q].
        centres: [Q, 2] of the bins.

    Returns:
        ab [..., 2] float32.
    """
    share = jax.nn.softmax(logits.astype(jnp.float32) / temperature, axis=-1)
    return jnp.stack([jnp.sum(share * centres[:, i], axis=-1) for i in range(2)], axis=-1)
