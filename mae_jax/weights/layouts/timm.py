"""timm's `VisionTransformer` (pytorch-image-models, Apache 2.0): an encoder, or a classifier."""

from mae_jax.weights.layout import POSITIONS, Row, dense, norm
from mae_jax.weights.layouts import Layout


def block(ours: str, theirs: str) -> list[Row]:
    """Rows of a transformer block."""
    return [
        *norm(f"{ours}/norm1", f"{theirs}.norm1"),
        *dense(f"{ours}/attention/qkv", f"{theirs}.attn.qkv"),
        *dense(f"{ours}/attention/proj", f"{theirs}.attn.proj"),
        *norm(f"{ours}/norm2", f"{theirs}.norm2"),
        *dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1"),
        *dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2"),
    ]


ROWS = [
    Row("encoder/cls_token", ("cls_token",), "same"),
    Row(POSITIONS, ("pos_embed",), "table"),
    Row("encoder/embed/kernel", ("patch_embed.proj.weight",), "patch"),
    Row("encoder/embed/bias", ("patch_embed.proj.bias",), "same"),
    *block("encoder/block_{}", "blocks.{}"),
    *norm("encoder/norm", "norm"),
    *norm("fc_norm", "fc_norm"),
    *dense("head", "head"),
]


def make() -> Layout:
    """Makes the layout: one file, without a decoder."""
    return Layout(readable=[ROWS], networks="timm's ViT", package="timm", partial=True)
