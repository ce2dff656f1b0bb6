"""What the page shows: masks, reconstructions, predictions, neighbors, and opened images."""

import base64
import io
import json
import struct
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax import masks
from mae_jax.data.resizing import thumbnail
from mae_jax.demo import images
from mae_jax.demo.prediction import make_prediction, show_map, show_objects, show_values
from mae_jax.demo.reconstruction import mask_of, offered_ratios
from mae_jax.demo.trial import load
from mae_jax.explain.network import make_network
from mae_jax.predictions import multilabel, regression
from mae_jax.types import UserError
from tests.explain.test_command import written
from tests.helpers.tiny_args import NAMES, tiny
from tests.weights import models

SHAPE = (16, 12, 3)
PATCH = 4
NOISE = np.random.default_rng(2).integers(0, 256, (20, 20, 3)).astype(np.uint8)


def bomb(side):
    """A PNG whose header announces side x side pixels, of which it has none."""
    chunk = lambda name, content: (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content)


def png(pixels, kind="PNG"):
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pixels_of(picture):
    """The pixels of a picture, [H, W, 3]."""
    flat = np.frombuffer(base64.b64decode(picture["pixels"]), np.uint8)
    return flat.reshape(picture["height"], picture["width"], 3)


def make_folder(folder):
    """A folder with images of two classes."""
    rng = np.random.default_rng(0)
    for number in range(10):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True, parents=True)
        pixels = rng.integers(0, 256, SHAPE).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """A masked autoencoder with random weights."""
    folder = tmp_path_factory.mktemp("demo")
    run = written(folder / "run", "mae", dict(tiny("methods.mae").ARGS), SHAPE)
    return load(str(run), images=str(make_folder(folder / "photos")))


def test_what_it_offers(trial):
    info = json.loads(json.dumps(trial.info()))
    assert info["image"] == list(SHAPE) and info["grid"] == [4, 3]
    made = info["reconstruct"]
    assert made["strategies"] == ["random", "block", "grid", "noise", "time"]
    assert made["ratio"] == 0.75
    # Eleven numbers of visible patches, each by one ratio, of which one is the run's own.
    assert len(made["ratios"]) == 11 and made["ratios"] == sorted(made["ratios"])
    assert info["predict"] is None and "10 images" in info["nearest"]["text"]
    assert info["absent"].keys() == {"Mask attention", "Mask hard", "Mask tube", "Prediction"}
    assert "trained teacher" in info["absent"]["Mask attention"]
    assert info["absent"]["Mask hard"].startswith("this method does not predict which patches")
    assert len(info["examples"]) == 8 and all("/" in one["name"] for one in info["examples"])


def test_ratios():
    assert offered_ratios(4, 0.6) == [0.25, 0.5, 0.6]  # 3, 2, 1 visible
    assert offered_ratios(1, 0.0) == [0.0]
    assert offered_ratios(100, 0.75) == [step / 20 for step in range(1, 20)]


def test_a_mask_is_that_of_the_library(trial):
    made, image = trial.reconstruction, np.zeros(SHAPE, np.uint8)
    hidden = made.sample(image, "random", 0.5, 3)
    context = masks.MaskContext(grid=(4, 3), batch=1)
    expected = masks.sample(jax.random.key(3), made.strategies["random"], context, 0.5)
    assert np.array_equal(hidden, expected.mask[0]) and hidden.sum() == 6
    assert (made.sample(image, "random", 0.5, 4) != hidden).any()
    for wrong in (("hard", 0.5, 3), ("random", 0.51, 3), ("random", 0.5, -1)):
        with pytest.raises(UserError):
            made.sample(image, *wrong)


def test_a_reconstruction(trial):
    made, method = trial.reconstruction, trial.network.method
    image = next(iter(trial.examples.values()))
    hidden = np.zeros(12, bool)
    hidden[[0, 4, 7, 11]] = True
    answer = json.loads(json.dumps(made.draw(image, hidden)))
    pictures = {one["label"]: pixels_of(one) for one in answer["pictures"]}
    assert list(pictures) == [
        "original",
        "masked (what the encoder sees)",
        "network output, raw",
        "network output, with the TRUE mean and deviation of each patch",
        "the same, visible patches pasted in",
    ]
    where = hidden.reshape(4, 3).repeat(PATCH, 0).repeat(PATCH, 1)  # [H, W]
    original, masked, _, output, pasted = pictures.values()
    assert np.array_equal(original, image)
    assert np.array_equal(masked, np.where(where[..., None], 128, image))
    assert np.array_equal(pasted, np.where(where[..., None], output, image))
    # The error of normalized pixels in float64.
    predict = jax.jit(method.reconstruct)
    raw = np.asarray(predict(trial.network.params, image[None], mask_of(hidden)), np.float64)[0]
    patches = image.reshape(4, PATCH, 3, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(12, -1)
    patches = (patches / 255 - 0.5) / 0.25
    variance = patches.var(axis=1, ddof=1, keepdims=True)
    target = (patches - patches.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-6)
    expected = np.square(raw - target).mean(axis=1)
    assert [error is not None for error in answer["errors"]] == hidden.tolist()
    errors = np.array(answer["errors"], float)[hidden]
    np.testing.assert_allclose(errors, expected[hidden], rtol=1e-3)
    assert answer["hidden"] == hidden.tolist()
    for wrong in (np.ones(12, bool), hidden[:5]):
        with pytest.raises(UserError, match="at least one must be visible"):
            made.draw(image, wrong)


def test_neighbors(trial):
    neighbors, image = trial.neighbors, next(iter(trial.examples.values()))
    found = neighbors(image)
    features = neighbors.features.astype(np.float64)
    own = [np.array_equal(one, image) for one in neighbors.pictures]
    assert sum(own) == 1
    cosines = np.where(own, -2, features @ features[own][0])
    order = np.argsort(-cosines)[:8]
    assert [one["name"] for one in found] == [neighbors.names[k] for k in order]
    assert [float(one["text"]) for one in found] == pytest.approx(cosines[order], abs=6e-4)
    assert sorted(name.rpartition("/")[2] for name in neighbors.names)[0] == "0.png"


def test_images_that_are_opened(trial):
    opened = lambda data: np.frombuffer(
        base64.b64decode(trial.open(data)["pixels"]), np.uint8
    ).reshape(SHAPE)
    image = next(iter(trial.examples.values()))
    assert np.array_equal(opened(png(image)), image)
    assert np.array_equal(opened(png(image, "TIFF")), image)
    # Twice as wide: what the run's transforms leave is cut around its center.
    wide = np.concatenate(
        [np.zeros((16, 6, 3), np.uint8), image, np.zeros((16, 6, 3), np.uint8)], 1
    )
    assert np.array_equal(images.decoded(png(wide), SHAPE, (), {}), image)
    assert opened(png(wide.repeat(5, 0)[:, :, 0])).shape == SHAPE
    assert np.array_equal(thumbnail(image), image)
    assert thumbnail(np.zeros((300, 150, 3), np.uint8)).shape == (128, 64, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"<svg onload=alert(1)>", "this image cannot be read: no image format that is known"),
        (png(NOISE)[:400], "this image cannot be read"),
        (bomb(60_000), "60000 x 60000 pixels are over the limit of 64 million"),
        (bomb(9_000), "9000 x 9000 pixels are over the limit"),
    ],
    ids=["empty", "text", "damaged", "bomb", "large"],
)
def test_images_that_are_refused(trial, data, message):
    with pytest.raises(UserError, match=message) as error:
        trial.open(data)
    assert "\n" not in str(error.value)


def test_classes():
    network = make_network("tuned", models.tuned("mean", 5, width=16, heads=2), (24, 16, 3))
    prediction = make_prediction(network)
    image = np.random.default_rng(1).integers(0, 256, (24, 16, 3)).astype(np.uint8)
    answer = prediction(image)
    shares = [row["share"] for row in answer["rows"]]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
    found = prediction.compute(network.params, network.extra, {"image": image[None]})
    logits = np.asarray(found["logits"][0], np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert shares == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert answer["rows"][0]["name"] == f"class {logits.argmax()}"
    assert answer["rows"][0]["text"] == f"{expected.max():.1%}"


def test_numbers_and_several_classes():
    values = np.array([31.25, -2.0], np.float32)
    answer = show_values(regression.make(), {"prediction": values}, ["age", "depth"])
    assert answer["rows"] == [
        {"name": "age", "text": "31.25", "share": None},
        {"name": "depth", "text": "-2", "share": None},
    ]
    logits = {"multilabel_logits": np.array([0.0, 4.0], np.float32)}
    rows = show_values(multilabel.make(), logits, ["cat", "dog"])["rows"]
    assert [(row["name"], row["text"]) for row in rows] == [("dog", "98.2%"), ("cat", "50.0%")]


def test_a_map_of_classes():
    image, logits = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4, 3), np.float32)
    logits[:, :1, 2] = 1
    logits[0, 1, 1] = 1
    answer = show_map(image, {"segmentation": logits}, ["sky", "sea", "sand"])
    assert [(row["name"], row["text"]) for row in answer["rows"]] == [
        ("sky", "68.8%"),
        ("sand", "25.0%"),
        ("sea", "6.2%"),
    ]
    assert [one["name"] for one in answer["classes"]] == ["sky", "sand", "sea"]
    drawn = pixels_of(answer["pictures"][0])
    assert (drawn[1:, 1:] == 100).all() and (drawn[:, 0] != 100).any()


def test_objects():
    rows = {
        "det_box": np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]], np.float32),
        "det_score": np.array([0.6, 0.9, 0.4], np.float32),
        "det_label": np.array([0, 1, 1]),
        "det_valid": np.array([True, True, True]),
        "det_mask": np.ones((3, 4, 4), np.float32),
    }
    image = np.zeros((16, 16, 3), np.uint8)
    answer = show_objects(image, rows, ["cat", "dog"])
    assert [(row["name"], row["text"]) for row in answer["rows"]] == [
        ("dog", "0.90"),
        ("cat", "0.60"),
    ]
    assert answer["pictures"][0]["label"] == "objects with a score of at least 0.5"
    assert pixels_of(answer["pictures"][0]).any()
    answer = show_objects(image, rows | {"det_valid": np.zeros(3, bool)}, ["cat", "dog"])
    assert answer["pictures"][0]["label"].startswith("no objects") and not answer["rows"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_every_method(name, tmp_path):
    """All that a method or task offers is computed; what it does not is named with a reason."""
    own, photos = tiny(name), tmp_path / "photos"
    leaf = name.removeprefix("methods.")
    folder = written(tmp_path / "run", leaf, dict(own.ARGS), own.IMAGE)
    trial = load(str(folder), images=str(make_folder(photos)))
    trial.warm_up()
    info = trial.info()
    masked = [f"methods.{one}" for one in ("mae", "fcmae", "hpm", "context_encoder", "m3ae")]
    assert bool(info["reconstruct"] and info["reconstruct"]["strategies"]) == (name in masked)
    assert (info["predict"] is None) == ("Prediction" in info["absent"])
    # A linear probe has a head for each learning rate, none of which is its prediction.
    predicts = bool(trial.network.method.labels()) and name != "tasks.linear_probe"
    assert (info["predict"] is not None) == predicts
    image = next(iter(trial.examples.values()))
    if trial.prediction is not None:
        answer = trial.prediction(image)
        assert answer["rows"] or answer["pictures"]
    if trial.reconstruction is not None:
        hidden = np.zeros(len(trial.reconstruction), bool)
        assert len(trial.reconstruction.draw(image, hidden)["pictures"]) > 1  # nothing is masked


@pytest.mark.thorough
def test_a_target_that_cannot_be_drawn(tmp_path):
    own = tiny("methods.mae")
    args = dict(own.ARGS) | dict(own.RARE["ema"])  # a target of features
    folder = written(tmp_path / "run", "mae", args, (16, 16, 3))
    trial = load(str(folder), images=str(make_folder(tmp_path / "photos")))
    image = next(iter(trial.examples.values()))
    hidden = np.arange(len(trial.reconstruction)) % 2 == 0
    answer = trial.reconstruction.draw(image, hidden)
    assert [one["label"] for one in answer["pictures"]] == [
        "original",
        "masked (what the encoder sees)",
    ]
    assert np.isfinite(np.array(answer["errors"], float)[hidden]).all()
