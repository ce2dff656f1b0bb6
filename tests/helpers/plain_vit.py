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
    """[B, H, W, C] normalized images to [B, N + L, D] tokens after the last norm, for those N class
    tokens that are in `arrays`.
    """
    return _norm(arrays, "norm", _outputs(arrays, images, heads)[-1])


def last_attention(arrays: dict[str, np.ndarray], images: np.ndarray, heads: int) -> np.ndarray:
    """[B, H, W, C] normalized images to the last block's attention [B, heads, N + L, N + L]."""
    *_, x, _ = _outputs(arrays, images, heads)
    part = _part(arrays, _depth(arrays) - 1)
    return _weights(part, _norm(part, "norm1", x), heads)[0]


def _outputs(arrays, images, heads):
    """The input of the first block, and the output of each."""
    a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    kernel = a["patch_embed.proj.weight"]
    width, _, side, _ = kernel.shape
    batch, height, columns, channels = images.shape
    x = images.reshape(batch, height // side, side, columns // side, side, channels)
    x = np.einsum("brpcqk,dkpq->brcd", x, kernel).reshape(batch, -1, width)
    x = x + a["patch_embed.proj.bias"]
    table, first = a["pos_embed"], a["cls_token"]
    first = np.broadcast_to(first, (batch, *first.shape[1:]))
    if table.shape[1] == x.shape[1]:  # none for the class token
        x = np.concatenate([first, x + table], axis=1)
    else:
        x = np.concatenate([first, x], axis=1) + table
    outputs = [x]
    for i in range(_depth(a)):
        part = _part(a, i)
        scale = lambda n, part=part: part.get(f"ls{n}.gamma", part.get(f"gamma_{n}", 1.0))
        x = x + scale(1) * _attention(part, _norm(part, "norm1", x), heads)
        y = _dense(part, "mlp.fc1", _norm(part, "norm2", x))
        y = y * (1 + erf(y / math.sqrt(2))) / 2
        x = x + scale(2) * _dense(part, "mlp.fc2", y)
        outputs.append(x)
    return outputs


def _depth(a):
    return 1 + max(int(n.split(".")[1]) for n in a if n.startswith("blocks."))


def _part(a, i):
    return {n.removeprefix(f"blocks.{i}."): v for n, v in a.items()}


def _attention(a, x, heads):
    weights, values = _weights(a, x, heads)
    return _dense(a, "attn.proj", (weights @ values).transpose(0, 2, 1, 3).reshape(x.shape))


def _weights(a, x, heads):
    batch, count, width = x.shape
    qkv = _dense(a, "attn.qkv", x).reshape(batch, count, 3, heads, width // heads)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    logits = q @ k.swapaxes(-1, -2) / math.sqrt(width // heads)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), v


def _dense(a, name, x):
    return x @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0.0)


def _norm(a, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * a[f"{name}.weight"] + a[f"{name}.bias"]
