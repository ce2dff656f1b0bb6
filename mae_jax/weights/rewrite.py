"""Rewrites arrays of unsupported networks as those of an equivalent supported one: a LayerScale
(arXiv 2103.17239) is folded into the preceding layer, and layers without a bias get zeros.
"""

import re
from typing import NamedTuple

import numpy as np

from mae_jax.types import UserError

LAYER_SCALES = (
    (r"(blocks\.\d+\.)(?:ls1\.gamma|gamma_1)", "attn.proj"),
    (r"(blocks\.\d+\.)(?:ls2\.gamma|gamma_2)", "mlp.fc2"),
    (r"(.*encoder\.layer\.\d+\.)lambda_1", "attention.output.dense"),
    (r"(.*encoder\.layer\.\d+\.)lambda_2", "output.dense"),
)
"""Regex of the factors of a branch, with the prefix of its block as group -> the last layer of the
branch: in timm, the official DeiT III and DINOv2, and Hugging Face's BEiT."""
RENAMED = ((r"(.*\.attention\.attention\.)q_bias", "query"),)
RENAMED += ((r"(.*\.attention\.attention\.)v_bias", "value"),)
"""Biases in published files of VideoMAE -> the linear layer that has them in transformers 5."""
UNBIASED = r"attn\.(?:qkv|[qkv])|attention\.(?:attention\.)?(?:query|key|value|[qkv]_proj)"
"""Layers that have no bias in networks with qkv_bias=False."""
MASK_TOKEN = re.compile(r"(?:.*\bembeddings\.)?(?:mask_token|masked_embed)")
DECODER = re.compile(r"decoder(_blocks|_embed|_norm|_pred|_pos_embed|\.)")
"""Arrays of a masked autoencoder's decoder; SimMIM, BEiT, iBOT and DINOv2 have a mask token, but
none of these."""

FOREIGN = {
    r"\.ls\d|gamma|lambda|layer_scale": "LayerScale",
    r"register|reg_token": "registers",
    r"relative_position|rel_pos": "relative positions",
    r"norm_pre|pre_layrnorm": "a norm before the blocks",
    r"w12|\bw[123]\b|fc1_[gx]|weights_(in|out)|swiglu": "SwiGLU",
    r"dist_token|distillation|head_dist": "a distillation token",
    r"[qk]_norm": "a norm of queries and keys",
    r"attn_pool": "attention pooling",
    r"lora_": "a LoRA adapter: merge it",
    r"rope|freqs": "rotary positions",
    r"[qv]_bias": "biases of BEiT",
    r"scales?\b|\bSCB\b|qweight|zeros?_point|absmax|quant": "quantized weights",
    r"running_(mean|var)": "BatchNorm",
    r"local_cls|pooler": "a pooler",
}
"""Regex of unsupported names -> the part of a network that they belong to."""


class Rewritten(NamedTuple):
    """The rewritten arrays of a file."""

    arrays: dict[str, np.ndarray]
    used: dict[str, str]
    """Name of a removed array -> why it was removed."""


def rewritten(arrays: dict[str, np.ndarray], name: str) -> Rewritten:
    """Rewrites arrays as those of a supported network.

    Args:
        arrays: by their names in another layout.
        name: of the file, for messages.

    Raises:
        UserError: factors of a LayerScale do not fit their layer.
    """
    arrays, used = {_renamed(n): array for n, array in arrays.items()}, {}
    for factors in [n for n in arrays if _layer_of(n)]:
        layer = _layer_of(factors)
        _fold(arrays, factors, layer, name)
        used[factors] = f"(folded into {layer})"
    if not any(DECODER.match(n) for n in arrays):
        for token in [n for n in arrays if MASK_TOKEN.fullmatch(n)]:
            del arrays[token]
            used[token] = "(not used: there is no decoder)"
    for bias in _without_bias(arrays):
        arrays[bias] = np.zeros(len(arrays[f"{bias.removesuffix('.bias')}.weight"]), np.float32)
    return Rewritten(arrays, used)


def described_names(names: list[str], *, theirs: bool) -> str:
    """The first names of a list; those of others with the part of the network, if it is known."""
    shown, described = [], set()
    for name in names:
        known = FOREIGN.items() if theirs else ()
        what = next((text for regex, text in known if re.search(regex, name)), "")
        if len(shown) < 4 or (what and what not in described and len(shown) < 8):
            shown.append(f"{name} ({what})" if what and what not in described else name)
            described.add(what)
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" * (len(names) > len(shown)))


def _renamed(name: str) -> str:
    for regex, layer in RENAMED:
        if match := re.fullmatch(regex, name):
            return f"{match[1]}{layer}.bias"
    return name


def _layer_of(name: str) -> str | None:
    """The layer that a LayerScale follows."""
    for regex, layer in LAYER_SCALES:
        if match := re.fullmatch(regex, name):
            return match[1] + layer
    return None


def _fold(arrays: dict[str, np.ndarray], factors: str, layer: str, name: str) -> None:
    """gamma * (W x + b) = (gamma * W) x + gamma * b, in float64."""
    gamma = arrays.pop(factors).astype(np.float64)
    for leaf in (f"{layer}.weight", f"{layer}.bias"):
        if leaf not in arrays or gamma.shape != arrays[leaf].shape[:1]:
            raise UserError(f"{factors} in {name} does not fit {leaf}: the file is incomplete")
        array = arrays[leaf].astype(np.float64)
        arrays[leaf] = (array.T * gamma).T.astype(np.float32)


def _without_bias(arrays: dict[str, np.ndarray]) -> list[str]:
    """Names of the biases of queries, keys and values if no block has any; otherwise none."""
    layers = [n.removesuffix(".weight") for n in arrays if re.search(rf"({UNBIASED})\.weight$", n)]
    biases = [f"{layer}.bias" for layer in layers]
    return [] if any(bias in arrays for bias in biases) else biases
