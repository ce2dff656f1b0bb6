"""A tiny masked autoencoder."""

from tests.helpers.tiny_args import VIT

ARGS = dict(encoder=VIT, decoder_width=8, decoder_depth=1, decoder_heads=2)
