"""Bidirectional GANs, BiGAN (Donahue et al., arXiv 1605.09782) and ALI (Dumoulin et al., arXiv
1606.00704): a discriminator distinguishes pairs (image, encoding) from pairs (generated image,
latent). Encoder and generator are trained to fool it, and are inverse to each other at the optimum.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.methods.latents import LatentMethod
from mae_jax.models.discriminator import Discriminator
from mae_jax.rules import DECAY_MATRICES, Rules
from mae_jax.spec import check_choice
from mae_jax.types import Batch, Extra, Output, Params, UserError

LOSSES = {
    "nonsaturating": (
        lambda real, fake: jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean(),
        lambda real, fake: jax.nn.softplus(real).mean() + jax.nn.softplus(-fake).mean(),
    ),
    "hinge": (
        lambda real, fake: jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean(),
        lambda real, fake: real.mean() - fake.mean(),
    ),
}
"""Kind -> (loss of the discriminator, loss of encoder and generator), functions of the logits [B]
of real and of generated pairs. 'nonsaturating' is cross-entropy, with swapped labels for encoder
and generator (the inverse objective of arXiv 1605.09782); 'hinge' follows arXiv 1705.02894, and for
pairs 1907.02544.
"""


class Pairs(NamedTuple):
    """The discriminator's inputs for one batch: real pairs and generated pairs."""

    images: jax.Array
    """[B, H, W, C], real images, normalized."""
    encoded: jax.Array
    """[B, Z], encodings of `images`."""
    made: jax.Array
    """[B, H, W, C], images generated from `drawn`."""
    drawn: jax.Array
    """[B, Z], latents drawn from N(0, I)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BiGAN(LatentMethod):
    """The method; `make` documents the fields."""

    discriminator: Discriminator
    loss_kind: str
    discriminator_lr: float

    def rules(self) -> Rules:
        """The discriminator has its own learning rate factor."""
        return (
            (r"^discriminator/.*(bias|scale)$", (self.discriminator_lr, 0.0)),
            (r"^discriminator/", (self.discriminator_lr, 1.0)),
            *DECAY_MATRICES,
        )

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters for images of this size and number of channels."""
        keys = jax.random.split(key, 4)
        images = self.normalize(batch["image"])  # [B, H, W, C]
        features = jnp.zeros((len(images), self.feature_width))  # only its shape matters
        latents = jnp.zeros((len(images), self.latent))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "latent": self.head(self.latent).init(keys[1], features)["params"],
            "generator": self.generator(images).init(keys[2], latents)["params"],
            "discriminator": self.discriminator.init(keys[3], images, latents)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The loss of the discriminator plus that of encoder and generator. Stopped gradients
        confine each to its own parameters, so that both players take a simultaneous step.

        The metrics are the two losses, 'discriminator' and 'generator', and
        'discriminator_accuracy', the fraction of pairs that the discriminator classifies correctly.
        """
        pairs = self.pairs(params, batch, key)
        discriminator_loss, generator_loss = LOSSES[self.loss_kind]
        constant_pairs = jax.tree.map(jax.lax.stop_gradient, pairs)
        real, fake = self.judge(params["discriminator"], constant_pairs)  # [B] each
        # The second evaluation has gradients for encoder and generator, not for the discriminator.
        fixed = jax.tree.map(jax.lax.stop_gradient, params["discriminator"])
        losses = {
            "discriminator": discriminator_loss(real, fake),
            "generator": generator_loss(*self.judge(fixed, pairs)),
        }
        accuracy = 0.5 * (jnp.mean(real > 0) + jnp.mean(fake < 0))
        return Output(sum(losses.values()), extra, {**losses, "discriminator_accuracy": accuracy})

    def latents(self, params: Params, features: jax.Array) -> jax.Array:
        """Latents [B, Z] as a linear function of features [B, D]."""
        return self.head(self.latent).apply({"params": params["latent"]}, features)

    def pairs(self, params: Params, batch: Batch, key: jax.Array) -> Pairs:
        """The real pairs of a batch, and equally many generated ones."""
        images = self.normalize(batch["image"])
        encoded = self.latents(params, self.features(params, images))  # [B, Z]
        drawn = jax.random.normal(key, encoded.shape)  # [B, Z]
        return Pairs(images, encoded, self.generate(params, drawn, images), drawn)

    def judge(self, params: Params, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
        """Logits [B] of the real and of the generated pairs, by a discriminator with `params`."""
        logits = lambda images, latents: self.discriminator.apply(
            {"params": params}, images, latents
        )
        return logits(pairs.images, pairs.encoded), logits(pairs.made, pairs.drawn)


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    pool: str = "cls",
    latent: int = 128,
    decoder_width: int = 512,
    discriminator_width: int = 64,
    loss: str = "nonsaturating",
    discriminator_lr: float = 1.0,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> BiGAN:
    """Builds a bidirectional GAN (BiGAN).

    Args:
        encoder: spec string of the encoder.
        pool: features from the tokens: 'cls' or 'mean' of the patches. Latents are linear in them.
        latent: size of the latent vectors.
        decoder_width: channels of the generator's coarsest map, halved at each upsampling.
        discriminator_width: channels of the discriminator's first map, doubled at each
            downsampling, up to 8 times.
        loss: 'nonsaturating', as in the paper, or 'hinge'.
        discriminator_lr: learning rate of the discriminator, as a multiple of the others'.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: of the networks' computations, 'float32' or 'bfloat16'.

    Raises:
        UserError: an unknown or invalid value.
    """
    check_choice("loss", loss, LOSSES)
    if min(latent, decoder_width, discriminator_width) < 1:
        raise UserError(
            f"latent={latent}, decoder_width={decoder_width} and "
            f"discriminator_width={discriminator_width} must be positive"
        )
    if discriminator_lr <= 0:
        raise UserError(f"discriminator_lr={discriminator_lr} must be positive: try 1.0")
    return BiGAN(
        **BiGAN.fields(encoder=encoder, pool=pool, mean=mean, std=std, dtype=dtype),
        discriminator=Discriminator(discriminator_width, jnp.dtype(dtype)),
        latent=latent,
        decoder_width=decoder_width,
        loss_kind=loss,
        discriminator_lr=discriminator_lr,
    )
