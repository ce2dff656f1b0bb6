"""What methods and tasks know of an encoder, whichever network it is.

It turns images [B, *space, C] into tokens [B, prefix + L, D]: `prefix` tokens for the whole image,
then one for each site, in row-major order. Its `width` is D, its `patch` the side of a site in
pixels (or one for each axis), its `stem` that of what its first layer sees at once, its `depth` the
number of its blocks. `maps` are its inner maps [B, *grid, D], for dense heads.
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
    network = build(text, "models", dtype=jnp.dtype(dtype), **more)
    if pool == "cls" and network.prefix == 0:
        raise UserError(f"pool='cls' needs a class token, and {text} has none: set pool='mean'")
    return network


def make_tile_encoder(text: str, *, tile: int, pool: str, dtype: str) -> Encoder:
    """The same, of one that learns from tiles and is used on whole images.

    Args:
        tile: side of the tiles in pixels.

    Raises:
        UserError: a tile that is not a multiple of the encoder's patch, or an encoder whose
            parameters fit one size of images only.
    """
    network = make_encoder(text, pool=pool, dtype=dtype)
    sides = (network.patch,) if isinstance(network.patch, int) else network.patch
    if tile < 1 or any(tile % side for side in sides):
        raise UserError(
            f"tile={tile} is not a positive multiple of {network.patch}, the patch of {text}"
        )
    if network.learned_positions:
        raise UserError(
            f"{text} would learn the positions in a tile and have none for whole images: leave "
            "out learned_positions"
        )
    return network


def pooled(tokens: jax.Array, pool: str, *, prefix: int) -> jax.Array:
    """Features [B, D] float32 of tokens [B, prefix + L, D].

    Args:
        pool: 'cls', the mean of the first `prefix` tokens, or 'mean', that of the sites.
        prefix: of the encoder.
    """
    tokens = tokens.astype(jnp.float32)
    part = tokens[:, :prefix] if pool == "cls" else tokens[:, prefix:]
    return part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
