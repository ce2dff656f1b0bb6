"""A tiny BiGAN."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, latent=8, decoder_width=8, discriminator_width=8)
