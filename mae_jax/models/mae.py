"""The masked autoencoder (arXiv 2111.06377): an encoder of the visible patches, and a lightweight
transformer decoder that reconstructs the image from their encodings and mask tokens.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.cross import CrossDecoder, Fusion, KeyMix
from mae_jax.models.decoder import PatchDecoder
from mae_jax.models.encoder import Encoder
from mae_jax.models.norm import LayerNorm
from mae_jax.models.positions import positions
from mae_jax.models.transformer import blocks, dense_init, token_init
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patch_sides


class Decoder(PatchDecoder):
    """The transformer decoder."""

    embed_bias: bool = True
    """Whether the projection of the encoder's tokens has a bias; VideoMAE's has none."""
    class_tokens: bool = False
    """Whether it has class tokens of its own in place of the encoder's, as MAE_ST's has."""

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        mask: Mask | None,
        grid: tuple[int, ...],
        values: int,
        masked_only: bool = False,
    ) -> jax.Array:
        """Predicts every patch, or only the masked ones.

        The sequence is [class tokens, visible, masked]. Attention is permutation-equivariant, so
        unshuffling the tokens to image order is unnecessary: only the positions are gathered. With
        `masked_only`, the last block computes no queries for the class and visible tokens, whose
        outputs nothing would read.

        Args:
            tokens: [B, prefix + K, D] from the encoder, class tokens first.
            mask: the mask that the encoder applied; None: `tokens` has all patches in image order.
            grid: number of patches along each axis.
            values: number of values V to predict for each patch.
            masked_only: predict only the patches of `mask.masked`; needs a mask. The others of a
                subset are left out of the sequence, too.

        Returns:
            [B, L, V] in image order; with `masked_only`, [B, M, V] in the order of `mask.masked`:
            M = L - K, or less for a subset.
        """
        visible = math.prod(grid) if mask is None else mask.keep.shape[1]
        prefix = tokens.shape[1] - visible
        embed = nn.Dense(
            self.width,
            self.embed_bias,
            kernel_init=dense_init,
            dtype=self.dtype,
            name="embed",
        )
        places = positions(self, grid, prefix)
        if self.class_tokens:
            x = embed(tokens[:, prefix:])  # [B, K, D]
            first = self.param("cls_token", token_init, (1, prefix, self.width)).astype(x.dtype)
            first = jnp.broadcast_to(first, (len(x), prefix, self.width))  # [B, prefix, D]
        else:
            x = embed(tokens)  # [B, prefix + K, D]
            first, x = x[:, :prefix], x[:, prefix:]  # [B, prefix, D], [B, K, D]
        if self.positions == "separable":  # others are zero for class tokens
            first = first + places.prefix.astype(x.dtype)
        places = places.patches.astype(x.dtype)  # [L, D]
        if mask is not None:
            token = self.param("mask_token", token_init, (1, 1, self.width)).astype(x.dtype)
            token = jnp.broadcast_to(token, (*mask.masked.shape, self.width))
            x = jnp.concatenate([x, token], axis=1)  # [B, K + M, D]: visible, masked
            order = jnp.concatenate([mask.keep, mask.masked], axis=1)
            places = take_tokens(places, order, kind=self.gather)  # [B, K + M, D]
        x = jnp.concatenate([first, x + places], axis=1)  # [B, prefix + K + M, D]
        x = blocks(
            x,
            depth=self.depth,
            heads=self.heads,
            dtype=self.dtype,
            attention=self.attention,
            remat=self.remat,
            skip=prefix + visible * masked_only,
        ).last  # [B, L, D], or [B, M, D] with `masked_only`
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        x = nn.Dense(values, kernel_init=dense_init, dtype=self.dtype, name="predict")(x)
        if mask is None or masked_only:
            return x
        return take_tokens(x, mask.restore, kind=self.gather)  # [B, L, V] unshuffled


class MAE(nn.Module):
    """Encoder and decoder. The mask is an argument, so the network itself is deterministic."""

    encoder: Encoder
    decoder: Decoder | CrossDecoder
    fusion: Fusion | KeyMix | None = None
    """How the tokens of several encoder blocks become the decoder's input; None: those of the last
    are."""

    def __call__(
        self,
        images: jax.Array,
        mask: Mask | None,
        masked_only: bool = False,
        normalize=None,
        values: int | None = None,
    ) -> jax.Array:
        """Predicts patches.

        Args:
            images: [B, *space, C] float, or uint8 with `normalize`.
            mask: which patches the encoder sees, and with `masked_only` which to predict; None: it
                sees all.
            masked_only: predict only the patches of `mask.masked`, which may be a subset.
            normalize: converts uint8 images or patches to float, as `ops.pixels.normalize` with
                its mean and std bound. A ViT gathers the visible patches as bytes first and
                normalizes only these.
            values: number of values V to predict for each patch; None: its pixels times channels.

        Returns:
            [B, L, V] in image order, or [B, M, V] in the order of `mask.masked`.
        """
        patch = self.encoder.patch
        tokens = self.encode(images, mask, normalize)
        grid = grid_of(images.shape[1:-1], patch)
        if values is None:
            values = math.prod(patch_sides(patch, len(grid))) * images.shape[-1]
        return self.decode(tokens, mask, grid, values, masked_only)

    def decode(
        self,
        tokens: jax.Array,
        mask: Mask | None,
        grid: tuple[int, ...],
        values: int,
        masked_only: bool = False,
    ) -> jax.Array:
        """Predictions from the result of `encode`; see `__call__`.

        Args:
            grid: number of patches along each axis.
        """
        if not self.encoder.mask_tokens:
            return self.decoder(tokens, mask, grid, values, masked_only)
        # The encoder has put mask tokens in place, so `tokens` has all patches in image order.
        prediction = self.decoder(tokens, None, grid, values)
        if not masked_only:
            return prediction
        return take_tokens(prediction, mask.masked, kind=self.decoder.gather)

    def encode(self, images: jax.Array, mask: Mask | None, normalize=None) -> jax.Array:
        """The decoder's input: tokens [B, T, E], or [depth, B, T, E] for each of its blocks."""
        if self.fusion is None:
            return self.encoder(images, mask, normalize=normalize)
        depths = self.fusion.depths
        return self.encoder.fused(images, mask, self.fusion, depths=depths, normalize=normalize)
