"""Random resized crop as in torchvision, from GoogLeNet (arXiv 1409.4842), of images, and of clips
as in MAE_ST (arXiv 2205.09113): the same box of all frames.
"""

import numpy as np

from mae_jax.data.frame_geometry import frame_of, move_frames
from mae_jax.data.geometry import Window
from mae_jax.data.resizing import KERNELS
from mae_jax.data.transforms import Transform, check_range, size_of
from mae_jax.spec import check_choice


class RandomResizedCrop(Transform):
    """Crops a random box and resizes it, antialiased; see `make`."""

    tries = 10
    draws = 4 * tries

    def __init__(self, size, scale, ratio, kernel):
        self.size, self.scale, self.ratio, self.kernel = size, scale, ratio, kernel
        self.pixels = size[0] * size[1]

    def plan(self, u):
        """[B, tries, 4]: share of the area, root of the aspect ratio, relative position in y, x."""
        u = u.reshape(-1, self.tries, 4)
        area = self.scale[0] + u[:, :, 0] * (self.scale[1] - self.scale[0])
        low, high = np.log(self.ratio)
        aspect = np.exp(low + u[:, :, 1] * (high - low))
        return np.stack([area, np.sqrt(aspect), u[:, :, 2], u[:, :, 3]], axis=2)

    def box(self, height: int, width: int, params: np.ndarray) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop: the first try that fits into the image, else the
        largest centered box of an allowed aspect ratio.
        """
        side = np.sqrt(float(height) * width * params[:, 0])
        widths, heights = np.rint(side * params[:, 1]), np.rint(side / params[:, 1])
        fits = (widths >= 1) & (heights >= 1) & (widths <= width) & (heights <= height)
        if not fits.any():
            low, high = self.ratio
            columns = max(min(width, round(height * high)), 1)
            rows = max(min(height, round(width / low)), 1)
            return (height - rows) // 2, (width - columns) // 2, rows, columns
        first = fits.argmax()
        rows, columns = int(heights[first]), int(widths[first])
        top = int(params[first, 2] * (height - rows + 1))
        return top, int(params[first, 3] * (width - columns + 1)), rows, columns

    def apply(self, example, params):
        """Crops an image of any size and resizes it to [*size, C], or a clip to [T, *size, C]."""
        plane = frame_of(example, "random_resized_crop")
        window = Window(box=self.box(*plane, params), size=self.size, kernel=self.kernel)
        return move_frames(example, window)


def make(
    size, *, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), kernel: str = "bicubic"
) -> RandomResizedCrop:
    """A random resized crop of images [H, W, C], or of clips [T, H, W, C]: all frames alike.

    Args:
        size: size of the result in pixels, one number or (height, width).
        scale: range of the crop's share of the area; uniform.
        ratio: range of width / height; log-uniform.
        kernel: of the image, as for resize; labels take the nearest pixel.
    """
    check = lambda name, pair: check_range("random_resized_crop", name, pair)
    check_choice("random_resized_crop: kernel", kernel, KERNELS)
    return RandomResizedCrop(size_of(size), check("scale", scale), check("ratio", ratio), kernel)
