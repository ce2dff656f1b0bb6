"""Random weights of models of any size, as a run would hold them."""

import numpy as np

from mae_jax.models import vit
from mae_jax.weights import Model


def random_params(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Standard normal numbers."""
    rng = np.random.default_rng(seed)
    return {path: rng.standard_normal(s, dtype=np.float32) for path, s in sorted(shapes.items())}


def block(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of a transformer block."""
    vector, shapes = (width,), {}
    for norm in ("norm1", "norm2"):
        shapes |= {f"{name}/{norm}/scale": vector, f"{name}/{norm}/bias": vector}
    for layer, (inner, outer) in {
        "attention/qkv": (width, 3 * width),
        "attention/proj": (width, width),
        "mlp/fc1": (width, 4 * width),
        "mlp/fc2": (4 * width, width),
    }.items():
        shapes |= {f"{name}/{layer}/kernel": (inner, outer), f"{name}/{layer}/bias": (outer,)}
    return shapes


def mae(
    encoder: str = "Ti",
    *,
    image: tuple[int, int, int] = (32, 32, 3),
    patch: int = 16,
    decoder: tuple[int, int, int] = (64, 1, 4),
    depth: int | None = None,
    mean: tuple[float, ...] = (0.5, 0.4, 0.3),
    seed: int = 0,
) -> Model:
    """A masked autoencoder; `decoder` is (width, depth, heads), `depth` another one of the
    encoder's.
    """
    size = vit.SIZES[encoder] | ({"depth": depth} if depth else {})
    width, inputs = size["width"], patch * patch * image[2]
    shapes = {
        "encoder/cls_token": (1, 1, width),
        "encoder/embed/kernel": (inputs, width),
        "encoder/embed/bias": (width,),
        "encoder/norm/scale": (width,),
        "encoder/norm/bias": (width,),
        "decoder/mask_token": (1, 1, decoder[0]),
        "decoder/embed/kernel": (width, decoder[0]),
        "decoder/embed/bias": (decoder[0],),
        "decoder/norm/scale": (decoder[0],),
        "decoder/norm/bias": (decoder[0],),
        "decoder/predict/kernel": (decoder[0], inputs),
        "decoder/predict/bias": (inputs,),
    }
    for i in range(size["depth"]):
        shapes |= block(f"encoder/block_{i}", width)
    for i in range(decoder[1]):
        shapes |= block(f"decoder/block_{i}", decoder[0])
    args = dict(
        encoder=f"vit({encoder}, patch={patch})"
        if not depth
        else f"vit(width={width}, depth={depth}, heads={size['heads']}, patch={patch})",
        mean=mean,
        std=tuple(0.2 for _ in mean),
        decoder_width=decoder[0],
        decoder_depth=decoder[1],
        decoder_heads=decoder[2],
        target="pixels(normalize=True)",
        mask_ratio=0.6,
        pool="cls",
    )
    return Model(random_params(shapes, seed), "mae", args, image)


def tuned(
    pool: str, classes: int = 7, *, width: int = 32, heads: int = 4, columns: int = 2
) -> Model:
    """A fine-tuned classifier with two blocks, of images of three rows of patches of 8."""
    shapes = {
        "encoder/cls_token": (1, 1, width),
        "encoder/positions": (1 + 3 * columns, width),
        "encoder/embed/kernel": (8 * 8 * 3, width),
        "encoder/embed/bias": (width,),
        "head/kernel": (width, classes),
        "head/bias": (classes,),
        **block("encoder/block_0", width),
        **block("encoder/block_1", width),
    }
    last = "encoder/norm" if pool == "cls" else "fc_norm"
    shapes |= {f"{last}/scale": (width,), f"{last}/bias": (width,)}
    args = dict(
        encoder=f"vit(width={width}, depth=2, heads={heads}, patch=8)",
        mean=(0.5,),
        std=(0.25,),
        classes=classes,
        pool=pool,
        drop_path=0.0,
    )
    return Model(random_params(shapes, 5), "tasks.finetune", args, (24, 8 * columns, 3))


def probe(heads: int) -> Model:
    """A linear probe with several heads, of the encoder of `tuned`."""
    model = tuned("cls")
    rng = np.random.default_rng(1)
    params = {path: array for path, array in model.params.items() if not path.startswith("head/")}
    params.pop("encoder/positions")
    for i in range(heads):
        params[f"head_{i}/kernel"] = rng.standard_normal((32, 7), dtype=np.float32)
        params[f"head_{i}/bias"] = rng.standard_normal(7, dtype=np.float32)
    extra = {
        "mean": rng.standard_normal(32, dtype=np.float32),
        "var": rng.uniform(0.5, 2, 32).astype(np.float32),
    }
    args = {k: v for k, v in model.args.items() if k != "drop_path"}
    args |= dict(lr_factors=tuple(10.0**-i for i in range(heads)))
    return Model(params, "tasks.linear_probe", args, model.image, extra)
