"""Detections as files: what is written is read back as annotations, pictures show the objects, and
the kind of predictions follows from what a method offers.
"""

import json
import types

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.objects import OBJECTS
from mae_jax.data.sources import coco
from mae_jax.evals.full_size_objects import fitted, paste
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.ops.draw_objects import draw_objects
from mae_jax.predictions import detection, make_writer
from mae_jax.types import UserError

SIZES = {"a.png": (40, 60), "more/b.jpg": (64, 64), "more/c.png": (70, 30)}
BOXES = np.array([[0.1, 0.2, 0.7, 0.8], [0.3, 0.1, 0.9, 0.5], [0, 0, 0, 0]])  # of the image
MASKS = np.random.default_rng(0).random((3, 28, 28))


def outputs_of(batch):
    """The same detections, in fractions of each image, of which the last is none."""
    inside = batch["image_size"] / 64  # [B, 2]
    repeat = lambda x: np.repeat(x[None], len(inside), axis=0)
    return {
        "det_box": BOXES * np.tile(inside, 2)[:, None],
        "det_score": repeat(np.array([0.4, 0.9, 0.0])),
        "det_label": repeat(np.array([0, 1, 0])),
        "det_valid": repeat(np.array([True, True, False])),
        "det_mask": repeat(MASKS),
    }


class Method:
    def offers(self):
        return ("features", *OUTPUTS)

    def labels(self):
        return {"box_label": 2}


@pytest.fixture
def run(tmp_path):
    for name, (height, width) in SIZES.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (0, 0, 0)).save(tmp_path / "photos" / name)
    data = make_data(
        train=f"folder({str(tmp_path / 'photos')!r})",
        batch_size=1, train_transform="", eval_transform="", fields=(), workers=1,
    )  # fmt: skip

    def predictor(state, outputs, reduce):
        assert outputs == OUTPUTS
        return lambda batch: reduce(outputs_of(batch), batch)

    return types.SimpleNamespace(method=Method(), data=data, predictor=predictor)


def test_detections_are_read_back_as_annotations(run, tmp_path):
    out, options = tmp_path / "out", "detection(size=64, batch_size=2, limit=9)"
    writer = make_writer(run.method, "tasks.detect", options)
    (line,) = writer.write(run, None, out, {"box_label": ("cat", "dog")})
    assert line.endswith("overlays/ of 3 images and 6 detections, detections.json")
    content = json.loads((out / "detections.json").read_text())
    assert [row["score"] for row in content["annotations"]] == [0.4, 0.9] * 3
    assert [row["id"] for row in content["annotations"]] == [*range(1, 7)]
    source = coco.make(str(tmp_path / "photos"), str(out / "detections.json"))
    assert source.names["box_label"] == ("cat", "dog") and source.num_examples == 3
    for index, found in enumerate(source.read(np.arange(3))[OBJECTS]):
        size = SIZES[source.name(index)]
        scale = np.tile(64 / np.array(fitted(size, 64)) * size, 2)
        inside = np.array(fitted(size, 64)) / 64
        boxes = BOXES[:2] * np.tile(np.float32(inside), 2) * scale
        np.testing.assert_allclose(found.boxes, boxes, rtol=1e-6)
        assert found.labels.tolist() == [0, 1]
        for place in range(2):
            expected = paste(MASKS[place], found.boxes[place], size)
            assert (found.bitmap(place) != expected).mean() < 1e-3
            assert found.areas[place] == found.bitmap(place).sum()
        name = source.name(index).rpartition(".")[0]
        with Image.open(out / "overlays" / f"{name}.png") as overlay:
            assert overlay.size == size[::-1]
            assert len(np.unique(np.asarray(overlay).reshape(-1, 3), axis=0)) > 2
    with pytest.raises(UserError, match="there are files in it already"):
        writer.write(run, None, out, {})


def test_the_writer_follows_from_what_a_method_offers(run):
    segments = types.SimpleNamespace(offers=lambda: ("features", "segmentation"))
    make_writer(segments, "tasks.segment", "segmentation(size=64, limit=2)")
    with pytest.raises(UserError, match="--spec segmentation: tasks.detect predicts detection"):
        make_writer(run.method, "tasks.detect", "", "segmentation")
    with pytest.raises(UserError, match="predictions are written of classify, detection"):
        make_writer(types.SimpleNamespace(offers=lambda: ("det_box",)), "mae", "")
    with pytest.raises(UserError, match=r"score=2 is not in \[0, 1\]"):
        detection.make(score=2)


def test_objects_are_drawn_the_first_in_front():
    masks = np.zeros((2, 40, 50), bool)
    masks[0, 10:30, 10:30] = masks[1, 20:38, 20:45] = True
    boxes = np.array([[10, 10, 30, 30], [20, 20, 38, 45.0]])
    colors = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
    image = np.full((40, 50, 1), 100, np.uint8)
    found = draw_objects(image, boxes, ["", ""], colors, masks)
    assert found.shape == (40, 50, 3)
    for box, color in zip(boxes.astype(int), colors):
        assert (found[box[2] - 1, box[3] - 1] == color).all()
    inner = lambda color: np.rint(0.45 * 100 + 0.55 * color)
    np.testing.assert_array_equal(found[25, 25], inner(colors[0]))
    np.testing.assert_array_equal(found[34, 34], inner(colors[1]))
    assert (found[5, 40] == 100).all()
    plain = draw_objects(image, boxes, ["", ""], colors)
    assert (plain[25, 25] == 100).all() and (plain[29, 29] == colors[0]).all()
    assert (draw_objects(image, boxes[:0], [], colors[:0]) == 100).all()
