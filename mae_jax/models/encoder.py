"""What methods and tasks know of an encoder, whichever network it is.

It turns images [B, H, W, C] into tokens [B, 1 + L, D]: one for the whole image, then one for each
site, in row-major order. Its `width` is D, its `patch` the side of a site in pixels, its `stem`
the side of what its first layer sees at once, its `depth` the number of its blocks.
"""

import jax
import jax.numpy as jnp

from mae_jax.models.conv import Conv
from mae_jax.models.vit import ViT
from mae_jax.spec import build, check_choice
from mae_jax.types import UserError

Encoder = ViT | Conv

POOLS = ("cls", "mean")
DTYPES = ("float32", "bfloat16")


def make_encoder(text: str, *, pool: str, dtype: str, **more) -> Encoder:
    """Builds the encoder of a spec string, e.g. 'vit(B, patch=16)' or 'conv(T)'.

    Args:
        pool: 'cls' or 'mean', checked here because everything has it.
        dtype: what it computes in, 'float32' or 'bfloat16'.
        more: arguments that have their own place in the config.

    Raises:
        UserError: an unknown name or value.
    """
    check_choice("pool", pool, POOLS)
    check_choice("dtype", dtype, DTYPES)
    return build(text, "models", dtype=jnp.dtype(dtype), **more)


def make_tile_encoder(text: str, *, tile: int, pool: str, dtype: str) -> Encoder:
    """The same, of one that learns from tiles and is used on whole images.

    Args:
        tile: side of the tiles in pixels.

    Raises:
        UserError: a tile that is not a multiple of the encoder's patch, or an encoder whose
            parameters fit one size of images only.
    """
    network = make_encoder(text, pool=pool, dtype=dtype)
    if tile < 1 or tile % network.patch:
        raise UserError(
            f"tile={tile} is not a positive multiple of {network.patch}, the patch of {text}"
        )
    if getattr(network, "learned_positions", False):
        raise UserError(
            f"{text} would learn the positions in a tile and have none for whole images: leave "
            "out learned_positions"
        )
    return network


def pooled(tokens: jax.Array, pool: str) -> jax.Array:
    """Features [B, D] float32 of tokens [B, 1 + L, D]: the first one, or the mean of the sites.

    Args:
        pool: 'cls' or 'mean'.
    """
    tokens = tokens.astype(jnp.float32)
    return tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(axis=1)
