"""Resizes uint8 images with antialiasing as in Pillow, in SIMD integer arithmetic."""

import threading

import cykooz_resizer as resizer
import numpy as np

_PIXELS = {
    1: resizer.PixelType.U8,
    2: resizer.PixelType.U8x2,
    3: resizer.PixelType.U8x3,
    4: resizer.PixelType.U8x4,
}
KERNELS = {
    "bicubic": resizer.ResizeAlg.convolution(resizer.FilterType.catmull_rom),
    "bilinear": resizer.ResizeAlg.convolution(resizer.FilterType.bilinear),
    "lanczos": resizer.ResizeAlg.convolution(resizer.FilterType.lanczos3),
    "nearest": resizer.ResizeAlg.nearest(),
}
"""Resampling kernels, named as in Pillow. All but 'nearest' widen when an image shrinks."""
THUMBNAIL = 128
"""Longest side in pixels of a thumbnail."""


class _Thread(threading.local):
    """One `Resizer` per thread, since it holds buffers."""

    def __init__(self):
        self.resizer = resizer.Resizer()


_THREAD = _Thread()


def resize(
    image: np.ndarray, box: tuple[float, ...], size: tuple[int, int], kernel: str = "bicubic"
) -> np.ndarray:
    """Crops a box of an image and resizes it.

    Args:
        image: [H, W, C] uint8.
        box: (top, left, height, width) in pixels.
        size: (height, width) of the result.
        kernel: one of `KERNELS`.

    Returns:
        [*size, C] uint8.
    """
    groups = np.split(image, range(4, image.shape[2], 4), axis=2)  # the library takes 1 to 4
    resized = [_resize(group, box, size, KERNELS[kernel]) for group in groups]
    return resized[0] if len(resized) == 1 else np.concatenate(resized, axis=2)


def thumbnail(image: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """An image [H, W, C] uint8 with sides of at most `side` pixels."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return resize(image, (0, 0, height, width), size, "bicubic")


def _resize(
    image: np.ndarray,
    box: tuple[float, ...],
    size: tuple[int, int],
    algorithm: resizer.ResizeAlg,
) -> np.ndarray:
    height, width, channels = image.shape
    kind = _PIXELS[channels]
    source = resizer.ImageData(width, height, kind, image.tobytes())
    target = resizer.ImageData(size[1], size[0], kind)
    options = resizer.ResizeOptions(
        resize_alg=algorithm,
        use_alpha=False,
        crop_box=resizer.CropBox(box[1], box[0], box[3], box[2]),
    )
    _THREAD.resizer.resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*size, channels)
