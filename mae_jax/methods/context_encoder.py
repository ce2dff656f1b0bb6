"""Context encoders (Pathak et al. 2016, arXiv 1604.07379): an autoencoder inpaints images in which
masked pixels are zero.

Two differences from the paper: there is no adversarial loss, and the masks are those of
`mae_jax.masks`, on patches of any size, instead of the center or random regions.
"""

import dataclasses
from collections.abc import Sequence

import jax

from mae_jax.methods.unet import UNetMethod, unet_options
from mae_jax.ops.masking import Mask, apply_mask, upsample_mask
from mae_jax.ops.patches import grid_of
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ContextEncoder(UNetMethod):
    """The method; `make` documents the fields."""

    side: int
    """Side of a masked patch in pixels."""

    @property
    def unit(self) -> int:
        """Side of a masked patch in pixels."""
        return self.side

    def network_inputs(self, images: jax.Array, mask: Mask) -> tuple[jax.Array, None]:
        """Normalized images [B, *space, C] with masked pixels set to 0, which is the mean color."""
        # [B, L] to [B, *grid, 1]
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
    """Builds a context encoder.

    Args:
        unit: side in pixels of a masked patch, 1 for single pixels; 0: the encoder's patch.
        encoder, decoder_width, skips, mask, mask_ratio, loss, target, loss_on, pool, mean, std,
            dtype: see `mae_jax.methods.fcmae.make`.

    Raises:
        UserError: an unknown or invalid value.
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
    if unit == 1 and options["target"].normalize:  # a patch of one pixel has no variance
        raise UserError("unit=1 leaves nothing to normalize: set target='pixels(normalize=False)'")
    return ContextEncoder(side=unit or options["encoder"].patch, **options)
