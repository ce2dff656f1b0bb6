"""A tiny masked autoencoder that mines hard patches."""

from tests.helpers.tiny_args import VIT

ARGS = dict(
    encoder=VIT,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    predictor_depth=1,
    momentum=(0.9, 0.99),
)
COSTLY = True
