"""ConvNeXt V2, a hierarchical convolutional encoder (arXiv 2301.00808), on whole or masked images.

With a mask, dense convolutions emulate the sparse ones of FCMAE (in the same paper) and SparK
(arXiv 2301.03580): masked positions are reset to zero after every operation that mixes positions,
and global statistics cover visible positions only. Masked content thus neither leaks into the
features nor dilutes them. A masked patch has the side of the total stride, `patch`.

The output has the layout of a ViT's: one token for the whole image, here the mean over the visible
positions, then one token per position. Weights are initialized from a normal distribution with
standard deviation 0.02, biases with 0.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax.models.drop_path import drop_path
from mae_jax.models.encoder import Encoder
from mae_jax.models.limits import check_size, chosen
from mae_jax.models.norm import LayerNorm
from mae_jax.ops.masking import Mask, apply_mask, upsample_mask
from mae_jax.ops.patches import grid_of, patchify
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
    """Global response normalization (arXiv 2301.00808, section 3.3): scales a channel by its norm
    over the visible positions, relative to the mean norm of all channels. Starts as the identity.
    """

    @nn.compact
    def __call__(self, x: jax.Array, visible: jax.Array | None) -> jax.Array:
        """x [B, *space, C], visible [B, *space, 1] bool or None for all, to [B, *space, C]."""
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.float32)
        positions = tuple(range(1, x.ndim - 1))
        square = jnp.square(apply_mask(wide, visible)).sum(axis=positions, keepdims=True)
        # [B, 1, ..., 1, C]. The constant keeps the gradient finite where a channel is zero.
        norm = jnp.sqrt(square + 1e-12)
        response = norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)
        return (wide * (scale * response + 1) + bias).astype(x.dtype)


class Block(nn.Module):
    """A residual branch: depthwise convolution, LayerNorm, then an MLP with GRN per position."""

    kernel: int
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, visible: jax.Array | None, train: bool = False) -> jax.Array:
        """x [B, *space, C] to the same shape; input and output are zero at masked positions.

        Args:
            visible: [B, *space, 1] bool; None: all positions.
            train: applies stochastic depth, which needs the random stream 'drop_path'.
        """
        width = x.shape[-1]
        dense = functools.partial(nn.Dense, kernel_init=weight_init, dtype=self.dtype)
        y = nn.Conv(
            width,
            (self.kernel,) * (x.ndim - 2),
            feature_group_count=width,  # depthwise
            kernel_init=weight_init,
            dtype=self.dtype,
            name="spatial",
        )(x)
        y = LayerNorm(dtype=self.dtype, name="norm")(y)
        y = nn.gelu(dense(4 * width, name="fc1")(y), approximate=False)  # [B, *space, 4 C]
        y = dense(width, name="fc2")(GRN(name="response")(y, visible))
        rng = lambda: self.make_rng("drop_path")
        # The convolution and the biases have written to masked positions: zero them again.
        return x + apply_mask(drop_path(rng, y, self.drop_path if train else 0), visible)


class ConvNeXt(Encoder):
    """The ConvNeXt V2 encoder; `make` checks its fields."""

    widths: tuple[int, ...]
    """Channels of each stage. Every stage after the first halves the sides of the feature map."""
    depths: tuple[int, ...]
    """Number of blocks of each stage."""
    stem: int = 4
    """Side and stride in pixels of the patches that the stem embeds."""
    kernel: int = 7
    """Side of the depthwise convolutions."""
    drop_path: float = 0.0
    """Rate of stochastic depth in the last block; it rises linearly from 0 in the first."""
    final_norm: bool = True
    dtype: Any = jnp.float32

    prefix = 1
    """The first token is the mean over the positions."""

    @property
    def width(self) -> int:
        """Channels D of the tokens."""
        return self.widths[-1]

    @property
    def patch(self) -> int:
        """Total stride: side in pixels of one position of the last feature map."""
        return self.stem * 2 ** (len(self.widths) - 1)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return sum(self.depths)

    @property
    def layers(self) -> int:
        """Every block is a layer."""
        return self.depth

    @property
    def layers_alike(self) -> bool:
        """Stages differ in their channels and positions."""
        return len(self.widths) == 1

    @property
    def architecture(self) -> tuple:
        """The options that determine the shapes of the parameters; see `Encoder`."""
        return ("convnext", self.widths, self.depths, self.stem, self.kernel)

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """The mean over the visible positions, then the visible positions; see `Encoder`."""
        images = images if normalize is None else normalize(images)
        _, last, _ = self.run(images, mask, train=train)
        tokens = last.reshape(len(last), -1, self.width)  # [B, *grid, D] to [B, L, D]
        if mask is not None:
            tokens = jnp.take_along_axis(tokens, mask.keep[:, :, None], axis=1)  # [B, K, D]
        return with_mean(tokens)

    def layer_width(self, layer: int) -> int:
        """Channels of the stage of a block."""
        return np.repeat(self.widths, self.depths)[layer].item()

    def layer_tokens(self, images: jax.Array, layers: Sequence[int]) -> list[jax.Array]:
        """Tokens of blocks, the mean and the positions of the stage, [B, 1 + positions, width]
        each. In inner stages the norm is that of the next downsampling; see `Encoder`.
        """
        _, _, outputs = self.run(images, layers=layers)
        return [with_mean(x.reshape(len(x), -1, x.shape[-1])) for x in outputs]

    def maps(
        self, images: jax.Array, *, train: bool = False, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Feature maps of the stages, from fine to coarse; see `Encoder`."""
        maps, _, _ = self.run(images, train=train)
        return [maps[number] for number in chosen("stage", len(maps), taps)]

    @nn.compact
    def run(
        self,
        images: jax.Array,
        mask: Mask | None = None,
        *,
        train: bool = False,
        layers: Sequence[int] = (),
    ) -> tuple[list[jax.Array], jax.Array, list[jax.Array]]:
        """The feature map [B, *positions, width] of each stage; the last one after the final norm;
        and those of the blocks `layers` after the norm of their stage. All but the latter are zero
        at masked positions. For the arguments see `Encoder`.
        """
        grid = grid_of(images.shape[1:-1], self.patch)
        visible = None if mask is None else ~mask.mask.reshape(-1, *grid, 1)  # [B, *grid, 1]
        norm = lambda name: LayerNorm(dtype=self.dtype, name=name)
        x, block = apply_mask(images, upsample_mask(visible, self.patch)), 0
        maps, outputs, inner = [], [], []  # `inner`: those of `layers` in the stage at hand
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            # [B, *positions, 1] for the positions of `x` at this stage
            at_stage = upsample_mask(visible, 2 ** (len(self.widths) - 1 - stage))
            if stage == 0:
                positions = grid_of(x.shape[1:-1], self.stem)
                embed = nn.Dense(width, kernel_init=weight_init, dtype=self.dtype, name="embed")
                x = embed(patchify(x, self.stem))  # [B, L, width]
                x = norm("embed_norm")(x.reshape(-1, *positions, width))  # [B, *positions, width]
            else:
                down = Downsample(width, self.dtype, name=f"down_{block}")
                outputs += map(down.norm, inner)
                x, inner = down(x), []
            x = apply_mask(x, at_stage)
            for _ in range(depth):
                rate = self.drop_path * block / max(1, self.depth - 1)
                x = Block(self.kernel, rate, self.dtype, name=f"block_{block}")(x, at_stage, train)
                inner += [x] * (block in layers)
                block += 1
            maps.append(x)
        if not self.final_norm:
            return maps, x, outputs + inner
        final = norm("norm")
        return maps, apply_mask(final(x), visible), outputs + [*map(final, inner)]


class Downsample(nn.Module):
    """Downsamples by 2: LayerNorm, then a convolution of side and stride 2 as a dense layer."""

    width: int
    dtype: Any

    def setup(self):
        """Norm and convolution."""
        self.norm = LayerNorm(dtype=self.dtype)
        self.fc = nn.Dense(self.width, kernel_init=weight_init, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, *space, C] to [B, *(space / 2), width]."""
        grid = grid_of(x.shape[1:-1], 2)
        # [B, *space, C] to [B, L, 2^n C] to [B, L, width] to [B, *grid, width]
        return self.fc(patchify(self.norm(x), 2)).reshape(len(x), *grid, self.width)


def with_mean(tokens: jax.Array) -> jax.Array:
    """Prepends their mean to tokens [B, L, D]: [B, 1 + L, D]."""
    mean = tokens.astype(jnp.float32).mean(axis=1, keepdims=True)  # [B, 1, D]
    return jnp.concatenate([mean.astype(tokens.dtype), tokens], axis=1)


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
    """Builds a ConvNeXt V2 encoder of a named size, or with the given widths and depths.

    Args:
        size: one of A, F, P, N, T, B, L, H; see `SIZES`.
        widths, depths: channels and number of blocks of each stage; they override the size's.
        stem: side and stride of the first layer in pixels; each further stage doubles the stride.
        kernel: side of the depthwise convolutions, odd.
        drop_path: rate of stochastic depth in the last block, in [0, 1).
        final_norm: normalize the last feature map; off for a classifier, whose head has a norm.
        dtype: of the computations; parameters are float32.

    Raises:
        UserError: an unknown size or an invalid value.
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
    options = dict(stem=stem, kernel=kernel, drop_path=drop_path, final_norm=final_norm)
    return ConvNeXt(**options, dtype=dtype, **shape)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0
