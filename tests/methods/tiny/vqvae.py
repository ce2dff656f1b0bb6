"""A tiny vector-quantized autoencoder."""

from tests.helpers.tiny_args import CONV

ARGS = dict(encoder=CONV, codes=8, code_width=4, decoder_width=8)
COSTLY = True
