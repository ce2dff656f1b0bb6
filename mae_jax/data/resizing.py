"""Resizing arrays of bytes: bicubic with antialiasing as in Pillow, in SIMD integer arithmetic."""

import threading

import cykooz_resizer as resizer
import numpy as np

_PIXELS = {
    1: resizer.PixelType.U8,
    2: resizer.PixelType.U8x2,
    3: resizer.PixelType.U8x3,
    4: resizer.PixelType.U8x4,
}
_BICUBIC = resizer.ResizeAlg.convolution(resizer.FilterType.catmull_rom)
_thread = threading.local()  # a Resizer keeps buffers, and serves one thread


def resize(image: np.ndarray, box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    """Resizes a box of an image.

    Args:
        image: [H, W, C] uint8.
        box: (top, left, height, width) in pixels.
        size: (height, width) of the result.

    Returns:
        [*size, C] uint8.
    """
    groups = np.split(image, range(4, image.shape[2], 4), axis=2)  # it knows up to four channels
    parts = [_resize(group, box, size) for group in groups]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _resize(image: np.ndarray, box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    height, width, channels = image.shape
    if not hasattr(_thread, "resizer"):
        _thread.resizer = resizer.Resizer()
    kind = _PIXELS[channels]
    source = resizer.ImageData(width, height, kind, image.tobytes())
    target = resizer.ImageData(size[1], size[0], kind)
    options = resizer.ResizeOptions(
        resize_alg=_BICUBIC,
        use_alpha=False,
        crop_box=resizer.CropBox(box[1], box[0], box[3], box[2]),
    )
    _thread.resizer.resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*size, channels)
