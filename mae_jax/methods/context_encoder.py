"""Context encoders (arXiv 1604.07379): masked pixels are zeros in the image, and an autoencoder
predicts them.

The paper adds an adversarial loss, which is not here, and masks the center or random regions; ours
are the masks of `mae_jax.masks`, on patches of any size.
"""

import dataclasses
from collections.abc import Sequence

import jax

from mae_jax.methods.unet import UNetMethod, unet_options
from mae_jax.models.convnext import apply_mask, upsample_mask
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ContextEncoder(UNetMethod):
    """The method; `make` documents the fields."""

    side: int
    """Of a masked patch, in pixels."""

    @property
    def unit(self) -> int:
        """See `make`."""
        return self.side

    def network_inputs(self, images: jax.Array, mask: Mask) -> tuple[jax.Array, None]:
        """Images with zeros, the mean color after normalization, in place of masked pixels."""
        visible = ~mask.mask.reshape(-1, *grid_of(images.shape[1:-1], self.unit), 1)
        return apply_mask(self.normalize(images), upsample_mask(visible, self.unit)), None


def make(
    *,
    encoder: str = "convnext(T)",
    decoder_width: int = 512,
    skips: bool = False,
    mask: str = "random",
    mask_ratio: float = 0.6,
    unit: int = 0,
    loss: str = "mse",
    target: str = "pixels(normalize=False)",
    loss_on: str = "masked",
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> ContextEncoder:
    """Inpainting with an autoencoder.

    Args:
        encoder: spec string, e.g. 'convnext(T)' or 'vit(B, patch=16)'; its `patch`, the total
            stride, is a power of two.
        decoder_width: channels after the first upsampling; each further one has half.
        skips: whether the decoder reads all maps of a convolutional encoder (a UNet), or the last
            one only.
        mask: spec string of `mae_jax.masks`: 'random', 'block(blocks=32)' or 'grid'.
        mask_ratio: share of masked pixels, in [0, 1).
        unit: side in pixels of a masked patch, 1 for single pixels; 0: the encoder's patch.
        loss: 'mse' or 'l1'.
        target: spec string of `mae_jax.targets`: 'pixels(normalize=True)' are those of each patch,
            normalized by its own mean and deviation.
        loss_on: 'masked' pixels only, or 'all'.
        pool: 'cls' (for a convolutional encoder the same) or 'mean': how `predict` computes
            features.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the network's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    options = unet_options(
        encoder=encoder,
        decoder_width=decoder_width,
        skips=skips,
        mask=mask,
        mask_ratio=mask_ratio,
        loss=loss,
        target=target,
        loss_on=loss_on,
        pool=pool,
        mean=mean,
        std=std,
        dtype=dtype,
    )
    if unit < 0:
        raise UserError(f"unit={unit}: give a side in pixels, or 0 for the encoder's patch")
    if unit == 1 and options["target"].normalize:
        raise UserError("unit=1 leaves nothing to normalize: set target='pixels(normalize=False)'")
    return ContextEncoder(side=unit or options["encoder"].patch, **options)
