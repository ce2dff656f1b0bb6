"""Variational autoencoding (Kingma and Welling, arXiv 1312.6114): the encoder says of each image
where its latent vector may lie, a decoder makes the image of a vector drawn from there. The weight
`beta` of the prior is that of beta-VAE (Higgins et al., ICLR 2017; arXiv 1804.03599).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.deconv import Generator
from mae_jax.models.encoder import Encoder, make_encoder, pooled
from mae_jax.models.vit import dense_init
from mae_jax.ops import pixels
from mae_jax.types import Batch, Extra, Output, Params, UserError

LOG_VARIANCE = (-10.0, 10.0)
"""Logarithms of variances are clipped to this range, so that their exponentials stay finite."""


class Normal(NamedTuple):
    """Normal distributions whose components are independent."""

    mean: jax.Array
    """[B, Z] float32."""
    log_variance: jax.Array
    """[B, Z] float32."""

    def sample(self, key: jax.Array) -> jax.Array:
        """One vector [B, Z] of each, through which gradients flow to both fields."""
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> jax.Array:
        """Kullback-Leibler divergence [B] of each from N(0, I), in nats (1312.6114, appendix B)."""
        terms = jnp.exp(self.log_variance) + jnp.square(self.mean) - 1 - self.log_variance
        return 0.5 * terms.sum(axis=1)


@dataclasses.dataclass(frozen=True)
class VAE:
    """The method; `make` documents the fields."""

    encoder: Encoder
    pool: str
    latent: int
    decoder_width: int
    beta: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        keys = jax.random.split(key, 3)
        images = pixels.normalize(batch["image"], self.mean, self.std)
        features = jnp.zeros((len(images), self.encoder.width))
        latents = jnp.zeros((len(images), self.latent))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "posterior": self.head.init(keys[1], features)["params"],
            "generator": self.generator(images).init(keys[2], latents)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The negative evidence lower bound, in nats per value of an image and up to a constant:
        pixels are normal with variance 1 (after normalisation), the prior's weight is `beta`.

        The metrics 'reconstruction' and 'kl', the latter without beta, are in nats per image.
        """
        images = pixels.normalize(batch["image"], self.mean, self.std)
        posterior = self.posterior(params, images)
        made = self.generate(params, posterior.sample(key), images)
        error = 0.5 * jnp.square(made - images).sum(axis=(1, 2, 3)).mean()
        kl = posterior.divergence().mean()
        loss = (error + self.beta * kl) / images[0].size
        return Output(loss, extra, {"reconstruction": error, "kl": kl})

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """'features' [B, latent] float32, the mean of the posterior."""
        images = pixels.normalize(batch["image"], self.mean, self.std)
        return {"features": self.posterior(params, images).mean}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Nothing follows an update."""
        return extra

    def reconstruct(
        self, params: Params, extra: Extra, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Pictures [B, H, W, C] uint8: 'original'; 'reconstruction', of the mean of the posterior;
        'sample', of latents drawn from the prior.
        """
        images = pixels.normalize(batch["image"], self.mean, self.std)
        latents = self.posterior(params, images).mean
        drawn = jax.random.normal(key, latents.shape)
        show = lambda z: pixels.to_bytes(self.generate(params, z, images), self.mean, self.std)
        return {"original": batch["image"], "reconstruction": show(latents), "sample": show(drawn)}

    @property
    def head(self) -> nn.Dense:
        """From features to means and log-variances."""
        return nn.Dense(2 * self.latent, kernel_init=dense_init)

    def generator(self, images: jax.Array) -> Generator:
        """The decoder for images of this shape [B, H, W, C]."""
        return Generator(
            self.decoder_width, images.shape[1:3], images.shape[3], dtype=self.encoder.dtype
        )

    def posterior(self, params: Params, images: jax.Array) -> Normal:
        """Where the latents of normalised images [B, H, W, C] may lie."""
        tokens = self.encoder.apply({"params": params["encoder"]}, images)
        values = self.head.apply({"params": params["posterior"]}, pooled(tokens, self.pool))
        mean, log_variance = jnp.split(values, 2, axis=1)
        return Normal(mean, jnp.clip(log_variance, *LOG_VARIANCE))

    def generate(self, params: Params, latents: jax.Array, images: jax.Array) -> jax.Array:
        """Normalised images [B, H, W, C] float32 of latents [B, latent]; of `images` it takes the
        shape alone.
        """
        return self.generator(images).apply({"params": params["generator"]}, latents)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    latent: int = 128,
    decoder_width: int = 512,
    beta: float = 1.0,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> VAE:
    """Variational autoencoding.

    Args:
        encoder: spec string of the encoder.
        pool: 'cls' or 'mean' of the patches: what the posterior is computed from.
        latent: size of the latent vectors, which are the features.
        decoder_width: channels of the decoder's coarsest map, halved each time its sides double.
        beta: weight of the divergence from the prior: 1 for the bound itself, 0 for none.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
    """
    if min(latent, decoder_width) < 1:
        raise UserError(f"latent={latent} and decoder_width={decoder_width} must be positive")
    if beta < 0:
        raise UserError(f"beta={beta} must not be negative: the bound itself has 1")
    network = make_encoder(encoder, pool=pool, dtype=dtype)
    return VAE(network, pool, latent, decoder_width, beta, tuple(mean), tuple(std))
