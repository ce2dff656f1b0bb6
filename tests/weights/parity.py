"""Our networks with the weights of others against those others (arXiv 2111.06377, 2010.11929): the
largest difference of features, logits, reconstruction and loss, with random weights at full size.

    python tests/weights/parity.py --sizes B/16 L/16 H/14

Needs torch, transformers and timm (`pip install --no-deps timm`, see golden/README.md; without it
its rows are left out). A reference runs in float64, so a difference is ours. H/14 takes about 8 GB
of memory. The exit code is 1 if a difference is over the tolerance, relative to the largest value.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # run from anywhere

import jax
import numpy as np
from flax import traverse_util

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.models.vit import SIZES
from mae_jax.ops import losses, masking
from mae_jax.ops.patches import patchify
from tests.weights import references
from tests.weights.references import Reference

TOLERANCE = 5e-6
"""Of full-size networks in float32: about four times what was measured on a CPU. An approximate
GELU is thirty times over it."""


class Line(NamedTuple):
    """How far one output is off."""

    output: str
    error: float
    scale: float
    """The reference's largest value."""

    @property
    def relative(self) -> float:
        """The error in units of the scale; infinite if anything is not finite."""
        return self.error / self.scale if np.isfinite(self.error) else np.inf


class Case(NamedTuple):
    """Weights to read and compare."""

    name: str
    make: Callable[[Path], Reference]
    """Writes them into an empty folder."""
    options: dict[str, Any] = {}
    """For `weights.read`."""


def imported(path: Path, **options) -> weights.Model:
    """Weights that somebody else wrote."""
    return weights.read(path, weights.Options(**options))[0]


def ours(model: weights.Model, images: np.ndarray, noise: np.ndarray | None) -> dict:
    """What our network makes of a reference's inputs, under the names of its outputs.

    Args:
        model: as it was read.
        images: [B, C, H, W] float32, normalized.
        noise: [B, L], for a masked autoencoder: the patches of lowest noise are visible.
    """
    method = make_method(name=model.method, args=model.args, total_steps=1)
    encoder = method.encoder
    images = images.transpose(0, 2, 3, 1)

    @jax.jit
    def outputs(params, images, noise):
        out = {"features": encoder.apply({"params": params["encoder"]}, images)}
        if model.method == "mae":
            out |= _reconstruction(method, params, images, noise)
        elif model.method != "tasks.encode":
            out["logits"] = method.model.apply({"params": params}, images)[1]
        return out

    params = traverse_util.unflatten_dict(model.params, sep="/")
    with jax.default_matmul_precision("highest"):
        return jax.device_get(outputs(params, images, noise))


def _reconstruction(method, params, images: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
    """Prediction and loss of a masked autoencoder."""
    mask = masking.from_scores(noise, masking.num_visible(noise.shape[1], method.mask_ratio))
    prediction = method.model.apply({"params": params}, images, mask)
    target = patchify(images, method.unit)
    if method.target.normalize:
        target = losses.normalize_patches(target)
    loss = losses.masked_mean(losses.errors(prediction, target, "mse"), mask.mask)
    return dict(prediction=prediction, loss=loss)


def compared(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[Line]:
    """A line for each output.

    Raises:
        ValueError: the outputs or their shapes are not the same.
    """
    shapes = [{name: np.shape(value) for name, value in side.items()} for side in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"ours are {shapes[0]}, theirs {shapes[1]}")
    largest = lambda x: float(np.max(np.abs(x)))
    return [
        Line(name, largest(np.float64(mine[name]) - value), largest(value))
        for name, value in sorted(theirs.items())
    ]


def compare(reference: Reference, **options) -> list[Line]:
    """Reads the weights of a reference and compares all of its outputs."""
    model = imported(reference.path, **options)
    return compared(ours(model, reference.images, reference.noise), reference.outputs)


def settings_of(size: str) -> tuple[dict, dict]:
    """Those of transformers and of timm, for images of 224 x 224.

    Args:
        size: such as 'B/16'.
    """
    name, patch = size.split("/")
    shape = tuple(SIZES[name][key] for key in ("width", "depth", "heads"))
    shared = dict(image_size=(224, 224), patch=int(patch), channels=3)
    hf = references.golden("make_vitmae").config_of(
        **shared, encoder=shape, decoder=(512, 8, 16), mask_ratio=0.75, norm_pix_loss=True
    )
    return hf | {"num_labels": 1000}, dict(**shared, shape=shape)


def cases(size: str, batch: int) -> Iterator[Case]:
    """All that there is to compare at a size."""
    hf, timm = settings_of(size)
    other = (18 * hf["patch_size"], 12 * hf["patch_size"])

    def folder(kind: str, **more):
        return lambda path: references.hf_folder(kind, hf, path, batch=batch, **more)

    def official(path: Path) -> Reference:
        reference = folder("ViTMAEForPreTraining", original_names=False)(path)
        file = references.official_file(path, path / "checkpoint-799.pth")
        return reference._replace(path=file)

    def file(classes: int = 0, pool: str = "token", **more):
        settings = references.golden("make_timm").config_of(**timm, classes=classes, pool=pool)
        name = "model.safetensors"
        return lambda path: references.timm_file(settings, path / name, batch=batch, **more)

    for kind in references.KINDS:
        yield Case(kind, folder(kind))
    fitted = dict(image_size=other)
    bicubic = fitted | dict(positions="bicubic")
    yield Case("ViTMAEModel at {} x {}".format(*other), folder("ViTMAEModel", **fitted), bicubic)
    yield Case("official MAE .pth", official, dict(target="normalized"))
    if importlib.util.find_spec("timm"):
        yield Case("timm encoder", file())
        yield Case("timm classifier, mean", file(1000, "avg"))
        yield Case("timm classifier, class token", file(1000))
        antialias = fitted | dict(positions="antialias")
        yield Case("timm encoder at {} x {}".format(*other), file(**fitted), antialias)


def main(arguments: list[str] | None = None) -> int:
    """Prints a line for each output, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["B/16"], help="such as B/16, L/16 and H/14")
    parser.add_argument("--batch", type=int, default=1, help="images a case")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    flags = parser.parse_args(arguments)
    worst = 0.0
    print(f"{'size':6}{'weights':34}{'output':12}{'error':>9}{'scale':>9}{'ratio':>9}")
    for size in flags.sizes:
        for case in cases(size, flags.batch):
            with tempfile.TemporaryDirectory() as folder:
                lines = compare(case.make(Path(folder)), **case.options)
            for output, error, scale in lines:
                ratio = Line(output, error, scale).relative
                worst = max(worst, ratio)
                print(
                    f"{size:6}{case.name:34}{output:12}{error:9.1e}{scale:9.1e}{ratio:9.1e}",
                    flush=True,
                )
    print(f"largest: {worst:.1e} of the scale; allowed: {flags.tolerance:.1e}")
    return int(not worst <= flags.tolerance)


if __name__ == "__main__":
    sys.exit(main())
