"""Masked autoencoders (MAE, He et al. 2021, arXiv 2111.06377): mask a high ratio of random patches,
encode the visible ones, and reconstruct the masked ones from the encodings and mask tokens. Images
may have any number of dimensions: signals, images, volumes, videos.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.methods.loss_mask import LossMask, make_loss_mask
from mae_jax.methods.masked import MaskedMethod, masked_options
from mae_jax.models.cross import CrossDecoder, Fusion, KeyMix
from mae_jax.models.decoder import decoder_fields
from mae_jax.models.encoder import Encoder
from mae_jax.models.mae import MAE, Decoder
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask, shuffled
from mae_jax.spec import check_choice
from mae_jax.types import Batch, Extra, Params, UserError

DECODERS = {"self": Decoder, "cross": CrossDecoder}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaskedAutoencoding(MaskedMethod):
    """The method; `make` documents the fields."""

    decoder: Decoder | CrossDecoder
    fusion: Fusion | KeyMix | None
    predict_share: float
    """Share of the masked patches that the loss predicts."""
    loss_mask: LossMask | None
    """Which of the predicted values count in the loss; None: all."""

    @property
    def model(self) -> MAE:
        """Encoder and decoder."""
        return MAE(self.encoder, self.decoder, self.fusion)

    @property
    def unit(self) -> int | tuple[int, ...]:
        """The encoder's patch."""
        return self.encoder.patch

    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """See `MaskedMethod`."""
        images, values = self.normalize(images), self.values(images)
        return self.model.init(key, images, mask, values=values)["params"]

    def reconstruct(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, L, V] of all patches."""
        variables, values = {"params": params}, self.values(images)
        return self.model.apply(variables, self.normalize(images), mask, values=values)

    def reconstruct_for_loss(self, params: Params, images: jax.Array, mask: Mask) -> jax.Array:
        """Predictions [B, K, V], with loss_on='masked' of the masked patches only. The encoder
        normalizes the pixels itself, after it has gathered the visible patches as bytes.
        """
        # Visible patches are not predicted, which saves their share of the decoder's last block.
        masked_only, values = self.loss_on == "masked", self.values(images)
        variables, mask = {"params": params}, self.predicted(mask)
        return self.model.apply(variables, images, mask, masked_only, self.normalize, values)

    def draw_mask(
        self,
        key: jax.Array,
        images: jax.Array,
        step: jax.Array | int = 0,
        extra: Extra | None = None,
    ) -> Mask:
        """See `MaskedMethod`. If a share of the masked patches is predicted, their order is random:
        by their scores, the first ones would not be a random subset.
        """
        mask = super().draw_mask(key, images, step, extra)
        return mask if self.predict_share == 1 else shuffled(jax.random.fold_in(key, 1), mask)

    def predicted(self, mask: Mask) -> Mask:
        """The mask with only those masked patches that the loss predicts."""
        return mask._replace(masked=mask.masked[:, : self.num_predicted(mask.masked.shape[1])])

    def num_predicted(self, masked: int) -> int:
        """Number of patches that the loss predicts of this number of masked ones; at least one."""
        return max(1, int(masked * self.predict_share + 1e-6))

    def take(self, patches: jax.Array, mask: Mask) -> jax.Array:
        """The patches that `reconstruct_for_loss` predicts, [B, L, ...] to [B, K, ...]."""
        if self.loss_on == "all":
            return patches
        return take_tokens(patches, self.predicted(mask).masked, kind=self.decoder.gather)

    def in_loss(self, mask: Mask) -> jax.Array:
        """[B, K] True: every patch that `reconstruct_for_loss` predicts counts in the loss."""
        patches = mask.mask if self.loss_on == "all" else self.predicted(mask).masked
        return jnp.ones_like(patches, bool)

    def scored(self, batch: Batch, mask: Mask) -> jax.Array:
        """See `MaskedMethod`; with a loss mask, only the foreground of predicted patches counts."""
        patches = self.in_loss(mask)  # [B, K]
        if self.loss_mask is None:
            return patches
        context = self.target_context(batch["image"], lambda x: self.take(x, mask))
        weights = self.loss_mask.weights(batch, self.target, context)
        return weights & (patches if weights.ndim == 2 else patches[..., None])

    def example(self, image_shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
        """Also the fields of the loss mask."""
        fields = self.loss_mask.fields if self.loss_mask else ()
        shape = jax.ShapeDtypeStruct((1, *image_shape[:-1]), jnp.int32)
        return super().example(image_shape) | dict.fromkeys(fields, shape)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    decoder: str = "self",
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    decoder_attention: str = "auto",
    decoder_remat: str = "none",
    decoder_gather: str = "take",
    decoder_positions: str = "sincos",
    decoder_embed_bias: bool = True,
    decoder_class_tokens: bool = False,
    fuse: Sequence[int] = (),
    predict_share: float = 1.0,
    mask: str = "random",
    mask_ratio: float = 0.75,
    loss: str = "mse",
    target: str = "pixels(normalize=True)",
    loss_on: str = "masked",
    loss_mask: str = "",
    mask_tokens_in_encoder: bool = False,
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> MaskedAutoencoding:
    """Builds a masked autoencoder (MAE).

    Args:
        encoder: spec string, e.g. 'vit(B, patch=16)', 'vit(width=96, depth=4, heads=3, patch=4)'
            or 'convnext(T)'.
        decoder: 'self', the paper's: self-attention among encoded patches and mask tokens; or
            'cross': mask tokens attend to the encoded patches only, see `models.cross`.
        decoder_width, decoder_depth, decoder_heads: size of the transformer decoder.
        decoder_attention, decoder_remat, decoder_gather: the decoder's `attention`, `remat` and
            `gather`, see `models.vit.make`.
        decoder_positions: 'sincos', 'flat' or 'separable', as `positions` there.
        decoder_embed_bias: whether the projection of encoded patches has a bias, for 'self'.
        decoder_class_tokens: whether 'self' has learned class tokens of its own in place of the
            encoder's, as MAE_ST.
        fuse: encoder blocks whose tokens are the decoder's input in place of the last one's: how
            many blocks lie before each, 0 for the embedding; see `models.cross.Fusion`, and
            `KeyMix` for the cross-attention decoder.
        predict_share: share of the masked patches that the loss predicts, drawn at random, in
            (0, 1]. The learning rate should be lower by this factor (arXiv 2401.14391).
        mask: spec string of `mae_jax.masks`: 'random', 'block(blocks=32)', 'grid',
            'noise(color=green)' or "attention('vit(B, patch=16)')"; each also takes `unit`, as in
            'random(unit=2)'.
        mask_ratio: fraction of masked patches, in [0, 1).
        loss: 'mse', 'l1' or 'smooth_l1(beta=2.0)'; for the target `vq`, 'cross_entropy'.
        target: spec string of `mae_jax.targets`; 'pixels(normalize=True)' normalizes each patch by
            its own mean and standard deviation.
        loss_on: 'masked' patches only, as in the paper, or 'all'.
        loss_mask: the foreground, which counts in the loss: 'above(10)', voxels above a level in
            [0, 255), or 'segmentation', voxels of a class; see `methods.loss_mask`.
        mask_tokens_in_encoder: encode mask tokens in place of masked patches, an ablation.
        pool: features from the tokens: 'cls', the mean of the class tokens; 'cls_concat', these
            side by side; or 'mean' of the patches.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the network's computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    options = masked_options(
        mask=mask, mask_ratio=mask_ratio, target=target, loss=loss, loss_on=loss_on
    )
    check_choice("decoder", decoder, DECODERS)
    if not 0 < predict_share <= 1:
        raise UserError(f"predict_share {predict_share} is outside (0, 1]: 1 predicts all masked")
    if predict_share < 1 and loss_on == "all":
        raise UserError("predict_share below 1 is of the masked patches: set loss_on=masked")
    fields = decoder_fields(
        width=decoder_width,
        depth=decoder_depth,
        heads=decoder_heads,
        attention=decoder_attention,
        remat=decoder_remat,
        gather=decoder_gather,
        positions=decoder_positions,
        dtype=dtype,
    )
    more = {"mask_tokens": True} if mask_tokens_in_encoder else {}  # only ViTs have this argument
    options |= MaskedMethod.fields(
        encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype, **more
    )
    own = _own_options(decoder, decoder_embed_bias, decoder_class_tokens, options["encoder"])
    return MaskedAutoencoding(
        decoder=DECODERS[decoder](**fields, **own),
        fusion=_fusion(decoder, tuple(fuse), decoder_depth),
        predict_share=predict_share,
        loss_mask=make_loss_mask(loss_mask, options["target"]),
        **options,
    )


def _own_options(
    decoder: str, embed_bias: bool, class_tokens: bool, encoder: Encoder
) -> dict[str, bool]:
    """The options that only the decoder 'self' has.

    Raises:
        UserError: an option does not fit.
    """
    if decoder == "cross" and not embed_bias:
        raise UserError("decoder_embed_bias=False is for decoder=self: cross has no projection")
    if class_tokens and (decoder == "cross" or not encoder.prefix):
        raise UserError(
            "decoder_class_tokens=True is for decoder=self and an encoder with class tokens: set "
            "it to False"
        )
    return dict(embed_bias=embed_bias, class_tokens=class_tokens) if decoder == "self" else {}


def _fusion(decoder: str, depths: tuple[int, ...], blocks: int) -> Fusion | KeyMix | None:
    """The module that fuses encoder blocks for a decoder of so many blocks; None without any."""
    if not depths:
        return None
    return KeyMix(depths, mixes=blocks) if decoder == "cross" else Fusion(depths)
