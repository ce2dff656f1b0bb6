"""Variational autoencoding (Kingma and Welling, arXiv 1312.6114): the encoder says of each image
where its latent vector may lie, a decoder makes the image of a vector drawn from there. The weight
`beta` of the prior is that of beta-VAE (Higgins et al., ICLR 2017; arXiv 1804.03599).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.methods.latents import LatentMethod
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VAE(LatentMethod):
    """The method; `make` documents the fields."""

    beta: float

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        keys = jax.random.split(key, 3)
        images = self.normalize(batch["image"])
        features = jnp.zeros((len(images), self.encoder.width))
        latents = jnp.zeros((len(images), self.latent))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "posterior": self.head(2 * self.latent).init(keys[1], features)["params"],
            "generator": self.generator(images).init(keys[2], latents)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The negative evidence lower bound, in nats per value of an image and up to a constant:
        pixels are normal with variance 1 (after normalization), the prior's weight is `beta`.

        The metrics 'reconstruction' and 'kl', the latter without beta, are in nats per image.
        """
        images = self.normalize(batch["image"])
        posterior = self.posterior(params, self.features(params, images))
        made = self.generate(params, posterior.sample(key), images)
        error = 0.5 * jnp.square(made - images).sum(axis=(1, 2, 3)).mean()
        kl = posterior.divergence().mean()
        loss = (error + self.beta * kl) / images[0].size
        return Output(loss, extra, {"reconstruction": error, "kl": kl})

    def predict(
        self, params: Params, extra: Extra, batch: Batch, *, outputs: Sequence[str]
    ) -> dict[str, jax.Array]:
        """'features' [B, Z] float32 are the mean of the posterior."""
        found = super().predict(params, extra, batch, outputs=outputs)
        if "features" in found:
            found["features"] = self.latents(params, found["features"])
        return found

    def latents(self, params: Params, features: jax.Array) -> jax.Array:
        """The mean of the posterior [B, Z]."""
        return self.posterior(params, features).mean

    def posterior(self, params: Params, features: jax.Array) -> Normal:
        """The distributions of the latents of images with these features [B, D]."""
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
    return VAE(
        **VAE.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        latent=latent,
        decoder_width=decoder_width,
        beta=beta,
    )
