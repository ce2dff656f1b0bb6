"""Exported models give what the run gives, in a process that does not know this library."""

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mae_jax import export
from mae_jax.config import load_config
from mae_jax.run import build
from mae_jax.types import UserError

pytestmark = pytest.mark.slow

TASKS = "tests/helpers/tiny_tasks.py"
MODELS = {
    "mae": ("tests/helpers/tiny.py", [], "features"),
    "tuned": (f"{TASKS}:finetune", ["method.args.ema=0.9"], "logits"),
    "probe": (f"{TASKS}:linear_probe", ["method.args.lr_factors=(1.0,)", "evals.run="], "logits"),
}
SIZES = (1, 3)
FRESH_PROCESS = """
import sys
for name in ("mae_jax", "flax", "optax", "orbax", "ml_collections"):
    sys.modules[name] = None
import jax
import numpy as np
from safetensors.numpy import load_file

images, found = np.load("images.npy"), {}
for name in sys.argv[1:]:
    weights = load_file(f"{name}/weights.safetensors")
    with open(f"{name}/function.stablehlo", "rb") as file:
        function = jax.jit(jax.export.deserialize(file.read()).call)
    for size in (1, 3):
        found[f"{name}/{size}"] = function(weights, images[:size])
    doubled = {path: 2 * array for path, array in weights.items()}
    found[f"{name}/doubled"] = function(doubled, images[:3])
np.savez("found.npz", **found)
"""


def make(config, changes):
    """A run, and a state in which every number matters: nothing is as it starts."""
    run = build(load_config(config, changes))
    rng = np.random.default_rng(0)
    away = lambda a: a + abs(rng.normal(0, 0.1, a.shape)).astype(np.float32)
    state = jax.device_get(run.initial_state())
    return run, state.replace(
        params=jax.tree.map(away, state.params), extra=jax.tree.map(away, state.extra)
    )


@pytest.fixture(scope="module")
def models(root):
    """Name -> run and state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return {name: make(config, changes) for name, (config, changes, _) in MODELS.items()}


@pytest.fixture(scope="module")
def images():
    """[4, 8, 12, 3]: the predictor of a run splits them over two devices."""
    return np.random.default_rng(1).integers(0, 256, (4, 8, 12, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(models, images):
    """Name -> what the runs themselves say of the images."""
    outputs = {
        name: np.asarray(
            run.predictor(state, [MODELS[name][2]])({"image": images})[MODELS[name][2]]
        )
        for name, (run, state) in models.items()
    }
    assert all(np.ptp(output, axis=0).max() > 0.02 for output in outputs.values())
    return outputs


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """A folder with a folder for each model."""
    folder = tmp_path_factory.mktemp("exported")
    for name, (run, state) in models.items():
        out = folder / "stablehlo" / name
        assert export.export(run, state, out, output=MODELS[name][2], kind="stablehlo") == out
    return folder / "stablehlo"


def test_a_fresh_process_that_does_not_know_the_library(exported, images, expected):
    np.save(exported / "images.npy", images)
    command = [sys.executable, "-c", FRESH_PROCESS, *MODELS]
    # Compile time rules, as in `conftest.py`.
    quick = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run(command, check=True, cwd=exported, env=quick)
    found = np.load(exported / "found.npz")
    for name, want in expected.items():
        for size in SIZES:
            assert found[f"{name}/{size}"].dtype == np.float32
            np.testing.assert_allclose(found[f"{name}/{size}"], want[:size], rtol=0, atol=1e-5)
        assert abs(found[f"{name}/doubled"] - want[:3]).max() > 1e-3, "weights are an argument"


def paths(tree, *, under, only=""):
    """The paths of a part of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {f"{under}/{path}" for path in found if path.startswith(only)}


def test_only_the_weights_that_the_output_needs(models, exported, tmp_path):
    weights = {name: load_file(exported / name / "weights.safetensors") for name in MODELS}
    params, extra = (
        {name: getattr(s, part) for name, (_, s) in models.items()} for part in ("params", "extra")
    )
    assert set(weights["mae"]) == paths(params["mae"], under="params", only="encoder/")
    assert set(weights["tuned"]) == paths(extra["tuned"], under="extra")
    everything = paths(params["probe"], under="params") | {"extra/mean", "extra/var"}
    assert set(weights["probe"]) == everything
    np.testing.assert_array_equal(weights["probe"]["extra/var"], extra["probe"]["var"])
    kernel = params["mae"]["encoder"]["block_0"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(weights["mae"]["params/encoder/block_0/mlp/fc1/kernel"], kernel)
    export.export(*models["probe"], tmp_path / "f", output="features", kind="stablehlo")
    kept = set(load_file(tmp_path / "f" / "weights.safetensors"))
    assert kept == paths(params["probe"], under="params", only="encoder/")


def test_what_goes_in_and_comes_out(exported, models, tmp_path):
    function = jax.export.deserialize((exported / "tuned" / "function.stablehlo").read_bytes())
    assert function.platforms == ("cpu", "cuda", "tpu")
    (shape,) = (str(aval.shape) for aval in function.out_avals)
    assert shape == "(b, 10)"
    meta = json.loads((exported / "tuned" / "meta.json").read_text())
    assert meta["input"] == {
        "name": "images",
        "shape": ["b", 8, 12, 3],
        "dtype": "uint8",
        "transform": "resize((8, 12))",
    }
    assert meta["output"] == {"name": "logits", "shape": ["b", 10], "dtype": "float32"}
    assert meta["classes"] == list(models["tuned"][0].data.source("train").class_names)
    assert "classes" not in json.loads((exported / "mae" / "meta.json").read_text())
    other = dict(output="logits", kind="stablehlo", own_images=False)
    export.export(*models["tuned"], tmp_path / "other", **other)
    assert "classes" not in json.loads((tmp_path / "other" / "meta.json").read_text())
    readme = (exported / "mae" / "README.md").read_text()
    assert "features = function(weights, images)  # [b, 8, 12, 3] uint8 -> [b, 16]" in readme
    assert "resize((8, 12))" in readme


def test_a_class_for_each_pixel(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    encoder = "vit(width=16, depth=1, heads=1, patch=32)"
    changes = [f"method.args.encoder={encoder}", "method.args.head=linear"]
    run, state = make("tests/helpers/tiny_segment.py", changes)
    out = export.export(run, state, tmp_path / "out", output="segmentation", kind="stablehlo")
    function = jax.export.deserialize((out / "function.stablehlo").read_bytes()).call
    images = run.data.example("eval")["image"][:2].repeat(2, axis=0)
    images[1] //= 2
    found = np.asarray(function(load_file(out / "weights.safetensors"), images))
    want = run.predictor(state, ["segmentation"])({"image": images})["segmentation"]
    assert found.shape == (2, 64, 64, 11) and np.ptp(found, axis=(1, 2)).max() > 0.02
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-4)
    names = json.loads((out / "meta.json").read_text())["classes"]
    assert names == list(run.data.source("train").names["segmentation"])
    assert "Preprocess" not in (out / "README.md").read_text()


def test_the_five_lines_of_the_readme(exported, images, expected, monkeypatch):
    monkeypatch.chdir(exported / "tuned")
    code = (exported / "tuned" / "README.md").read_text().split("```")[1].removeprefix("python")
    assert len([line for line in code.splitlines() if line]) == 5
    names = {"images": images}
    exec(code, names)
    np.testing.assert_allclose(names["logits"], expected["tuned"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(output="logits"), "output of mae: 'logits' is unknown: choose features, tokens"),
        (dict(kind="torch"), "format 'torch' is unknown: choose stablehlo, onnx"),
        (dict(kind="onnx"), "the name must end in .onnx"),
        (dict(out="taken"), "taken exists already: choose another path, or remove it"),
        (dict(out="taken/file.onnx", kind="onnx"), "file.onnx exists already"),
        (dict(out="taken/file.onnx"), "file.onnx exists already"),
    ],
)
def test_mistakes_are_one_line(models, tmp_path, options, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file.onnx").write_text("")
    options = dict(out="out", output="features", kind="stablehlo") | options
    with pytest.raises(UserError) as error:
        export.export(*models["mae"], tmp_path / options.pop("out"), **options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "file.onnx"]


def test_logits_of_several_heads(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    run, state = make(f"{TASKS}:linear_probe", ["method.args.lr_factors=(1.0, 2.0)"])
    with pytest.raises(UserError, match="'logits' is unknown: choose features, head_logits"):
        export.export(run, state, tmp_path / "out", output="logits", kind="stablehlo")


def test_whole_or_not_at_all(models, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(export, "save_file", fails)
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="no space"):
        export.export(*models["mae"], tmp_path / "out", output="features", kind="stablehlo")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    monkeypatch.undo()
    export.export(*models["mae"], tmp_path / "out", output="features", kind="stablehlo")
    assert len(list((tmp_path / "out").iterdir())) == 4, "into an empty folder"


def session(path):
    """An ONNX model in its runtime, which comes with the converter."""
    from onnxruntime import InferenceSession

    return InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.thorough if n == "mae" else ()) for n in MODELS],
)
def test_onnx(models, images, expected, tmp_path, name):
    pytest.importorskip("jax2onnx")
    out = tmp_path / "model.onnx"
    export.export(*models[name], out, output=MODELS[name][2], kind="onnx")
    model = session(out)
    for size in SIZES:
        (found,) = model.run([MODELS[name][2]], {"images": images[:size]})
        np.testing.assert_allclose(found, expected[name][:size], rtol=0, atol=1e-5)
    meta = model.get_modelmeta().custom_metadata_map
    assert json.loads(meta["input"])["transform"] == "resize((8, 12))"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_onnx_is_in_float32_and_may_have_its_weights_beside_it(
    models, images, expected, root, tmp_path, monkeypatch
):
    pytest.importorskip("jax2onnx")
    monkeypatch.chdir(root)
    monkeypatch.setattr(export, "ONE_FILE", 0)
    run, _ = make("tests/helpers/tiny.py", ["method.args.dtype=bfloat16"])
    out = tmp_path / "model.onnx"
    export.export(run, models["mae"][1], out, output="features", kind="onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    (found,) = session(out).run(None, {"images": images})
    np.testing.assert_allclose(found, expected["mae"], rtol=0, atol=1e-5)


def test_onnx_of_what_the_converter_does_not_know(models, tmp_path, monkeypatch):
    def to_onnx(*_, **__):
        raise NotImplementedError("no plugin for erf_inv")

    monkeypatch.setitem(sys.modules, "jax2onnx", types.SimpleNamespace(to_onnx=to_onnx))
    monkeypatch.setitem(sys.modules, "onnx", types.ModuleType("onnx"))
    with pytest.raises(UserError, match=r"cannot convert this model \(no plugin for erf_inv\)"):
        export.export(*models["mae"], tmp_path / "m.onnx", output="features", kind="onnx")
    assert not list(tmp_path.iterdir())


def test_onnx_without_its_converter(models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="needs a converter .*: pip install jax2onnx"):
        export.export(*models["mae"], tmp_path / "m.onnx", output="features", kind="onnx")
    assert not list(tmp_path.iterdir())
