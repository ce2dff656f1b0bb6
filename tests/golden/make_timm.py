"""Makes the golden arrays of small vision transformers (arXiv 2010.11929) with random weights, run
by timm's own `VisionTransformer`: as it holds encoders of masked autoencoders (arXiv 2111.06377),
as classifiers, and at sizes of image other than that of the weights.

Needs torch and timm: python tests/golden/make_timm.py. timm imports torchvision, which these models
do not use; where that cannot be imported, empty stand-ins let the import pass. The reference runs
in float64 and is stored as float32, so that the rounding errors that a comparison shows are the
other side's; only positions for another grid are resampled in float32, by timm itself.
"""

import importlib
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

BATCH = 2
STAND_INS = ("datasets", "models", "ops", "transforms", "utils") + (
    "models.feature_extraction",
    "ops.misc",
    "transforms.functional",
)
"""What timm imports of torchvision."""


def config_of(
    *,
    image_size: tuple[int, int],
    patch: int,
    channels: int,
    shape: tuple[int, int, int],
    classes: int = 0,
    pool: str = "token",
) -> dict:
    """Keyword arguments of `VisionTransformer`; the shape is (width, depth, heads).

    No classes and the pool 'token' are what timm's `vit_base_patch16_224.mae` has.
    """
    return dict(
        img_size=list(image_size),
        patch_size=patch,
        in_chans=channels,
        num_classes=classes,
        global_pool=pool,
        embed_dim=shape[0],
        depth=shape[1],
        num_heads=shape[2],
    )


SQUARE = dict(image_size=(16, 16), patch=4, channels=3)
CASES = {
    "mae": (config_of(**SQUARE, shape=(32, 2, 2)), None),
    "mean": (config_of(**SQUARE, shape=(32, 1, 4), classes=7, pool="avg"), None),
    "token": (config_of(**SQUARE, shape=(36, 1, 3), classes=5), None),
    "one_channel": (
        config_of(image_size=(8, 20), patch=4, channels=1, shape=(32, 1, 2)),
        None,
    ),
    "enlarged": (config_of(**SQUARE, shape=(32, 1, 2)), (24, 28)),
    "reduced": (
        config_of(image_size=(28, 28), patch=4, channels=3, shape=(32, 1, 2), classes=3),
        (12, 16),
    ),
}
"""For each file: the arguments of the model, and the size of the images if it is another one."""


@contextmanager
def stand_ins():
    """Puts something in the place of torchvision while timm is imported, if torchvision is missing
    or does not fit this torch, and takes it away again.
    """
    try:
        importlib.import_module("torchvision")
        needed = []
    except (ImportError, RuntimeError):  # RuntimeError: built for another kind of torch
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        needed = ["torchvision", *(f"torchvision.{name}" for name in STAND_INS)]
    sys.modules.update({name: MagicMock() for name in needed})
    try:
        yield
    finally:
        for name in needed:
            del sys.modules[name]


def import_timm():
    """The packages timm and timm.models.vision_transformer.

    Raises:
        ImportError: timm is not installed.
    """
    with stand_ins():
        timm = importlib.import_module("timm")
        return timm, importlib.import_module("timm.models.vision_transformer")


def fixed_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """[1, 1 + L, D]: the sines and cosines that masked autoencoders are published with, from the
    formula; the first half of the channels tells the column, and the class token has zeros.
    """
    omega = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    rows, columns = np.indices(grid).reshape(2, -1, 1) * omega
    waves = [np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)]
    return np.pad(np.concatenate(waves, axis=1), ((1, 0), (0, 0)))[None]


def randomize(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A random value for a parameter, none of it zero, at which attention is far from uniform.

    The class token is so small that the epsilon of the norm that follows it is felt.
    """
    value = torch.randn(shape, generator=generator)
    if name == "cls_token":
        return 0.003 * value
    if name == "pos_embed":
        return 0.5 * value * (torch.arange(shape[1]) > 0)[:, None] + 0.002 * value
    if name.endswith("bias"):
        return 0.2 * value
    if len(shape) == 1:
        return 1 + 0.3 * value
    return value / np.prod(shape[1:]) ** 0.5


def build(settings: dict, generator: torch.Generator, *, fixed: bool = False):
    """A `VisionTransformer` with random float32 weights.

    Args:
        settings: its keyword arguments.
        fixed: whether its positions are those of masked autoencoders.
    """
    model = import_timm()[1].VisionTransformer(**settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(randomize(name, parameter.shape, generator))
        if fixed:
            table = fixed_positions(model.patch_embed.grid_size, settings["embed_dim"])
            model.pos_embed.copy_(torch.from_numpy(table))
    return model.eval()


def resized(model, settings: dict, image_size: tuple[int, int]):
    """The same weights in a model for another size of image, fitted as timm fits a checkpoint."""
    vision_transformer = import_timm()[1]
    other = vision_transformer.VisionTransformer(**{**settings, "img_size": image_size})
    other.load_state_dict(vision_transformer.checkpoint_filter_fn(model.state_dict(), other))
    return other.eval()


@torch.no_grad()
def outputs(model, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of images [B, C, H, W], in float64: 'features' [B, 1 + L, D], the tokens as they go to the
    pooling; with classes also 'logits' [B, classes].
    """
    model = model.double()
    tokens = model.forward_features(images.double())
    found = {"features": tokens}
    if model.num_classes:
        found["logits"] = model.forward_head(tokens)
    return found


def record(
    settings: dict, seed: int, *, image_size: tuple[int, int] | None = None, fixed: bool = False
) -> dict[str, np.ndarray]:
    """Everything that a comparison needs.

    Args:
        settings: of the model that the weights are of.
        image_size: of the images, if it is another than that of the weights.
        fixed: as in `build`.

    Returns:
        'config' (JSON), 'images' [B, C, H, W], 'features' [B, 1 + L, D], 'logits' [B, classes] of
        a classifier, 'positions' [1, 1 + L, D] as they were used, and 'weight/NAME', timm's state
        dict. Floats are float32.
    """
    generator = torch.Generator().manual_seed(seed)
    model = build(settings, generator, fixed=fixed)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    used = resized(model, settings, image_size) if image_size else model
    shape = (BATCH, settings["in_chans"], *(image_size or settings["img_size"]))
    images = torch.randn(shape, generator=generator) + 0.3
    arrays = {
        "config": np.array(json.dumps(settings)),
        "images": images,
        "positions": used.pos_embed.detach().clone(),
        **outputs(used, images),
        **{f"weight/{name}": value for name, value in weights.items()},
    }
    return {name: as_numpy(value) for name, value in arrays.items()}


def as_numpy(value: torch.Tensor | np.ndarray) -> np.ndarray:
    """A numpy array, float32 if it holds float64."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return value.astype(np.float32) if value.dtype == np.float64 else value


def main() -> None:
    """Writes one file for each case, beside this one."""
    print(f"torch {torch.__version__}, timm {import_timm()[0].__version__}")
    for seed, (name, (settings, image_size)) in enumerate(CASES.items()):
        path = Path(__file__).parent / f"timm_{name}.npz"
        arrays = record(settings, seed, image_size=image_size, fixed=name == "mae")
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
