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
from flax import linen as nn

from mae_jax.models.deconv import Generator
from mae_jax.models.discriminator import Discriminator
from mae_jax.models.encoder import Encoder, make_encoder, pooled
from mae_jax.models.vit import dense_init
from mae_jax.ops import pixels
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
    """[B, H, W, C] real, normalised."""
    encoded: jax.Array
    """[B, Z], their latents."""
    made: jax.Array
    """[B, H, W, C], generated from"""
    drawn: jax.Array
    """[B, Z], from N(0, I)."""


@dataclasses.dataclass(frozen=True)
class BiGAN:
    """The method; `make` documents the fields."""

    encoder: Encoder
    discriminator: Discriminator
    pool: str
    latent: int
    decoder_width: int
    loss_kind: str
    rules: tuple[tuple[str, tuple[float, float]], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Fresh parameters for images of this size and number of channels."""
        keys = jax.random.split(key, 4)
        images = pixels.normalize(batch["image"], self.mean, self.std)
        features = jnp.zeros((len(images), self.encoder.width))
        latents = jnp.zeros((len(images), self.latent))
        return {
            "encoder": self.encoder.init(keys[0], images)["params"],
            "latent": self.head.init(keys[1], features)["params"],
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
        return Output(sum(losses.values()), extra, {**losses, "right": right})

    def predict(self, params: Params, extra: Extra, batch: Batch) -> dict[str, jax.Array]:
        """'features' [B, D] float32 of the encoder, those that the latents are computed from."""
        images = pixels.normalize(batch["image"], self.mean, self.std)
        return {"features": self.features(params, images)}

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Nothing follows an update."""
        return extra

    def reconstruct(
        self, params: Params, extra: Extra, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Pictures [B, H, W, C] uint8: 'original'; 'reconstruction', generated from the encoder's
        latents; 'sample', generated from random ones.
        """
        pairs = self.pairs(params, batch, key)
        show = lambda images: pixels.to_bytes(images, self.mean, self.std)
        again = self.generate(params, pairs.encoded, pairs.images)
        return {
            "original": batch["image"],
            "reconstruction": show(again),
            "sample": show(pairs.made),
        }

    @property
    def head(self) -> nn.Dense:
        """From features to latents."""
        return nn.Dense(self.latent, kernel_init=dense_init)

    def generator(self, images: jax.Array) -> Generator:
        """The generator of images of this shape [B, H, W, C]."""
        return Generator(
            self.decoder_width, images.shape[1:3], images.shape[3], dtype=self.encoder.dtype
        )

    def features(self, params: Params, images: jax.Array) -> jax.Array:
        """[B, D] float32 of normalised images."""
        return pooled(self.encoder.apply({"params": params["encoder"]}, images), self.pool)

    def generate(self, params: Params, latents: jax.Array, images: jax.Array) -> jax.Array:
        """Normalised images [B, H, W, C] float32 of latents [B, latent]; of `images` it takes the
        shape alone.
        """
        return self.generator(images).apply({"params": params["generator"]}, latents)

    def pairs(self, params: Params, batch: Batch, key: jax.Array) -> Pairs:
        """The real pairs of a batch, and as many made ones."""
        images = pixels.normalize(batch["image"], self.mean, self.std)
        encoded = self.head.apply({"params": params["latent"]}, self.features(params, images))
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
    compute = jnp.dtype(dtype)
    rules = (
        (r"^discriminator/.*(bias|scale)$", (discriminator_lr, 0.0)),
        (r"^discriminator/", (discriminator_lr, 1.0)),
        (r"(bias|scale)$", (1.0, 0.0)),
        (r"", (1.0, 1.0)),
    )
    return BiGAN(
        make_encoder(encoder, pool=pool, dtype=dtype),
        Discriminator(discriminator_width, compute),
        pool,
        latent,
        decoder_width,
        loss,
        rules,
        tuple(mean),
        tuple(std),
    )
