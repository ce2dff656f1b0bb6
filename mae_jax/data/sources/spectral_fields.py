"""Small multispectral images that need no files: fields of five kinds of land cover from above.

Fields are cells of random points. Each has a kind, whose reflectance in eight bands is invented to
be plausible, and a brightness of its own; light varies over the image, and every value has noise.
An image is a function of (seed, split, index).
"""

import numpy as np

from mae_jax.data.random import hash_words, uniform
from mae_jax.data.rendered import Rendered, check_integers
from mae_jax.spec import check_choice

BANDS = ("B02", "B03", "B04", "B05", "B06", "B08", "B11", "B12")
"""Names of Sentinel-2's bands from blue to short-wave infrared."""
REFLECTANCE = {
    "water": (0.060, 0.050, 0.035, 0.025, 0.020, 0.015, 0.008, 0.005),
    "forest": (0.025, 0.040, 0.028, 0.070, 0.190, 0.260, 0.130, 0.060),
    "crops": (0.040, 0.075, 0.050, 0.120, 0.300, 0.420, 0.210, 0.110),
    "soil": (0.090, 0.120, 0.160, 0.190, 0.210, 0.240, 0.310, 0.270),
    "buildings": (0.140, 0.150, 0.165, 0.175, 0.185, 0.200, 0.220, 0.210),
}
"""Kind of cover -> reflectance in each band, in [0, 1]."""
SPLITS = ("train", "test")
MIN_SIZE, MAX_SIZE = 8, 256

_BRIGHTEST = 0.5  # reflectance that becomes 255
_FIELDS = (3, 9)
_BRIGHTNESS = 1.5  # factor between the brightest and the mean field of a kind
_LIGHT, _NOISE = 0.15, 0.02


class SpectralFields(Rendered):
    """Images that are rendered when they are read, see `make`."""

    bands = BANDS

    def __init__(self, **options):
        super().__init__(**options)
        self.names = {"label": tuple(REFLECTANCE), "segmentation": tuple(REFLECTANCE)}
        self._signatures = np.array(list(REFLECTANCE.values()))  # [kinds, bands]

    def render(self, key: np.uint64) -> tuple[np.ndarray, np.ndarray, int]:
        """See `make`."""
        low, high = _FIELDS
        count = low + int(uniform(hash_words(key, 0)[None], 1)[0, 0] * (high - low + 1))
        points, kind, brightness = np.split(
            uniform(hash_words(key, 1, np.arange(count)), 4), [2, 3], axis=1
        )
        kinds = (kind[:, 0] * len(REFLECTANCE)).astype(np.int32)  # [fields]
        places = (np.indices((self.size, self.size)) + 0.5) / self.size  # [2, S, S]
        apart = places[:, None] - points.T[:, :, None, None]  # [2, fields, S, S]
        nearest = (apart**2).sum(0).argmin(0)  # [S, S]
        factors = _BRIGHTNESS ** (2 * brightness[:, 0] - 1)  # [fields]
        segmentation = kinds[nearest]
        values = self._signatures[segmentation] * factors[nearest][..., None]  # [S, S, bands]
        slope = 2 * uniform(hash_words(key, 2)[None], 2)[0] - 1
        light = 1 + _LIGHT * np.tensordot(slope, 2 * places - 1, 1)
        noise = uniform(hash_words(key, 3)[None], values.size)[0].reshape(values.shape)
        values = values * light[..., None] + _NOISE * (noise - 0.5)
        image = np.rint(np.clip(values / _BRIGHTEST, 0, 1) * 255).astype(np.uint8)
        most = np.bincount(segmentation.ravel(), minlength=len(REFLECTANCE)).argmax()
        return image, segmentation, int(most)


def make(
    *, split: str = "train", size: int = 32, num_examples: int = 4000, seed: int = 0
) -> SpectralFields:
    """Images of three to nine fields in eight spectral bands.

    Args:
        split: 'train' or 'test'.
        size: side in pixels, from 8 to 256.
        num_examples: number of images; image i does not depend on it.
        seed: seed of all images.

    Returns:
        A source of 'image' [S, S, 8] uint8, of which 255 is a reflectance of 0.5; 'segmentation'
        [S, S] int32, the kind of cover; and 'label' in [0, 5), the kind that covers most.

    Raises:
        UserError: an argument is invalid.
    """
    check_choice("spectral_fields: split", split, SPLITS)
    bounds = {"size": (size, MIN_SIZE, MAX_SIZE), "num_examples": (num_examples, 1, 2**31)}
    check_integers("spectral_fields", bounds)
    return SpectralFields(size=size, num_examples=num_examples, seeds=(seed, SPLITS.index(split)))
