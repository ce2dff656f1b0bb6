"""Reads PyTorch files with the weights-only loader, which never runs code in them."""

import argparse
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mae_jax.types import UserError
from mae_jax.weights.hub import line_of
from mae_jax.weights.parts import groups_of

DTYPES = ("float16", "bfloat16", "float32", "float64", "bool")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")


def read_torch(path: Path, ours: str) -> tuple[dict[str, dict[str, Any]], Any]:
    """The tensors of a file, grouped by the path of their dictionary (see `groups_of`), and the
    entry with the key `ours` ('{}' if there is none).

    Raises:
        UserError: PyTorch is missing, the file is damaged, or it could run code.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} needs PyTorch to be read: pip install torch, or pass .safetensors"
        ) from error
    try:
        # The official MAE checkpoints also contain the arguments of their training.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, for damaged files too
        if "eights only" in str(error) or "WeightsUnpickler" in str(error):
            culprit = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({culprit[1]})" if culprit else ""
            raise UserError(
                f"{path} is refused: it holds more than weights{what} and could run code when "
                "loaded; ask its author for .safetensors, or if you trust it save only the "
                "weights: torch.save(torch.load(FILE, weights_only=False)[KEY], 'weights.pth')"
            ) from error
        raise UserError(f"{path} is damaged, or no PyTorch file ({line_of(error)})") from error
    groups = groups_of(content, lambda value: isinstance(value, torch.Tensor))
    if not groups:
        raise UserError(f"{path} holds no named weights, but {type(content).__name__}")
    return groups, content.get(ours, "{}") if isinstance(content, dict) else "{}"


def to_numpy(name: str, tensor: Any, where: str) -> np.ndarray:
    """A tensor as an array.

    Raises:
        UserError: it is quantized, sparse, complex or without data.
    """
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in DTYPES + INTEGERS or tensor.layout != torch.strided or tensor.is_meta:
        if tensor.layout != torch.strided:
            kind = str(tensor.layout).removeprefix("torch.")
        raise UserError(
            f"{name} in {where} is {'without data' if tensor.is_meta else kind}, not supported: "
            "save the weights as float32, float16 or bfloat16"
        )
    tensor = tensor.detach().contiguous()
    if kind == "bfloat16":  # which tensor.numpy() does not support
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()
