"""Corruptions of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), computed on the fly:
noise, blur, weather and digital artifacts, with the strengths of the paper's code.

Fourteen of the paper's fifteen: 'frost' needs photographs under a separate license. ImageNet-C
itself was then stored as JPEGs of quality 85; that second compression is left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mae_jax.data import corruptions
from mae_jax.data.random import hash_words
from mae_jax.data.transforms import Transform, color_of
from mae_jax.spec import nearest
from mae_jax.types import UserError

SEVERITIES = (1, 2, 3, 4, 5)


class Kind(NamedTuple):
    """A corruption with its strengths."""

    formula: Callable[..., np.ndarray]
    """(pixels, key, *strengths) -> gray levels."""
    strengths: tuple[tuple, ...]
    """Arguments of the formula for each severity."""

    @property
    def name(self) -> str:
        """Name in configs and reports."""
        return self.formula.__name__


def _zooms(stop: int, step: int) -> tuple[tuple[float, ...]]:
    """Zoom factors of `zoom_blur`: from 1 to below 1 + stop / 100."""
    return (tuple(1 + percent / 100 for percent in range(0, stop, step)),)


KINDS = (
    Kind(corruptions.gaussian_noise, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,))),
    Kind(corruptions.shot_noise, ((60,), (25,), (12,), (5,), (3,))),
    Kind(corruptions.impulse_noise, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,))),
    Kind(corruptions.defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    Kind(
        corruptions.glass_blur,
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    Kind(corruptions.motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    Kind(
        corruptions.zoom_blur,
        (_zooms(12, 1), _zooms(16, 1), _zooms(21, 2), _zooms(25, 2), _zooms(31, 3)),
    ),
    Kind(
        corruptions.snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    Kind(corruptions.fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    Kind(corruptions.brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))),
    Kind(corruptions.contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))),
    Kind(
        corruptions.elastic_transform,
        (  # multiples of 244, the paper's typo for 224
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
    ),
    Kind(corruptions.pixelate, ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,))),
    Kind(corruptions.jpeg_compression, ((25,), (18,), (15,), (10,), (7,))),
)
"""All corruptions, in the paper's order."""


class Corruption(Transform):
    """Applies one corruption to every image; see `make`."""

    draws = 1

    def __init__(self, index: int, severity: int):
        self.index, self.strengths = index, KINDS[index].strengths[severity - 1]
        self.formula = KINDS[index].formula

    def plan(self, u):
        """[B, 1] in [0, 1): seeds of all random numbers of the corruption."""
        return u

    def apply(self, example, params):
        """Corrupts the image; keeps its shape and all other fields."""
        pixels = color_of(example, "corruption")
        key = hash_words(int(params[0] * 2**53), self.index)
        levels = self.formula(pixels, key, *self.strengths)
        return {**example, "image": np.rint(np.clip(levels, 0, 255)).astype(np.uint8)}


def make(kind: str, *, severity: int = 3) -> Corruption:
    """A corruption for images of 1 or 3 channels, e.g. corruption(fog, severity=5).

    The corruption of an image is a function of its seed, with the same noise at all severities. A
    higher severity is meant to be harder to classify; it need not change pixels more.

    At 224 x 224, strengths are the paper's. For other sizes, lengths in pixels (of blurs,
    displacements, flakes, clouds) scale with the shorter side; noise stays per pixel, and the
    strengths of zoom_blur, pixelate and jpeg_compression do not depend on size. CIFAR-10-C and
    similar sets use other strengths.

    'segmentation' and 'box' are unchanged, although some kinds move pixels: zoom_blur and
    glass_blur by a few, elastic_transform by more, and by much more at severity 1 and 2 (where the
    corners of the central square move by up to a tenth and a fifth of the shorter side).

    Args:
        kind: a name in KINDS.
        severity: 1 (mild) to 5 (severe).

    Raises:
        UserError: the kind or the severity is unknown.
    """
    names = [known.name for known in KINDS]
    if kind == "frost":
        raise UserError(
            "corruption: frost is not included, as it needs photographs under a separate license: "
            f"choose {', '.join(names)}"
        )
    if kind not in names:
        raise UserError(f"corruption: there is no kind {kind!r}{nearest(kind, names)}")
    if severity not in SEVERITIES:
        raise UserError(f"corruption: severity={severity}, choose one from 1 (mild) to 5 (severe)")
    return Corruption(names.index(kind), severity)
