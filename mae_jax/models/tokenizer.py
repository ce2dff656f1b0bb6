"""The network of a VQ-VAE (arXiv 1711.00937): an encoder, a projection of its patches to the width
of the codes, and a convolutional decoder. The codebook is no parameter of it, see `ops.codebook`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.encoder import Encoder, Loadable, make_encoder
from mae_jax.models.transformer import dense_init
from mae_jax.models.unet_decoder import UNetDecoder
from mae_jax.ops.patches import grid_of
from mae_jax.types import UserError

ARGUMENTS = ("encoder", "codes", "code_width", "decoder_width")
"""Arguments of `methods.vqvae` that determine its tokenizer."""


class Tokenizer(Loadable):
    """Encodes images as vectors, one for each patch, and decodes vectors to images."""

    encoder: Encoder
    codes: int
    """Number of codes K in the codebook."""
    code_width: int
    """Width Z of a code."""
    decoder_width: int
    """Channels of the decoder after its first upsampling; each further one halves them."""
    channels: int = 3
    """Channels of the images."""

    def setup(self):
        """Projection and decoder."""
        dtype, factor = self.encoder.dtype, self.encoder.patch
        self.project = nn.Dense(self.code_width, kernel_init=dense_init)
        self.decoder = UNetDecoder(self.decoder_width, factor, self.channels, dtype)

    @property
    def architecture(self) -> tuple:
        """See `Loadable`."""
        shape = (self.codes, self.code_width, self.decoder_width)
        learned = self.encoder.learned_positions
        return ("tokenizer", self.encoder.architecture, learned, *shape)

    def described(self, args: Mapping[str, Any]) -> str:
        """The tokenizer of a run of `vqvae`, see `Loadable`."""
        encoder, codes, width, decoder = (args[name] for name in ARGUMENTS)
        return f"tokenizer({encoder!r}, {codes=}, code_width={width}, decoder_width={decoder})"

    def arrays(self, params: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters of a run of `vqvae`, and its 'codes'; see `Loadable`."""
        codes = "codebook/codes"
        return {**params, "codes": extra[codes]} if codes in extra else {}

    def __call__(self, images: jax.Array) -> jax.Array:
        """Autoencodes images [B, *space, C] without quantization, to initialize all parameters."""
        return self.decode(self.encode(images), grid_of(images.shape[1:-1], self.encoder.patch))

    def encode(self, images: jax.Array) -> jax.Array:
        """Encodes normalized images [B, *space, C] as vectors [B, L, Z] float32."""
        return self.vectors(self.encoder(images))

    def vectors(self, tokens: jax.Array) -> jax.Array:
        """Vectors [B, L, Z] float32 from the encoder's tokens [B, prefix + L, D]."""
        return self.project(tokens[:, self.encoder.prefix :].astype(jnp.float32))

    def decode(self, vectors: jax.Array, grid: tuple[int, ...]) -> jax.Array:
        """Decodes vectors [B, L, Z] of a grid of L patches to images [B, *space, C] float32."""
        return self.decoder(vectors.reshape(len(vectors), *grid, -1))  # [B, *grid, Z]


def make(
    encoder: str, *, codes: int, code_width: int, decoder_width: int, dtype: str = "float32"
) -> Tokenizer:
    """Builds the tokenizer.

    Args:
        encoder: spec string of the encoder, whose patch is a power of two.
        codes, code_width: number of codes and their width.
        decoder_width: channels after the decoder's first upsampling.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown encoder, or a size out of range.
    """
    network = make_encoder(encoder, pool="mean", dtype=dtype)
    patch = network.patch
    if not isinstance(patch, int) or patch & (patch - 1):
        raise UserError(
            f"{encoder} has a patch of {patch}: a tokenizer needs a power of two, because each "
            "layer of its decoder doubles the sides"
        )
    if codes < 2 or min(code_width, decoder_width) < 1:
        raise UserError(
            f"codes={codes} must be at least 2, and code_width={code_width} and "
            f"decoder_width={decoder_width} positive"
        )
    return Tokenizer(network, codes, code_width, decoder_width)
