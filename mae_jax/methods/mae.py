"""Masked autoencoding (He et al. 2021, arXiv 2111.06377): hide most patches, encode the rest,
predict the pixels of the hidden ones.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.models.mae import MAE, Decoder
from mae_jax.models.vit import check_shape
from mae_jax.ops import losses, masking, pixels
from mae_jax.ops.patches import grid_of, patchify, unpatchify
from mae_jax.spec import build, check_choice
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoding:
    """The method; `make` documents the fields."""

    model: MAE
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
        images = self.normalize(batch["image"])
        return self.model.init(key, images, self.draw_mask(key, images))["params"], {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """Reconstruction error under a fresh mask for every example."""
        images = self.normalize(batch["image"])
        mask = self.draw_mask(key, images)
        prediction = self.model.apply({"params": params}, images, mask)
        target = patchify(images, self.model.encoder.patch)
        if self.normalize_target:
            target = losses.normalize_patches(target)
        scored = mask.mask if self.score == "hidden" else jnp.ones_like(mask.mask)
        loss = losses.masked_error(prediction, target, scored, error=self.loss_kind)
        return Output(loss, extra, {})

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """'features' [B, D] float32 of whole images: class token or mean of the patches."""
        images = self.normalize(batch["image"])
        tokens = self.model.apply({"params": params}, images, method="encode")
        tokens = tokens.astype(jnp.float32)
        return {"features": tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(axis=1)}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Nothing follows an update."""
        return extra

    def reconstruct(
        self, params: Params, extra: Extra, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """What a picture of reconstructions needs, each [B, H, W, C] uint8 unless said.

        'original'; 'masked' (hidden patches grey); 'raw', what the network says: pixels, or for
        a normalised target grey plus a quarter of the range per standard deviation; 'denormalized',
        pixels, for a normalised target by means of the TRUE mean and deviation of each patch;
        'pasted', that with the visible patches in place; 'hidden' [B, L] bool.
        """
        images = self.normalize(batch["image"])
        mask = self.draw_mask(key, images)
        prediction = self.model.apply({"params": params}, images, mask).astype(jnp.float32)
        patch = self.model.encoder.patch
        target, pixels_ = patchify(images, patch), prediction
        raw = self.to_bytes(self.to_images(prediction, images))
        if self.normalize_target:
            mean, std = losses.patch_statistics(target)
            pixels_ = prediction * std + mean
            raw = pixels.to_bytes(self.to_images(prediction, images), (0.5,), (0.25,))
        hidden = mask.mask[:, :, None]
        grey = patchify(
            jnp.broadcast_to(self.normalize(jnp.full_like(batch["image"], 128)), images.shape),
            patch,
        )
        show = lambda tokens: self.to_bytes(self.to_images(tokens, images))
        return {
            "original": batch["image"],
            "masked": show(jnp.where(hidden, grey, target)),
            "raw": raw,
            "denormalized": show(pixels_),
            "pasted": show(jnp.where(hidden, pixels_, target)),
            "hidden": mask.mask,
        }

    def draw_mask(self, key: jax.Array, images: jax.Array) -> masking.Mask:
        """One mask per example of images [B, H, W, C]."""
        grid = grid_of(images.shape[1:3], self.model.encoder.patch)
        return masking.sample(key, len(images), grid, strategy=self.mask, ratio=self.mask_ratio)

    def normalize(self, images: jax.Array) -> jax.Array:
        """uint8 images to float32 network inputs."""
        return pixels.normalize(images, self.mean, self.std)

    def to_bytes(self, images: jax.Array) -> jax.Array:
        """Network-range images back to uint8."""
        return pixels.to_bytes(images, self.mean, self.std)

    def to_images(self, tokens: jax.Array, images: jax.Array) -> jax.Array:
        """Patches [B, L, P] to images of the shape of `images`."""
        patch = self.model.encoder.patch
        return unpatchify(tokens, patch, grid_of(images.shape[1:3], patch))


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    mask: str = "random",
    mask_ratio: float = 0.75,
    loss: str = "mse",
    normalize_target: bool = True,
    score: str = "hidden",
    mask_tokens_in_encoder: bool = False,
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> MaskedAutoencoding:
    """Masked autoencoding.

    Args:
        encoder: spec string, e.g. 'vit(B, patch=16)' or 'vit(width=96, depth=4, heads=3, patch=4)'.
        decoder_width, decoder_depth, decoder_heads: shape of the transformer decoder.
        mask: 'random', 'block' or 'grid'.
        mask_ratio: share of hidden patches, in [0, 1).
        loss: 'mse' or 'l1'.
        normalize_target: predict each patch with its mean and deviation removed.
        score: 'hidden' patches only, as in the paper, or 'all'.
        mask_tokens_in_encoder: the ablation in which the encoder sees mask tokens too.
        pool: 'cls' or 'mean': what `predict` calls features.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the network computes in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    check_choice("mask", mask, masking.STRATEGIES)
    check_choice("loss", loss, losses.ERRORS)
    check_choice("score", score, ("hidden", "all"))
    check_choice("pool", pool, ("cls", "mean"))
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio {mask_ratio} is outside [0, 1): the paper's is 0.75")
    if mask_ratio == 0 and score == "hidden":
        raise UserError("mask_ratio 0 hides nothing to score: raise it, or set score=all")
    check_shape("decoder", width=decoder_width, depth=decoder_depth, heads=decoder_heads)
    compute = jnp.dtype(dtype)
    vit = build(encoder, "models", dtype=compute, mask_tokens=mask_tokens_in_encoder)
    decoder = Decoder(decoder_width, decoder_depth, decoder_heads, compute)
    return MaskedAutoencoding(
        MAE(vit, decoder),
        mask,
        mask_ratio,
        loss,
        normalize_target,
        score,
        pool,
        tuple(mean),
        tuple(std),
    )
