"""Pixel formulas of fourteen corruptions of ImageNet-C (Hendrycks and Dietterich 2019, arXiv
1903.12261); `data/transforms/corruption.py` has their strengths per severity.

A formula takes an image [H, W, C] uint8 of 1 or 3 channels, a random key and its strengths, and
returns gray levels [H, W, C], not necessarily integers or in [0, 255]. Lengths are in pixels of an
image with a shorter side of 224, and are scaled for other sizes.

The paper's code differs in details: its larger disks brighten by 1%, its zooms are up to half a
pixel off center, its streaks pass through whole pixels, and it rounds gray levels down.
"""

import functools
import io
import math

import numpy as np
from PIL import Image
from scipy import fft, ndimage, special

from mae_jax.data import images
from mae_jax.data.random import hash_words

SIDE = 224
"""The shorter side of the images of the paper, in pixels."""


def _bits(key, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform uint16, four from each 64-bit word, independent of the machine's byte order."""
    count = math.prod(shape)
    words = hash_words(key, np.arange(-(-count // 4)))
    return words.astype("<u8").view("<u2")[:count].reshape(shape)


def _uniform(key, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float32 in (0, 1), the midpoints of 65536 equal intervals."""
    return (_bits(key, shape).astype(np.float32) + 0.5) / 65536


def _normal(key, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32."""
    return _quantiles()[_bits(key, shape)]


@functools.cache
def _quantiles() -> np.ndarray:
    """[65536] float32: normal quantiles of equal probability, indexed by uniform numbers."""
    return special.ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


@functools.cache
def _poisson(photons: float) -> np.ndarray:
    """[256, K] float64: P(at most k photons) at each gray level; white has `photons` on average."""
    most = math.ceil(photons + 6 * math.sqrt(photons)) + 6
    return special.pdtr(np.arange(most), photons * np.arange(256)[:, None] / 255)


def _scale(image: np.ndarray) -> float:
    """Pixels of this image per pixel of the paper's."""
    return min(image.shape[:2]) / SIDE


def _canvas(image: np.ndarray) -> tuple[int, int]:
    """(height, width) of the image when its shorter side is scaled to `SIDE`."""
    height, width = image.shape[:2]
    return round(height / _scale(image)), round(width / _scale(image))


def _stretch(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes [h, w] to float32 of `size` (height, width): bilinear, antialiased if it shrinks."""
    picture = Image.fromarray(field.astype(np.float32))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


def _sample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[H, W, C] float32: the image at coordinates [H, W], bilinear, mirrored at its borders."""
    points = np.stack([rows, columns])  # [2, H, W]
    sample = lambda channel: ndimage.map_coordinates(channel, points, np.float32, 1, "mirror")
    return np.stack([sample(image[:, :, i]) for i in range(image.shape[2])], axis=2)


def _kernel(y: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[n, n] of sum 1, n odd, from weights at subpixel coordinates, which are split bilinearly
    among four pixels.
    """
    reach = math.ceil(max(np.abs(y).max(), np.abs(x).max()))
    kernel = np.zeros((2 * reach + 2,) * 2)
    rows, columns = np.floor(y).astype(int), np.floor(x).astype(int)
    for i in (0, 1):
        for j in (0, 1):
            share = np.abs(1 - i - (y - rows)) * np.abs(1 - j - (x - columns))
            np.add.at(kernel, (rows + reach + i, columns + reach + j), weights * share)
    return kernel[:-1, :-1] / kernel.sum()


def _correlate(image: np.ndarray, kernel: np.ndarray, border: str) -> np.ndarray:
    """[H, W, C] float32: cross-correlation with the kernel by FFT; `border` as in `numpy.pad`."""
    reach = len(kernel) // 2
    padded = np.pad(image.astype(np.float32), ((reach, reach), (reach, reach), (0, 0)), border)
    size = [fft.next_fast_len(side, real=True) for side in padded.shape[:2]]
    waves = fft.rfft2(padded, size, axes=(0, 1))
    waves *= fft.rfft2(kernel[::-1, ::-1, None].astype(np.float32), size, axes=(0, 1))
    valid = tuple(slice(2 * reach, 2 * reach + side) for side in image.shape[:2])
    return fft.irfft2(waves, size, axes=(0, 1))[valid]


def gaussian_noise(image, key, std):
    """Adds normal noise of this standard deviation, where 1 is white."""
    return image + 255 * std * _normal(key, image.shape)


def shot_noise(image, key, photons):
    """Poisson noise: each value is a photon count, `photons` of them on average for white."""
    table = _poisson(photons)
    # One search for all gray levels: level g's probabilities are looked up between g and g + 1.
    ladder = (table + np.arange(256)[:, None]).ravel()
    found = np.searchsorted(ladder, image + _uniform(key, image.shape).astype(np.float64), "right")
    return 255 / photons * (found - image * np.int64(table.shape[1]))


def impulse_noise(image, key, share):
    """Sets this share of all values to black or white, with equal probability."""
    u = _uniform(key, image.shape)
    return np.where(u < share, np.where(u < share / 2, 0, 255), image)


def defocus_blur(image, key, radius, softness):
    """The mean over a disk, softened at its edge by a Gaussian of standard deviation `softness`."""
    scale = _scale(image)
    fine = math.ceil(scale)  # taps per pixel of the paper, so that large images have no gaps
    steps = np.arange(-(radius + 2) * fine, (radius + 2) * fine + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= (radius * fine) ** 2).astype(np.float64)
    disk = ndimage.gaussian_filter(disk, softness * fine)
    y, x = np.nonzero(disk)
    kernel = _kernel(steps[y] * scale / fine, steps[x] * scale / fine, disk[y, x])
    return _correlate(image, kernel, "reflect")


def glass_blur(image, key, sigma, reach, rounds):
    """Between two Gaussian blurs, each pixel copies one up to `reach` away, for several rounds.

    The paper means to swap pixels, but its `x[i], x[j] = x[j], x[i]` copies on views of an array.
    Published numbers are of these copies, so this copies too.
    """
    scale, (height, width) = _scale(image), image.shape[:2]
    sigmas = (sigma * scale, sigma * scale, 0)
    origin = np.arange(height * width)
    for number in range(rounds):
        origin = origin[_copy_neighbors(hash_words(key, number), height, width, reach)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    rows, columns = (index.reshape(height, width) for index in np.divmod(origin, width))
    soft = ndimage.gaussian_filter(image.astype(np.float32), sigmas, mode="nearest")
    moved = _sample(soft, y + scale * (rows - y), x + scale * (columns - x))
    return ndimage.gaussian_filter(moved, sigmas, mode="nearest")


def _copy_neighbors(key, height: int, width: int, reach: int) -> np.ndarray:
    """[H * W]: where each pixel comes from after one round of `glass_blur`."""
    inside = np.zeros((height, width), bool)
    inside[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    pixels = np.flatnonzero(inside)
    down, right = (_bits(key, (2, len(pixels))) * np.int64(2 * reach) >> 16) - reach
    chosen = pixels + down * width + right
    # The round runs backwards: later pixels have already changed, earlier ones have not.
    # Indices from `count` on mean changed pixels: follow them until all are unchanged pixels.
    count = height * width
    follow = np.concatenate([np.arange(count)] * 2)
    follow[count + pixels] = np.where(chosen > pixels, count + chosen, chosen)
    while (follow >= count).any():
        follow = follow[follow]
    return follow[count:]


def motion_blur(image, key, radius, sigma):
    """A one-sided Gaussian streak, 2 * radius + 1 long, within 45 degrees of the horizontal."""
    return _streak(image, radius, sigma, math.pi / 2 * (_uniform(key, (1,))[0] - 0.5))


def _streak(image, radius, sigma, angle) -> np.ndarray:
    """`motion_blur` at an angle in radians, clockwise on the screen."""
    scale = _scale(image)
    steps = np.arange(0, 2 * radius + 1e-9, 1 / math.ceil(scale))
    weights = np.exp(-((steps / sigma) ** 2) / 2)
    kernel = _kernel(steps * scale * math.sin(angle), steps * scale * math.cos(angle), weights)
    return _correlate(image, kernel, "edge")


def zoom_blur(image, key, zooms):
    """The mean of the image and its center enlarged by each of these factors."""
    height, width = image.shape[:2]
    picture, total = _picture(image), image.astype(np.float32)
    for zoom in zooms:
        y, x = (1 - 1 / zoom) / 2 * height, (1 - 1 / zoom) / 2 * width
        box = (x, y, width - x, height - y)
        enlarged = picture.resize((width, height), Image.Resampling.BILINEAR, box)
        total += np.asarray(enlarged).reshape(image.shape)
    return total / (len(zooms) + 1)


def snow(image, key, mean, std, grain, threshold, radius, sigma, kept):
    """Adds flakes, and their rotation by 180 degrees, to an image whitened by the share 1 - kept.
    Flakes are normal noise of this grain size above a threshold, blurred as in `motion_blur`.
    """
    canvas = np.array(_canvas(image))
    noise = mean + std * _normal(hash_words(key, 0), tuple(np.ceil(canvas / grain).astype(int)))
    flakes = ndimage.zoom(noise, canvas / noise.shape, order=1)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    angle = -math.pi / 2 * (_uniform(hash_words(key, 1), (1,))[0] + 0.5)
    flakes = _streak(flakes[:, :, None], radius, sigma, angle)[:, :, 0]
    flakes = _stretch(flakes, image.shape[:2])[:, :, None]
    gray = image @ np.float32([0.299, 0.587, 0.114] if image.shape[2] == 3 else [1])
    white = np.maximum(image, 1.5 * gray[:, :, None] + 127.5)
    return kept * image + (1 - kept) * white + 255 * (flakes + flakes[::-1, ::-1])


def fog(image, key, thickness, decay):
    """Adds clouds (a plasma fractal), and rescales to keep the brightest possible value."""
    height, width = _canvas(image)
    clouds = _plasma(key, 2 ** math.ceil(math.log2(max(height, width))), decay)
    clouds = 255 * thickness * _stretch(clouds[:height, :width], image.shape[:2])[:, :, None]
    most = float(image.max())
    return (image + clouds) * (most / (most + 255 * thickness))


def _plasma(key, side: int, decay: float) -> np.ndarray:
    """[side, side] in [0, 1]: midpoint displacement (diamond-square) on a torus; side is 2**n."""
    field, amplitude = np.zeros((1, 1)), 1.0
    while len(field) < side:
        count = 2 * len(field)
        noise = amplitude * (2 * _uniform(hash_words(key, count), (count, count)) - 1)
        finer = np.zeros((count, count))
        finer[::2, ::2] = field
        diagonal = field + np.roll(field, -1, axis=0)
        middle = (diagonal + np.roll(diagonal, -1, axis=1)) / 4 + noise[1::2, 1::2]
        finer[1::2, 1::2] = middle
        across = field + np.roll(field, -1, axis=1) + middle + np.roll(middle, 1, axis=0)
        finer[::2, 1::2] = across / 4 + noise[::2, 1::2]
        down = field + np.roll(field, -1, axis=0) + middle + np.roll(middle, 1, axis=1)
        finer[1::2, ::2] = down / 4 + noise[1::2, ::2]
        field, amplitude = finer, amplitude / decay**2
    return (field - field.min()) / (field.max() - field.min())


def brightness(image, key, amount):
    """Raises the value in HSV by this amount, where 1 is white; hue and saturation stay."""
    value = image.max(axis=2, keepdims=True).astype(np.float32)
    lighter = np.minimum(value + 255 * amount, 255)
    return np.where(value > 0, image * (lighter / np.maximum(value, 1)), lighter)


def contrast(image, key, kept):
    """Each channel keeps this share of its deviation from its mean."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + kept * (image - mean)


def elastic_transform(image, key, strength, sigma, shift):
    """A random affine map, which moves three corners of a square of 2 / 3 of the image by up to
    `shift`; then displacements, uniform noise in [-strength, strength] blurred with `sigma`.
    """
    canvas, scale = _canvas(image), _scale(image)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] / scale
    for axis, places in enumerate((y, x)):
        noise = 2 * _uniform(hash_words(key, axis), canvas) - 1
        places += _stretch(strength * _smooth(noise, sigma), image.shape[:2])
    middle, half = np.array(canvas) // 2, SIDE // 3
    corners = middle + half * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = corners + shift * (2 * _uniform(hash_words(key, 2), (3, 2)) - 1)
    # The inverse map, from the moved corners: where each pixel of the result comes from.
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
    rows, columns = (back[0, i] * y + back[1, i] * x + back[2, i] for i in (0, 1))
    return _sample(image, rows * scale, columns * scale)


def _smooth(noise: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, mirrored at the borders. By DCT, since sigma may exceed the image's size."""
    waves = fft.dctn(noise, norm="ortho")
    for axis, side in enumerate(noise.shape):
        damping = np.exp(-((np.pi * sigma * np.arange(side) / side) ** 2) / 2)
        waves = waves * np.expand_dims(damping, 1 - axis)
    return fft.idctn(waves, norm="ortho")


def pixelate(image, key, share):
    """Shrinks the image to this share of its sides and enlarges it again, without smoothing."""
    height, width = image.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    picture = _picture(image).resize(small, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX)).reshape(image.shape)


def jpeg_compression(image, key, quality):
    """Compresses as a JPEG of this quality, 1 to 95, and decodes it."""
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return images.Encoded(file.getvalue(), image.shape[2]).pixels()


def _picture(image: np.ndarray) -> Image.Image:
    """[H, W, C] uint8 as a Pillow image."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
