"""Variational autoencoders (Kingma and Welling, arXiv 1312.6114): the encoder predicts a normal
posterior over the latents of an image, and the decoder reconstructs the image from a sample of it.
The loss is the negative ELBO, with the weight `beta` on its KL divergence as in beta-VAE (Higgins
et al., ICLR 2017; arXiv 1804.03599).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.methods.latents import LatentMethod
from mae_jax.types import Batch, Extra, Output, Params, UserError

LOG_VARIANCE = (-10.0, 10.0)
"""Range to which log variances are clipped, so that their exponentials stay finite."""


class Normal(NamedTuple):
    """A batch of normal distributions with diagonal covariance."""

    mean: jax.Array
    """[B, Z] float32."""
    log_variance: jax.Array
    """[B, Z] float32."""

    def sample(self, key: jax.Array) -> jax.Array:
        """Samples one vector from each, [B, Z], by the reparameterization trick."""
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> jax.Array:
        """KL divergence from N(0, I), [B] in nats (arXiv 1312.6114, appendix B)."""
        terms = jnp.exp(self.log_variance) + jnp.square(self.mean) - 1 - self.log_variance
        return 0.5 * terms.sum(axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VAE(LatentMethod):
    """The method; `make` documents the fields."""

    beta: float

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels."""
        keys = jax.random.split(key, 3)
        images = self.normalize(batch["image"])
        features = jnp.zeros((len(images), self.feature_width))  # only its shape matters
        latents = jnp.zeros((len(images), self.latent))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "posterior": self.head(2 * self.latent).init(keys[1], features)["params"],
            "generator": self.generator(images).init(keys[2], latents)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The negative ELBO in nats per pixel and channel, up to a constant, with `beta` times the
        KL divergence. Normalized pixels are modeled as normal with variance 1.

        The metrics 'reconstruction' and 'kl' are in nats per image; 'kl' is not scaled by beta.
        """
        images = self.normalize(batch["image"])
        posterior = self.posterior(params, self.features(params, images))
        reconstruction = self.generate(params, posterior.sample(key), images)  # [B, H, W, C]
        error = 0.5 * jnp.square(reconstruction - images).sum(axis=(1, 2, 3)).mean()
        kl = posterior.divergence().mean()
        # Per value, so that the scale of the loss does not depend on the image size.
        loss = (error + self.beta * kl) / images[0].size
        return Output(loss, extra, {"reconstruction": error, "kl": kl})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """As `ImageMethod`, but 'features' [B, Z] float32 are the posterior means."""
        predictions = super().predict(params, extra, batch, outputs=outputs)
        if "features" in predictions:
            predictions["features"] = self.latents(params, predictions["features"])
        return predictions

    def latents(self, params: Params, features: jax.Array) -> jax.Array:
        """Posterior means [B, Z] from features [B, D]."""
        return self.posterior(params, features).mean

    def posterior(self, params: Params, features: jax.Array) -> Normal:
        """Posteriors over the latents of images with these features [B, D]."""
        # [B, 2 Z]
        values = self.head(2 * self.latent).apply({"params": params["posterior"]}, features)
        mean, log_variance = jnp.split(values, 2, axis=1)
        return Normal(mean, jnp.clip(log_variance, *LOG_VARIANCE))


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
    """Builds a variational autoencoder (VAE).

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens, the input of the posterior: 'cls' or 'mean' of the patches.
        latent: size of the latent vectors, which are the features that `predict` returns.
        decoder_width: channels of the decoder's coarsest map, halved at each upsampling.
        beta: weight of the KL divergence from the prior: 1 for the ELBO, 0 for an autoencoder with
            a noisy latent.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    if min(latent, decoder_width) < 1:
        raise UserError(f"latent={latent} and decoder_width={decoder_width} must be positive")
    if beta < 0:
        raise UserError(f"beta={beta} must not be negative: the bound itself has 1")
    return VAE(
        **VAE.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        latent=latent,
        decoder_width=decoder_width,
        beta=beta,
    )
