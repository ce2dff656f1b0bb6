"""Base class of `fcmae` and `context_encoder`: masked autoencoders with a convolutional decoder and
optional skip connections from the encoder's feature maps (a UNet).
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.methods.masked import MaskedMethod, masked_options
from mae_jax.models.convnext import ConvNeXt
from mae_jax.models.masked_unet import MaskedUNet
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import patchify
from mae_jax.targets.pixels import Pixels
from mae_jax.types import Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class UNetMethod(MaskedMethod):
    """A masked autoencoder with a decoder of transposed convolutions."""

    decoder_width: int
    skips: bool
    dtype: jnp.dtype

    @property
    def model(self) -> MaskedUNet:
        """Encoder and decoder."""
        return MaskedUNet(self.encoder, self.decoder_width, self.skips, self.dtype)

    @abc.abstractmethod
    def network_inputs(self, images: jax.Array, mask: Mask) -> tuple[jax.Array, Mask | None]:
        """Normalized images [B, *space, C], and the mask, or None if it is already applied."""

    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """See `MaskedMethod`."""
        return self.model.init(key, *self.network_inputs(images, mask))["params"]

    def reconstruct(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, L, prod(unit) * C] of all patches."""
        inputs = self.network_inputs(images, mask)
        predicted = self.model.apply({"params": params}, *inputs)  # [B, *space, C]
        return patchify(predicted, self.unit)  # [B, L, prod(unit) * C]


def unet_options(
    *,
    encoder: str,
    decoder_width: int,
    skips: bool,
    mask: str,
    mask_ratio: float,
    loss: str,
    target: str,
    loss_on: str,
    pool: str,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: str,
) -> dict[str, Any]:
    """Checks the arguments of a `make` function and builds the fields of a `UNetMethod`.

    Raises:
        UserError: an unknown or invalid value.
    """
    options = masked_options(
        mask=mask, mask_ratio=mask_ratio, target=target, loss=loss, loss_on=loss_on
    )
    options |= MaskedMethod.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype)
    patch = options["encoder"].patch
    if not isinstance(patch, int) or patch & (patch - 1) or decoder_width < 1:
        raise UserError(
            f"decoder_width={decoder_width} must be positive, and the encoder's patch, {patch}, "
            "a power of two, because each layer of the decoder doubles the sides"
        )
    if not isinstance(options["target"], Pixels) or options["target"].frames:
        raise UserError(
            f"target {target!r}: this decoder predicts all pixels, choose 'pixels' or method mae"
        )
    if skips and not isinstance(options["encoder"], ConvNeXt):
        raise UserError("skips need the maps of a convolutional encoder: set skips=False")
    return options | dict(decoder_width=decoder_width, skips=skips, dtype=jnp.dtype(dtype))
