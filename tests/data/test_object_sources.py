"""Sources of annotated objects: the same pictures in the formats of COCO, VOC, YOLO and labelme,
masks against pycocotools, and what files can have wrong.
"""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.objects import OBJECTS
from mae_jax.data.sources import coco, labelme, voc, yolo
from mae_jax.evals.average_precision import Detections, average_precision
from mae_jax.spec import build
from mae_jax.types import UserError

NAMES = ("bird", "cat", "dog")
IDS = {"bird": 3, "cat": 17, "dog": 90}
SIZES = [(60, 80), (70, 50), (48, 48)]  # (height, width); the last has no objects


def pictures():
    """For each image, (name, polygon [p, 2] of whole pixels) of its objects."""
    rng, found = np.random.default_rng(0), []
    for height, width in SIZES[:2]:
        angles = np.sort(rng.uniform(0, 2 * np.pi, (4, 9)), axis=1)
        centers = rng.uniform(0.3, 0.7, (4, 1, 2)) * (width, height)
        reach = rng.uniform(0.1, 0.28, (4, 9, 1)) * min(width, height)
        points = centers + reach * np.stack([np.cos(angles), np.sin(angles)], axis=2)
        found.append(list(zip(rng.choice(NAMES, 4).tolist(), points.round())))
    return [*found, []]


PICTURES = pictures()


def rle_of(points, size):
    return oracle.merge(oracle.frPyObjects([points.ravel().tolist()], *size))


def box_of(points):
    return [*points.min(0), *points.max(0)]  # xmin, ymin, xmax, ymax


def write_images(folder, spoilt=None):
    folder.mkdir(parents=True)
    for index, (height, width) in enumerate(SIZES):
        Image.new("RGB", (width, height), (9 * index, 0, 0)).save(folder / f"{index}.png")
    return str(folder)


def coco_content():
    """Ids of annotations from 0, and of categories with gaps and in another order."""
    annotations = []
    for index, objects in enumerate(PICTURES):
        for name, points in objects:
            xmin, ymin, xmax, ymax = box_of(points)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 5 * index,
                    "category_id": IDS[name],
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "area": float(oracle.area(rle_of(points, SIZES[index]))),
                    "segmentation": [points.ravel().tolist()],
                    "iscrowd": 0,
                }
            )
    images = [
        {"id": 5 * i, "file_name": f"{i}.png", "height": h, "width": w}
        for i, (h, w) in enumerate(SIZES)
    ]
    categories = [{"id": IDS[name], "name": name} for name in reversed(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def as_coco(folder, content=None, **options):
    images = write_images(folder / "images")
    (folder / "set.json").write_text(json.dumps(content or coco_content()))
    return coco.make(images, str(folder / "set.json"), **options)


def as_voc(folder):
    images = write_images(folder / "images")
    for kind in ("xml", "masks"):
        (folder / kind).mkdir()
    for index, (objects, size) in enumerate(zip(PICTURES, SIZES)):
        rows, numbers = [], np.zeros(size, np.uint8)
        for place, (name, points) in enumerate(objects, start=1):
            xmin, ymin, xmax, ymax = box_of(points)
            rows.append(
                f"<object><name>{name}</name><difficult></difficult><bndbox><xmin>{xmin + 1}</xmin>"
                f"<ymin>{ymin + 1}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
            )
            numbers[oracle.decode(rle_of(points, size)) > 0] = place
        text = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>{''.join(rows)}"
        (folder / "xml" / f"{index}.xml").write_text(f"<annotation>{text}</annotation>")
        palette = Image.fromarray(numbers, "P")
        palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        palette.save(folder / "masks" / f"{index}.png")
    masks = str(folder / "masks")
    return voc.make(images, str(folder / "xml"), masks=masks, classes=NAMES)


def as_yolo(folder):
    images = write_images(folder / "images")
    (folder / "labels").mkdir()
    for index, objects in enumerate(PICTURES[:2]):  # the last has no file
        lines = [
            " ".join(
                map(repr, [NAMES.index(name), *(points / SIZES[index][::-1]).ravel().tolist()])
            )
            for name, points in objects
        ]
        (folder / "labels" / f"{index}.txt").write_text("\n".join(lines) + "\n")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return yolo.make(images, str(folder / "labels"), str(folder / "classes.txt"))


def shape_of(name, points, kind="polygon", **more):
    points = np.asarray(points, float).tolist()
    return {"label": name, "points": points, "group_id": None, "shape_type": kind} | more


def as_labelme(folder, shapes=None, **options):
    write_images(folder / "data")
    for index, objects in enumerate(shapes or PICTURES):
        content = {
            "imagePath": f"{index}.png",
            "imageData": None,
            "imageHeight": SIZES[index][0],
            "imageWidth": SIZES[index][1],
            "shapes": [o if isinstance(o, dict) else shape_of(*o) for o in objects],
        }
        (folder / "data" / f"{index}.json").write_text(json.dumps(content))
    return labelme.make(str(folder / "data"), **options)


FORMATS = {"coco": as_coco, "voc": as_voc, "yolo": as_yolo, "labelme": as_labelme}


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FORMATS.items()}


def test_formats_agree(every):
    rows = {name: source.read(np.arange(3)) for name, source in every.items()}
    for name, source in every.items():
        assert source.names == {"box_label": NAMES} and source.num_examples == 3
        assert any("1 image without objects" in note for note in source.notes)
        for index in range(3):
            found = rows[name][OBJECTS][index]
            assert found.size == SIZES[index] and len(found.labels) == len(PICTURES[index])
            for place, (label, points) in enumerate(PICTURES[index]):
                xmin, ymin, xmax, ymax = box_of(points)
                np.testing.assert_allclose(found.boxes[place], [ymin, xmin, ymax, xmax], atol=1e-9)
                assert NAMES[found.labels[place]] == label
                if name == "coco":
                    assert found.areas[place] == oracle.area(rle_of(points, SIZES[index]))
                if name != "voc":  # where the objects in front hide others
                    assert found.rle(place) == rle_of(points, SIZES[index])
            hidden = [found.bitmap(place) for place in range(len(found.labels))]
            if name == "voc" and hidden:
                numbers = np.zeros(SIZES[index], int)
                for place, (_, points) in enumerate(PICTURES[index]):
                    numbers[oracle.decode(rle_of(points, SIZES[index])) > 0] = place + 1
                for place, mask in enumerate(hidden):
                    np.testing.assert_array_equal(mask, numbers == place + 1)
    np.testing.assert_array_equal(rows["coco"]["box"][0], rows["labelme"]["box"][0])
    assert not any("other kinds" in note for note in every["labelme"].notes), "images are no others"


@pytest.mark.parametrize("name", ["coco", "yolo", "labelme"])
def test_annotations_found_as_they_are_have_an_ap_of_1(every, name):
    """Also with ids from 0, where COCO's own evaluation would not count a match."""
    truth = every[name].read(np.arange(3))[OBJECTS]
    found = [
        Detections(
            t.boxes, np.full(len(t.boxes), 0.5), t.labels, [*map(t.rle, range(len(t.boxes)))]
        )
        for t in truth
    ]
    for kind in ("box", "mask"):
        assert set(average_precision(truth, found, NAMES, kind).values()) == {1.0}


def test_batches(every, tmp_path):
    as_coco(tmp_path)
    spec = f"coco({str(tmp_path / 'images')!r}, {str(tmp_path / 'set.json')!r}, max_objects=3)"
    assert build(spec, "data.sources").max_objects == 3
    data = make_data(
        train=spec,
        batch_size=3,
        train_transform="",
        eval_transform="resize((32, 32))",
        fields=("box", "box_label", "box_mask"),
        workers=1,
    )
    batch = next(data.eval("train"))
    assert batch["box"].shape == (3, 3, 4) and batch["box_mask"].shape == (3, 3, 112, 112)
    assert (batch["box_label"] >= 0).sum(1).tolist() == [3, 3, 0]
    assert not batch["box"][2].any() and not batch["box_mask"][2].any()
    (note,) = [note for note in data.notes() if "more than 3" in note]
    assert note == (
        "config.data.train: 2 images with more than 3 objects, up to 4: batches leave out 2 "
        "objects, the smallest; raise max_objects to have them"
    )
    truth = every["coco"].read(np.array([0]))[OBJECTS][0]
    order = np.argsort(-truth.areas)[:3]
    assert batch["box_label"][0].tolist() == truth.labels[order].tolist()
    np.testing.assert_allclose(
        batch["box"][0] * np.tile(SIZES[0], 2), truth.boxes[order], rtol=1e-6
    )


def test_difficult_objects_are_ignored_unless_they_are_asked_for(tmp_path):
    as_voc(tmp_path)
    path = tmp_path / "xml" / "0.xml"
    marks = iter(["1", "0", "", "True"])
    parts = path.read_text().split("<difficult></difficult>")
    text = parts[0] + "".join(f"<difficult>{next(marks)}</difficult>{part}" for part in parts[1:])
    path.write_text(text)
    folders = str(tmp_path / "images"), str(tmp_path / "xml")
    source = voc.make(*folders, classes=NAMES)
    row = source.read(np.array([0]))
    assert row[OBJECTS][0].crowd.tolist() == [True, False, False, True]
    assert (row["box_label"][0] >= 0).sum() == 2
    assert any(note.startswith("2 difficult objects: ignored by") for note in source.notes)
    row = voc.make(*folders, classes=NAMES, difficult=True).read(np.array([0]))
    assert not row[OBJECTS][0].crowd.any() and (row["box_label"][0] >= 0).sum() == 4


# COCO -------------------------------------------------------------------------------------------


def test_run_lengths_crowds_and_parts(tmp_path):
    content = coco_content()
    first, second, third = content["annotations"][:3]
    bitmap = np.zeros(SIZES[0], np.uint8, order="F")
    bitmap[10:20, 30:40] = 1
    flat = bitmap.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    first |= {"segmentation": {"size": [*SIZES[0]], "counts": counts}, "iscrowd": 1}
    compressed = oracle.encode(bitmap)
    second["segmentation"] = compressed | {"counts": compressed["counts"].decode()}
    polygons = [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 25, 20, 25, 30], [1, 2, 3, 4]]
    third["segmentation"] = polygons
    source = as_coco(tmp_path, content)
    row = source.read(np.array([0]))
    found = row[OBJECTS][0]
    for place in range(2):
        np.testing.assert_array_equal(found.bitmap(place), bitmap)
    assert found.rle(2) == oracle.merge(oracle.frPyObjects(polygons[:2], *SIZES[0]))
    assert found.crowd.tolist() == [True, False, False, False]
    assert (row["box_label"][0] >= 0).sum() == 3, "crowds are not part of batches"
    assert "left out 1 polygon of fewer than three points" in source.notes
    assert "1 crowd: ignored by evaluations, and not part of training" in source.notes


def changed(**more):
    """A file whose second annotation has other values."""

    def change(content):
        content["annotations"][1] |= more

    return change


def without(name):
    return lambda content: content.pop(name)


BROKEN = {
    "no list": (without("categories"), "should have the lists images, annotations, categories"),
    "no image": (changed(image_id=4), "annotation 1 is of image 4, which is not listed"),
    "no category": (changed(category_id=1), "annotation 1 of image 0 has category 1, not listed"),
    "twice": (changed(id=0), r"the id 0 of annotation \[1\] is there twice"),
    "no id": (changed(id=None), r"the id None of annotation \[1\] is no integer"),
    "no box": (changed(bbox=None), "annotation 1 of image 0.png: "),
    "three numbers": (changed(bbox=[1, 2, 3]), "annotation 1 of image 0.png: "),
    "not finite": (changed(bbox=[1, 2, float("nan"), 3]), "its box or area is not finite"),
    "odd polygon": (changed(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "pairs of finite numbers"),
    "other size": (
        changed(segmentation={"size": [5, 6], "counts": [30]}),
        r"annotation 1 of image 0.png: its mask has the size \[5, 6\], and the image \[60, 80\]",
    ),
    "too short": (
        changed(segmentation={"size": [60, 80], "counts": [30]}),
        "annotation 1 of image 0.png: its run lengths have 30 pixels, not 4800",
    ),
    "damaged": (
        changed(segmentation={"size": [60, 80], "counts": "\x7f\x7f"}),
        "annotation 1 of image 0.png: ",
    ),
    "no file": (
        lambda content: content["images"][1].update(file_name="x.png"),
        "lists 3 images, of which 1 are not in .*, the first is 'x.png'",
    ),
    "same names": (
        lambda content: content["categories"][0].update(name="cat"),
        "should list categories with different names",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_coco_files(tmp_path, case):
    change, message = BROKEN[case]
    content = coco_content()
    change(content)
    with pytest.raises(UserError, match=message) as error:
        as_coco(tmp_path, content)
    assert "\n" not in str(error.value) and "set.json" in str(error.value)


def test_what_is_left_out_of_coco_is_counted(tmp_path):
    content = coco_content()
    rows = content["annotations"]
    rows[0] |= {"bbox": [5, 5, 0, 9]}
    rows[1] |= {"segmentation": []}
    rows[2] |= {"segmentation": [[1, 1, 2, 2]]}
    rows[3] |= {"bbox": [90, 5, 9, 9]}  # outside
    many = [rows[4] | {"id": 100 + i, "image_id": 10} for i in range(10_000)]
    content["annotations"] += many
    source = as_coco(tmp_path, content)
    assert {
        "left out 1 object whose box has no extent",
        "left out 2 objects without a mask, which others have",
        "1 image with more than 100 objects, up to 10000: batches leave out 9900 objects, the "
        "smallest; raise max_objects to have them",
    } <= {*source.notes}
    row = source.read(np.arange(3))
    assert (row["box_label"][0] >= 0).sum() == 0 and not row["box"][0].any()
    assert len(row[OBJECTS][2].labels) == 10_000
    content["annotations"] = []
    nothing = as_coco(tmp_path / "nothing", content)
    assert "3 images without objects: they are used, too" in nothing.notes
    assert (nothing.read(np.array([1]))["box_label"][0] == -1).all()


def test_an_image_of_another_size_than_annotated(tmp_path):
    source = as_coco(tmp_path)
    Image.new("RGB", (70, 60)).save(tmp_path / "images" / "0.png")
    data = make_data(
        train=f"coco({str(tmp_path / 'images')!r}, {str(tmp_path / 'set.json')!r})",
        batch_size=1, train_transform="", eval_transform="", fields=("box",), workers=1,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"0.png: its objects are annotated in 80 x 60 pixels, and"):
        next(data.eval("train"))
    assert source.name(0) == "0.png"
    for option in (dict(max_objects=0), dict(mask_size=1000)):
        with pytest.raises(UserError, match=f"coco: {next(iter(option))}="):
            as_coco(tmp_path / str(option), **option)


# The other formats ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", "line 2 of .*0.txt: the class is none of 0 to 2"),
        ("0.5 0.5 0.5 0.1 0.1", "the class is none of 0 to 2"),
        ("0 0.5 0.5 0.1", "no box of 4 numbers and no polygon of at least 3 points"),
        ("0 30 40 10 10", "not in fractions of the image, from 0 to 1"),
        ("0 nan 0.4 0.1 0.1", "not in fractions of the image, from 0 to 1"),
        ("cat 0.4 0.4 0.1 0.1", "line 2 of .*: could not convert string to float"),
    ],
)
def test_broken_yolo_files(tmp_path, line, message):
    images = write_images(tmp_path / "images")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text(f"1 0.5 0.5 0.2 0.4\n{line}\n")
    with pytest.raises(UserError, match=message):
        yolo.make(images, str(tmp_path / "labels"), NAMES)


def test_boxes_of_yolo_alone_and_beside_polygons(tmp_path):
    images = write_images(tmp_path / "images")
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / "0.txt"
    path.write_text("1 0.5 0.25 0.5 0.5\n\n2 0.5 0.5 0 0.1\n")
    (tmp_path / "labels" / "other.txt").write_text("")
    source = yolo.make(images, str(tmp_path / "labels"), 3)
    row = source.read(np.array([0]))
    np.testing.assert_allclose(row["box"][0][0], [0, 0.25, 0.5, 0.75])
    assert row[OBJECTS][0].mask is None and "box_mask" not in row
    assert "left out 1 object whose box has no extent" in source.notes
    assert "left out 1 label file without an image: other.txt" in source.notes
    path.write_text("1 0.5 0.25 0.5 0.5\n2 0.1 0.1 0.4 0.1 0.4 0.4\n")
    found = yolo.make(images, str(tmp_path / "labels"), 3).read(np.array([0]))[OBJECTS][0]
    filled = np.zeros(SIZES[0], bool)
    filled[:30, 20:60] = True
    np.testing.assert_array_equal(found.bitmap(0), filled)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "cannot read .*0.xml: "),
        ("<a><object><name>cat</name></object></a>", "the object 'cat' lacks a name, or bndbox"),
        (
            "<a><object><name>cat</name><bndbox><xmin>1</xmin><ymin>x</ymin><xmax>2</xmax>"
            "<ymax>3</ymax></bndbox></object></a>",
            "could not convert string to float: 'x'",
        ),
        (
            "<a><object><name>cow</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
            "<ymax>3</ymax></bndbox></object></a>",
            "0.xml has the class 'cow', not in",
        ),
    ],
)
def test_broken_voc_files(tmp_path, text, message):
    as_voc(tmp_path)
    (tmp_path / "xml" / "0.xml").write_text(text)
    with pytest.raises(UserError, match=message):
        voc.make(str(tmp_path / "images"), str(tmp_path / "xml"), classes=NAMES)


def test_masks_of_voc_of_another_size(tmp_path):
    source = as_voc(tmp_path)
    Image.new("L", (9, 9), 1).save(tmp_path / "masks" / "0.png")
    assert source.read(np.array([0]))[OBJECTS][0].mask is not None, "read at the start"
    folders = [str(tmp_path / name) for name in ("images", "xml")]
    source = voc.make(*folders, masks=str(tmp_path / "masks"), classes=NAMES)
    with pytest.raises(BadImage, match=r"a mask is \[9, 9\], it is \[60, 80\]: height and width"):
        source.read(np.array([0]))
    assert "left out 3 objects without a mask, which others have" in source.notes
    (tmp_path / "masks" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="voc: cannot read .*0.png: "):
        voc.make(*folders, masks=str(tmp_path / "masks"), classes=NAMES)


def test_boxes_of_voc_that_are_listed(tmp_path):
    as_voc(tmp_path)
    (tmp_path / "list.txt").write_text("1\nmissing\n")
    folders = str(tmp_path / "images"), str(tmp_path / "xml")
    source = voc.make(*folders, listed=str(tmp_path / "list.txt"))
    assert source.num_examples == 1 and source.name(0) == "1.png"
    assert "left out 1 listed name without an image: missing" in source.notes
    assert source.names["box_label"] == tuple(sorted({name for name, _ in PICTURES[1]}))
    assert source.read(np.array([0]))[OBJECTS][0].mask is None


def test_shapes_of_labelme(tmp_path):
    png = io.BytesIO()
    mask = np.random.default_rng(0).random((6, 9)) < 0.7
    mask[[0, -1]] = mask[:, [0, -1]] = True
    Image.fromarray(mask).save(png, "png")
    shapes = [
        shape_of("cat", [(30, 40), (10, 20)], "rectangle"),
        shape_of("dog", [(40, 30), (40, 42)], "circle"),
        shape_of(
            "cat", [(50, 5), (58, 10)], "mask", mask=base64.b64encode(png.getvalue()).decode()
        ),
        shape_of("bird", [(1, 1), (5, 1), (5, 5)], group_id=7),
        shape_of("bird", [(60, 50), (70, 58)], "rectangle", group_id=7),
        shape_of("cat", [(3, 4)], "point"),
        shape_of("__ignore__", [(1, 1), (5, 1), (5, 5)]),
        shape_of("dog", [(1, 1), (5, 1)]),
    ]
    source = as_labelme(tmp_path, [shapes, [], []])
    found = source.read(np.array([0]))[OBJECTS][0]
    np.testing.assert_allclose(
        found.boxes, [[20, 10, 40, 30], [18, 28, 42, 52], [5, 50, 11, 59], [1, 1, 58, 70]]
    )
    assert [NAMES[label] for label in found.labels] == ["cat", "dog", "cat", "bird"]
    filled = np.zeros(SIZES[0], bool)
    filled[20:40, 10:30] = True
    np.testing.assert_array_equal(found.bitmap(0), filled)
    assert abs(found.bitmap(1).sum() / (np.pi * 12**2) - 1) < 0.03
    np.testing.assert_array_equal(found.bitmap(2)[5:11, 50:59], mask)
    assert found.bitmap(2).sum() == mask.sum()
    assert found.bitmap(3)[50:58, 60:70].all() and found.bitmap(3)[1:3, 3].any()
    left = {note for note in source.notes if note.startswith("left out 1 ")}
    assert len(left) == 3 and "left out 1 __ignore__ shape" in left
    boxes = as_labelme(tmp_path / "boxes", [shapes[:1], [], []])
    assert boxes.read(np.array([0]))[OBJECTS][0].mask is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (shape_of("cow", [(1, 1), (2, 2), (3, 1)]), "has the label 'cow', not in"),
        (shape_of("cat", [(1, 1)], "rectangle"), r"shape \[0\]: a rectangle of 1 points has two"),
        (shape_of("cat", [(1, 1), (2, 2)], "mask"), r"0.json: shape \[0\]: it has no 'mask'"),
        (shape_of("cat", [(1, float("inf")), (2, 2)], "circle"), "its points are not finite"),
        ({"points": []}, r"shape \[0\]: it has no 'label'"),
    ],
)
def test_broken_labelme_files(tmp_path, shape, message):
    with pytest.raises(UserError, match=message) as error:
        as_labelme(tmp_path, [[shape], [], []], classes=NAMES)
    assert "\n" not in str(error.value)


def test_a_labelme_file_without_its_image(tmp_path):
    as_labelme(tmp_path)
    (tmp_path / "data" / "1.png").unlink()
    with pytest.raises(UserError, match="1.json is of '1.png': there is no such file"):
        labelme.make(str(tmp_path / "data"))
    (tmp_path / "data" / "1.json").write_text("[]")
    with pytest.raises(UserError, match="labelme: cannot read .*1.json"):
        labelme.make(str(tmp_path / "data"))
