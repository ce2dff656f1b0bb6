"""Masked autoencoding with convolutions, in two readings. The original one: the mask is multiplied
into the image, at the level of pixels or of patches, and a plain auto-encoder fills the holes
(context encoders, arXiv 1604.07379). The modern one, 'sparse': what is hidden does not exist for
the encoder (SparK, arXiv 2301.03580; FCMAE, arXiv 2301.00808), and the decoder is a UNet.

With a ViT, 'sparse' means that it sees the visible patches only, as in MAE.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.models.conv import Conv, only, scaled
from mae_jax.models.conv_mae import ConvMAE
from mae_jax.models.encoder import make_encoder, pooled
from mae_jax.ops import losses, masking, pictures, pixels
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.spec import check_choice
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True)
class ConvMaskedAutoencoding:
    """The method; `make` documents the fields."""

    model: ConvMAE
    sparse: bool
    unit: int
    mask: str
    mask_ratio: float
    loss_kind: str
    normalize_target: bool
    score: str
    pool: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        images, mask = self.normalize(batch["image"]), self.draw_mask(key, batch["image"])
        return self.model.init(key, *self.seen(images, mask))["params"], {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Reconstruction error under a fresh mask for every example."""
        images, mask = self.normalize(batch["image"]), self.draw_mask(key, batch["image"])
        target = patchify(images, self.unit)
        if self.normalize_target:
            target = losses.normalize_patches(target)
        scored = mask.mask if self.score == "hidden" else jnp.ones_like(mask.mask)
        prediction = self.predicted(params, images, mask)
        loss = losses.masked_error(prediction, target, scored, error=self.loss_kind)
        return Output(loss, extra, {})

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """'features' [B, D] float32 of whole images."""
        variables = {"params": params["encoder"]}
        tokens = self.model.encoder.apply(variables, self.normalize(batch["image"]))
        return {"features": pooled(tokens, self.pool)}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Nothing follows an update."""
        return extra

    def reconstruct(
        self, params: Params, extra: Extra, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """What a picture of reconstructions needs, see `ops.pictures.reconstructions`."""
        images, mask = self.normalize(batch["image"]), self.draw_mask(key, batch["image"])
        return pictures.reconstructions(
            batch["image"],
            self.predicted(params, images, mask),
            mask.mask,
            patch=self.unit,
            normalized=self.normalize_target,
            mean=self.mean,
            std=self.std,
        )

    def predicted(self, params: Params, images: jax.Array, mask: masking.Mask) -> jax.Array:
        """[B, L, unit * unit * C] of images [B, H, W, C], of which the mask hides a part."""
        images = self.model.apply({"params": params}, *self.seen(images, mask))
        return patchify(images, self.unit)

    def seen(self, images: jax.Array, mask: masking.Mask) -> tuple[jax.Array, masking.Mask | None]:
        """What the network is given: images and mask, or images with holes alone."""
        if self.sparse:
            return images, mask
        rows, columns = grid_of(images.shape[1:3], self.unit)
        visible = ~mask.mask.reshape(-1, rows, columns, 1)
        return only(images, scaled(visible, self.unit)), None

    def draw_mask(self, key: jax.Array, images: jax.Array) -> masking.Mask:
        """One mask per example of images [B, H, W, C]."""
        grid = grid_of(images.shape[1:3], self.unit)
        return masking.sample(key, len(images), grid, strategy=self.mask, ratio=self.mask_ratio)

    def normalize(self, images: jax.Array) -> jax.Array:
        """uint8 images to float32 network inputs."""
        return pixels.normalize(images, self.mean, self.std)


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
    normalize_target: bool = True,
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
        mask: 'random', 'block' or 'grid'.
        mask_ratio: share of what is hidden, in [0, 1).
        unit: side in pixels of what is hidden or visible as a whole, 1 for single pixels; 0: the
            encoder's patch, the only one with masked='sparse'.
        loss: 'mse' or 'l1'.
        normalize_target: predict each unit with its mean and deviation removed.
        score: 'hidden' pixels only, or 'all'.
        pool: 'cls' (for a convolutional encoder the same) or 'mean': what `predict` calls features.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    check_choice("mask", mask, masking.STRATEGIES)
    check_choice("masked", masked, ("sparse", "input"))
    check_choice("loss", loss, losses.ERRORS)
    check_choice("score", score, ("hidden", "all"))
    if not 0 <= mask_ratio < 1 or (mask_ratio == 0 and score == "hidden"):
        raise UserError(f"mask_ratio {mask_ratio} must be in (0, 1), or 0 with score=all")
    network = make_encoder(encoder, pool=pool, dtype=dtype)
    if unit not in (0, network.patch) and (unit < 0 or masked == "sparse"):
        raise UserError(
            f"unit={unit}: with masked='sparse' it is the encoder's patch, {network.patch} (or 0, "
            "which means that); with masked='input' any positive number of pixels"
        )
    if unit == 1 and normalize_target:
        raise UserError("unit=1 leaves nothing to normalise: set normalize_target=False")
    if skips and not isinstance(network, Conv):
        raise UserError("skips need the maps of a convolutional encoder: set skips=False")
    if decoder_width < 1 or network.patch & (network.patch - 1):
        raise UserError(
            f"decoder_width={decoder_width} must be positive, and the encoder's patch, "
            f"{network.patch}, a power of two, which the decoder doubles its way up to"
        )
    return ConvMaskedAutoencoding(
        ConvMAE(network, decoder_width, skips, jnp.dtype(dtype)),
        masked == "sparse",
        unit or network.patch,
        mask,
        mask_ratio,
        loss,
        normalize_target,
        score,
        pool,
        tuple(mean),
        tuple(std),
    )
