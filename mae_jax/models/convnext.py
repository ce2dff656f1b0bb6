"""A hierarchical convolutional encoder after ConvNeXt V2 (arXiv 2301.00808), which can see a part
of an image only.

With a mask, the encoder computes as if masked pixels did not exist (SparK, arXiv 2301.03580; FCMAE,
in the paper above): masked positions are set to zero again after every operation that mixes
positions, and statistics are taken over visible positions only. So masked content neither leaks
into the features nor dilutes them. The mask's unit is the total stride, `patch`.

The output has the form of a ViT's: one token for the whole image, here the mean over the (visible)
positions, then one token per position. Weights are initialized from a normal distribution with
standard deviation 0.02, biases with 0.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.drop_path import drop_path
from mae_jax.models.encoder import Encoder
from mae_jax.models.limits import check_size, chosen
from mae_jax.models.norm import LayerNorm
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patch_sides, patchify
from mae_jax.spec import nearest
from mae_jax.types import UserError

SIZES = {
    "A": dict(widths=(40, 80, 160, 320), depths=(2, 2, 6, 2)),
    "F": dict(widths=(48, 96, 192, 384), depths=(2, 2, 6, 2)),
    "P": dict(widths=(64, 128, 256, 512), depths=(2, 2, 6, 2)),
    "N": dict(widths=(80, 160, 320, 640), depths=(2, 2, 8, 2)),
    "T": dict(widths=(96, 192, 384, 768), depths=(3, 3, 9, 3)),
    "B": dict(widths=(128, 256, 512, 1024), depths=(3, 3, 27, 3)),
    "L": dict(widths=(192, 384, 768, 1536), depths=(3, 3, 27, 3)),
    "H": dict(widths=(352, 704, 1408, 2816), depths=(3, 3, 27, 3)),
}
"""Atto, femto, pico, nano, tiny, base, large and huge of ConvNeXt V2."""

weight_init = nn.initializers.normal(0.02)


class GRN(nn.Module):
    """Global response normalization (arXiv 2301.00808, section 3.3): channels compete by their norm
    over the visible positions. Starts as the identity.
    """

    @nn.compact
    def __call__(self, x: jax.Array, visible: jax.Array | None) -> jax.Array:
        """x [B, *space, C], visible [B, *space, 1] bool or None for all, to [B, *space, C]."""
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.float32)
        # The small number keeps the gradient finite where a channel is silent.
        positions = tuple(range(1, x.ndim - 1))
        square = jnp.square(apply_mask(wide, visible)).sum(axis=positions, keepdims=True)
        norm = jnp.sqrt(square + 1e-12)
        share = norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)
        return (wide * (scale * share + 1) + bias).astype(x.dtype)


class Block(nn.Module):
    """A depthwise convolution, then a multilayer perceptron at every position."""

    kernel: int
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, visible: jax.Array | None, train: bool = False) -> jax.Array:
        """x [B, *space, C], zero where it is not visible [B, *space, 1], to the same."""
        width = x.shape[-1]
        dense = lambda size, name: nn.Dense(
            size, kernel_init=weight_init, dtype=self.dtype, name=name
        )
        y = nn.Conv(
            width,
            (self.kernel,) * (x.ndim - 2),
            feature_group_count=width,
            kernel_init=weight_init,
            dtype=self.dtype,
            name="spatial",
        )(x)
        y = LayerNorm(dtype=self.dtype, name="norm")(y)
        y = nn.gelu(dense(4 * width, "fc1")(y), approximate=False)
        y = dense(width, "fc2")(GRN(name="response")(y, visible))
        rng = lambda: self.make_rng("drop_path")
        return x + apply_mask(drop_path(rng, y, self.drop_path if train else 0), visible)


class ConvNeXt(Encoder):
    """The encoder."""

    widths: tuple[int, ...]
    """Of the stages, each of which halves the sides of its map."""
    depths: tuple[int, ...]
    """Blocks of the stages."""
    stem: int = 4
    """Side in pixels of what becomes one position of the first map."""
    kernel: int = 7
    """Side of the depthwise convolutions."""
    drop_path: float = 0.0
    """Of the last block; it rises from 0 in the first."""
    final_norm: bool = True
    dtype: Any = jnp.float32

    prefix = 1
    """The mean over the positions."""

    @property
    def width(self) -> int:
        """Of the tokens."""
        return self.widths[-1]

    @property
    def patch(self) -> int:
        """Total stride: side in pixels of a position of the last map."""
        return self.stem * 2 ** (len(self.widths) - 1)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return sum(self.depths)

    @property
    def architecture(self) -> tuple:
        """What must be the same for parameters to fit: not how it is trained or computed."""
        return ("convnext", self.widths, self.depths, self.stem, self.kernel)

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """The mean over what is visible, then the visible positions; see `Encoder`."""
        images = images if normalize is None else normalize(images)
        _, last = self.run(images, mask, train=train)
        tokens = last.reshape(len(last), -1, self.width)  # [B, L, D]
        if mask is not None:
            tokens = jnp.take_along_axis(tokens, mask.keep[:, :, None], axis=1)
        whole = tokens.astype(jnp.float32).mean(axis=1, keepdims=True)
        return jnp.concatenate([whole.astype(tokens.dtype), tokens], axis=1)

    def maps(
        self, images: jax.Array, *, train: bool = False, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Maps of the stages, see `Encoder`."""
        maps, _ = self.run(images, train=train)
        return [maps[number] for number in chosen("stage", len(maps), taps)]

    @nn.compact
    def run(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False
    ) -> tuple[list[jax.Array], jax.Array]:
        """The map [B, *space, width] of each stage, and the last one after the final norm; all are
        zero at masked positions. See `__call__`.
        """
        grid = grid_of(images.shape[1:-1], self.patch)
        visible = None if mask is None else ~mask.mask.reshape(-1, *grid, 1)  # of [B, L]
        dense = lambda width, name: nn.Dense(
            width, kernel_init=weight_init, dtype=self.dtype, name=name
        )
        norm = lambda name: LayerNorm(dtype=self.dtype, name=name)
        x, maps, block = apply_mask(images, upsample_mask(visible, self.patch)), [], 0
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            at_stage = upsample_mask(visible, 2 ** (len(self.widths) - 1 - stage))
            if stage == 0:
                positions = grid_of(x.shape[1:-1], self.stem)
                x = dense(width, "embed")(patchify(x, self.stem))  # [B, L, width]
                x = norm("embed_norm")(
                    x.reshape(len(x), *positions, width)
                )  # [B, *positions, width]
            else:
                x = Downsample(width, self.dtype, name=f"down_{block}")(x)
            x = apply_mask(x, at_stage)
            for _ in range(depth):
                rate = self.drop_path * block / max(1, self.depth - 1)
                x = Block(self.kernel, rate, self.dtype, name=f"block_{block}")(x, at_stage, train)
                block += 1
            maps.append(x)
        return maps, apply_mask(norm("norm")(x), visible) if self.final_norm else x


class Downsample(nn.Module):
    """Halves the sides of a map: every 2 x 2 (in n dimensions 2^n) positions become one."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, *space, C] to [B, *(space / 2), width]."""
        grid = grid_of(x.shape[1:-1], 2)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        fc = nn.Dense(self.width, kernel_init=weight_init, dtype=self.dtype, name="fc")
        return fc(patchify(x, 2)).reshape(len(x), *grid, self.width)  # of [B, L, width]


def apply_mask(x: jax.Array, visible: jax.Array | None) -> jax.Array:
    """x [B, *space, C] with zeros where it is not visible [B, *space, 1]; None: all is."""
    return x if visible is None else jnp.where(visible, x, 0)


def upsample_mask(visible: jax.Array | None, factor: int | Sequence[int]) -> jax.Array | None:
    """A map [B, *space, 1] with every position repeated `factor` times along each axis."""
    if visible is None:
        return None
    for axis, count in enumerate(patch_sides(factor, visible.ndim - 2), start=1):
        visible = visible.repeat(count, axis=axis)
    return visible


def make(
    size: str | None = None,
    *,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    stem: int = 4,
    kernel: int = 7,
    drop_path: float = 0.0,
    final_norm: bool = True,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
    """A convolutional encoder of a named size, or of free widths and depths.

    Args:
        size: one of A, F, P, N, T, B, L, H.
        widths, depths: of each stage; they also override the size's.
        stem: side in pixels of a position of the first map; each further stage doubles it.
        kernel: side of the depthwise convolutions, odd.
        drop_path: rate of stochastic depth in the last block, in [0, 1).
        final_norm: whether tokens are normalized; a classifier on their mean has a norm of its own.

    Raises:
        UserError: an unknown size or an impossible shape.
    """
    if size is not None and size not in SIZES:
        raise UserError(f"convnext size {size!r} is unknown{nearest(size, SIZES)}")
    shape = dict(SIZES.get(size, {}))
    shape |= {k: v for k, v in dict(widths=widths, depths=depths).items() if v is not None}
    if len(shape) < 2:
        raise UserError(f"convnext needs a size ({', '.join(SIZES)}) or both of widths and depths")
    for name, values in shape.items():
        if not isinstance(values, Sequence) or not values or not all(map(_is_count, values)):
            raise UserError(
                f"convnext: {name}={values!r} must be positive whole numbers, one for every stage, "
                "e.g. (48, 96), or (48,) for a single stage"
            )
    if len(shape["widths"]) != len(shape["depths"]):
        raise UserError(
            f"convnext: widths={shape['widths']} and depths={shape['depths']} must have the same "
            "length: one of each for every stage"
        )
    shape = {name: tuple(values) for name, values in shape.items()}
    check_size("convnext", width=max(shape["widths"]), depth=sum(shape["depths"]))
    if stem < 1 or kernel < 1 or kernel % 2 == 0:
        raise UserError(f"convnext: stem={stem} must be positive and kernel={kernel} odd")
    if not 0 <= drop_path < 1:
        raise UserError(f"convnext: drop_path={drop_path} is outside [0, 1)")
    return ConvNeXt(
        stem=stem,
        kernel=kernel,
        drop_path=drop_path,
        final_norm=final_norm,
        dtype=dtype,
        **shape,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0
