"""The scripts of the page without a server: masks and resizing in Node, and the page in a headless
Chromium without a network.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.data.resizing import resize
from mae_jax.demo.reconstruction import mask_of
from mae_jax.demo.runtime import runtime_files
from mae_jax.demo.static import write_static
from mae_jax.demo.trial import load
from mae_jax.types import UserError
from tests.demo.test_browser import choose, opened, pressed, text, turn
from tests.demo.test_static import NEEDS_CONVERTER, SHAPE, make_folder
from tests.demo.test_trial import bomb, png
from tests.explain.test_command import written
from tests.helpers.browser import Browser, find_chromium
from tests.helpers.tiny_args import tiny

ASSETS = Path(__file__).parents[2] / "mae_jax" / "demo" / "assets"
NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
GRID = (6, 8)


def node(folder, asset, script, value):
    """What a script in Node prints as JSON; `asset` is imported as `it`, `value` is given to it."""
    shutil.copy(ASSETS / asset, folder / "it.mjs")
    script = f'import * as it from "./it.mjs";\nconst value = {json.dumps(value)};\n{script}'
    (folder / "script.mjs").write_text(script)
    done = subprocess.run(["node", "script.mjs"], cwd=folder, capture_output=True, check=True)
    return json.loads(done.stdout)


def mulberry32(seed):
    """Numbers in [0, 1), derived in Python's integers."""
    state = seed
    while True:
        state = (state + 0x6D2B79F5) % 2**32
        mixed = (state ^ state >> 15) * (state | 1) % 2**32
        mixed ^= (mixed + (mixed ^ mixed >> 7) * (mixed | 61)) % 2**32
        yield (mixed ^ mixed >> 14) / 2**32


def scores(name, numbers, rows, columns, blocks):
    """Scores of a strategy in float64 numpy, from the numbers in their order."""
    draw = lambda: next(numbers)
    if name == "random":
        return np.array([draw() for _ in range(rows * columns)])
    if name == "grid":
        rank = np.array([[0, 2], [3, 1]])  # of (row % 2, column % 2)
        noise = np.array([draw() for _ in range(rows * columns)])
        return np.tile(rank, (rows, columns))[:rows, :columns].ravel() + noise
    masked = np.full((rows, columns), -1.0)
    for block in range(blocks):
        volume = (0.08 + 0.22 * draw()) * rows * columns
        aspect = 0.3 ** (1 - 2 * draw())
        height = np.clip(np.round((volume * aspect) ** 0.5), 1, rows)
        width = np.clip(np.round((volume / aspect) ** 0.5), 1, columns)
        top = int(draw() * (rows - height + 1))
        left = int(draw() * (columns - width + 1))
        part = masked[top : top + int(height), left : left + int(width)]
        part[part < 0] = blocks - block
    flat = masked.ravel()
    within = 1 - np.arange(flat.size) / flat.size
    return np.array([b + w if b > 0 else draw() for b, w in zip(flat, within)])


@NEEDS_NODE
def test_masks(tmp_path):
    cases = [
        ("random", (1, 1), 12, 0),
        ("grid", (1, 1), 12, 1),
        ("grid", (1, 1), 24, 2),
        ("block", (1, 1), 20, 3),
        ("block", (1, 1), 3, 4),
        ("random", (2, 2), 13, 5),
        ("block", (1, 2), 17, 2**31 - 1),
    ]
    script = """console.log(JSON.stringify(value.map(([name, unit, visible, seed]) =>
      it.sampled({ name, unit, blocks: 4 }, [6, 8], visible, it.uniform(seed)))));"""
    for (name, unit, visible, seed), found in zip(cases, node(tmp_path, "masks.js", script, cases)):
        rows, columns = GRID[0] // unit[0], GRID[1] // unit[1]
        values = scores(name, mulberry32(seed), rows, columns, blocks=4)
        ranks = np.argsort(np.argsort(values, kind="stable")).reshape(rows, columns)
        ranks = ranks.repeat(unit[0], 0).repeat(unit[1], 1).ravel()
        hidden = np.ones(48, bool)
        hidden[np.argsort(ranks, kind="stable")[:visible]] = False
        assert found == hidden.tolist(), (name, unit)
        if (name, visible) == ("grid", 12):  # one patch of each cell
            assert (~hidden).reshape(GRID)[::2, ::2].all()
        if (name, visible) == ("grid", 24):  # a checkerboard
            assert np.array_equal(hidden, np.indices(GRID).sum(0).ravel() % 2)


@NEEDS_NODE
def test_resizing(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (23, 31, 3)).astype(np.uint8)
    image[:12] = np.linspace(0, 255, 31)[None, :, None]
    cases = [
        ((0, 0, 23, 31), (9, 12), "bicubic"),
        ((0, 0, 23, 31), (40, 37), "bicubic"),
        ((2, 3.5, 17, 21.25), (8, 10), "bilinear"),
        ((0, 0, 23, 31), (11, 31), "lanczos"),
        ((3, 4, 9, 12), (9, 12), "nearest"),
    ]
    source = {"height": 23, "width": 31, "channels": 3, "pixels": image.ravel().tolist()}
    script = """console.log(JSON.stringify(value.cases.map(([box, size, kernel]) =>
      [...it.resized(value.source, box, size, kernel).pixels])));"""
    found = node(tmp_path, "prepare.js", script, {"source": source, "cases": cases})
    for (box, size, kernel), pixels in zip(cases, found, strict=True):
        want = resize(image, box, size, kernel).ravel().astype(int)
        assert abs(np.array(pixels) - want).max() <= 1, kernel


@NEEDS_NODE
def test_preparing(tmp_path):
    """Transforms for evaluation, and gray and transparent pixels."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (20, 33, 1)).astype(np.uint8)
    steps = [
        {"name": "resize", "size": 10, "kernel": "bicubic", "down": False},
        {"name": "center_crop", "size": [10, 9], "even": False},
    ]
    rgba = rng.integers(0, 256, (5, 4))
    script = """const image = { height: 20, width: 33, channels: 1, pixels: value.image };
      const rgba = Uint8Array.from(value.rgba.flat());
      console.log(JSON.stringify({
        cropped: [...it.transformed(image, value.steps, [10, 9])],
        fitted: [...it.transformed(image, [], [10, 10])],
        color: [...it.composited(rgba, 3, [255, 255, 255])],
        gray: [...it.composited(rgba, 1, [0, 0, 0])] }));"""
    value = {"image": image.ravel().tolist(), "steps": steps, "rgba": rgba.tolist()}
    found = node(tmp_path, "prepare.js", script, value)
    resized = resize(image, (0, 0, 20, 33), (10, 16))  # 16.5 to the even number
    want = resized[:, 3:12].ravel().astype(int)
    assert abs(np.array(found["cropped"]) - want).max() <= 1
    want = resize(image, (0, 6.5, 20, 20), (10, 10)).ravel().astype(int)
    assert abs(np.array(found["fitted"]) - want).max() <= 1
    share = rgba[:, 3:] / 255
    want = rgba[:, :3] * share + 255 * (1 - share)
    assert abs(np.array(found["color"]).reshape(5, 3) - want).max() <= 0.51
    want = (rgba[:, :3] * share) @ [0.299, 0.587, 0.114]
    assert abs(np.array(found["gray"]) - want).max() <= 1.1


def package():
    """The package onnxruntime-web: the file of the variable ONNXRUNTIME_WEB, or fetched."""
    if "ONNXRUNTIME_WEB" in os.environ:
        return Path(os.environ["ONNXRUNTIME_WEB"])
    try:
        runtime_files(None)
    except UserError as error:
        pytest.skip(str(error))
    return None


@contextlib.contextmanager
def serving(folder):
    """The address of a plain file server of a folder, and the names that it was asked for."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    options = dict(cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with subprocess.Popen(command, **options) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().split()[5]}/"
        finally:
            process.terminate()


OUTPUTS = """(async () => {
  const { backend, outputs } = await import(new URL("backend.js", location));
  const image = (await backend.info()).examples[%d];
  const found = await outputs(image, %s);
  return Object.fromEntries(Object.entries(found).map(([name, data]) => [name, [...data]]));
})()"""
CUT = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"


@NEEDS_CONVERTER
@pytest.mark.thorough
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium: apt install chromium")
def test_in_a_browser_without_a_network(tmp_path):
    pytest.importorskip("websockets")
    place, photos = package(), make_folder(tmp_path / "photos")
    runs = {name: tmp_path / name for name in ("mae", "tasks.finetune")}
    for name, run in runs.items():
        own = tiny("methods.mae" if name == "mae" else name)
        written(run, name, dict(own.ARGS), SHAPE)
        (run / "classes.json").write_text(json.dumps({"label": ["night", "day", "<b>", "fog"]}))
        out = tmp_path / "sites" / name
        write_static(str(run), out, images=str(photos), onnxruntime=place)
    trials = {name: load(str(run), images=str(photos)) for name, run in runs.items()}
    with (
        serving(tmp_path) as address,
        Browser(tmp_path / "profile", CUT) as browser,
    ):
        page = opened(browser, f"{address}sites/mae/")
        check_numbers(page, trials["mae"])
        check_clicks(page, tmp_path)
        narrow = opened(browser, f"{address}sites/tasks.finetune/", width=390)
        check_classes(narrow, trials["tasks.finetune"])
        for one in (page, narrow):
            own = (address, "data:", f"blob:{address}")
            assert all(url.startswith(own) for url in one.requests())
            assert not one.complaints(), one.complaints()
            assert one.run("document.documentElement.scrollWidth <= innerWidth")


def check_numbers(page, trial):
    """Compares outputs in the page with those of the run."""
    network, images = trial.network, [*trial.examples.values()]
    predict = jax.jit(network.method.reconstruct)
    for number, masked in ((0, []), (1, [0, 4, 7, 11]), (2, [*range(11)])):
        hidden, image = np.isin(np.arange(12), masked), images[number]
        found = page.run(OUTPUTS % (number, json.dumps(hidden.tolist())))
        raw = predict(network.params, image[None], mask_of(hidden))
        np.testing.assert_allclose(found["raw"], np.ravel(raw), rtol=1e-4, atol=1e-4)
        if not masked:
            want = trial.neighbors.compute(network.params, network.extra, image[None])
            np.testing.assert_allclose(found["features"], np.ravel(want), rtol=1e-4, atol=1e-4)
    captions = "[...document.querySelectorAll('#nearest figcaption')].map((x) => x.innerText)"
    cosines = [float(caption.rpartition(": ")[2]) for caption in page.run(captions)]
    want = [float(one["text"]) for one in trial.neighbors(images[0])]
    assert cosines == pytest.approx(want, abs=2e-3)  # features have half precision


def check_clicks(page, folder):
    """Ratio, strategy, painting and files."""
    assert len(pressed(page)) == 9
    turn(page, choose, page, "strategy", "grid")
    page.run("document.getElementById('ratio').focus()")
    turn(page, page.key, "Home")
    assert len(pressed(page)) == 1
    turn(page, page.click, "#show")
    turn(page, page.drag, *(f"#grid button:nth-child({k})" for k in (1, 2, 5)))
    assert pressed(page) == [1, 2, 5]
    file = folder / "gray <b>.png"
    Image.fromarray(np.full((40, 30, 3), 200, np.uint8)).save(file)
    turn(page, page.upload, "#file", file)
    assert text(page, "#name") == file.name
    colors = page.run(
        """[...new Set(document.querySelector("#reconstruct canvas").getContext("2d")
          .getImageData(0, 0, 12, 16).data)]"""
    )
    assert sorted(colors) == [200, 255]
    for content, message in (
        (b"no image", "no image that the browser reads"),
        (bomb(60_000), "too large"),
        (bomb(9_000), "9000 x 9000 pixels are over"),
        (png(np.zeros((9, 9, 3), np.uint8))[:60], "image"),
    ):
        file.write_bytes(content)
        page.run("document.getElementById('problem').textContent = ''")
        page.upload("#file", file)
        page.wait(f"document.getElementById('problem').textContent.includes({json.dumps(message)})")


def check_classes(page, trial):
    """Classes and their shares."""
    image = next(iter(trial.examples.values()))
    want = [f"{row['name']} {row['text']}" for row in trial.prediction(image)["rows"]]
    rows = "[...document.querySelectorAll('#predict .rows > div')].map((x) => x.innerText)"
    assert [" ".join(row.split()) for row in page.run(rows)] == want
    assert page.run("document.getElementById('mask').hidden")
