"""Image transforms, each in two halves: numbers are drawn once, in numpy, from the example's seed;
pixels are then moved by numpy and Pillow, or by TensorFlow, with the same numbers.

A transform is a class with `draws`, how many uniform numbers it needs; `plan(u)`, which turns
[B, draws] of them into parameters [B, ...] float64; `on_array` and `on_tensor`, which apply one
example's parameters to an image [H, W, C] uint8. Parameters do not depend on the image, and what
follows from its size uses only operations that IEEE 754 rounds correctly, so both pipelines crop
the same boxes. To add a transform, write a class here.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mae_jax import spec
from mae_jax.data.random import hash_words, uniform
from mae_jax.types import UserError


class Transform(Protocol):
    """See above."""

    draws: int

    def plan(self, u: np.ndarray) -> np.ndarray:
        """[B, draws] uniform numbers to parameters [B, ...]."""

    def on_array(self, image: np.ndarray, params: np.ndarray) -> np.ndarray:
        """[H, W, C] uint8 to uint8."""

    def on_tensor(self, tf: Any, image: Any, params: Any) -> Any:
        """The same in a TensorFlow graph; `tf` is the module."""


def parse(text: str) -> list[Transform]:
    """Builds the transforms of a spec string, e.g. 'random_resized_crop(224)|flip'.

    Raises:
        UserError: an unknown name or argument.
    """
    known = {
        "random_resized_crop": RandomResizedCrop,
        "flip": Flip,
        "resize": Resize,
        "center_crop": CenterCrop,
    }
    transforms = []
    for name, args, kwargs in spec.parse(text):
        if name not in known:
            raise UserError(f"transform {name!r} is unknown{spec.nearest(name, known)}")
        transforms.append(spec.call(name, known[name], *args, **kwargs))
    return transforms


def draw(transforms: Sequence[Transform], seeds: np.ndarray) -> list[np.ndarray]:
    """The parameters of every transform, for the examples with these seeds [B]."""
    return [
        transform.plan(uniform(hash_words(seeds, place), transform.draws))
        for place, transform in enumerate(transforms)
    ]


def size_of(size: int | Sequence[int]) -> tuple[int, int]:
    """An argument that means (height, width); one number means a square."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise UserError(f"size {size!r} should be a positive number or (height, width)")
    return pair


def _is_range(pair: Any) -> bool:
    """Whether this is (low, high), both positive."""
    is_pair = isinstance(pair, Sequence) and len(pair) == 2
    return is_pair and all(isinstance(v, (int, float)) for v in pair) and 0 < pair[0] <= pair[1]


class RandomResizedCrop:
    """Crops a random part of the image and resizes it (bicubic, antialiased).

    Up to ten boxes are tried until one fits; otherwise the largest central box of an allowed
    aspect ratio is taken (as in torchvision, from GoogLeNet, arXiv 1409.4842).

    Args:
        size: of the result, in pixels.
        scale: range of the share of the area.
        ratio: range of width / height.
    """

    tries = 10
    draws = 4 * tries

    def __init__(self, size, *, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)):
        self.size = size_of(size)
        for name, pair in (("scale", scale), ("ratio", ratio)):
            if not _is_range(pair):
                raise UserError(
                    f"random_resized_crop: {name} {pair} is not an ascending range of positive "
                    "numbers, such as (0.2, 1)"
                )
        self.scale, self.ratio = scale, ratio

    def plan(self, u):
        """[B, tries, 4]: share of the area, square root of the aspect, place in y and in x."""
        u = u.reshape(-1, self.tries, 4)
        area = self.scale[0] + u[:, :, 0] * (self.scale[1] - self.scale[0])
        low, high = np.log(self.ratio)
        aspect = np.exp(low + u[:, :, 1] * (high - low))
        return np.stack([area, np.sqrt(aspect), u[:, :, 2], u[:, :, 3]], axis=2)

    def box(self, xp, height, width, params):
        """(top, left, height, width) of the crop, whole float64 numbers.

        Args:
            xp: numpy or tensorflow.
            height, width: of the image, float64 scalars.
            params: [tries, 4].
        """
        side = xp.sqrt(height * width * params[:, 0])
        widths, heights = xp.round(side * params[:, 1]), xp.round(side / params[:, 1])
        fits = (widths >= 1) & (heights >= 1) & (widths <= width) & (heights <= height)
        first = xp.argmax(xp.where(fits, 1, 0), axis=0)
        low, high = self.ratio
        central_width = xp.maximum(xp.minimum(width, xp.round(height * high)), 1.0)
        central_height = xp.maximum(xp.minimum(height, xp.round(width / low)), 1.0)
        crop_height = xp.where(fits[first], heights[first], central_height)
        crop_width = xp.where(fits[first], widths[first], central_width)
        top = xp.floor(params[first, 2] * (height - crop_height + 1))
        left = xp.floor(params[first, 3] * (width - crop_width + 1))
        top = xp.where(fits[first], top, xp.floor((height - crop_height) / 2))
        left = xp.where(fits[first], left, xp.floor((width - crop_width) / 2))
        return top, left, crop_height, crop_width

    def on_array(self, image, params):
        """[H, W, C] uint8 to [*size, C] uint8."""
        height, width = (np.float64(side) for side in image.shape[:2])
        top, left, rows, columns = (int(v) for v in self.box(np, height, width, params))
        return resize_array(image[top : top + rows, left : left + columns], self.size)

    def on_tensor(self, tf, image, params):
        """The same in TensorFlow."""
        height, width = (tf.cast(side, tf.float64) for side in tf.unstack(tf.shape(image)[:2]))
        top, left, rows, columns = (
            tf.cast(value, tf.int32) for value in self.box(tf, height, width, params)
        )
        return resize_tensor(tf, image[top : top + rows, left : left + columns], self.size)


class Flip:
    """Mirrors the image, left to right, half of the time."""

    draws = 1

    def plan(self, u):
        """[B, 1]: 1 to flip, else 0."""
        return (u < 0.5).astype(np.float64)

    def on_array(self, image, params):
        """[H, W, C] uint8 to the same."""
        return image[:, ::-1] if params[0] > 0 else image

    def on_tensor(self, tf, image, params):
        """The same in TensorFlow."""
        return tf.cond(params[0] > 0, lambda: image[:, ::-1], lambda: image)


class Resize:
    """Resizes (bicubic, antialiased): to (height, width), or, given one number, so that the
    shorter side has that length. An image that has that size already is left alone.
    """

    draws = 0

    def __init__(self, size):
        self.size = size
        self.pair = size_of(size)

    def plan(self, u):
        """Nothing is random: [B, 0]."""
        return u

    def target(self, height: float, width: float, xp):
        """(height, width) of the result."""
        if not isinstance(self.size, int):
            return self.pair
        shorter = xp.minimum(height, width)
        return xp.round(height * self.size / shorter), xp.round(width * self.size / shorter)

    def on_array(self, image, params):
        """[H, W, C] uint8 to uint8."""
        height, width = (np.float64(side) for side in image.shape[:2])
        rows, columns = self.target(height, width, np)
        return resize_array(image, (int(rows), int(columns)))

    def on_tensor(self, tf, image, params):
        """The same in TensorFlow."""
        height, width = (tf.cast(side, tf.float64) for side in tf.unstack(tf.shape(image)[:2]))
        rows, columns = (tf.cast(side, tf.int32) for side in self.target(height, width, tf))
        return resize_tensor(tf, image, (rows, columns))


class CenterCrop:
    """Cuts out the middle. Args: size in pixels, at most that of the image."""

    draws = 0

    def __init__(self, size):
        self.size = size_of(size)

    def plan(self, u):
        """Nothing is random: [B, 0]."""
        return u

    def on_array(self, image, params):
        """[H, W, C] uint8 to [*size, C] uint8."""
        (height, width), (rows, columns) = image.shape[:2], self.size
        if height < rows or width < columns:
            raise UserError(
                f"center_crop({rows}, {columns}) of an image of {height} x {width}: "
                "put resize(...) before it"
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        return image[top : top + rows, left : left + columns]

    def on_tensor(self, tf, image, params):
        """The same in TensorFlow."""
        return tf.image.resize_with_crop_or_pad(image, *self.size)


def resize_array(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic with antialiasing, in float32, clipped and rounded: [H, W, C] uint8 to uint8.

    Pillow's 8-bit path rounds and clips between its two passes; its float path does not.
    """
    if image.shape[:2] == size:
        return image
    planes = [
        Image.fromarray(image[:, :, c].astype(np.float32)).resize(size[::-1], Image.BICUBIC)
        for c in range(image.shape[2])
    ]
    return np.clip(np.rint(np.stack(planes, axis=2)), 0, 255).astype(np.uint8)


def resize_tensor(tf: Any, image: Any, size) -> Any:
    """`resize_array` in TensorFlow; pixels agree within one grey level."""
    resized = tf.image.resize(image, size, method="bicubic", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
