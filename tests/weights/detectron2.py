"""Arrays of a detector under detectron2's names, with shapes from its source, and its layers as
loops in float64, channels first.
"""

import numpy as np
from scipy.special import erf

TINY = dict(
    width=8, depth=4, size=4, patch=4, classes=3, pyramid=4, hidden=6, window=2, grid=4, positions=3
)
"""`size` is the width of an attention head; `window`, `grid` and `positions` are sides in patches
of windows, of images, and of the images of pre-training."""
BASE = dict(
    width=768, depth=12, size=64, patch=16, classes=80, pyramid=256, hidden=1024, window=14,
    grid=64, positions=14,
)  # fmt: skip


def layer_of(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def norm_of(name, width):
    return layer_of(name, width)


def conv_of(name, out, into, side):
    return {f"{name}.weight": (out, into, side, side), **norm_of(f"{name}.norm", out)}


def up_of(name, into, out):
    return {f"{name}.weight": (into, out, 2, 2), f"{name}.bias": (out,)}


def backbone_of(*, width, depth, size, patch, pyramid, window, grid, **_):
    """Shapes of a backbone under detectron2's names, but for its positions."""
    shapes = layer_of("backbone.net.patch_embed.proj", width, 3, patch, patch)
    for i in range(depth):
        block, every = f"backbone.net.blocks.{i}", 3 if depth == 12 else 2
        side = window if (i + 1) % every else grid
        shapes |= norm_of(f"{block}.norm1", width) | norm_of(f"{block}.norm2", width)
        shapes |= layer_of(f"{block}.attn.qkv", 3 * width, width)
        shapes |= layer_of(f"{block}.attn.proj", width, width)
        shapes |= {f"{block}.attn.rel_pos_{axis}": (2 * side - 1, size) for axis in "hw"}
        shapes |= layer_of(f"{block}.mlp.fc1", 4 * width, width)
        shapes |= layer_of(f"{block}.mlp.fc2", width, 4 * width)
    shapes |= up_of("backbone.simfp_2.0", width, width // 2)
    shapes |= norm_of("backbone.simfp_2.1", width // 2)
    shapes |= up_of("backbone.simfp_2.3", width // 2, width // 4)
    shapes |= up_of("backbone.simfp_3.0", width, width // 2)
    for level, first, share in ((2, 4, 4), (3, 1, 2), (4, 0, 1), (5, 1, 1)):
        shapes |= conv_of(f"backbone.simfp_{level}.{first}", pyramid, width // share, 1)
        shapes |= conv_of(f"backbone.simfp_{level}.{first + 1}", pyramid, pyramid, 3)
    return shapes


def heads_of(*, classes, pyramid, hidden, stages, **_):
    """Shapes of the heads; of a cascade if it has several stages."""
    rpn, mask, shapes = "proposal_generator.rpn_head", "roi_heads.mask_head", {}
    for i in range(2):
        shapes |= layer_of(f"{rpn}.conv.conv{i}", pyramid, pyramid, 3, 3)
    shapes |= layer_of(f"{rpn}.objectness_logits", 3, pyramid, 1, 1)
    shapes |= layer_of(f"{rpn}.anchor_deltas", 12, pyramid, 1, 1)
    for number in [""] if stages == 1 else [f".{i}" for i in range(stages)]:
        box, last = f"roi_heads.box_head{number}", f"roi_heads.box_predictor{number}"
        for i in range(4):
            shapes |= conv_of(f"{box}.conv{i + 1}", pyramid, pyramid, 3)
        shapes |= layer_of(f"{box}.fc1", hidden, 49 * pyramid)
        shapes |= layer_of(f"{last}.cls_score", classes + 1, hidden)
        shapes |= layer_of(f"{last}.bbox_pred", 4 * (classes if stages == 1 else 1), hidden)
    for i in range(4):
        shapes |= conv_of(f"{mask}.mask_fcn{i + 1}", pyramid, pyramid, 3)
    return (
        shapes
        | up_of(f"{mask}.deconv", pyramid, pyramid)
        | layer_of(f"{mask}.predictor", classes, pyramid, 1, 1)
    )


def shapes_of(stages=1, class_position=True, **sizes):
    """Shapes of all arrays."""
    table = (1, sizes["positions"] ** 2 + class_position, sizes["width"])
    shapes = {"backbone.net.pos_embed": table}
    return shapes | backbone_of(**sizes) | heads_of(stages=stages, **sizes)


def arrays_of(**options):
    """Random arrays of a tiny detector."""
    rng, shapes = np.random.default_rng(0), shapes_of(**TINY, **options)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def normed(x, arrays, name):
    """A LayerNorm over channels, the first axis."""
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-6)
    ones = [(-1,) + (1,) * (x.ndim - 1)] * 2
    scale, bias = (
        arrays[f"{name}.{leaf}"].astype(float).reshape(s)
        for leaf, s in zip(("weight", "bias"), ones, strict=True)
    )
    return x * scale + bias


def conv(x, weight):
    """[C, H, W] by weights [D, C, k, k], padded to the same size."""
    reach, (_, rows, columns) = weight.shape[2] // 2, x.shape
    x = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((len(weight), rows, columns))
    for i, j in np.ndindex(weight.shape[2:]):
        out += np.einsum(
            "chw,dc->dhw", x[:, i : i + rows, j : j + columns], weight[:, :, i, j].astype(float)
        )
    return out


def layer(x, arrays, name):
    """A convolution with a bias, or with a norm."""
    y = conv(x, arrays[f"{name}.weight"])
    if f"{name}.bias" in arrays:
        return y + arrays[f"{name}.bias"][:, None, None]
    return normed(y, arrays, f"{name}.norm")


def up(x, arrays, name):
    """A transposed convolution: each input adds its kernel to the output at twice its place."""
    weight, (_, rows, columns) = arrays[f"{name}.weight"].astype(float), x.shape
    out = np.zeros((weight.shape[1], 2 * rows, 2 * columns))
    for i, j in np.ndindex(rows, columns):
        out[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += np.einsum("c,cdab->dab", x[:, i, j], weight)
    return out + arrays[f"{name}.bias"][:, None, None]


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2
