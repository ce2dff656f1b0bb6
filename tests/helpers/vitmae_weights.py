"""The parameters of Hugging Face's `ViTMAEForPreTraining` in the shape of our parameter tree.

The map only transposes, reshapes and joins, so gradients pass through it just as weights do.
"""

from collections.abc import Mapping

import numpy as np

FIXED = {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}
"""The reference's fixed positions: parameters there, constants here."""


def from_torch(arrays: Mapping[str, np.ndarray], depth: int, decoder_depth: int) -> dict:
    """Our tree of parameters, or of their gradients.

    Args:
        arrays: every trained parameter (or gradient) of the reference, by its name there.
        depth, decoder_depth: number of blocks of encoder and decoder.

    Raises:
        KeyError: an array is missing.
        ValueError: an array found no place.
    """
    left = dict(arrays)
    kernel = left.pop("vit.embeddings.patch_embeddings.projection.weight")  # [D, C, row, column]
    encoder = {
        "cls_token": left.pop("vit.embeddings.cls_token"),
        "embed": {
            "kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)),
            "bias": left.pop("vit.embeddings.patch_embeddings.projection.bias"),
        },
        "norm": norm(left, "vit.layernorm"),
    }
    decoder = {
        "mask_token": left.pop("decoder.mask_token"),
        "embed": dense(left, "decoder.decoder_embed"),
        "norm": norm(left, "decoder.decoder_norm"),
        "predict": dense(left, "decoder.decoder_pred"),
    }
    encoder |= {f"block_{i}": block(left, f"vit.layers.{i}") for i in range(depth)}
    decoder |= {
        f"block_{i}": block(left, f"decoder.decoder_layers.{i}") for i in range(decoder_depth)
    }
    if left:
        raise ValueError(f"no place for {sorted(left)}")
    return {"encoder": encoder, "decoder": decoder}


def dense(left: dict[str, np.ndarray], name: str) -> dict:
    """Takes a linear layer out of `left`."""
    return {"kernel": left.pop(f"{name}.weight").T, "bias": left.pop(f"{name}.bias")}


def norm(left: dict[str, np.ndarray], name: str) -> dict:
    """Takes a layer norm out of `left`."""
    return {"scale": left.pop(f"{name}.weight"), "bias": left.pop(f"{name}.bias")}


def block(left: dict[str, np.ndarray], name: str) -> dict:
    """Takes a transformer block out of `left`."""
    parts = [dense(left, f"{name}.attention.{part}_proj") for part in "qkv"]
    qkv = {
        leaf: np.concatenate([part[leaf] for part in parts], axis=-1) for leaf in ("kernel", "bias")
    }
    return {
        "norm1": norm(left, f"{name}.layernorm_before"),
        "attention": {"qkv": qkv, "proj": dense(left, f"{name}.attention.o_proj")},
        "norm2": norm(left, f"{name}.layernorm_after"),
        "mlp": {leaf: dense(left, f"{name}.mlp.{leaf}") for leaf in ("fc1", "fc2")},
    }
