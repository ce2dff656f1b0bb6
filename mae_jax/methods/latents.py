"""Base class of generative methods with an encoder to latent vectors, whose prior is N(0, I), and a
generator from latent vectors to images.
"""

import abc
import dataclasses
from typing import ClassVar

import jax
from flax import linen as nn

from mae_jax.methods.images import ImageMethod
from mae_jax.models.transformer import dense_init
from mae_jax.models.unet_decoder import Generator
from mae_jax.ops import pixels
from mae_jax.types import Params, Pictures


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatentMethod(ImageMethod):
    """A method with a generator, whose parameters are params['generator']."""

    rank: ClassVar[int | None] = 2

    latent: int
    """Size Z of the latent vectors."""
    decoder_width: int
    """Channels of the generator's first feature map."""

    @abc.abstractmethod
    def latents(self, params: Params, features: jax.Array) -> jax.Array:
        """Latent vectors [B, Z] float32 from features [B, D]."""

    def head(self, width: int) -> nn.Dense:
        """A dense layer from features to `width` values."""
        return nn.Dense(width, kernel_init=dense_init)

    def generator(self, images: jax.Array) -> Generator:
        """The generator for images of the shape of `images` [B, H, W, C]."""
        return Generator(
            self.decoder_width, images.shape[1:3], images.shape[3], dtype=self.encoder.dtype
        )

    def generate(self, params: Params, latents: jax.Array, images: jax.Array) -> jax.Array:
        """Generates normalized images [B, H, W, C] float32, shaped like `images`, from latents
        [B, Z].
        """
        return self.generator(images).apply({"params": params["generator"]}, latents)

    def pictures(self) -> Pictures:
        """Draws the original, its reconstruction from the encoding, and samples from the prior."""
        return self._draw

    def _draw(self, params, extra, batch, *, key=None, mask=None) -> dict[str, jax.Array]:
        images = self.normalize(batch["image"])
        latents = self.latents(params, self.features(params, images))  # [B, Z]
        # A fixed key by default, so that pictures of different steps have the same latents.
        drawn = jax.random.normal(jax.random.key(0) if key is None else key, latents.shape)
        reconstruction, samples = (
            pixels.to_bytes(self.generate(params, z, images), self.mean, self.std)
            for z in (latents, drawn)
        )
        return {
            "original": batch["image"],
            "reconstruction": reconstruction,
            "samples from the prior": samples,
        }
