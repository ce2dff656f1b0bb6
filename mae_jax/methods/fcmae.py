"""Masked autoencoding with a convolutional encoder that computes as if masked pixels did not exist,
and a UNet as decoder (SparK, arXiv 2301.03580; FCMAE, arXiv 2301.00808).

The papers use sparse convolutions; dense ones whose masked positions are set to zero after every
operation compute the same. A ViT encodes the visible patches only, as in MAE.
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
        """Images and mask: the encoder leaves out what is masked."""
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
    """Masked autoencoding with a sparse convolutional encoder.

    Args:
        encoder: spec string, e.g. 'convnext(T)' or 'vit(B, patch=16)'; its `patch`, the total
            stride, is a power of two.
        decoder_width: channels after the first upsampling; each further one has half.
        skips: whether the decoder reads all maps of a convolutional encoder (a UNet), or the last
            one only.
        mask: spec string of `mae_jax.masks`: 'random', 'block(blocks=32)' or 'grid'.
        mask_ratio: share of masked patches, in [0, 1).
        loss: 'mse' or 'l1'.
        target: spec string of `mae_jax.targets`: 'pixels(normalize=True)' are those of each patch,
            normalized by its own mean and deviation.
        loss_on: 'masked' patches only, or 'all'.
        pool: 'cls' (for a convolutional encoder the same) or 'mean': how `predict` computes
            features.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the network's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
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
