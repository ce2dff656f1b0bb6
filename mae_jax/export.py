"""Exports a trained model to run without this library: as StableHLO through `jax.export`, which
needs only JAX, or as ONNX through the converter jax2onnx, which needs only an ONNX runtime.

The inputs are the fields that the method reads, as a batch of any size b, e.g. images
[b, *space, C] uint8 after the run's `eval_transform`; the exported function normalizes them. The
result is one array, an output of `Method.offers`.
"""

import functools
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr
from safetensors.numpy import save_file

from mae_jax.methods import make_method
from mae_jax.onnx_convert import to_onnx
from mae_jax.run import Run
from mae_jax.spec import check_choice
from mae_jax.types import Method, TrainState, UserError

LEARNED = {"logits": "label", "multilabel_logits": "labels"}
"""Output -> the field with its classes, where they have different names."""
FORMATS = ("stablehlo", "onnx")
PLURAL = {"image": "images"}
"""Field of a batch -> name of the input, where it differs."""
PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that a StableHLO file runs on."""
ONE_FILE = 2**31 - 2**24
"""Bytes of weights up to which an ONNX model is one file; protobuf is limited to 2 GB."""

README = """# {output} of {method}, step {step}

Needs `jax`, `numpy` and `safetensors`; `meta.json` describes the inputs and the output.

```python
import jax
from safetensors.numpy import load_file

function = jax.jit(jax.export.deserialize(open("function.stablehlo", "rb").read()).call)
weights = load_file("weights.safetensors")
{output} = function(weights, {inputs})  # {goes_in} -> {comes_out}
```
{preprocessing}"""


class _Model(NamedTuple):
    function: Callable[..., jax.Array]
    """(weights, each input [b, ...]) -> the output."""
    weights: dict[str, np.ndarray]
    """Path -> array, of the weights that the output depends on."""
    inputs: dict[str, jax.ShapeDtypeStruct]
    """Name -> shape, with a symbolic batch size."""
    meta: dict[str, Any]
    """Description of the inputs and the output."""


def export(
    run: Run,
    state: TrainState,
    out: Path,
    *,
    output: str,
    kind: str,
    own_images: bool = True,
) -> Path:
    """Exports one output of a trained model as a function; writes all files or none.

    Args:
        run, state: from `load`.
        out: for 'stablehlo', a new or empty folder: `function.stablehlo` is a function of weights
            and images for CPU, CUDA and TPU, `weights.safetensors` has the weights, `meta.json` and
            `README.md` describe its use. For 'onnx', a new file that ends in .onnx; weights over
            2 GB are written to a second file, which ends in .onnx.data.
        output: one that the method offers: 'features', 'logits', 'segmentation', ...
        kind: 'stablehlo', which computes in the run's own dtype, or 'onnx', always in float32.
        own_images: whether `run` has the data it was trained on, so that the class names of the
            training set belong to the output.

    Returns:
        `out`.

    Raises:
        UserError: an unknown format, an output that the method does not offer, an existing `out`,
            or a converter that is not installed or does not support the model.
    """
    check_choice("format", kind, FORMATS)
    run.method.check_output(run.name, output)
    write = {"stablehlo": _write_stablehlo, "onnx": _write_onnx}[kind]
    if kind == "onnx" and out.suffix != ".onnx":
        raise UserError(f"--out {out}: the name must end in .onnx")
    if out.exists() and (kind == "onnx" or not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists already: choose another path, or remove it")
    if kind == "onnx" and Path(f"{out}.data").exists():
        raise UserError(f"{out}.data exists already: choose another --out, or remove it")
    method = run.method
    if kind == "onnx":  # CPU runtimes have no bfloat16 matrix products
        args = dict(run.config.method.args)
        args |= {"dtype": "float32"} if "dtype" in args else {}
        method = make_method(name=run.name, args=args, total_steps=run.plan.steps)
    field = LEARNED.get(output, output)
    classes = run.class_names.get(field, ()) if own_images else ()
    model = _model(run, state, method, output, classes)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        write(model, Path(folder, out.name))
        for path in sorted(Path(folder).iterdir(), reverse=True):  # an .onnx after its .onnx.data
            os.replace(path, out.parent / path.name)
    return out


def _model(
    run: Run, state: TrainState, method: Method, output: str, classes: Sequence[str]
) -> _Model:
    """Traces one output of `method.predict`, and drops the weights that it does not depend on."""
    (b,) = jax.export.symbolic_shape("b")
    example, reads = run.data.example("eval"), method.reads((output,))
    inputs = {
        PLURAL.get(name, name): jax.ShapeDtypeStruct((b, *example[name].shape[1:]), x.dtype)
        for name, x in ((name, example[name]) for name in reads)
    }
    tree = {"params": state.params, "extra": state.extra}
    arrays, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in arrays]
    shapes = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, (_, a) in zip(names, arrays)}

    def one(weights, *rows):
        # Weights that the output does not depend on may have any value.
        leaves = [
            weights[n] if n in weights else jnp.zeros(a.shape, a.dtype) for n, a in shapes.items()
        ]
        tree = jax.tree.unflatten(structure, leaves)
        batch = {name: row[None] for name, row in zip(reads, rows, strict=True)}
        return method.predict(tree["params"], tree["extra"], batch, outputs=(output,))[output][0]

    def function(weights, *inputs):
        # vmap over rows, as methods need the batch size as a number and here it is symbolic. It
        # compiles to the same batched matrix products.
        return jax.vmap(functools.partial(one, weights))(*inputs)

    closed = jax.make_jaxpr(function)(shapes, *inputs.values())
    _, used = dce_jaxpr(closed.jaxpr, [True])
    needed = {name for name, use in zip(sorted(shapes), used) if use}
    weights = {n: np.asarray(jax.device_get(a)) for n, (_, a) in zip(names, arrays) if n in needed}
    described = [_described(name, shape) for name, shape in inputs.items()]
    meta = {
        "method": run.name,
        "step": int(state.step),
        "input": described[0] | {"transform": run.config.data.eval_transform},
        "output": _described(output, *closed.out_avals),
    }
    if described[1:]:
        meta["more_inputs"] = described[1:]
    if len(classes) == closed.out_avals[0].shape[-1]:
        meta["classes"] = list(classes)
    return _Model(function, weights, inputs, meta)


def _described(name: str, array: jax.ShapeDtypeStruct) -> dict[str, Any]:
    sizes = [size if isinstance(size, int) else str(size) for size in array.shape]
    return {"name": name, "shape": sizes, "dtype": array.dtype.name}


def _write_stablehlo(model: _Model, out: Path) -> None:
    """Writes a folder. The weights are an argument of the function rather than constants in it, as
    its file is limited to 2 GB.
    """
    out.mkdir()
    exported = jax.export.export(jax.jit(model.function), platforms=PLATFORMS)(
        model.weights, *model.inputs.values()
    )
    (out / "function.stablehlo").write_bytes(exported.serialize())
    save_file(model.weights, out / "weights.safetensors")
    meta = model.meta | {"platforms": PLATFORMS, "jax": jax.__version__}
    (out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    text = lambda end: f"[{', '.join(map(str, meta[end]['shape']))}] {meta[end]['dtype']}"
    transform = meta["input"]["transform"]
    readme = README.format(
        output=meta["output"]["name"],
        method=meta["method"],
        step=meta["step"],
        inputs=", ".join(model.inputs),
        goes_in=text("input"),
        comes_out=text("output"),
        preprocessing=f"\nPreprocess images with `{transform}`.\n" if transform else "",
    )
    (out / "README.md").write_text(readme, encoding="utf-8")


def _write_onnx(model: _Model, out: Path) -> None:
    function = functools.partial(model.function, model.weights)
    proto = to_onnx(
        function, model.inputs, [model.meta["output"]["name"]], "use --format stablehlo"
    )
    onnx = importlib.import_module("onnx")
    meta = {k: v if isinstance(v, str) else json.dumps(v) for k, v in model.meta.items()}
    onnx.helper.set_model_props(proto, meta)
    large = sum(array.nbytes for array in model.weights.values()) > ONE_FILE
    external = dict(save_as_external_data=True, location=f"{out.name}.data") if large else {}
    onnx.save_model(proto, out, **external)
