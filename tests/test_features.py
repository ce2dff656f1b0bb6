"""What `mae-jax features` writes: rows, names and labels that belong together."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from mae_jax.data import make_data
from mae_jax.features import write_features

COLORS = {"ant/1.png": 10, "ant/2.png": 20, "bee/3.png": 30, "cat/4.png": 40, "cat/5.png": 50}
CLASSES = {"ant": 0, "bee": 1, "cat": 2}


def run_on(folder):
    """Stands in for a run whose features are the mean of an image."""
    data = make_data(
        train=f"folder({str(folder)!r})",
        batch_size=2,
        train_transform="resize((4, 4))",
        eval_transform="resize((4, 4))",
        workers=1,
        on_error="skip",
    )
    predict = lambda batch: {
        "features": batch["image"].mean((1, 2)).astype(np.float32),
        **{name: rows for name, rows in batch.items() if name != "image"},
    }
    method = SimpleNamespace(embeddings=lambda: ())
    return SimpleNamespace(data=data, method=method, predictor=lambda state, outputs: predict)


class Pairs:
    """A method whose embeddings are a pixel of the image, and the first token of the text."""

    def embeddings(self):
        return ("image_embedding", "text_embedding")

    def reads(self, outputs):
        return ("text", "text_valid") if "text_embedding" in outputs else ("image",)

    def vocabulary_size(self):
        return 0

    def outputs(self, batch, names):
        made = {
            "features": lambda: batch["image"].mean((1, 2)).astype(np.float32),
            "image_embedding": lambda: batch["image"][:, 0, 0, :1].astype(np.float32),
            "text_embedding": lambda: batch["text"][:, :1].astype(np.float32),
        }
        rest = {name: rows for name, rows in batch.items() if name != "image"}
        return {name: made[name]() for name in names} | rest


def read(path):
    """(arrays, texts) of either kind of file."""
    if path.suffix == ".npz":
        found = dict(np.load(path))
        texts = {name: list(found.pop(name)) for name in list(found) if "names" in name}
        return found, texts
    with safe_open(path, "np") as file:
        texts = {name: json.loads(text) for name, text in file.metadata().items()}
        return {name: file.get_tensor(name) for name in file.keys()}, texts


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("flat", [False, True])
def test_labels_and_their_names_go_with_the_rows(tmp_path, suffix, flat):
    folder = tmp_path / "images"
    for name, color in COLORS.items():
        path = folder / (name.replace("/", "_") if flat else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (color, color, color)).save(path)
    bad = folder / ("bee_0.png" if flat else "bee/0.png")
    bad.write_bytes(b"no image")
    out, count = write_features(run_on(folder), None, tmp_path / f"f{suffix}")
    arrays, texts = read(out)
    assert count == 5 and arrays["features"].shape == (5, 3)
    for row, name in zip(arrays["features"], texts["names"], strict=True):
        assert row[0] == COLORS[name.replace("_", "/")], "each row has its name"
    if flat:
        assert arrays.keys() == {"features"} and texts.keys() == {"names"}
        return
    assert texts["class_names"] == list(CLASSES) and arrays["labels"].dtype == np.int32
    assert list(arrays["labels"]) == [CLASSES[name.split("/")[0]] for name in texts["names"]]


def test_features_of_a_layer(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 5)).save(tmp_path / "images" / "1.png")
    run, asked = run_on(tmp_path / "images"), []

    def predictor(state, outputs):
        asked.append(outputs)
        return lambda batch: {
            outputs[0]: np.ones((len(batch["image"]), 7)),
            "valid": batch["valid"],
        }

    run.predictor = predictor
    out, _ = write_features(run, None, tmp_path / "f.npz", layer=-2, pool="mean")
    assert asked == [("features/-2/mean",)] and np.load(out)["features"].shape == (1, 7)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_embeddings_of_images_and_of_their_texts_where_there_are_any(tmp_path, suffix):
    """Seven images, of which the last has no text; and a folder, whose images have none."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4), (7, 7, 7)).save(tmp_path / "images" / "1.png")
    options = dict(batch_size=4, train_transform="", eval_transform="", workers=1)
    source = "tests.helpers.tiny_captions(num_examples=7)"
    method = Pairs()
    for train in (source, f"folder({str(tmp_path / 'images')!r})"):
        data = make_data(train=train, fields=("label", "text", "text_valid"), **options)
        predictor = lambda state, names: lambda batch: method.outputs(batch, names)
        run = SimpleNamespace(data=data, method=method, predictor=predictor)
        arrays, _ = read(write_features(run, None, tmp_path / f"f{suffix}")[0])
        if train != source:
            assert arrays.keys() == {"features", "image_embedding"}
            assert arrays["image_embedding"].tolist() == [[7]]
            continue
        rows = data.source("train").arrays
        np.testing.assert_array_equal(arrays["text_embedding"], rows["text"][:, :1])
        np.testing.assert_array_equal(arrays["image_embedding"][:, 0], rows["image"][:, 0, 0, 0])
        assert arrays["has_text"].tolist() == [True] * 6 + [False]
        assert arrays["text_embedding"].dtype == np.float32
        assert not {"text", "text_valid"} & arrays.keys() and arrays["labels"].shape == (7,)
