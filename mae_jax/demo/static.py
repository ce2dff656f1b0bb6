"""`mae-jax demo --static`: the page as a folder for any file server. The model runs in the browser
of whoever opens it, by onnxruntime-web; the page makes no request to other hosts.
"""

import io
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mae_jax.data.alpha import WHITE, color_of
from mae_jax.data.resizing import thumbnail
from mae_jax.data.transforms import Transform
from mae_jax.data.transforms.center_crop import HALF, CenterCrop
from mae_jax.data.transforms.resize import Resize
from mae_jax.demo.neighbors import Neighbors
from mae_jax.demo.onnx_model import WebModel, predicted, web_model
from mae_jax.demo.reconstruction import Reconstruction
from mae_jax.demo.runtime import runtime_files
from mae_jax.demo.trial import Trial, load
from mae_jax.explain.heat import rgb
from mae_jax.masks import Strategy, Units
from mae_jax.masks.block import Block
from mae_jax.masks.grid import Grid
from mae_jax.masks.random import Random
from mae_jax.onnx_convert import converter
from mae_jax.ops.masking import num_visible
from mae_jax.ops.palette import palette
from mae_jax.ops.patches import patch_sides
from mae_jax.weights import check_new, fresh_folder

FILES = {name: name for name in ("page.js", "style.css", "bytes.js")}
FILES |= {name: name for name in ("masks.js", "prepare.js", "worker.js")}
FILES |= {"static.js": "backend.js"}
"""File in `assets` -> its name beside the page."""
HEAD = '<meta charset="utf-8">\n'
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self'; \
img-src 'self' data: blob:; base-uri 'none'; form-action 'none'">
"""
LOADING = "Loading the model."
HINT = " Browsers load it from a file server only: python -m http.server in this folder."
SIDE = 64
"""Longest side in pixels of the nearest images."""
BLOCK = 8
"""Cells of the nearest images are multiples of a JPEG's blocks, so that neighbors do not mix."""
OTHER = "the page without a server has no {}: use mae-jax demo without --static"


def write_static(
    source: str,
    out: Path,
    *,
    images: str | None = None,
    on_error: str | None = None,
    onnxruntime: Path | None = None,
) -> dict[str, int]:
    """Writes the folder; all of it or nothing.

    Args:
        source, images, on_error: see `demo.trial.load`.
        out: a new or empty folder.
        onnxruntime: see `demo.runtime.runtime_files`.

    Returns:
        Path in the folder -> bytes of each file.

    Raises:
        UserError: `out` is not empty, a package is missing or cannot be fetched, the model cannot
            be converted, or see `demo.trial.load`.
    """
    check_new(out, "--static")
    converter()  # before anything that takes long
    runtime = runtime_files(onnxruntime)
    trial = load(source, images=images, on_error=on_error)
    model = web_model(trial)
    files = {f"ort/{name}": content for name, content in runtime.items()} | page_files()
    files["model.onnx"] = model.content
    files["info.json"] = json.dumps(info(trial, model)).encode()
    if trial.neighbors is not None:
        files |= searched_files(trial.neighbors)
    with fresh_folder(out, "--static") as folder:
        (folder / "ort").mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return {name: len(content) for name, content in files.items()}


def page_files() -> dict[str, bytes]:
    """The page, its style and its scripts."""
    folder = resources.files("mae_jax.demo") / "assets"
    page = (folder / "page.html").read_text("utf-8")
    page = page.replace(HEAD, HEAD + POLICY, 1).replace(LOADING, LOADING + HINT, 1)
    files = {name: (folder / asset).read_bytes() for asset, name in FILES.items()}
    return {"index.html": page.encode()} | files


def info(trial: Trial, model: WebModel) -> dict[str, Any]:
    """The content of info.json: what `info` in `assets/page.js` returns, and what
    `assets/static.js` needs.
    """
    content, absent = trial.info(), dict(trial.absent)
    content["facts"] += " The model runs in this browser; no image leaves it."
    steps, other = preparation(trial.transforms)
    if other:
        absent["Preparation of images"] = OTHER.format(", ".join(other))
    if trial.reconstruction is not None:
        made, refused = masked_info(trial.reconstruction)
        content |= made
        absent |= {f"Mask {name}": OTHER.format("such masks") for name in refused}
        content["reconstruct"]["strategies"] = [*made["masks"]]
    output = predicted(trial)
    if trial.prediction is not None and output is None:
        absent[trial.prediction.title] = OTHER.format("such predictions")
    return content | {
        "absent": absent,
        "steps": steps,
        "background": color_of("images", trial.options.get("background", WHITE)),
        "pictures": model.pictures,
        "predict": content["predict"] if output is not None else None,
        "prediction": None if output is None else class_info(trial, output),
        "searched": None if trial.neighbors is None else searched_info(trial.neighbors),
    }


def masked_info(made: Reconstruction) -> tuple[dict[str, Any], list[str]]:
    """Masks that `assets/masks.js` can draw, and the names of those that it cannot."""
    options = {name: mask_options(strategy) for name, strategy in made.strategies.items()}
    content = {
        "masks": {name: one for name, one in options.items() if one is not None},
        "visible": [num_visible(len(made), ratio) for ratio in made.ratios],
        "measure": made.measure if made.strategies else "",
    }
    return content, [name for name, one in options.items() if one is None]


def mask_options(strategy: Strategy) -> dict[str, Any] | None:
    """A strategy as `sampled` in `assets/masks.js` reads it; None: it has no such strategy."""
    unit = (1, 1)
    if isinstance(strategy, Units):
        unit, strategy = patch_sides(strategy.unit, 2), strategy.strategy
    match strategy:
        case Random():
            return {"name": "random", "unit": unit}
        case Grid():
            return {"name": "grid", "unit": unit}
        case Block(blocks=blocks):
            return {"name": "block", "unit": unit, "blocks": blocks}
    return None


def class_info(trial: Trial, output: str) -> dict[str, Any]:
    """The output of the model that is a prediction, and names and colors of its classes."""
    names = trial.prediction.names
    colors = ["#" + bytes(color).hex() for color in palette(len(names))]
    return {"output": output, "names": names, "colors": colors}


def preparation(transforms: list[Transform]) -> tuple[list[dict[str, Any]], list[str]]:
    """Transforms as `assets/prepare.js` applies them, and the names of those that it cannot."""
    steps, other = [], []
    for transform in transforms:
        match transform:
            case Resize():
                down = transform.round is int
                kernel = transform.kernel
                size = transform.size
                steps.append({"name": "resize", "size": size, "kernel": kernel, "down": down})
            case CenterCrop():
                even = transform.half is HALF["even"]
                steps.append({"name": "center_crop", "size": transform.size, "even": even})
            case _:
                other.append(type(transform).__module__.rpartition(".")[2])
    return steps, other


def searched_info(neighbors: Neighbors) -> dict[str, Any]:
    """Names of the searched images, and where each is in nearest.jpg."""
    small = thumbnail(neighbors.pictures[0], SIDE)
    height, width = small.shape[:2]
    return {
        "names": [*neighbors.names],
        "checksums": [int.from_bytes(digest) for digest in neighbors.digests],
        "columns": math.ceil(math.sqrt(len(neighbors.names))),
        "height": height,
        "width": width,
        "cell": [-(-side // BLOCK) * BLOCK for side in (height, width)],
    }


def searched_files(neighbors: Neighbors) -> Mapping[str, bytes]:
    """Features of the searched images in half precision, and all images as one picture."""
    where = searched_info(neighbors)
    (height, width), columns = where["cell"], where["columns"]
    rows = -(-len(neighbors.names) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, image in enumerate(neighbors.pictures):
        top, left = number // columns * height, number % columns * width
        small = rgb(thumbnail(image, SIDE))
        sheet[top : top + len(small), left : left + small.shape[1]] = small
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=90, subsampling=0)
    features = neighbors.features.astype("<f2").tobytes()
    return {"features.bin": features, "nearest.jpg": file.getvalue()}
