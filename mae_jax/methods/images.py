"""Base class of methods with one image encoder: features, and loading of pre-trained weights."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.models.encoder import Encoder, make_encoder, pooled
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.ops.pixels import normalize
from mae_jax.ops.resample import resample_channels, resample_positions
from mae_jax.types import Adapt, Batch, Extra, Method, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageMethod(Method):
    """A method with an image encoder, whose parameters are params['encoder']."""

    encoder: Encoder
    pool: str
    """How tokens are pooled to features, see `models.encoder.pooled`."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Mean and standard deviation of the pixels in [0, 1], one number or one per channel."""

    @staticmethod
    def fields(
        *, encoder: str, pool: str, mean: Sequence[float], std: Sequence[float], dtype: str, **more
    ) -> dict[str, Any]:
        """Builds the fields above from the arguments that all `make` functions share.

        Args:
            encoder: spec string of the encoder.
            pool: 'cls', 'cls_concat' or 'mean'.
            mean, std: of the pixels in [0, 1], one number or one per channel.
            dtype: of the encoder's computations, 'float32' or 'bfloat16'.
            more: further arguments of the encoder.

        Raises:
            UserError: an unknown name or value.
        """
        network = make_encoder(encoder, pool=pool, dtype=dtype, **more)
        return dict(encoder=network, pool=pool, mean=tuple(mean), std=tuple(std))

    @property
    def feature_width(self) -> int:
        """Number of values of an image's features."""
        return self.encoder.width * (self.encoder.prefix if self.pool == "cls_concat" else 1)

    def loads(self) -> Mapping[str, str]:
        """All encoders. Learned positions keep their sine-cosine initialization if not loaded."""
        return dict.fromkeys(self.encoders(), "^positions$")

    def encoders(self) -> Mapping[str, Any]:
        """The method's encoder."""
        return {"params/encoder": self.encoder}

    def offers(self) -> tuple[str, ...]:
        """'features' [B, D] float32 and 'tokens' [B, prefix + L, D] of unmasked images. With
        pool='cls_concat' features have `prefix` times as many values."""
        return ("features", "tokens")

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """See `offers`."""
        tokens = self.tokens(params, self.normalize(batch["image"]))  # [B, prefix + L, D]
        available = {"tokens": tokens, "features": self.pooled(tokens)}
        return {name: available[name] for name in outputs}

    def normalize(self, images: jax.Array, *, pixels: int = 1) -> jax.Array:
        """Normalizes uint8 images [B, *space, C], or patches [B, L, pixels * C], to float32."""
        return normalize(images, self.mean, self.std, pixels=pixels)

    def tokens(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes normalized images [B, *space, C] as tokens [B, prefix + L, D]."""
        return self.encoder.apply({"params": params["encoder"]}, images)

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """Pools tokens [B, prefix + L, D] to features [B, `feature_width`] float32."""
        return pooled(tokens, self.pool, prefix=self.encoder.prefix)

    def features(self, params: Params, images: jax.Array) -> jax.Array:
        """Encodes normalized images [B, *space, C] as features [B, D] float32."""
        return self.pooled(self.tokens(params, images))

    def adapt(self, shape: Sequence[int], old: Sequence[int] | None) -> Adapt:
        """Resamples the patch embedding to another number of channels, and learned positions to
        another grid. If `old` is unknown, the old grid is assumed to be square.

        Raises:
            UserError: `old` and `shape` differ in their number of axes.
        """
        encoder, rank = self.encoder, len(shape) - 1
        if old is not None and len(old) != len(shape):
            raise UserError(
                f"the encoder was trained on images of {len(old) - 1} dimensions, {list(old)}, and "
                f"these have {rank}, {list(shape)}: choose weights of such images"
            )
        area, prefix = math.prod(patch_sides(encoder.stem, rank)), encoder.prefix

        def resample(path: str, array: np.ndarray):
            if path == "embed/kernel" and array.shape[0] % area == 0:  # [prod(stem) * C, D]
                return resample_channels(jnp.asarray(array), array.shape[0] // area, shape[-1])
            if path == "positions":  # [prefix + L, D]
                side = round((len(array) - prefix) ** (1 / rank))
                old_grid = grid_of(old[:-1], encoder.patch) if old else (side,) * rank
                if len(array) == prefix + math.prod(old_grid):
                    grid = grid_of(shape[:-1], encoder.patch)
                    return resample_positions(jnp.asarray(array), old_grid, grid, prefix=prefix)
            return array

        return resample
