"""The Vision Transformer (arXiv 2010.11929) as the encoder of MAE (arXiv 2111.06377): with
positions and class tokens, for images of any number of dimensions. With a mask it encodes the
visible patches only, which makes MAE pre-training cheap.

Three options set the cost in time and memory and change results by rounding only: the `attention`
kernel, rematerialization in the backward pass (`remat`), and how patches are indexed (`gather`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax.models.embedding import embedded
from mae_jax.models.encoder import Encoder
from mae_jax.models.limits import chosen
from mae_jax.models.norm import LayerNorm
from mae_jax.models.positions import check_positions, extent_of, fixed
from mae_jax.models.transformer import (
    Trunk,
    blocks,
    check_choices,
    check_shape,
)
from mae_jax.ops.masking import Mask
from mae_jax.ops.norm import EPSILON
from mae_jax.ops.patches import grid_of, one_or_all, patch_sides
from mae_jax.spec import nearest
from mae_jax.types import UserError

SIZES = {
    "Ti": dict(width=192, depth=12, heads=3),
    "S": dict(width=384, depth=12, heads=6),
    "B": dict(width=768, depth=12, heads=12),
    "L": dict(width=1024, depth=24, heads=16),
    "H": dict(width=1280, depth=32, heads=16),
}


class ViT(Encoder):
    """The Vision Transformer; `make` checks and documents its fields."""

    width: int
    depth: int
    heads: int
    patch: int | tuple[int, ...] = 16
    """Side of a patch in pixels, or one side for each axis."""
    mlp_ratio: float = 4.0
    """Ratio of the MLP's hidden width to `width`."""
    class_tokens: int = 1
    """Number of learned tokens in front of the patches."""
    mask_tokens: bool = False
    """Encode masked patches as mask tokens instead of dropping them: an ablation of MAE."""
    drop_path: float = 0.0
    """Rate of stochastic depth in the last block; it rises linearly from 0 in the first."""
    learned_positions: bool = False
    """Train the positions of patches and class tokens, initialized to the fixed ones."""
    positions: str = "sincos"
    spacing: tuple[float, ...] = ()
    relative_positions: bool = False
    """Learned biases of the attention by relative position, see `models.relative_positions`."""
    final_norm: bool = True
    activation: str = "gelu"
    epsilon: float = EPSILON
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: str = "none"
    gather: str = "take"

    @property
    def prefix(self) -> int:
        """Number of tokens in front of the patch tokens."""
        return self.class_tokens

    @property
    def layers(self) -> int:
        """Every block is a layer."""
        return self.depth

    @property
    def architecture(self) -> tuple:
        """The options that determine the parameters and their use; see `Encoder`."""
        shape = (self.width, self.depth, self.heads, self.patch, self.mlp_ratio, self.class_tokens)
        return ("vit", *shape, *([] if self.positions == "sincos" else [self.positions]))

    def table(self, grid: tuple[int, ...]) -> np.ndarray:
        """The fixed positions [prefix + L, D] of class tokens and patches."""
        extent = extent_of(self.spacing, patch_sides(self.patch, len(grid)))
        return fixed(self.positions, grid, self.width, self.prefix, extent)

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """The class tokens, then the visible patches; see `Encoder`. With `normalize`, visible
        patches are gathered as bytes first, which moves a quarter of the memory of float32.
        """
        return self.run(images, mask, train=train, normalize=normalize).last

    def fused(
        self,
        images: jax.Array,
        mask: Mask | None,
        fuse: Callable[[list[jax.Array]], jax.Array],
        *,
        depths: Sequence[int],
        normalize=None,
    ) -> jax.Array:
        """See `Encoder`."""
        depths = chosen("fuse: depth", self.depth + 1, depths)
        if self.depth not in depths:
            raise UserError(f"fuse={depths} leaves out the last block, which must learn: add -1")
        return self.run(images, mask, normalize=normalize, fuse=fuse, depths=depths).last

    def layer_tokens(self, images: jax.Array, layers: Sequence[int]) -> list[jax.Array]:
        """See `Encoder`. Blocks after the last of these are not computed in a compiled function."""
        return self.run(images, fuse=list, depths=[layer + 1 for layer in layers]).last

    def maps(
        self, images: jax.Array, *, train: bool = False, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Outputs of blocks [B, *grid, D], without class tokens and before any norm.

        Args:
            images: [B, *space, C] float.
            train: as in `Encoder`.
            taps: indices of the blocks; None: all.
        """
        grid = grid_of(images.shape[1:-1], self.patch)
        outputs = self.run(images, train=train, taps=taps).taps
        # [B, prefix + L, D] to [B, *grid, D]
        return [x[:, self.prefix :].reshape(-1, *grid, self.width) for x in outputs]

    def attention_weights(
        self, images: jax.Array, *, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Attention weights [B, heads, T, T] float32 (query, key) of each block, for the class
        tokens followed by all patches. Each row sums to 1.

        Args:
            images: [B, *space, C] float.
            taps: indices of the blocks; None: all.
        """
        return self.run(images, weighted=taps).weights

    @nn.compact
    def run(
        self,
        images: jax.Array,
        mask: Mask | None = None,
        *,
        train: bool = False,
        normalize=None,
        taps: Sequence[int] | None = (),
        weighted: Sequence[int] | None = (),
        fuse: Callable | None = None,
        depths: Sequence[int] = (),
        more: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> Trunk:
        """All outputs of the network. `last` is after the final norm, the others are before any.
        For the arguments see `Encoder` and `blocks`; for `fuse` and `depths`, in [0, depth], see
        `Encoder.fused`. `more` [B, S, D] are tokens of another modality, which follow the patches;
        `valid` [B, prefix + K + S] bool is False for tokens that none attends to.
        """
        relative = grid_of(images.shape[1:-1], self.patch) if self.relative_positions else None
        if relative and (mask is not None or more is not None or len(relative) != 2):
            raise UserError(
                "vit: relative_positions=True is for whole images [H, W, C]: leave it out for "
                "masked images and those of other dimensions"
            )
        x = self.embedded(images, mask, normalize)  # [B, prefix + K, D]
        if more is not None:
            x = jnp.concatenate([x, more.astype(x.dtype)], axis=1)  # [B, prefix + K + S, D]
        trunk = blocks(
            x,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype,
            drop_path=self.drop_path,
            attention=self.attention,
            remat=self.remat,
            taps=[depth - 1 for depth in depths if depth] if fuse else taps,
            weighted=weighted,
            mask=None if valid is None else valid[:, None, None, :],
            relative=relative,
            activation=self.activation,
            epsilon=self.epsilon,
            train=train,
        )
        if fuse:
            outputs = iter(trunk.taps)
            trunk = trunk._replace(last=fuse([next(outputs) if depth else x for depth in depths]))
        if not self.final_norm:
            return trunk
        norm = LayerNorm(dtype=self.dtype, epsilon=self.epsilon, name="norm")
        return trunk._replace(last=jax.tree.map(norm, trunk.last))  # a list in `layer_tokens`

    def embedded(self, images: jax.Array, mask: Mask | None, normalize) -> jax.Array:
        """The input of the first block, see `embedding.embedded`."""
        return embedded(self, images, mask, normalize)


def make(
    size: str | None = None,
    *,
    patch: int | Sequence[int] = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: float = 4.0,
    class_tokens: int = 1,
    mask_tokens: bool = False,
    drop_path: float = 0.0,
    learned_positions: bool = False,
    positions: str = "sincos",
    spacing: Sequence[float] = (),
    relative_positions: bool = False,
    final_norm: bool = True,
    attention: str = "auto",
    remat: str = "none",
    gather: str = "take",
    dtype: Any = jnp.float32,
) -> ViT:
    """Builds a ViT of a named size, or with the given width, depth and heads.

    Args:
        size: one of Ti, S, B, L, H; see `SIZES`.
        patch: side of a patch in pixels, or one side for each axis: (2, 16, 16).
        width, depth, heads: channels, blocks and attention heads; they override the size's.
        mlp_ratio: ratio of the MLP's hidden width to `width`.
        class_tokens: number of learned tokens in front of the patches; 0 for none.
        mask_tokens: encode masked patches as mask tokens instead of dropping them.
        drop_path: rate of stochastic depth in the last block, in [0, 1).
        learned_positions: train the positions, which then fit only one image size.
        positions: 'sincos', sines and cosines of each axis; 'flat', those of the number of a patch,
            as VideoMAE's; or 'separable', learned ones of space and of time, as MAE_ST's.
        spacing: millimeters of a voxel along each axis: 'sincos' is of centimeters, then.
        relative_positions: BEiT's learned attention biases, for images of one size; initialized to
            zero. Not for pre-training with masks.
        final_norm: normalize the output; off for a classifier, whose head has a norm.
        attention: kernel, one of `ops.attention.CHOICES`; 'auto' chooses by the devices.
        remat: rematerialization, a name of `REMAT`: 'none' is fastest, 'dots' and 'full' save
            memory.
        gather: 'take' or 'onehot', see `ops.gather`.
        dtype: of matrix products and activations; parameters are float32.

    Raises:
        UserError: an unknown size or option, an incomplete shape, or an invalid value.
    """
    if size is not None and size not in SIZES:
        raise UserError(f"vit size {size!r} is unknown{nearest(size, SIZES)}")
    shape = dict(SIZES.get(size, {}))
    shape |= {k: v for k, v in dict(width=width, depth=depth, heads=heads).items() if v is not None}
    if len(shape) < 3:
        raise UserError("vit needs a size (Ti, S, B, L, H) or all of width, depth and heads")
    check_shape("vit", **shape)
    choices = dict(attention=attention, remat=remat, gather=gather, dtype=dtype)
    check_choices("vit", shape, **choices)
    sides = one_or_all(patch)
    check_positions("vit", positions, spacing, sides)
    patch = sides[0] if len({*sides}) == 1 else sides  # (16, 16) becomes 16
    if not sides or min(sides) < 1 or mlp_ratio * shape["width"] < 1:
        raise UserError(f"vit: patch={patch} and mlp_ratio={mlp_ratio} must be positive")
    if class_tokens < 0:
        raise UserError(f"vit: class_tokens={class_tokens} must be 0 or more")
    if not 0 <= drop_path < 1:
        raise UserError(f"vit: drop_path={drop_path} is outside [0, 1)")
    return ViT(
        patch=patch,
        mlp_ratio=mlp_ratio,
        class_tokens=class_tokens,
        mask_tokens=mask_tokens,
        drop_path=drop_path,
        learned_positions=learned_positions,
        positions=positions,
        spacing=tuple(spacing),
        relative_positions=relative_positions,
        final_norm=final_norm,
        **choices,
        **shape,
    )
