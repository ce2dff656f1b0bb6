"""The networks of M3AE (arXiv 2205.14204) besides its encoder, a ViT: the embedding of text tokens,
and a decoder of images and texts.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.decoder import PatchDecoder
from mae_jax.models.norm import LayerNorm
from mae_jax.models.transformer import blocks, dense_init, token_init
from mae_jax.models.vit import ViT
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.ops.posemb import sincos
from mae_jax.ops.texts import TextMask


class TextEmbedding(nn.Module):
    """Embeds the tokens of texts: the sum of a learned vector of the token, its sine-cosine
    position, and a learned type. The type of images is the bias of their patch embedding.
    """

    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, text: jax.Array, mask: TextMask, kind: str = "take") -> jax.Array:
        """Texts [B, T] int32 to the first S tokens in the order of the mask, [B, S, D] float32.

        Args:
            kind: see `ops.gather`, for the positions.
        """
        slots, shape = mask.seen.shape[1], (self.vocabulary, self.width)
        table = self.param("table", nn.initializers.normal(1.0), shape)  # as in the authors' code
        positions = jnp.asarray(sincos(text.shape[1:], self.width))  # [T, D]
        x = jnp.take(table, mask.sort(text)[:, :slots], axis=0, mode="clip")  # [B, S, D]
        x = x + take_tokens(positions, mask.order[:, :slots], kind=kind)
        return x + self.param("type", token_init, (self.width,))


class JointDecoder(PatchDecoder):
    """A transformer decoder over all patches and all tokens. Parts that are masked have a mask
    token of their kind, and each kind has a learned type.
    """

    vocabulary: int = 0
    """Number of different tokens V."""

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        mask: Mask | None,
        words: TextMask,
        has_image: jax.Array,
        *,
        grid: tuple[int, ...],
        values: int,
        masked_only: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Predicts patches and text tokens.

        Args:
            tokens: [B, prefix + K + S, E] from the encoder: class tokens, visible patches, text.
            mask: the mask of the patches; None: all are visible.
            words: the mask of the texts.
            has_image: [B] bool; False: nothing attends to patches of the example.
            grid: number of patches along each axis.
            values: number of values N to predict for each patch.
            masked_only: predict only the patches of `mask.masked`, which needs a mask.

        Returns:
            Patches [B, L, N] in image order, or [B, M, N] in the order of `mask.masked`; and logits
            [B, T, V] in the order of `words`.
        """
        x = nn.Dense(self.width, kernel_init=dense_init, dtype=self.dtype, name="embed")(tokens)
        types = self.param("types", token_init, (2, self.width)).astype(x.dtype)
        mask_tokens = self.param("mask_tokens", token_init, (2, self.width)).astype(x.dtype)
        slots, length = words.seen.shape[1], words.order.shape[1]
        first = x.shape[1] - slots  # prefix + K
        prefix = first - (mask.keep.shape[1] if mask else math.prod(grid))
        patches = self.patches(x[:, prefix:first], mask, grid, mask_tokens[0])  # [B, L, D]
        text = jnp.where(words.seen[:, :, None], x[:, first:], mask_tokens[1])  # [B, S, D]
        rest = jnp.broadcast_to(mask_tokens[1], (len(x), length - slots, self.width))
        text = jnp.concatenate([text, rest], axis=1)  # [B, T, D]
        positions = jnp.asarray(sincos((length,), self.width), x.dtype)
        text = text + take_tokens(positions, words.order, kind=self.gather)
        x = jnp.concatenate([x[:, :prefix], patches + types[0], text + types[1]], axis=1)
        ones = jnp.ones((len(x), prefix), bool)
        images = jnp.broadcast_to(has_image[:, None], patches.shape[:2])  # [B, L]
        keys = jnp.concatenate([ones, images, words.valid], axis=1)  # [B, prefix + L + T]
        skip = first if masked_only else prefix
        x = blocks(
            x,
            depth=self.depth,
            heads=self.heads,
            dtype=self.dtype,
            attention=self.attention,
            remat=self.remat,
            mask=keys[:, None, None, :],
            skip=skip,
        ).last  # [B, L + T, D], or [B, M + T, D] with `masked_only`
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        dense = lambda size, name: nn.Dense(
            size, kernel_init=dense_init, dtype=self.dtype, name=name
        )
        predicted = dense(values, "predict")(x[:, :-length])
        if mask is not None and not masked_only:
            predicted = take_tokens(predicted, mask.restore, kind=self.gather)  # [B, L, N]
        return predicted, dense(self.vocabulary, "predict_text")(x[:, -length:])

    def patches(
        self, visible: jax.Array, mask: Mask | None, grid: tuple[int, ...], token: jax.Array
    ) -> jax.Array:
        """Visible patches [B, K, D], then mask tokens, with their positions: [B, L, D]."""
        positions = jnp.asarray(sincos(grid, self.width), visible.dtype)  # [L, D]
        if mask is None:
            return visible + positions
        masked = jnp.broadcast_to(token, (*mask.masked.shape, self.width))
        order = jnp.concatenate([mask.keep, mask.masked], axis=1)
        x = jnp.concatenate([visible, masked], axis=1)
        return x + take_tokens(positions, order, kind=self.gather)


class JointAutoencoder(nn.Module):
    """Encoder and decoder of images and texts. The masks are arguments, so the network itself is
    deterministic.
    """

    encoder: ViT
    text: TextEmbedding
    decoder: JointDecoder

    def __call__(
        self,
        images: jax.Array,
        has_image: jax.Array,
        text: jax.Array,
        mask: Mask | None,
        words: TextMask,
        *,
        values: int,
        masked_only: bool = False,
        normalize=None,
    ) -> tuple[jax.Array, jax.Array]:
        """Predicts patches and text tokens, see `JointDecoder`; other arguments as in `encode`."""
        tokens, _ = self.encode(images, has_image, text, mask, words, normalize=normalize)
        grid = grid_of(images.shape[1:-1], self.encoder.patch)
        options = dict(grid=grid, values=values, masked_only=masked_only)
        return self.decoder(tokens, mask, words, has_image, **options)

    def encode(
        self,
        images: jax.Array,
        has_image: jax.Array,
        text: jax.Array,
        mask: Mask | None,
        words: TextMask,
        *,
        normalize=None,
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes class tokens, visible patches and visible text tokens together.

        Args:
            images: [B, *space, C] float, or uint8 with `normalize`.
            has_image: [B] bool; False: nothing attends to the patches of the example.
            text: [B, T] int32.
            mask: which patches are visible; None: all.
            words: which tokens are visible.
            normalize: see `models.encoder.Encoder`.

        Returns:
            [B, prefix + K + S, D], and which of them are class tokens, patches of an image, or
            visible tokens, [B, prefix + K + S] bool.
        """
        more = self.text(text, words, self.encoder.gather)  # [B, S, D]
        grid = grid_of(images.shape[1:-1], self.encoder.patch)
        count = mask.keep.shape[1] if mask else math.prod(grid)  # K
        first = jnp.ones((len(text), self.encoder.prefix), bool)
        patches = jnp.broadcast_to(has_image[:, None], (len(text), count))
        valid = jnp.concatenate([first, patches, words.seen], axis=1)
        trunk = self.encoder.run(images, mask, normalize=normalize, more=more, valid=valid)
        return trunk.last, valid
