"""The page without a server: what is written, and that its model has the numbers of the run."""

import base64
import dataclasses
import hashlib
import importlib.util
import io
import json
import math
import re
import sys
import tarfile
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.data.transforms import make_transforms
from mae_jax.demo import runtime, static
from mae_jax.demo.onnx_model import web_model
from mae_jax.demo.reconstruction import mask_of
from mae_jax.demo.static import mask_options, preparation
from mae_jax.demo.trial import load
from mae_jax.masks import make_strategy
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.types import UserError
from tests.demo.test_trial import SHAPE, make_folder
from tests.explain.test_command import written
from tests.helpers.commands import mistake, run
from tests.helpers.tiny_args import tiny

NEEDS_CONVERTER = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="needs the extra onnx: jax2onnx"
)
RUNTIME = {name: f"stand-in of {name}".encode() for name in runtime.FILES}
"""Files of the package onnxruntime-web."""


def unpacked(folder):
    """A folder with the package."""
    for name, content in RUNTIME.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
    return folder


def packed(files):
    """A .tgz as the npm registry has it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run of a masked autoencoder, images and the package."""
    made = tmp_path_factory.mktemp("static")
    written(made / "run", "mae", dict(tiny("methods.mae").ARGS), SHAPE)
    make_folder(made / "photos")
    unpacked(made / "package")
    return made


def command(folder, *more):
    """The arguments of the command."""
    return ["demo", "--run", folder / "run", "--images", folder / "photos", *more]


@pytest.fixture(scope="module")
def written_page(folder):
    """The folder that the command writes, and the run as the page shows it."""
    out, trials = folder / "site", []

    def recorded(*args, **options):
        trials.append(load(*args, **options))
        return trials[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, "load", recorded)
        assert run(*command(folder, "--static", out, "--onnxruntime", folder / "package")) == 0
    return out, *trials


@pytest.fixture(scope="module")
def site(written_page):
    """The folder that the command writes."""
    return written_page[0]


@pytest.fixture(scope="module")
def trial(written_page):
    """The run as the page shows it."""
    return written_page[1]


def session(content):
    """An ONNX model in its runtime, which comes with the converter."""
    from onnxruntime import InferenceSession

    return InferenceSession(content, providers=["CPUExecutionProvider"])


def outputs(model, image, hidden):
    """Outputs of an ONNX model by name, for an image and a mask [L] bool that it may not read."""
    feeds = {"image": image[None]} | mask_of(hidden)._asdict()
    names = [output.name for output in model.get_outputs()]
    known = {one.name for one in model.get_inputs()}
    return dict(zip(names, model.run(names, {k: v for k, v in feeds.items() if k in known})))


def expected(trial, image, hidden):
    """Outputs of the run by name, for an image and a mask [L] bool."""
    network, made, method = trial.network, trial.reconstruction, trial.network.method
    arguments, wanted = (network.params, network.extra, image[None]), {}
    if trial.neighbors is not None and not hidden.any():
        wanted["features"] = trial.neighbors.compute(*arguments)
    if trial.prediction is not None:
        (name, *_) = trial.prediction.outputs
        batch = {"image": image[None]}
        wanted[name] = trial.prediction.compute(network.params, network.extra, batch)[name]

    @jax.jit
    def masked(params, extra, images, mask):
        raw = method.reconstruct(params, images, mask).astype(np.float32)
        pictures, errors = made.show(raw, extra, images, mask.mask)
        return {"raw": raw, "errors": errors}, [*pictures.values()]

    @jax.jit
    def whole(params, extra, images):
        return [*method.pictures()(params, extra, {"image": images}).values()]

    pictures = []
    if made is not None and made.strategies:
        arrays, pictures = masked(*arguments, mask_of(hidden))
        wanted |= arrays
    elif made is not None:
        pictures = whole(*arguments)
    return wanted | {f"picture_{number}": x for number, x in enumerate(pictures)}


def check(trial, content, hidden):
    """Compares the outputs of an ONNX model with those of the run, under a mask [L] bool."""
    image = next(iter(trial.examples.values()))
    found, wanted = outputs(session(content), image, hidden), expected(trial, image, hidden)
    assert not hidden.any() or found.keys() - {"features"} <= wanted.keys()
    for name, want in wanted.items():
        if name.startswith("picture_"):  # bytes, rounded
            assert abs(found[name] - np.asarray(want, int)).max() <= 1
        elif name in found or name not in OUTPUTS:  # objects are not shown
            np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-4)


@NEEDS_CONVERTER
def test_one_model_for_every_mask(site, trial):
    content = (site / "model.onnx").read_bytes()
    hidden = np.zeros(12, bool)
    check(trial, content, hidden)
    hidden[[0, 4, 7, 11]] = True
    check(trial, content, hidden)


@NEEDS_CONVERTER
def test_nothing_to_show(trial):
    with pytest.raises(UserError, match="has nothing that the page can show: Mask attention: it"):
        web_model(dataclasses.replace(trial, reconstruction=None, neighbors=None))


@NEEDS_CONVERTER
def test_the_files(site, trial):
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert names == {
        *("index.html", "page.js", "style.css", "bytes.js", "backend.js", "masks.js"),
        *("prepare.js", "worker.js", "info.json", "model.onnx", "features.bin", "nearest.jpg"),
        *("ort/ort.js", "ort/ort-wasm-simd-threaded.wasm", "ort/LICENSE"),
    }
    assert (site / "ort/ort.js").read_bytes() == RUNTIME["dist/ort.wasm.bundle.min.mjs"]
    page = (site / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    parts = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == "'self' 'wasm-unsafe-eval'" and parts["connect-src"] == "'self'"
    for name in names - {"model.onnx", "features.bin", "nearest.jpg"}:
        text = (site / name).read_text()
        assert name == "ort/LICENSE" or not re.search(r"https?://", text), name
        for other in re.findall(r"""(?:from|src=|href=)\s*["'](?!data:)([^"']+)["']""", text):
            assert other.startswith("./") and (site / name).parent.joinpath(other).exists(), other

    info = json.loads((site / "info.json").read_text())
    assert info["pictures"][0] == "original" and len(info["pictures"]) == 5
    assert info["reconstruct"]["strategies"] == ["random", "block", "grid"]
    visible = [math.floor(12 * (1 - ratio) + 1e-6) for ratio in info["reconstruct"]["ratios"]]
    assert info["visible"] == visible
    assert info["absent"].keys() - trial.info()["absent"].keys() == {"Mask noise", "Mask time"}
    assert info["examples"] == trial.info()["examples"] and info["predict"] is None

    searched, neighbors = info["searched"], trial.neighbors
    features = np.frombuffer((site / "features.bin").read_bytes(), "<f2").reshape(10, -1)
    np.testing.assert_allclose(features, neighbors.features, atol=1e-3)
    sums = [zlib.crc32(image.tobytes()) for image in neighbors.pictures]
    assert searched["checksums"] == sums and searched["names"] == neighbors.names
    assert (searched["columns"], searched["cell"]) == (4, [16, 16])
    sheet = np.asarray(Image.open(site / "nearest.jpg"), float)
    assert sheet.shape == (48, 64, 3)
    for number, image in enumerate(neighbors.pictures):
        top, left = number // 4 * 16, number % 4 * 16
        near = abs(sheet[top : top + 16, left : left + 12] - image).mean()
        assert near < 25 < abs(sheet[:16, :12] - neighbors.pictures[1]).mean()


@NEEDS_CONVERTER
def test_what_it_prints(folder, trial, tmp_path, monkeypatch, capsys):
    registry = tmp_path / "registry" / "onnxruntime-web" / "-"
    registry.mkdir(parents=True)
    package = packed(RUNTIME)
    (registry / f"onnxruntime-web-{runtime.VERSION}.tgz").write_bytes(package)
    monkeypatch.setenv("npm_config_registry", (tmp_path / "registry").as_uri())
    digest = base64.b64encode(hashlib.sha512(package).digest()).decode()
    monkeypatch.setattr(runtime, "SHA512", digest)
    monkeypatch.setattr(static, "load", lambda *_, **__: trial)
    monkeypatch.setattr(static, "web_model", lambda trial: FakeModel)
    assert run(*command(folder, "--static", tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"wrote {tmp_path / 'out'} (")
    assert f"onnxruntime-web, {runtime.VERSION}" in printed and "2.000 MB  model.onnx" in printed
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert f"({size / 1e6:.1f} MB)" in printed


class FakeModel:
    """A model that was converted."""

    content = bytes(2_000_000)
    pictures = ()


def test_the_package(tmp_path, monkeypatch):
    expected = {name: RUNTIME[own] for own, name in runtime.FILES.items()}
    inside = unpacked(tmp_path / "project" / "node_modules" / "onnxruntime-web")
    archive = tmp_path / "package.tgz"
    archive.write_bytes(packed(RUNTIME))
    for place in (inside, tmp_path / "project", archive):
        files = runtime.runtime_files(place)
        assert b"MIT License" in files.pop("LICENSE") and files == expected
    archive.write_bytes(packed({"package.json": b"{}"}))
    with pytest.raises(UserError, match="has no dist/ort.wasm.bundle.min.mjs: give the npm"):
        runtime.runtime_files(archive)
    archive.write_bytes(b"no archive")
    with pytest.raises(UserError, match="is no .tgz of npm"):
        runtime.runtime_files(archive)
    with pytest.raises(UserError, match="cannot be read"):
        runtime.runtime_files(tmp_path / "nothing.tgz")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match="refused.*: give --onnxruntime PATH"):
        runtime.runtime_files(None)
    registry = tmp_path / "onnxruntime-web" / "-"
    registry.mkdir(parents=True)
    (registry / f"onnxruntime-web-{runtime.VERSION}.tgz").write_bytes(packed(RUNTIME))
    monkeypatch.setenv("npm_config_registry", tmp_path.as_uri())
    with pytest.raises(UserError, match="another sha512"):
        runtime.runtime_files(None)
    assert len(base64.b64decode(runtime.SHA512)) == 64


def test_mistakes(folder, tmp_path, capsys, monkeypatch):
    say = lambda *more: mistake(capsys, *command(folder, *more))
    assert "is for --static OUT" in say("--onnxruntime", tmp_path)
    assert "are of the server" in say("--static", tmp_path / "out", "--port", 8000)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert "full already exists: choose another --static" in say("--static", tmp_path / "full")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    if importlib.util.find_spec("jax2onnx") is not None:
        assert "cannot be fetched" in say("--static", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert "pip install jax2onnx" in say("--static", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_masks_and_transforms_that_the_page_knows():
    options = lambda text: mask_options(make_strategy(text))
    assert options("random") == {"name": "random", "unit": (1, 1)}
    assert options("grid(unit=(1, 2))") == {"name": "grid", "unit": (1, 2)}
    block = {"name": "block", "unit": (2, 2), "blocks": 5}
    assert options("block(blocks=5, unit=2)") == block
    assert options("noise") is None and options("noise(unit=2)") is None
    text = "resize(32, rounding=down)|center_crop((24, 16), rounding=even)|flip"
    steps, other = preparation(make_transforms(text))
    assert steps == [
        {"name": "resize", "size": 32, "kernel": "bicubic", "down": True},
        {"name": "center_crop", "size": (24, 16), "even": True},
    ]
    assert other == ["flip"]
