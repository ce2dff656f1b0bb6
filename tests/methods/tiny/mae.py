"""A tiny masked autoencoder."""

from tests.helpers.tiny_args import CONV, VIT

ARGS = dict(encoder=VIT, decoder_width=8, decoder_depth=1, decoder_heads=2)
VQ = f"vq({CONV!r}, codes=8, code_width=4, decoder_width=8)"
RARE = dict(
    ema=dict(target="ema(blocks=1)", loss="smooth_l1(beta=2.0)"),
    vq=dict(target=VQ, loss="cross_entropy"),
)
