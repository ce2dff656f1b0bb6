"""The official MAE code (arXiv 2111.06377): timm's names, and a decoder."""

from mae_jax.weights.layout import DECODER_POSITIONS, Row, dense, norm
from mae_jax.weights.layouts import Layout, timm

ROWS = [
    *timm.ROWS,
    Row("decoder/mask_token", ("mask_token",), "same"),
    Row(DECODER_POSITIONS, ("decoder_pos_embed",), "table"),
    *dense("decoder/embed", "decoder_embed"),
    *timm.block("decoder/block_{}", "decoder_blocks.{}"),
    *norm("decoder/norm", "decoder_norm"),
    *dense("decoder/predict", "decoder_pred"),
]


def make() -> Layout:
    """Makes the layout: one file, encoder and decoder."""
    return Layout(readable=[ROWS], networks="the official MAE", package="the official code")
