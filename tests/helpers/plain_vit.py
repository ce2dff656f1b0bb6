"""A vision transformer as papers write it down, in NumPy and float64, on arrays under timm's names:
what our networks are compared with where no other library is at hand.
"""

import math

import numpy as np

erf = np.vectorize(math.erf)


def random_arrays(
    *, width=48, depth=2, patch=4, grid=(4, 4), channels=3, hidden=96, seed=0
) -> dict[str, np.ndarray]:
    """Those of a small encoder, with a row of positions for the class token."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    dense = lambda inner, outer: normal(outer, inner) / np.float32(np.sqrt(inner))
    arrays = {
        "cls_token": normal(1, 1, width),
        "pos_embed": normal(1, 1 + math.prod(grid), width),
        "patch_embed.proj.weight": normal(width, channels, patch, patch) / np.float32(patch),
        "patch_embed.proj.bias": normal(width),
        "norm.weight": 1 + normal(width) / 4,
        "norm.bias": normal(width),
    }
    for i in range(depth):
        at = f"blocks.{i}."
        for name in ("norm1", "norm2"):
            arrays[f"{at}{name}.weight"] = 1 + normal(width) / 4
            arrays[f"{at}{name}.bias"] = normal(width)
        for name, inner, outer in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, hidden),
            ("mlp.fc2", hidden, width),
        ):
            arrays[f"{at}{name}.weight"] = dense(inner, outer)
            arrays[f"{at}{name}.bias"] = normal(outer)
    return arrays


def tokens(arrays: dict[str, np.ndarray], images: np.ndarray, heads: int) -> np.ndarray:
    """[B, H, W, C] normalized images to [B, 1 + L, D] tokens after the last norm."""
    a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    kernel = a["patch_embed.proj.weight"]
    width, _, side, _ = kernel.shape
    batch, height, columns, channels = images.shape
    x = images.reshape(batch, height // side, side, columns // side, side, channels)
    x = np.einsum("brpcqk,dkpq->brcd", x, kernel).reshape(batch, -1, width)
    x = x + a["patch_embed.proj.bias"]
    table, first = a["pos_embed"], np.broadcast_to(a["cls_token"], (batch, 1, width))
    if table.shape[1] == x.shape[1]:  # none for the class token
        x = np.concatenate([first, x + table], axis=1)
    else:
        x = np.concatenate([first, x], axis=1) + table
    for i in range(1 + max(int(n.split(".")[1]) for n in a if n.startswith("blocks."))):
        part = {n.removeprefix(f"blocks.{i}."): v for n, v in a.items()}
        scale = lambda n, part=part: part.get(f"ls{n}.gamma", part.get(f"gamma_{n}", 1.0))
        x = x + scale(1) * _attention(part, _norm(part, "norm1", x), heads)
        y = _dense(part, "mlp.fc1", _norm(part, "norm2", x))
        y = y * (1 + erf(y / math.sqrt(2))) / 2
        x = x + scale(2) * _dense(part, "mlp.fc2", y)
    return _norm(a, "norm", x)


def _attention(a, x, heads):
    batch, count, width = x.shape
    qkv = _dense(a, "attn.qkv", x).reshape(batch, count, 3, heads, width // heads)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    logits = q @ k.swapaxes(-1, -2) / math.sqrt(width // heads)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    x = weights / weights.sum(-1, keepdims=True) @ v
    return _dense(a, "attn.proj", x.transpose(0, 2, 1, 3).reshape(batch, count, width))


def _dense(a, name, x):
    return x @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0.0)


def _norm(a, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * a[f"{name}.weight"] + a[f"{name}.bias"]
