"""Bidirectional adversarial learning, BiGAN (Donahue et al., arXiv 1605.09782) and ALI (Dumoulin et
al., 1606.00704): a discriminator tells pairs of a real image and what the encoder makes of it from
pairs of what the generator makes of a random vector and that vector. Encoder and generator learn to
deceive it, and where they succeed they are each other's inverse.
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
"""(the discriminator's loss, that of encoder and generator) of the logits of real and of made pairs
[B]. 'nonsaturating': cross-entropy, and the same with the labels exchanged (1605.09782, its
inverse objective); 'hinge': 1705.02894, for pairs 1907.02544.
"""


class Pairs(NamedTuple):
    """What the discriminator is shown of one batch."""

    images: jax.Array
    """[B, H, W, C] real, normalized."""
    encoded: jax.Array
    """[B, Z], their latents."""
    made: jax.Array
    """[B, H, W, C], generated from"""
    drawn: jax.Array
    """[B, Z], from N(0, I)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BiGAN(LatentMethod):
    """The method; `make` documents the fields."""

    discriminator: Discriminator
    loss_kind: str
    discriminator_lr: float

    def rules(self) -> Rules:
        """The discriminator has a learning rate of its own."""
        return (
            (r"^discriminator/.*(bias|scale)$", (self.discriminator_lr, 0.0)),
            (r"^discriminator/", (self.discriminator_lr, 1.0)),
            *DECAY_MATRICES,
        )

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        keys = jax.random.split(key, 4)
        images = self.normalize(batch["image"])
        features = jnp.zeros((len(images), self.encoder.width))
        latents = jnp.zeros((len(images), self.latent))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "latent": self.head(self.latent).init(keys[1], features)["params"],
            "generator": self.generator(images).init(keys[2], latents)["params"],
            "discriminator": self.discriminator.init(keys[3], images, latents)["params"],
        }, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The discriminator's loss plus that of encoder and generator. The gradient of each reaches
        its own parameters only: all of them take one step, against the others as they were.

        The metrics are the two losses, and 'right', the share of pairs the discriminator knows.
        """
        pairs = self.pairs(params, batch, key)
        of_discriminator, of_others = LOSSES[self.loss_kind]
        seen = jax.tree.map(jax.lax.stop_gradient, pairs)
        real, fake = self.judge(params["discriminator"], seen)
        fixed = jax.tree.map(jax.lax.stop_gradient, params["discriminator"])
        losses = {
            "discriminator": of_discriminator(real, fake),
            "generator": of_others(*self.judge(fixed, pairs)),
        }
        right = 0.5 * (jnp.mean(real > 0) + jnp.mean(fake < 0))
        return Output(sum(losses.values()), extra, {**losses, "discriminator_accuracy": right})

    def latents(self, params: Params, features: jax.Array) -> jax.Array:
        """A linear function of the features."""
        return self.head(self.latent).apply({"params": params["latent"]}, features)

    def pairs(self, params: Params, batch: Batch, key: jax.Array) -> Pairs:
        """The real pairs of a batch, and as many made ones."""
        images = self.normalize(batch["image"])
        encoded = self.latents(params, self.features(params, images))
        drawn = jax.random.normal(key, encoded.shape)
        return Pairs(images, encoded, self.generate(params, drawn, images), drawn)

    def judge(self, params: Params, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
        """Logits [B] of the real and of the made pairs, by a discriminator of these parameters."""
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
    """Bidirectional adversarial learning.

    Args:
        encoder: spec string of the encoder.
        pool: 'cls' or 'mean' of the patches: the features, which latents are computed from.
        latent: size of the latent vectors.
        decoder_width: channels of the generator's coarsest map, halved each time its sides double.
        discriminator_width: channels of its first map, doubled each time the sides halve.
        loss: 'nonsaturating', as in the paper, or 'hinge'.
        discriminator_lr: its learning rate, as a multiple of the others'.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        dtype: what the networks compute in, 'float32' or 'bfloat16'.

    Raises:
        UserError: a value that is not among those above.
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
