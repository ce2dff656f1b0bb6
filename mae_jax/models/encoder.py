"""What methods and tasks know of an encoder, whichever network it is."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import one_or_all
from mae_jax.spec import build, check_choice
from mae_jax.types import UserError


class Encoder(nn.Module):
    """Turns images [B, *space, C] into tokens [B, prefix + L, D]: `prefix` tokens for the whole
    image, then one for each site, in row-major order.

    Beside what is below it has, as fields or properties: `width`, D; `depth`, the number of its
    blocks; `patch`, the side of a site in pixels, or one for each axis; `dtype`, what it computes
    in.
    """

    # Without annotations, which would make them fields of every encoder.
    prefix = 0
    mask_tokens = False
    """Whether masked sites stay among the tokens."""
    learned_positions = False
    """Whether parameters fit one size of images only."""

    @property
    def stem(self) -> int | tuple[int, ...]:
        """Side in pixels of what the first layer sees at once."""
        return self.patch

    @property
    def architecture(self) -> tuple:
        """What must be the same for parameters to fit: not how it is trained or computed."""
        kind = type(self).__name__
        raise UserError(f"encoders of the kind {kind} are not loaded: define their `architecture`")

    def __call__(
        self, images: jax.Array, mask: Mask | None = None, *, train: bool = False, normalize=None
    ) -> jax.Array:
        """Encodes whole images, or their visible patches.

        Args:
            images: [B, *space, C] float, or uint8 with `normalize`; of any shape and number of
                channels.
            mask: which patches are visible; None: all.
            train: whether paths are dropped, which needs the random stream 'drop_path'.
            normalize: makes floats of images that are uint8, `ops.pixels.normalize` with its mean
                and std.

        Returns:
            [B, prefix + K, D] tokens after the final norm: first those of the whole image, then
            the visible patches in the order of `mask.keep` (with `mask_tokens`, or without a mask:
            all L in image order).
        """
        raise NotImplementedError

    def maps(
        self, images: jax.Array, *, train: bool = False, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """Inner maps [B, *sites, width of the stage] of images [B, *space, C] float, for dense
        heads: outputs of blocks or stages, without any norm.

        Args:
            taps: numbers of the blocks or stages; None: all.
        """
        raise UserError(f"encoders of the kind {type(self).__name__} have no inner maps")

    def attention_weights(
        self, images: jax.Array, *, taps: Sequence[int] | None = None
    ) -> list[jax.Array]:
        """What each token attends to: [B, heads, T, T] float32 for each block.

        Args:
            images: [B, *space, C] float.
            taps: numbers of the blocks; None: all.
        """
        raise UserError(f"encoders of the kind {type(self).__name__} have no attention")


POOLS = ("cls", "mean")
DTYPES = ("float32", "bfloat16")


def make_encoder(text: str, *, pool: str, dtype: str, **more: Any) -> Encoder:
    """Builds the encoder of a spec string, e.g. 'vit(B, patch=16)' or 'convnext(T)'.

    Args:
        pool: 'cls' or 'mean', checked here because everything has it.
        dtype: what it computes in, 'float32' or 'bfloat16'.
        more: arguments that have their own place in the config.

    Raises:
        UserError: an unknown name or value.
    """
    check_choice("pool", pool, POOLS)
    check_choice("dtype", dtype, DTYPES)
    network = build(text, "models", Encoder, dtype=jnp.dtype(dtype), **more)
    if pool == "cls" and network.prefix == 0:
        raise UserError(f"pool='cls' needs a class token, and {text} has none: set pool='mean'")
    return network


def check_tiles(network: Encoder, text: str, tile: int) -> None:
    """Checks that an encoder can learn from tiles and be used on whole images.

    Args:
        text: its spec string.
        tile: side of the tiles in pixels.

    Raises:
        UserError: a tile that is not a multiple of the encoder's patch, or an encoder whose
            parameters fit one size of images only.
    """
    if tile < 1 or any(tile % side for side in one_or_all(network.patch)):
        raise UserError(
            f"tile={tile} is not a positive multiple of {network.patch}, the patch of {text}"
        )
    if network.learned_positions:
        raise UserError(
            f"{text} would learn the positions in a tile and have none for whole images: leave "
            "out learned_positions"
        )


def pooled(tokens: jax.Array, pool: str, *, prefix: int) -> jax.Array:
    """Features [B, D] float32 of tokens [B, prefix + L, D].

    Args:
        pool: 'cls', the mean of the class tokens, the first `prefix`; or 'mean', that of the sites.
        prefix: of the encoder.
    """
    tokens = tokens.astype(jnp.float32)
    part = tokens[:, :prefix] if pool == "cls" else tokens[:, prefix:]
    return part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
