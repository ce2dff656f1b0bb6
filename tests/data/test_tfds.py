"""Data sets that TFDS has prepared: the same examples from both formats, and what goes wrong."""

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae_jax.data.fields import IGNORE
from mae_jax.data.images import BadImage
from mae_jax.data.objects import OBJECTS
from mae_jax.data.sources import folder, tfds
from mae_jax.data.tfrecords import TFRecords
from mae_jax.spec import build
from mae_jax.types import UserError

tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
if not importlib.util.find_spec("tensorflow"):  # importing it here would cost every worker
    pytest.skip("TFDS writes TFRecords with TensorFlow", allow_module_level=True)

FORMATS = ("array_record", "tfrecord")
COUNT = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of two classes, JPEGs and PNGs of several sizes."""
    root = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        shape = (6 + i % 3, 8 + i % 5, 3)
        pixels = np.random.default_rng(i).integers(0, 256, shape, np.uint8)
        path = root / ("cat", "dog")[i % 2] / f"{i:02d}.{('jpg', 'png')[i % 3 == 0]}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def sets(images, tmp_path_factory) -> dict[str, Path]:
    """Format -> the folder of a set with these images, masks and boxes, as TFDS prepares them."""
    root = tmp_path_factory.mktemp("sets")
    return {form: prepare(images, root / form, form) for form in FORMATS}


def prepare(images: Path, out: Path, form: str) -> Path:
    """Has TFDS write two splits, train in three shards."""
    kinds = tensorflow_datasets.features
    files = sorted(images.rglob("*.*"))

    class Pets(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
        name = "pets"
        code_path = None  # TFDS would look for the package of this file
        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self):
            box = kinds.BBoxFeature()
            features = kinds.FeaturesDict({
                "image": kinds.Image(),
                "label": kinds.ClassLabel(names=["cat", "dog"]),
                "file_name": kinds.Text(),
                "mask": kinds.Image(shape=(None, None, 1)),
                "depth": kinds.Image(shape=(None, None, 1), dtype=np.float32),
                "objects": kinds.Sequence({
                    "bbox": box,
                    "hidden": np.bool_,
                    "kind": kinds.ClassLabel(names=["ear", "tail"]),
                }),
            })  # fmt: skip
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(files[4:]), "test": self.few(files[:4])}

        def few(self, files):
            return self._generate_examples(files)

        def _generate_examples(self, files):
            for i, file in enumerate(files):
                box = kinds.BBox(0.25, 0.0, 0.5, 0.75)
                yield (
                    file.name,
                    {
                        "image": file,
                        "label": file.parent.name,
                        "file_name": file.relative_to(images).as_posix(),
                        "mask": np.full((4, 5, 1), i, np.uint8),
                        "depth": np.zeros((4, 5, 1), np.float32),
                        "objects": [
                            {"bbox": box, "hidden": k == 1, "kind": k} for k in range(i % 3)
                        ],
                    },
                )

    builder = Pets(data_dir=out, file_format=form)
    config = tensorflow_datasets.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


def names(source) -> list[str]:
    """What all examples are called."""
    return [source.name(i) for i in range(source.num_examples)]


def edited(path: Path, copy: Path, **values) -> Path:
    """A copy of a set with other values in its dataset_info.json."""
    shutil.copytree(path, copy)
    info = json.loads((path / "dataset_info.json").read_text())
    (copy / "dataset_info.json").write_text(json.dumps({**info, **values}))
    return copy


@pytest.mark.parametrize("form", FORMATS)
def test_the_examples_are_those_of_the_folder(images, sets, form):
    source, original = tfds.make(str(sets[form]), split="train+test"), folder.make(str(images))
    assert source.num_examples == COUNT
    assert source.class_names == original.class_names == ("cat", "dog")
    assert sorted(names(source)) == sorted(names(original))
    rows = source.read(np.arange(COUNT))
    expected = original.read([names(original).index(name) for name in names(source)])
    assert rows.keys() == {"image", "label"} and rows["label"] == expected["label"]
    for image, other in zip(rows["image"], expected["image"], strict=True):
        assert image.data == other.data
        np.testing.assert_array_equal(image.pixels(), other.pixels())


def test_both_formats_and_tfds_itself_have_the_same_order(sets):
    records, array = (tfds.make(str(sets[form])) for form in ("tfrecord", "array_record"))
    assert isinstance(records.records, TFRecords) and not isinstance(array.records, TFRecords)
    assert len(records.records.paths) == 3
    builder = tensorflow_datasets.builder_from_directory(sets["tfrecord"])
    examples = builder.as_dataset("train").as_numpy_iterator()
    theirs = [example["file_name"].decode() for example in examples]
    assert names(records) == names(array) == theirs
    assert records.digest == array.digest


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("split", "expected"),
    [("train[:50%]", slice(10)), ("train[3:17]", slice(3, 17)), ("train[-1:]", slice(-1, None))],
)
def test_a_part_of_a_split(sets, form, split, expected):
    part, whole = tfds.make(str(sets[form]), split=split), tfds.make(str(sets[form]))
    assert names(part) == names(whole)[expected]
    assert part.digest != whole.digest


@pytest.mark.parametrize("form", FORMATS)
def test_parts_of_several_splits(sets, form):
    parts = tfds.make(str(sets[form]), split="test[1:]+train[4:6]")
    train, test = (tfds.make(str(sets[form]), split=split) for split in ("train", "test"))
    assert names(parts) == names(test)[1:] + names(train)[4:6]


@pytest.mark.parametrize("form", FORMATS)
def test_any_order_by_many_threads(sets, form):
    source = tfds.make(str(sets[form]))
    order = np.random.default_rng(0).integers(0, source.num_examples, (64, 4))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.read, order))
    once = [image.data for image in source.read(np.arange(source.num_examples))["image"]]
    for indices, rows in zip(order, read, strict=True):
        assert [image.data for image in rows["image"]] == [once[i] for i in indices]


@pytest.mark.parametrize("form", FORMATS)
def test_masks_and_boxes(sets, form):
    path = str(sets[form])
    source = tfds.make(path, segmentation="mask", box="objects/bbox", max_boxes=3, channels=1)
    rows = source.read(np.arange(source.num_examples))
    assert {image.pixels().shape[2] for image in rows["image"]} == {1}
    for mask, boxes in zip(rows["segmentation"], rows["box"], strict=True):
        assert mask.shape == (4, 5) and boxes.shape == (3, 4) and boxes.dtype == np.float32
        expected = np.zeros((3, 4))
        expected[: mask[0, 0] % 3] = 0.25, 0, 0.5, 0.75
        np.testing.assert_array_equal(boxes, expected)
    with pytest.raises(BadImage, match="2 boxes: raise max_boxes"):
        tfds.make(path, box="objects/bbox", max_boxes=1).read(np.arange(source.num_examples))


@pytest.mark.parametrize("form", FORMATS)
def test_boxes_with_classes(sets, form):
    """Crowds are for evaluations alone; of many boxes the largest are in batches."""
    options = dict(box="objects/bbox", box_label="objects/kind")
    source = tfds.make(str(sets[form]), **options, crowd="objects/hidden", max_boxes=1)
    assert source.names["box_label"] == ("ear", "tail")
    rows = source.read(np.arange(source.num_examples))
    for image, boxes, labels, objects in zip(
        rows["image"], rows["box"], rows["box_label"], rows[OBJECTS], strict=True
    ):
        count = len(objects.labels)
        assert count < 3 and objects.labels.tolist() == [0, 1][:count]
        assert objects.crowd.tolist() == [False, True][:count] and objects.mask is None
        assert labels.tolist() == ([0] if count else [-1])
        np.testing.assert_array_equal(boxes[0], [0.25, 0, 0.5, 0.75] if count else [0] * 4)
        expected = np.tile(image.shape, 2) * [0.25, 0, 0.5, 0.75]
        np.testing.assert_array_equal(objects.boxes, np.tile(expected, (count, 1)))
    two = tfds.make(str(sets[form]), **options, max_boxes=3).read(np.arange(len(rows["image"])))
    assert max((labels >= 0).sum() for labels in two["box_label"]) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_classes_of_masks(sets, form):
    """Of the numbers 0 ... 19; without these options they are classes as they stand."""
    path, every = str(sets[form]), np.arange(COUNT - 4)
    plain = tfds.make(path, segmentation="mask")
    numbers = [int(mask[0, 0]) for mask in plain.read(every)["segmentation"]]
    assert sorted(numbers) == list(range(20)) and "segmentation" not in plain.names
    source = tfds.make(path, segmentation="mask", classes=19, reduce_zero_label=True)
    found = [int(mask[0, 0]) for mask in source.read(every)["segmentation"]]
    assert found == [number - 1 if number else IGNORE for number in numbers]
    assert len(source.names["segmentation"]) == 19
    source = tfds.make(path, segmentation="mask", classes=("sky", "sea"), ids={3: 0, 4: 1})
    found = [int(mask[0, 0]) for mask in source.read(every)["segmentation"]]
    assert found == [{3: 0, 4: 1}.get(number, IGNORE) for number in numbers]
    with pytest.raises(BadImage, match="its segmentation holds [0-9]+: the classes are 0 ... 1,"):
        tfds.make(path, segmentation="mask", classes=2).read(every)


def test_a_set_by_its_name(sets):
    root = str(sets["tfrecord"].parents[1])
    for name in ("pets", "pets:1.0.0"):
        assert tfds.make(name, data_dir=root).num_examples == COUNT - 4


def test_from_a_config(sets):
    source = build(f"tfds({str(sets['array_record'])!r}, split=test, label='')", "data.sources")
    assert source.num_examples == 4 and source.class_names == ()
    assert source.read(np.array([0])).keys() == {"image"}


def test_array_record_is_preferred(sets, tmp_path):
    """What `tfds convert_format` leaves behind: the files of both formats."""
    both = edited(sets["tfrecord"], tmp_path / "both", alternativeFileFormats=["array_record"])
    for file in sets["array_record"].glob("*.array_record*"):
        shutil.copy(file, both)
    source = tfds.make(str(both))
    assert not isinstance(source.records, TFRecords)
    assert names(source) == names(tfds.make(str(sets["tfrecord"])))


def test_a_set_without_names_or_labels(tmp_path):
    features = tensorflow_datasets.features.FeaturesDict({
        "photo": tensorflow_datasets.features.Image(), "label": np.int64,
    })  # fmt: skip
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "png")
    record = features.serialize_example({"photo": buffer.getvalue(), "label": 5})
    template = tensorflow_datasets.core.ShardedFileTemplate(
        data_dir=tmp_path, dataset_name="bare", split="train", filetype_suffix="array_record"
    )
    writer = tensorflow_datasets.core.writer.ExampleWriter(
        tensorflow_datasets.core.FileFormat.ARRAY_RECORD
    )
    writer.write(template.sharded_filepath(shard_index=0, num_shards=1), [(0, record)])
    info = tensorflow_datasets.core.SplitInfo(
        name="train", shard_lengths=[1], num_bytes=len(record), filename_template=template
    )
    tensorflow_datasets.folder_dataset.write_metadata(
        data_dir=tmp_path,
        features=features,
        split_infos=[info],
        filename_template=template,
        check_data=False,
    )
    source = tfds.make(str(tmp_path), image="photo")
    assert source.name(0) == "train[0]" and source.class_names == ()
    assert source.read(np.array([0])).keys() == {"image"}


def test_neither_format_needs_tensorflow(sets):
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from mae_jax.data.sources import tfds\n"
        f"for path in {[str(path) for path in sets.values()]!r}:\n"
        "    source = tfds.make(path, segmentation='mask', box='objects/bbox')\n"
        "    assert source.name(0) and len(source.read(np.arange(9))['box']) == 9\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def unreadable(source) -> list[int]:
    """The examples that cannot be read; they are named in the messages."""
    bad = []
    for i in range(source.num_examples):
        try:
            source.read(np.array([i]))
        except BadImage as error:
            assert f"{source.split}[{i}]" in str(error) and source.name(i) == f"{source.split}[{i}]"
            bad.append(i)
    return bad


def test_a_damaged_tfrecord_is_one_bad_image(sets, tmp_path):
    copy = shutil.copytree(sets["tfrecord"], tmp_path / "set")
    source = tfds.make(str(copy))
    with open(source.records.paths[0], "r+b") as file:
        file.seek(source.records.offsets[0][3] + 12)  # behind its header
        file.write(b"\xff" * 30)
    assert unreadable(tfds.make(str(copy))) == [3]


def test_damage_in_an_array_record_file_leaves_most_images(sets, tmp_path):
    copy = shutil.copytree(sets["array_record"], tmp_path / "set")
    shard = sorted(copy.glob("*train*"))[0]
    with shard.open("r+b") as file:
        file.seek(1500)  # in its second or third record: they are at the start
        file.write(b"\xff" * 30)
    assert 1 <= len(unreadable(tfds.make(str(copy)))) <= 2


def test_a_file_that_changes_while_it_is_read(sets, tmp_path):
    copy = shutil.copytree(sets["tfrecord"], tmp_path / "set")
    source = tfds.make(str(copy))
    for file in copy.glob("*train*"):
        file.write_bytes(file.read_bytes()[1:])
    with pytest.raises(BadImage, match="has changed since"):
        source.read(np.array([0]))


def test_files_that_do_not_hold_what_they_should(sets, tmp_path):
    copy = shutil.copytree(sets["tfrecord"], tmp_path / "set")
    shard = sorted(copy.glob("*train*"))[1]
    content = shard.read_bytes()
    for other in (content[:-1], content + bytes(1), content + content, b""):
        shard.write_bytes(other)
        with pytest.raises(UserError, match=f"{shard.name} does not hold [67] records"):
            tfds.make(str(copy))
    tfds.make(str(copy), split="test")


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_is_missing(sets, tmp_path, form):
    copy = shutil.copytree(sets[form], tmp_path / "set")
    shard = sorted(copy.glob("*train*"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name}.*prepare the set again"):
        tfds.make(str(copy))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tran"}, "no split 'tran'.* choose one of test, train, or a part"),
        ({"split": "train[:x]"}, "choose one of test, train"),
        ({"split": "train[:0]"}, "it is empty"),
        (
            {"image": "photo"},
            "no image 'photo': choose image=image or mask; its features are .*box",
        ),
        ({"image": "label"}, "no image 'label'"),
        ({"image": "depth"}, "no image 'depth'"),
        ({"label": "class"}, "no label 'class': choose label=label"),
        ({"segmentation": "box"}, "no segmentation 'box': choose segmentation=image or mask"),
        ({"box": "label"}, "no box 'label': choose box=objects/bbox"),
        ({"channels": 2}, "channels 2 is not supported: choose 1, 3, 4"),
        ({"window": (5, 5)}, "window"),
        ({"classes": 2}, "classes, ids and reduce_zero_label need segmentation="),
        (
            {"segmentation": "mask", "reduce_zero_label": True},
            "reduce_zero_label needs classes=",
        ),
        ({"max_boxes": 0}, "max_boxes 0 must be at least 1"),
        ({"box_label": "objects/kind"}, "box_label needs box="),
        ({"crowd": "objects/bbox"}, "no crowd 'objects/bbox': choose crowd=objects/hidden"),
    ],
)
def test_mistakes_in_the_arguments(sets, options, message):
    with pytest.raises(UserError, match=message):
        tfds.make(str(sets["array_record"]), **options)


def test_sets_that_are_not_there(sets, tmp_path):
    root = sets["tfrecord"].parents[1]
    for name, data_dir, message in [
        ("cifar10", str(tmp_path), r"no prepared 'cifar10' in .*download_and_prepare\(\)"),
        ("cifar1O", str(tmp_path), "did you mean 'cifar10'"),
        ("pets:2.0.0", str(root), "there is pets/1.0.0"),
        (str(root), None, "holds no dataset_info.json.*there is pets/1.0.0"),
        ("/nowhere/at/all", None, "give a folder that holds"),
        ("gs://bucket/pets/1.0.0", None, "is not a local path"),
        ("pets", "gs://bucket", "is not a local path"),
    ]:
        with pytest.raises(UserError, match=message):
            tfds.make(name, data_dir=data_dir)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="cannot open the data set"):
        tfds.make(str(tmp_path))


def test_formats_without_random_access(sets, tmp_path):
    copy = edited(sets["tfrecord"], tmp_path / "set", fileFormat="riegeli")
    with pytest.raises(
        UserError, match="riegeli files.*tfds convert_format --dataset_version_dir=/"
    ):
        tfds.make(str(copy))


def test_without_tfds(sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        tfds.make(str(sets["array_record"]))


def test_without_array_record(sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record", None)
    with pytest.raises(UserError, match="pip install array_record"):
        tfds.make(str(sets["array_record"]))


def test_what_belongs_to_turned_images_turns_with_them(sets, monkeypatch):
    """TFDS and those who label for it know no orientation: masks and boxes are as stored."""
    pixels = np.zeros((8, 12, 4), np.uint8)
    pixels[1:4, 6:12] = 255, 0, 0, 255
    exif = Image.Exif()
    exif[0x0112] = 6
    files = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(files[0], "PNG", exif=exif)
    Image.fromarray(pixels[..., 3] // 255).save(files[1], "PNG")
    image, mask = (file.getvalue() for file in files)
    boxes = {"bbox": np.array([[1 / 8, 6 / 12, 4 / 8, 1]])}
    row = {"image": image, "label": 0, "mask": mask, "objects": boxes}
    monkeypatch.setattr(tfds.Prepared, "_example", lambda self, index: row)
    options = dict(segmentation="mask", box="objects/bbox", max_boxes=2, background="black")
    source = tfds.make(str(sets["array_record"]), **options)
    found = source.read([0])
    red = found["image"][0].pixels()[..., 0] > 0
    np.testing.assert_array_equal(red, np.rot90(pixels[..., 0] > 0, -1))
    np.testing.assert_array_equal(found["segmentation"][0], red)
    np.testing.assert_allclose(found["box"][0], [[6 / 12, 4 / 8, 1, 7 / 8], [0] * 4])
    assert source.notes[0].startswith("transparent pixels show the background black (20 of 20")
    kept = tfds.make(str(sets["array_record"]), channels=4).read([0])["image"][0].pixels()
    np.testing.assert_array_equal(kept, np.rot90(pixels, -1))
    small = tfds.make(str(sets["array_record"]), max_pixels=95).read([0])["image"][0]
    with pytest.raises(BadImage, match="12 x 8 pixels are over the limit of 95 pixels"):
        small.pixels()
