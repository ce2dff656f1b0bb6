"""Model FLOPs by formula, for methods with a Vision Transformer.

As in the definition of model FLOPs utilization (PaLM, arXiv 2204.02311, appendix B), these are the
matrix products of the mathematical model, with a multiply-add as two operations, without softmax,
norms, optimizer and rematerialization. They include all of the paper's model, although our last
decoder block skips tokens that no masked patch depends on. One block on T tokens of width D with an
MLP of 4 D costs 24 T D^2 + 4 T^2 D. Training costs three times the forward pass for trainable
layers, and once for frozen ones; the first trainable layer counts in full, although the gradient of
its input is not computed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mae_jax.methods.hpm import HardPatchesMining
from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.models.cross import CrossDecoder, Fusion, KeyMix
from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.rules import match as rule_of
from mae_jax.tasks.finetune import Finetuning
from mae_jax.tasks.linear_probe import LinearProbing
from mae_jax.types import Method


class Flops(NamedTuple):
    """Operations per image, by part of the network."""

    forward: dict[str, int]
    train: dict[str, int]


def count(method: Method, shape: Sequence[int]) -> Flops | None:
    """FLOPs of a method on images of `shape` [*space, C]; None if there is no formula."""
    match method:
        case HardPatchesMining():  # has a teacher and a second decoder
            return None
        case MaskedAutoencoding(encoder=ViT()):
            return _mae(method, shape)
        case Finetuning(encoder=ViT()):
            return _finetuning(method, shape)
        case LinearProbing(encoder=ViT() as encoder, layer=-1):
            body = sum(vit(encoder, shape).values())
            head = 2 * method.feature_width * method.classes * len(method.lr_factors)
            return Flops({"encoder": body, "head": head}, {"encoder": body, "head": 3 * head})
    return None


def _mae(method: MaskedAutoencoding, shape: Sequence[int]) -> Flops:
    """The encoder on the visible patches, and the decoder, each with its class tokens."""
    total, encoder = sites(method.encoder, shape), method.encoder
    seen = method.strategy.visible(grid_of(shape[:-1], encoder.patch), method.mask_ratio)
    count = method.num_predicted(total - seen)
    inputs = total if encoder.mask_tokens else seen
    forward = {
        "encoder": sum(vit(encoder, shape, inputs).values()),
        "decoder": _decoder(method, shape, inputs, count),
    }
    return Flops(forward, {part: 3 * flops for part, flops in forward.items()})


def _decoder(method: MaskedAutoencoding, shape: Sequence[int], inputs: int, count: int) -> int:
    """Forward operations of a decoder and of the fusion of its inputs.

    Args:
        inputs: number of patches that the encoder sees.
        count: number of masked patches that the loss predicts.
    """
    encoder, width, depth = method.encoder, method.decoder.width, method.decoder.depth
    total, keys, flops = sites(encoder, shape), inputs + encoder.prefix, 0
    match method.fusion:
        case Fusion(depths=depths):
            flops += (len(depths) - 1) * 2 * keys * encoder.width**2
        case KeyMix(depths=depths):
            flops += depth * len(depths) * 2 * keys * encoder.width
    if isinstance(method.decoder, CrossDecoder):
        out = total if method.loss_on == "all" or encoder.mask_tokens else count
        mlp, keys_and_values = 4 * out * width * 4 * width, 4 * keys * encoder.width * width
        flops += depth * (4 * out * width**2 + 4 * out * keys * width + keys_and_values + mlp)
    else:  # predicts all patches of its sequence
        subset = method.predict_share < 1 and not encoder.mask_tokens
        out = encoder.prefix + (inputs + count if subset else total)
        flops += 2 * keys * encoder.width * width + depth * sum(block(out, width, 4 * width))
    return flops + 2 * out * width * values(method, shape)


def _finetuning(method: Finetuning, shape: Sequence[int]) -> Flops:
    """Gradients are computed from the head back to the first trainable layer."""
    encoder = method.encoder
    layers = vit(encoder, shape)
    learns = [bool(rule_of(method.rules(), f"encoder/{name}/kernel")) for name in layers]
    first = learns.index(True) if True in learns else len(layers)
    train = sum(flops * (3 if i >= first else 1) for i, flops in enumerate(layers.values()))
    head = 2 * method.feature_width * method.classes
    return Flops(
        {"encoder": sum(layers.values()), "head": head}, {"encoder": train, "head": 3 * head}
    )


def sites(encoder: ViT, shape: Sequence[int]) -> int:
    """Number of patches of images of `shape` [*space, C]."""
    return math.prod(grid_of(shape[:-1], encoder.patch))


def pixels(encoder: ViT, shape: Sequence[int]) -> int:
    """Number of values in a patch of images of `shape` [*space, C]."""
    return math.prod(patch_sides(encoder.patch, len(shape) - 1)) * shape[-1]


def values(method: MaskedAutoencoding, shape: Sequence[int]) -> int:
    """Number of values that a masked autoencoder predicts for each patch of images of `shape`."""
    return method.target.width(patch_sides(method.unit, len(shape) - 1), shape[-1])


def vit(encoder: ViT, shape: Sequence[int], patches: int | None = None) -> dict[str, int]:
    """Forward operations by layer: 'embed', 'block_0/attention', 'block_0/mlp', ...

    Args:
        shape: [*space, C] of the images.
        patches: number of input patches, without class tokens; None: all.
    """
    width, patches = encoder.width, sites(encoder, shape) if patches is None else patches
    layers = {"embed": 2 * patches * pixels(encoder, shape) * width}
    attention, mlp = block(patches + encoder.prefix, width, int(width * encoder.mlp_ratio))
    for i in range(encoder.depth):
        layers |= {f"block_{i}/attention": attention, f"block_{i}/mlp": mlp}
    return layers


def block(tokens: int, width: int, hidden: int) -> tuple[int, int]:
    """Forward operations of a block's attention (the full T x T) and of its MLP."""
    return 8 * tokens * width**2 + 4 * tokens**2 * width, 4 * tokens * width * hidden
