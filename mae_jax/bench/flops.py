"""Model FLOPs and parameters by formula, for what is built of Vision Transformers.

Counted are the matrix products of the mathematical model, a multiplication and an addition as two
operations, as model FLOPs utilization wants it (PaLM, arXiv 2204.02311, appendix B): no softmax,
norm or optimizer, nothing that is computed twice to save memory; and all that the model of the
paper has, though our last decoder block leaves out what reaches no hidden patch. One block on T
tokens of width D with an MLP of 4 D costs 24 T D^2 + 4 T^2 D. Training costs three times the
forward pass of what learns, and one of what is frozen; as usual the first layer that learns counts
in full, though nothing needs the gradient of its input.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.models.mae import MAE
from mae_jax.models.vit import ViT
from mae_jax.ops.masking import num_visible
from mae_jax.ops.patches import grid_of
from mae_jax.rules import match as rule_of
from mae_jax.tasks.finetune import Finetuning
from mae_jax.tasks.linear_probe import LinearProbing
from mae_jax.types import Method


class Flops(NamedTuple):
    """Operations per image, by part of the network."""

    forward: dict[str, int]
    train: dict[str, int]


def count(method: Method, shape: Sequence[int]) -> Flops | None:
    """What a method costs on images of `shape` [H, W, C]; None where there is no formula."""
    match method:
        case MaskedAutoencoding(model=MAE(encoder=ViT())):
            return _mae(method, shape)
        case Finetuning() if isinstance(method.model.encoder, ViT):
            return _finetuning(method, shape)
        case LinearProbing(encoder=ViT() as encoder):
            body = sum(vit(encoder, sites(encoder, shape), shape[2]).values())
            head = 2 * encoder.width * method.classes * len(method.lr_factors)
            return Flops({"encoder": body, "head": head}, {"encoder": body, "head": 3 * head})
    return None


def _mae(method: MaskedAutoencoding, shape: Sequence[int]) -> Flops:
    """The encoder on the visible patches, the decoder on all, each with its class token."""
    encoder, decoder = method.model.encoder, method.model.decoder
    total = sites(encoder, shape)
    seen = total if encoder.mask_tokens else num_visible(total, method.mask_ratio)
    width, values = decoder.width, encoder.patch**2 * shape[2]
    forward = {
        "encoder": sum(vit(encoder, seen, shape[2]).values()),
        "decoder": 2 * (seen + 1) * encoder.width * width
        + decoder.depth * sum(block(total + 1, width, 4 * width))
        + 2 * (total + 1) * width * values,
    }
    return Flops(forward, {part: 3 * flops for part, flops in forward.items()})


def _finetuning(method: Finetuning, shape: Sequence[int]) -> Flops:
    """Gradients go back from the head to the first layer that learns, and no further."""
    encoder = method.model.encoder
    layers = vit(encoder, sites(encoder, shape), shape[2])
    learns = [bool(rule_of(method.rules, f"encoder/{name}/kernel")) for name in layers]
    first = learns.index(True) if True in learns else len(layers)
    train = sum(flops * (3 if i >= first else 1) for i, flops in enumerate(layers.values()))
    head = 2 * encoder.width * method.classes
    return Flops(
        {"encoder": sum(layers.values()), "head": head}, {"encoder": train, "head": 3 * head}
    )


def sites(encoder: ViT, shape: Sequence[int]) -> int:
    """Patches of images of `shape` [H, W, C]."""
    rows, columns = grid_of(tuple(shape[:2]), encoder.patch)
    return rows * columns


def vit(encoder: ViT, patches: int, channels: int) -> dict[str, int]:
    """Forward operations by layer: 'embed', 'block_0/attention', 'block_0/mlp', ...

    Args:
        patches: that the encoder sees, the class token not among them.
    """
    width = encoder.width
    layers = {"embed": 2 * patches * encoder.patch**2 * channels * width}
    attention, mlp = block(patches + 1, width, int(width * encoder.mlp_ratio))
    for i in range(encoder.depth):
        layers |= {f"block_{i}/attention": attention, f"block_{i}/mlp": mlp}
    return layers


def block(tokens: int, width: int, hidden: int) -> tuple[int, int]:
    """Forward operations of a block's attention, all of T x T, and of its MLP."""
    return 8 * tokens * width**2 + 4 * tokens**2 * width, 4 * tokens * width * hidden


def mae_parameters(method: MaskedAutoencoding, channels: int) -> int:
    """Numbers that a masked autoencoder of a ViT learns; positions are fixed."""
    encoder, decoder = method.model.encoder, method.model.decoder
    width, narrow, values = encoder.width, decoder.width, encoder.patch**2 * channels
    body = encoder.depth * _block_parameters(width, int(width * encoder.mlp_ratio))
    body += (values + 1) * width + width + 2 * width  # embed, class token, norm
    body += width if encoder.mask_tokens else 0
    tail = decoder.depth * _block_parameters(narrow, 4 * narrow)
    tail += (width + 1) * narrow + 2 * narrow + (narrow + 1) * values  # embed, norm, predict
    return body + tail + (0 if encoder.mask_tokens else narrow)


def _block_parameters(width: int, hidden: int) -> int:
    """Two norms, four products of attention and two of the MLP, all with biases."""
    return 4 * width + 4 * (width + 1) * width + (width + 1) * hidden + (hidden + 1) * width
