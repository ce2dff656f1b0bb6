"""Masked autoencoding (He et al. 2021, arXiv 2111.06377): hide most patches, encode the rest,
predict the pixels of the hidden ones.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.models.encoder import make_encoder, pooled
from mae_jax.models.mae import MAE, Decoder
from mae_jax.models.vit import check_choices, check_shape
from mae_jax.ops import losses, masking, pictures
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.patches import grid_of, patchify
from mae_jax.ops.pixels import normalize
from mae_jax.spec import check_choice
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
        images, patch = batch["image"], self.model.encoder.patch
        mask = self.draw_mask(key, images)
        hidden_only = self.score == "hidden"
        variables = {"params": params}
        prediction = self.model.apply(variables, images, mask, hidden_only, self.normalize)
        target = patchify(images, patch)  # bytes [B, L, P], and so are the scored ones below
        if hidden_only:
            target = take_tokens(target, mask.hidden, kind=self.model.decoder.gather)
        target = self.normalize(target, pixels=patch**2)
        if self.normalize_target:
            target = losses.normalize_patches(target)
        scored = jnp.ones(target.shape[:2], bool)
        loss = losses.masked_error(prediction, target, scored, error=self.loss_kind)
        return Output(loss, extra, {})

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """'features' [B, D] float32 of whole images: class token or mean of the patches."""
        images = self.normalize(batch["image"])
        tokens = self.model.apply({"params": params}, images, method="encode")
        return {"features": pooled(tokens, self.pool)}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Nothing follows an update."""
        return extra

    def reconstruct(
        self, params: Params, extra: Extra, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """What a picture of reconstructions needs, see `ops.pictures.reconstructions`."""
        images = self.normalize(batch["image"])
        mask = self.draw_mask(key, images)
        return pictures.reconstructions(
            batch["image"],
            self.model.apply({"params": params}, images, mask),
            mask.mask,
            patch=self.model.encoder.patch,
            normalized=self.normalize_target,
            mean=self.mean,
            std=self.std,
        )

    def draw_mask(self, key: jax.Array, images: jax.Array) -> masking.Mask:
        """One mask per example of images [B, H, W, C]."""
        grid = grid_of(images.shape[1:3], self.model.encoder.patch)
        return masking.sample(key, len(images), grid, strategy=self.mask, ratio=self.mask_ratio)

    def normalize(self, images: jax.Array, *, pixels: int = 1) -> jax.Array:
        """uint8 images, or patches of so many pixels, to float32 network inputs."""
        return normalize(images, self.mean, self.std, pixels=pixels)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    decoder_attention: str = "auto",
    decoder_remat: str = "none",
    decoder_gather: str = "take",
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
        encoder: spec string, e.g. 'vit(B, patch=16)', 'vit(width=96, depth=4, heads=3, patch=4)'
            or 'conv(T)'.
        decoder_width, decoder_depth, decoder_heads: shape of the transformer decoder.
        decoder_attention, decoder_remat, decoder_gather: how it is computed, like the `attention`,
            `remat` and `gather` of vit(...).
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
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio {mask_ratio} is outside [0, 1): the paper's is 0.75")
    if mask_ratio == 0 and score == "hidden":
        raise UserError("mask_ratio 0 hides nothing to score: raise it, or set score=all")
    shape = dict(width=decoder_width, depth=decoder_depth, heads=decoder_heads)
    check_shape("decoder", **shape)
    more = {"mask_tokens": True} if mask_tokens_in_encoder else {}  # an argument of ViTs alone
    network = make_encoder(encoder, pool=pool, dtype=dtype, **more)
    choices = dict(
        attention=decoder_attention,
        remat=decoder_remat,
        gather=decoder_gather,
        dtype=jnp.dtype(dtype),
    )
    check_choices("decoder", shape, **choices)
    decoder = Decoder(**shape, **choices)
    return MaskedAutoencoding(
        MAE(network, decoder),
        mask,
        mask_ratio,
        loss,
        normalize_target,
        score,
        pool,
        tuple(mean),
        tuple(std),
    )
