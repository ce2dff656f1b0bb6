"""A tiny context encoder."""

from tests.helpers.tiny_args import CONV, VIT

ARGS = dict(encoder=CONV, decoder_width=8)
OTHERS = {}
RARE = {"vit": dict(encoder=VIT)}
