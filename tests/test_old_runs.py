"""Runs made by an older version, which today's code loads, evaluates and exports to the same
numbers; see `golden/README.md`.
"""

import hashlib
import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mae_jax import weights
from mae_jax.evaluate import evaluate
from mae_jax.restore import load_run

GOLDEN = Path(__file__).parent / "golden"
NAME = "run_66e86cc"
ROUNDING = dict(rtol=0, atol=2e-6)
"""Of sums in another order, on another number of devices; the largest value is 2.6."""


@pytest.fixture(scope="module", params=["mae", "finetune"])
def old(request, tmp_path_factory):
    """(workdir, its run, its state, what the older version computed)."""
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(GOLDEN / f"{NAME}.tar.xz") as archive:
        archive.extractall(folder)  # `filter` needs Python 3.11.4
    with np.load(GOLDEN / f"{NAME}.npz") as file:
        recorded = {name: file[name] for name in file.files}
    prefix = f"{request.param}/"
    expected = {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}
    workdir = folder / request.param
    return (workdir, *load_run(workdir), expected)


def test_predictions_and_loss(old):
    workdir, run, state, expected = old
    batch = {"image": expected["images"], "valid": np.ones(len(expected["images"]), bool)}
    names = sorted({"features", "logits"} & expected.keys())
    outputs = run.predictor(state, names)(batch)
    for name in names:
        np.testing.assert_allclose(outputs[name], expected[name], **ROUNDING, err_msg=name)
    batch = {"image": expected["images"], "label": expected["labels"]}
    loss = jax.jit(run.method.loss)(state.params, state.extra, batch, jax.random.key(7), 3).loss
    np.testing.assert_allclose(loss, expected["loss"], **ROUNDING)


def test_evaluations(old):
    """The random encoder counts too: it is the state before the first step."""
    workdir, run, state, _ = old
    recorded = json.loads((workdir / "results.json").read_text())
    assert int(state.step) == recorded["step"]
    results = evaluate(run, state, run.evals.evaluators)
    assert results.keys() == recorded["final"].keys()
    for name, metrics in recorded["final"].items():
        assert results[name] == pytest.approx(metrics, rel=1e-6, abs=1e-7), name


def test_exports(old, tmp_path):
    workdir, _, _, expected = old
    for layout in {"timm", "hf"} & expected.keys():
        model, _ = weights.read(workdir)
        out = tmp_path / ("weights.safetensors" if layout == "timm" else "folder")
        encoder_only = workdir.name == "mae" and layout == "timm"
        weights.write(model, out, layout, encoder_only=encoder_only)
        file = out if layout == "timm" else out / "model.safetensors"
        assert digest(file) == str(expected[layout]), layout


def digest(path):
    """Of the names, shapes and bytes of all arrays of a safetensors file."""
    total = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
