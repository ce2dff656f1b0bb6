"""Detection: COCO's metrics against pycocotools on generated sets, their traps, masks pasted by a
loop over pixels, and a whole evaluation of detections that are the annotations.
"""

import contextlib
import dataclasses
import io

import jax
import numpy as np
import pytest
from pycocotools import mask as oracle_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mae_jax.data import Data
from mae_jax.data.objects import OBJECTS, Objects, cut_to_box, decode, encode
from mae_jax.data.order import evaluated
from mae_jax.data.sources import Source
from mae_jax.evals import detection
from mae_jax.evals.average_precision import Detections, average_precision
from mae_jax.evals.full_size_objects import (
    SIZE,
    check_size,
    fitted,
    make_batch,
    paste,
    to_original,
)
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.types import UserError

NAMES = ("cat", "dog", "never", "bird")
SIZE_ = (150, 170)


def ellipse(box, size=SIZE_):
    """[H, W] bool within a box (ymin, xmin, ymax, xmax)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    (top, left), (bottom, right) = box[:2], box[2:]
    y = (2 * y - top - bottom) / (bottom - top)
    return y**2 + ((2 * x - left - right) / (right - left)) ** 2 <= 1


def random_boxes(rng, count):
    low = rng.uniform(0, 0.6, (count, 2)) * SIZE_
    return np.concatenate([low, low + rng.uniform(4, 60, (count, 2))], axis=1)


def objects_of(boxes, labels, crowd=None, size=SIZE_):
    masks = np.array([ellipse(box, size) for box in boxes]).reshape(-1, *size)
    crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
    areas = masks.sum((1, 2)).astype(float)
    return Objects(
        size=size, boxes=boxes, labels=labels, areas=areas, crowd=crowd, mask=masks.__getitem__
    )


def generated(seed, images=12):
    """Objects, some of them crowds, and detections near some of them, others anywhere; an image
    without objects, one without detections, and a class without either.
    """
    rng, truth, found = np.random.default_rng(seed), [], []
    for image in range(images):
        count = 0 if image == 3 else rng.integers(1, 8)
        boxes, labels = random_boxes(rng, count), rng.choice([0, 1, 3], count)
        truth.append(objects_of(boxes, labels, rng.random(count) < 0.2))
        picked = np.flatnonzero(rng.random(count) < 0.8)
        near = boxes[picked] + rng.normal(0, 2, (len(picked), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        guess = np.concatenate([near, near[:2], random_boxes(rng, 3)])
        classes = np.concatenate([labels[picked], rng.choice([0, 1, 3], len(near[:2]) + 3)])
        shown = slice(0, 0 if image == 5 else None)
        guess, classes = guess[shown], classes[shown]
        scores = rng.integers(1, 20, len(guess)) / 20  # with ties
        found.append(
            Detections(
                guess,
                scores,
                classes,
                encode(np.array([ellipse(box) for box in guess]).reshape(-1, *SIZE_)),
            )
        )
    return truth, found


def oracle(truth, found, kind, ids):
    """All stats of pycocotools and the mean precision of each class, with categories `ids`."""
    text = lambda rle: {**rle, "counts": rle["counts"].decode()}
    xywh = lambda b: [b[1], b[0], b[3] - b[1], b[2] - b[0]]
    images = [{"id": 7 * i, "height": t.size[0], "width": t.size[1]} for i, t in enumerate(truth)]
    annotations, results = [], []
    for i, (known, guess) in enumerate(zip(truth, found, strict=True)):
        for j in range(len(known.boxes)):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=7 * i,
                    category_id=ids[known.labels[j]],
                    iscrowd=int(known.crowd[j]),
                    area=known.areas[j],
                    bbox=xywh(known.boxes[j]),
                    segmentation=text(known.rle(j)),
                )
            )
        for j in range(len(guess.boxes)):
            row = dict(image_id=7 * i, category_id=ids[guess.labels[j]], score=guess.scores[j])
            shape = (
                {"segmentation": text(guess.masks[j])}
                if kind == "mask"
                else {"bbox": xywh(guess.boxes[j])}
            )
            results.append(row | shape)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": annotations,
            "info": {},
            "categories": [{"id": c, "name": str(c)} for c in ids],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm" if kind == "mask" else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"][:, :, :, 0, -1]


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_pycocotools(kind, seed):
    truth, found = generated(seed)
    stats, precision = oracle(truth, found, kind, ids=(1, 18, 44, 90))
    metrics = average_precision(truth, found, NAMES, kind)
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    expected = {key: x for key, x in zip(keys, stats) if x > -1}
    expected |= {f"ap/{NAMES[c]}": precision[:, :, c].mean() for c in (0, 1, 3)}
    assert metrics.keys() == expected.keys() and 0.05 < metrics["ap"] < 0.95
    for key, value in expected.items():
        assert abs(metrics[key] - value) < 1e-12, key


@pytest.mark.parametrize("size", [(1, 1), (13, 17), (300, 400), (2, 70_000)])
def test_run_lengths_equal_pycocotools(size):
    """With short and long runs, whose differences need one to four bytes."""
    rng, shares = np.random.default_rng(0), (0, 0.001, 0.1, 0.5, 0.9, 1)
    masks = np.array([rng.random(size) < share for share in shares])
    masks[1, : size[0] // 2, : size[1] // 2] = True
    expected = oracle_mask.encode(np.asfortranarray(np.moveaxis(masks, 0, -1), np.uint8))
    assert encode(masks) == expected and encode(masks[:0]) == []
    for rle, mask in zip(expected, masks, strict=True):
        np.testing.assert_array_equal(decode(rle), mask)


def perfect(truth):
    return [
        Detections(
            t.boxes, np.full(len(t.boxes), 0.9), t.labels, [*map(t.rle, range(len(t.boxes)))]
        )
        for t in truth
    ]


def test_annotations_found_as_they_are():
    truth = [objects_of(t.boxes, t.labels) for t in generated(2)[0]]
    for kind in ("box", "mask"):
        metrics = average_precision(truth, perfect(truth), NAMES, kind)
        assert set(metrics.values()) == {1.0} and "ap/never" not in metrics
        nothing = [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), [])] * len(truth)
        assert set(average_precision(truth, nothing, NAMES, kind).values()) == {0.0}


def test_what_is_found_in_a_crowd_does_not_count_and_in_an_empty_image_it_does():
    box, far = np.array([[10.0, 10, 60, 60]]), np.array([[5.0, 90, 100, 160]])
    known = lambda crowd: objects_of(np.concatenate([box, far]), np.zeros(2, int), crowd)
    inside = np.array([[20.0, 100, 60, 140]])  # within `far`
    guess = np.concatenate([inside, box])
    masks = encode(np.array([ellipse(b) for b in guess]))
    found = Detections(guess, np.array([0.9, 0.8]), np.zeros(2, int), masks)
    ap = lambda crowd, more=(), other=(): average_precision(
        [known(np.array(crowd)), *more], [found, *other], NAMES, "mask"
    )["ap50"]
    assert ap([False, True]) == 1 and ap([False, False]) < 0.3
    none = objects_of(np.zeros((0, 4)), np.zeros(0, int))
    assert ap([False, True], [none], [found]) < 0.6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(scores=np.array([np.nan])), "1 of 1 scores are not finite"),
        (dict(labels=np.array([4])), "an object has the class 4: the 4 classes are 0 to 3"),
    ],
)
def test_detections_that_cannot_be(change, message):
    truth = [objects_of(np.array([[1.0, 1, 9, 9]]), np.array([1]))]
    with pytest.raises(UserError, match=message):
        average_precision(truth, [perfect(truth)[0]._replace(**change)], NAMES, "box")
    with pytest.raises(UserError, match="none of the 1 images has an annotated object"):
        average_precision(
            [objects_of(np.zeros((0, 4)), np.zeros(0, int))], [perfect(truth)[0]], NAMES, "box"
        )
    with pytest.raises(UserError, match="size=0 and batch_size=1 should be positive integers"):
        check_size(0, 1)


def pasted_by_loop(mask, box, size):
    """Every pixel on its own, the mask continued by zeros."""
    bitmap, cells = np.zeros(size, bool), len(mask)
    at = lambda y, x: mask[y, x] if 0 <= y < cells and 0 <= x < cells else 0.0
    for i in range(size[0]):
        for j in range(size[1]):
            y = (i + 0.5 - box[0]) / (box[2] - box[0]) * cells - 0.5
            x = (j + 0.5 - box[1]) / (box[3] - box[1]) * cells - 0.5
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            dy, dx = y - y0, x - x0
            value = (1 - dy) * (1 - dx) * at(y0, x0) + (1 - dy) * dx * at(y0, x0 + 1)
            value += dy * (1 - dx) * at(y0 + 1, x0) + dy * dx * at(y0 + 1, x0 + 1)
            bitmap[i, j] = value >= 0.5
    return bitmap


@pytest.mark.parametrize(
    "box", [(3.2, 4.7, 17.9, 12.1), (-4.0, -3.5, 9.3, 40.2), (2, 2, 2, 9), (5.2, 5.1, 5.6, 5.9)]
)
def test_masks_are_pasted_as_by_a_loop(box):
    mask = np.random.default_rng(0).random((5, 5)) * 1.5
    np.testing.assert_array_equal(
        paste(mask, np.array(box), (21, 18)),
        pasted_by_loop(mask, box, (21, 18)) if box[2] > box[0] else False,
    )


@pytest.mark.parametrize("side", [28, 112])
def test_a_mask_cut_to_its_box_and_pasted_is_itself(side):
    for box in random_boxes(np.random.default_rng(3), 20):
        mask = ellipse(box)
        again = paste(cut_to_box(mask, box, side) / 255, box, SIZE_)
        if mask.sum() > 100:
            assert (again & mask).sum() / (again | mask).sum() > 0.95


# A whole evaluation -----------------------------------------------------------------------------

SIZES = [(60, 90), (80, 80), (90, 50), (64, 64), (40, 90)]


class Annotated(Source):
    """Images of several sizes with objects; all pixels of an image are ten times its number."""

    def __init__(self, masks=True):
        rng = np.random.default_rng(4)
        self.objects = []
        for size in SIZES:
            boxes = np.clip(random_boxes(rng, 3) / np.tile(SIZE_, 2), 0, 1) * np.tile(size, 2)
            self.objects.append(objects_of(boxes, rng.choice([0, 1, 3], 3), size=size))
        if not masks:
            self.objects = [dataclasses.replace(o, mask=None) for o in self.objects]
        self.num_examples, self.names = len(SIZES), {"box_label": NAMES}

    def read(self, indices):
        images = [np.full((*SIZES[i], 3), 10 * i, np.uint8) for i in indices]
        return {"image": images, OBJECTS: [self.objects[i] for i in indices]}

    def name(self, index):
        return f"scene {index}.png"


def data_of(source, **more):
    options = dict(process_index=0, process_count=1) | more
    return Data(
        sources={"test": source},
        batch_size=4,
        eval_batch_size=4,
        transforms={"train": [], "eval": []},
        fields=(),
        pipeline="arrays",
        workers=2,
        on_error="raise",
        views=1,
        seed=0,
        **options,
    )


def annotations_as_outputs(source, index, size):
    """Five rows for each image, of which three are the objects."""
    objects, row = source.objects[index], np.zeros((5, 28, 28))
    boxes = objects.boxes / np.tile(objects.size, 2)
    for place in range(3) if objects.mask else ():
        row[place] = cut_to_box(objects.bitmap(place), objects.boxes[place], 28) / 255
    more = lambda x: np.concatenate([x, np.zeros((2, *x.shape[1:]), x.dtype)])
    return {
        "det_box": more(boxes * np.tile(fitted(objects.size, size), 2) / size),
        "det_score": np.array([0.9, 0.8, 0.7, 1, 1]),
        "det_label": more(objects.labels),
        "det_valid": np.array([1, 1, 1, 0, 0], bool),
        "det_mask": row,
    }


def stacked(rows):
    return {name: np.stack([row[name] for row in rows]) for name in OUTPUTS}


@pytest.mark.parametrize("masks", [True, False])
def test_an_evaluation_of_the_annotations(masks):
    source, seen = Annotated(masks), []

    def predict(batch):
        assert batch["image"].shape[1:] == (64, 64, 3) and batch[SIZE].max() == 64
        indices = batch["image"][:, 0, 0, 0] // 10
        seen.extend(indices[batch["valid"]])
        for index, inside in zip(indices[batch["valid"]], batch[SIZE].astype(int)):
            assert tuple(inside) == fitted(SIZES[index], 64)
        return stacked([annotations_as_outputs(source, i % 5, 64) for i in indices])

    metrics = detection.make(size=64, batch_size=3)(predict, data_of(source))
    assert seen == [*range(len(SIZES))] and metrics["box_ap"] == 1
    assert ("mask_ap" in metrics) == masks and (not masks or metrics["mask_ap50"] == 1)
    declared = detection.make().metrics
    assert all(name in declared or name.partition("/")[0] + "/*" in declared for name in metrics)
    only = detection.make(size=64, limit=3)(predict, data_of(source))
    assert only["box_ap"] == 1 and seen[len(SIZES) :] == evaluated(5, 3).tolist() != [0, 1, 2]


def test_processes_see_each_image_once_and_agree(monkeypatch):
    """The outputs are those of the global batch in every process, the images its own."""
    source, results = Annotated(), []
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        groups = iter([[0, 1, 2, 3], [4, 0, 0, 0]])

        def predict(batch, groups=groups):
            assert len(batch["image"]) == 2
            return stacked([annotations_as_outputs(source, i, 64) for i in next(groups)])

        data = data_of(source, process_index=process, process_count=2)
        results.append(detection.make(size=64, batch_size=2)(predict, data))
    assert results[0] == results[1] and results[0]["box_ap"] == 1


def test_boxes_that_are_not_finite():
    outputs = annotations_as_outputs(Annotated(), 0, 64)
    outputs["det_box"][4] = np.nan  # padding: nothing looks at it
    assert len(to_original(outputs, SIZES[0], 64).boxes) == 3
    outputs["det_box"][0, 0] = np.nan
    with pytest.raises(UserError, match="boxes are not finite: has the training diverged"):
        to_original(outputs, SIZES[0], 64)


def test_the_input_of_the_network_is_the_image_and_the_mean_beside_it():
    image = np.random.default_rng(0).integers(0, 256, (30, 60, 3)).astype(np.uint8)
    batch = make_batch([{"image": image}, None], 60, 3)
    np.testing.assert_array_equal(batch["image"][0, :30], image)
    assert (batch["image"][0, 30:] == (124, 116, 104)).all()
    assert batch[SIZE].tolist() == [[30, 60], [60, 60]] and batch["valid"].tolist() == [1, 0]
    assert fitted((3, 1000), 100) == (1, 100)
