"""Masked autoencoding with convolutions, in two readings. The original one: the mask is multiplied
into the image, at the level of pixels or of patches, and a plain auto-encoder fills the holes
(context encoders, arXiv 1604.07379). The modern one, 'sparse': what is masked does not exist for
the encoder (SparK, arXiv 2301.03580; FCMAE, arXiv 2301.00808), and the decoder is a UNet.

With a ViT, 'sparse' means that it sees the visible patches only, as in MAE.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods.masked import MaskedMethod, masked_options
from mae_jax.models.conv import Conv, only, scaled
from mae_jax.models.conv_mae import ConvMAE
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.spec import check_choice
from mae_jax.targets.pixels import Pixels
from mae_jax.types import Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ConvMaskedAutoencoding(MaskedMethod):
    """The method; `make` documents the fields."""

    decoder_width: int
    skips: bool
    sparse: bool
    side: int
    """Of what is masked as a whole, in pixels."""
    dtype: jnp.dtype

    @property
    def model(self) -> ConvMAE:
        """Encoder and decoder."""
        return ConvMAE(self.encoder, self.decoder_width, self.skips, self.dtype)

    @property
    def unit(self) -> int:
        """See `make`."""
        return self.side

    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """See `MaskedMethod`."""
        return self.model.init(key, *self.seen(self.normalize(images), mask))["params"]

    def reconstruct(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, L, prod(unit) * C] of all patches."""
        seen = self.seen(self.normalize(images), mask)
        return patchify(self.model.apply({"params": params}, *seen), self.unit)

    def seen(self, images: jax.Array, mask: Mask) -> tuple[jax.Array, Mask | None]:
        """What the network is given: images and mask, or images with holes alone."""
        if self.sparse:
            return images, mask
        visible = ~mask.mask.reshape(-1, *grid_of(images.shape[1:-1], self.unit), 1)
        return only(images, scaled(visible, self.unit)), None


def make(
    *,
    encoder: str = "conv(T)",
    decoder_width: int = 512,
    masked: str = "sparse",
    skips: bool = True,
    mask: str = "random",
    mask_ratio: float = 0.6,
    unit: int = 0,
    loss: str = "mse",
    target: str = "pixels(normalize=True)",
    score: str = "hidden",
    pool: str = "mean",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> ConvMaskedAutoencoding:
    """Masked autoencoding with a convolutional decoder.

    Args:
        encoder: spec string, e.g. 'conv(T)' or 'vit(B, patch=16)'; its `patch`, the total stride,
            is a power of two.
        decoder_width: channels after the first upsampling; each further one has half.
        masked: 'sparse', hidden patches do not exist for the encoder, or 'input', they are zeros in
            its image.
        skips: the decoder sees all maps of a convolutional encoder (a UNet), not the last alone.
        mask: spec string of `mae_jax.masks`: 'random', 'block(blocks=32)' or 'grid'.
        mask_ratio: share of what is masked, in [0, 1).
        unit: side in pixels of what is hidden or visible as a whole, 1 for single pixels; 0: the
            encoder's patch, the only one with masked='sparse'.
        loss: 'mse' or 'l1'.
        target: spec string of `mae_jax.targets`: 'pixels(normalize=True)' are those of each unit
            with its mean and deviation removed.
        score: 'hidden' pixels only, or 'all'.
        pool: 'cls' (for a convolutional encoder the same) or 'mean': what `predict` calls features.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    options = masked_options(
        mask=mask, mask_ratio=mask_ratio, target=target, loss=loss, score=score
    )
    check_choice("masked", masked, ("sparse", "input"))
    options |= MaskedMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    patch = options["encoder"].patch
    if not isinstance(patch, int) or patch & (patch - 1) or decoder_width < 1:
        raise UserError(
            f"decoder_width={decoder_width} must be positive, and the encoder's patch, {patch}, "
            "a power of two, which the decoder doubles its way up to"
        )
    if unit not in (0, patch) and (unit < 0 or masked == "sparse"):
        raise UserError(
            f"unit={unit}: with masked='sparse' it is the encoder's patch, {patch} (or 0, which "
            "means that); with masked='input' any positive number of pixels"
        )
    if not isinstance(options["target"], Pixels):
        raise UserError(
            f"target {target!r}: this decoder makes pixels, choose 'pixels' or method mae"
        )
    if unit == 1 and options["target"].normalize:
        raise UserError("unit=1 leaves nothing to normalize: set target='pixels(normalize=False)'")
    if skips and not isinstance(options["encoder"], Conv):
        raise UserError("skips need the maps of a convolutional encoder: set skips=False")
    return ConvMaskedAutoencoding(
        decoder_width=decoder_width,
        skips=skips,
        sparse=masked == "sparse",
        side=unit or patch,
        dtype=jnp.dtype(dtype),
        **options,
    )
