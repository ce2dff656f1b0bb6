"""Bytes that transformer blocks keep from the forward pass for the backward one, by formula.

One block on T tokens of width D, with H heads and an MLP of r D, keeps for each image, in numbers
of what it computes in: with remat 'full' its input, T D; with 'dots' also what its dense layers
give, T D (1 + 3 + 1 + r); with 'none' what each operation needs, T D (8 + 2 r), and of attention
'xla' the exponentials, H T^2, of 'blockwise' a second layout of its output, T D; the fused kernels
keep neither. Norms' statistics and the rest are a few numbers a token. XLA may keep less, where it
computes cheap things again, or on a CPU more: recomputing saves no memory there.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from mae_jax.bench.flops import sites
from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.models.mae import Decoder
from mae_jax.models.transformer import REMAT
from mae_jax.models.vit import ViT
from mae_jax.ops.masking import num_visible
from mae_jax.types import Method


def block_numbers(
    remat: str, *, tokens: int, width: int, heads: int, ratio: float, attention: str = "xla"
) -> float:
    """Numbers that one block keeps of one image.

    Args:
        remat: a name of `models.transformer.REMAT`.
        ratio: of the MLP's width to the block's.
        attention: the kind that computes it, of `ops.attention.KINDS`.
    """
    plain = {"full": 1, "dots": 5 + ratio, "none": 8 + 2 * ratio}[remat] * tokens * width
    extra = {"xla": heads * tokens**2, "blockwise": tokens * width}
    return plain + (extra.get(attention, 0) if remat == "none" else 0)


def kept(
    method: Method, shape: Sequence[int], images: int, attention: Sequence[str]
) -> dict[str, float] | None:
    """Megabytes (10^6 bytes) that the blocks of a masked autoencoder keep, by remat, if encoder and
    decoder had the same; None for other methods.

    Args:
        shape: [*space, C].
        images: that a device computes at once.
        attention: the lines of `ops.attention.record_kinds` for the step.
    """
    match method:
        case MaskedAutoencoding(encoder=ViT() as encoder, decoder=decoder):
            pass
        case _:
            return None
    total = sites(encoder, shape)
    seen = total if encoder.mask_tokens else num_visible(total, method.mask_ratio)
    size = jnp.dtype(encoder.dtype).itemsize * images / 1e6
    found = {}
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
        found[remat] = numbers * size
    return found


def _kind(lines: Sequence[str], tokens: int, model: ViT | Decoder) -> str:
    """The kind of attention of a model's blocks, by the lines of `record_kinds`."""
    end = f" {tokens} tokens, {model.heads} heads of {model.width // model.heads}"
    return next((line.split()[0] for line in lines if line.endswith(end)), "xla")
