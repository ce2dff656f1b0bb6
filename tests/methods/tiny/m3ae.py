"""A tiny multimodal masked autoencoder."""

from tests.helpers.tiny_args import VIT

COSTLY = True

ARGS = dict(
    vocabulary=16,
    length=6,
    encoder=VIT.replace(")", ", mlp_ratio=2.0)"),  # no other encoder fits, see tiny_args
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    text_mask_ratio=0.5,
)
RARE = {"whole": dict(loss_on="all", pool="mean")}
