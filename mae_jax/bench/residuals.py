"""Residuals of transformer blocks, the activations kept for the backward pass, by formula.

One block on T tokens of width D, with H heads and an MLP of width r D, keeps for each image, in
elements of its compute type: with remat 'full' its input, T D; with 'dots' also the outputs of its
dense layers, T D (1 + 3 + 1 + r) in all; with 'none' the inputs of all operations, T D (8 + 2 r),
plus for attention 'xla' the exponentials, H T^2, and for 'blockwise' a second layout of its output,
T D; the fused kernels keep neither. Statistics of norms and the rest are a few numbers per token.
XLA may keep less, by recomputing cheap operations, or on a CPU more: remat saves no memory there.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from mae_jax.bench.flops import sites
from mae_jax.methods.hpm import HardPatchesMining
from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.models.mae import Decoder
from mae_jax.models.transformer import REMAT
from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of
from mae_jax.types import Method


def block_numbers(
    remat: str, *, tokens: int, width: int, heads: int, ratio: float, attention: str = "xla"
) -> float:
    """Number of elements that one block keeps for one image.

    Args:
        remat: one of `models.transformer.REMAT`.
        ratio: width of the MLP over the width of the block.
        attention: its kernel, one of `ops.attention.KINDS`.
    """
    plain = {"full": 1, "dots": 5 + ratio, "none": 8 + 2 * ratio}[remat] * tokens * width
    extra = {"xla": heads * tokens**2, "blockwise": tokens * width}
    return plain + (extra.get(attention, 0) if remat == "none" else 0)


def kept(
    method: Method, shape: Sequence[int], images: int, attention: Sequence[str]
) -> dict[str, float] | None:
    """Value of remat, for encoder and decoder -> megabytes (10^6 bytes) that the blocks of a masked
    autoencoder keep; None for other methods and decoders.

    Args:
        shape: [*space, C].
        images: number of images per device and microbatch.
        attention: the lines of `ops.attention.record_kinds` for the step.
    """
    match method:
        case HardPatchesMining():  # has a second decoder
            return None
        case MaskedAutoencoding(
            encoder=ViT() as encoder, decoder=Decoder() as decoder, fusion=None, predict_share=1
        ):
            pass
        case _:
            return None
    total = sites(encoder, shape)
    seen = method.strategy.visible(grid_of(shape[:-1], encoder.patch), method.mask_ratio)
    seen = total if encoder.mask_tokens else seen
    size = jnp.dtype(encoder.dtype).itemsize * images / 1e6
    megabytes = {}
    for remat in REMAT:
        numbers = encoder.depth * block_numbers(
            remat,
            tokens=seen + encoder.prefix,
            width=encoder.width,
            heads=encoder.heads,
            ratio=encoder.mlp_ratio,
            attention=_kind(attention, seen + encoder.prefix, encoder),
        )
        numbers += decoder.depth * block_numbers(
            remat,
            tokens=total + encoder.prefix,
            width=decoder.width,
            heads=decoder.heads,
            ratio=4,
            attention=_kind(attention, total + encoder.prefix, decoder),
        )
        megabytes[remat] = numbers * size
    return megabytes


def _kind(lines: Sequence[str], tokens: int, model: ViT | Decoder) -> str:
    """The attention kernel of a model's blocks, from the lines of `record_kinds`."""
    end = f" {tokens} tokens, {model.heads} heads of {model.width // model.heads}"
    return next((line.split()[0] for line in lines if line.endswith(end)), "xla")
