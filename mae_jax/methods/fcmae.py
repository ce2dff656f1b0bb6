"""Fully convolutional masked autoencoders (FCMAE, arXiv 2301.00808; SparK, arXiv 2301.03580): a
convolutional encoder processes the visible patches only, and a UNet decoder predicts the others.

The papers use sparse convolutions. Here dense convolutions compute the same, with masked positions
reset to zero after every operation. A ViT encodes the visible patches only, as in MAE.
"""

import dataclasses
from collections.abc import Sequence

import jax

from mae_jax.methods.unet import UNetMethod, unet_options
from mae_jax.ops.masking import Mask


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FCMAE(UNetMethod):
    """The method; `make` documents the fields."""

    @property
    def unit(self) -> int:
        """The encoder's patch."""
        return self.encoder.patch

    def network_inputs(self, images: jax.Array, mask: Mask) -> tuple[jax.Array, Mask]:
        """Normalized images [B, *space, C], and the mask, which the encoder applies."""
        return self.normalize(images), mask


def make(
    *,
    encoder: str = "convnext(T)",
    decoder_width: int = 512,
    skips: bool = True,
    mask: str = "random",
    mask_ratio: float = 0.6,
    loss: str = "mse",
    target: str = "pixels(normalize=True)",
    loss_on: str = "masked",
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> FCMAE:
    """Builds a fully convolutional masked autoencoder.

    Args:
        encoder: spec string, e.g. 'convnext(T)' or 'vit(B, patch=16)', with a total stride
            (`patch`) that is a power of two.
        decoder_width: channels after the first upsampling; each further one halves them.
        skips: skip connections from all feature maps of a convolutional encoder (a UNet), or only
            the last map.
        mask: spec string of `mae_jax.masks`: 'random', 'block(blocks=32)', 'grid' or
            'noise(color=green)'; each also takes `unit`, as in 'random(unit=2)'.
        mask_ratio: fraction of masked patches, in [0, 1).
        loss: 'mse' or 'l1'.
        target: spec string of `mae_jax.targets`; 'pixels(normalize=True)' normalizes each patch by
            its own mean and standard deviation.
        loss_on: 'masked' patches only, or 'all'.
        pool: features from the tokens: 'mean' of the patches or 'cls', which are equal for a
            convolutional encoder.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the network's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    return FCMAE(
        **unet_options(
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
    )
