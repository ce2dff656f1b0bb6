"""Any source packed by `mae-jax prepare`: the pixels that it gives, and flags to paste."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data, shards
from mae_jax.data.prepare import Summary, describe, prepare
from mae_jax.data.sources import Statistics, tfds
from mae_jax.data.subset import hold_out
from mae_jax.data.vocabulary import of_words
from mae_jax.spec import build
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run
from tests.helpers.dicoms import dataset, gray, uid, write

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")


def all_of(source):
    """Name -> (pixels, label) of all examples."""
    count = source.num_examples
    rows = source.read(np.arange(count))
    pixels = [im if isinstance(im, np.ndarray) else im.pixels() for im in rows["image"]]
    labels = rows.get("label", [-1] * count)
    return {source.name(i): (pixels[i], labels[i]) for i in range(count)}


def same(found, exact):
    """Whether two sets hold the same examples."""
    assert found.keys() == exact.keys()
    for name, (pixels, label) in exact.items():
        np.testing.assert_array_equal(found[name][0], pixels)
        assert found[name][1] == label


@pytest.fixture
def study(tmp_path):
    """Two patients with volumes, a report, a file that is cut off."""
    root = tmp_path / "study"
    for patient in range(2):
        for scan in range(4):
            path = root / f"p{patient}" / f"{scan}.dcm"
            write(path, dataset(gray(5, 6 + scan, 7, seed=10 * patient + scan)))
    write(root / "p0" / "report.dcm", dataset(None, SOPClassUID=uid.BasicTextSRStorage))
    write(root / "p1" / "broken.dcm", dataset(gray(6, 7), Rows=None))
    write(root / "p1" / "color.dcm", dataset(gray(6, 7, 3, dtype=np.uint8, high=256)))
    return root


def test_a_study_is_packed_as_it_is_read(study, tmp_path, capsys):
    spec = f"dicom({str(study)!r}, window=(500, 3000))"
    assert run("prepare", "--images", spec, "--out", tmp_path / "out", "--held-out", "0.4") == 0
    output = capsys.readouterr()
    printed = output.out.splitlines()
    folder = tmp_path / "out" / "study" / "1.0.0"
    splits = {split: tfds.make(str(folder), split=split, channels=1) for split in ("train", "test")}
    found = {split: all_of(source) for split, source in splits.items()}
    source = build(spec, "data.sources")
    good = [i for i in range(source.num_examples) if source.name(i)[-1] == "]"]
    rows = source.read(np.array(good))
    exact = {source.name(i): pair for i, *pair in zip(good, rows["image"], rows["label"])}
    same(found["train"] | found["test"], exact)
    files = {split: {name.partition("[")[0] for name in names} for split, names in found.items()}
    assert files["train"] and files["test"] and not files["train"] & files["test"]
    assert splits["train"].class_names == ("p0", "p1")
    unreadable = json.loads((folder / "unreadable.json").read_text())
    assert unreadable == {
        "p1/broken.dcm": "it has no Rows",
        "p1/color.dcm": "it has 3 channels, and the set 1",
    }
    assert "left out files without an image: 1 Basic Text SR" in output.err

    pixels = np.concatenate([image.reshape(-1) for image, _ in found["train"].values()]) / 255
    flags = {}
    for line in shlex.split(" ".join(line for line in printed if line.startswith("--config"))):
        flags.update([line.removeprefix("--config.").split("=", 1)])
    assert "split=train, channels=1)" in flags["data.train"]
    mean, std = (eval(flags[f"method.args.{key}"]) for key in ("mean", "std"))  # as the config
    np.testing.assert_allclose((*mean, *std), (pixels.mean(), pixels.std()), rtol=1e-3)
    data = make_data(
        train=flags["data.train"],
        test=flags["data.test"],
        batch_size=2,
        train_transform="center_crop(4)",
        eval_transform="center_crop(4)",
    )
    assert next(data.train(0))["image"].shape == (2, 4, 4, 1)


def test_going_on_and_other_arguments(study, tmp_path):
    spec = f"dicom({str(study)!r}, window=(500, 3000))"
    first = prepare(spec, tmp_path / "out", name="study")
    again = prepare(spec, tmp_path / "out", name="study")
    assert again == first._replace(found=True)
    with pytest.raises(UserError, match="source: dicom.*500, 3000.* there, dicom.*0, 3000.* now"):
        prepare(spec.replace("500", "0"), tmp_path / "out", name="study")
    (study / "p0" / "1.dcm").unlink()
    with pytest.raises(UserError, match="images: 42 there, 37 now"):
        prepare(spec, tmp_path / "out", name="study")


def test_a_plain_folder_by_its_spec(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.jpg")
    path = str(tmp_path / "images")
    plain = prepare(path, tmp_path / "a", name="set", channels=1)
    spec = prepare(f"folder({path!r}, channels=1)", tmp_path / "b", name="set")
    assert plain.statistics == spec.statistics
    rows = tfds.make(str(spec.folder)).read(np.arange(3))["image"]
    assert all(image.data[:2] == b"\xff\xd8" for image in rows), "the files as they are"
    with pytest.raises(
        UserError, match="--channels 4 contradicts folder.*channels=1.*: leave one of them"
    ):
        prepare(f"folder({path!r}, channels=1)", tmp_path / "c", name="set", channels=4)


def test_other_sources_and_channels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 4), np.uint8)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.arange(6) % 2)
    spec = f"array_file({str(tmp_path / 'x.npy')!r}, labels={str(tmp_path / 'y.npy')!r})"
    made = prepare(spec, tmp_path / "out", name="set")
    same(all_of(tfds.make(str(made.folder), channels=4)), all_of(build(spec, "data.sources")))
    assert "split=train, channels=4)" in describe(made)
    assert describe(made).count(", ") >= 6 and "mean='(" in describe(made)


def test_alpha_without_any_transparency_can_be_divided_by(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 3), (10, 20, 30)).save(tmp_path / "images" / "a.png")
    made = prepare(tmp_path / "images", tmp_path / "out", name="set", channels=4)
    np.testing.assert_allclose(made.statistics["train"]["std"], 0, atol=1e-15)  # rounding
    assert "--config.method.args.std='(1, 1, 1, 1)'" in describe(made)
    mean = (10 / 255, 20 / 255, 30 / 255, 1)
    found = tfds.make(str(made.folder), channels=4).statistics
    np.testing.assert_allclose(found, Statistics(mean, (1, 1, 1, 1)))


def test_statistics_of_a_prepared_set(tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 7, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    path = str(prepare(tmp_path / "images", tmp_path / "out", name="set", held_out=0.4).folder)
    for split in ("train", "test"):
        source = tfds.make(path, split=split)
        shown = np.stack([image for image, _ in all_of(source).values()]) / 255
        np.testing.assert_allclose(source.statistics.mean, shown.mean((0, 1, 2)))
        np.testing.assert_allclose(source.statistics.std, shown.std((0, 1, 2)))
    whole = tfds.make(path).statistics
    assert tfds.make(path, split="train[:50%]").statistics == whole
    data = make_data(
        train=f"tfds({path!r})", held_out=0.5, batch_size=1, train_transform="", eval_transform=""
    )
    assert data.source("train").statistics == whole
    for options in ({"channels": 1}, {"window": (0, 9)}, {"split": "train+test"}):
        assert tfds.make(path, **options).statistics is None
    file = tmp_path / "out" / "set" / "1.0.0" / "statistics.json"
    for content in ("{", '{"train": {"mean": [1, 2, 3]}}', '{"train": {"mean": 3, "std": 1}}'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"cannot read .*statistics.json \(.*\): prepare the"):
            tfds.make(path)
    file.unlink()
    assert tfds.make(path).statistics is None


def test_captions_are_packed_as_numbers(tmp_path, capsys, monkeypatch):
    """With their tokenizer, also by a run that was stopped; read without captions and library."""
    (tmp_path / "images").mkdir()
    for i in range(6):
        Image.new("RGB", (5, 4), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    rows = [f"{i}.png,image number {i} of six" for i in range(5)]
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *rows, "0.png,a second"]))
    path, words = str(tmp_path / "images"), "image of six a number second 0 1 2 3".split()
    of_words(words).save(tmp_path / "tok.json")
    spec = (
        f"captioned({path!r}, captions={str(tmp_path / 'captions.csv')!r}, "
        f"tokenizer={str(tmp_path / 'tok.json')!r}, length=5, several=each)"
    )
    options = ("--images", spec, "--out", tmp_path / "out", "--held-out", "0.3")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_reports", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            prepare(spec, tmp_path / "out", name="images", held_out=0.3)
    assert (tmp_path / "out" / "images" / "unfinished").exists()
    assert run("prepare", *options) == 0
    printed = shlex.split(" ".join(capsys.readouterr().out.splitlines()[1:]))
    assert "--config.data.fields=('text','text_valid')" in printed
    folder = tmp_path / "out" / "images" / "1.0.0"
    values = {"mean": [0.5] * 3, "std": [0.5] * 3, "images": 6}
    for classes, fields in (({}, "text"), ({"cat": 6}, "label','text")):
        made = describe(Summary(folder, {"train": values | {"classes": classes}}, 0, True))
        assert f"--config.data.fields=\"('{fields}','text_valid')\"" in made
    source, found = build(spec, "data.sources"), {}
    for file in ("captions.csv", "tok.json"):
        (tmp_path / file).unlink()
    for split in ("train", "test"):
        made = tfds.make(str(folder), split=split)
        assert made.vocabulary.fingerprint == of_words(words).fingerprint
        assert made.vocabulary.hash in made.digest
        fields = made.read(np.arange(made.num_examples))
        found |= {made.name(i): [fields[f][i] for f in fields] for i in range(made.num_examples)}
        names = {made.name(i) for i in range(made.num_examples)}
        assert len({"0.png", "0.png#1"} & names) in (0, 2), "captions of an image stay together"
    assert found.keys() == {"0.png#1", *(f"{i}.png" for i in range(6))}
    exact = source.read(np.arange(7))
    for i in range(7):
        image, text, valid = found[source.name(i)]
        np.testing.assert_array_equal(image.pixels(), exact["image"][i].pixels())
        np.testing.assert_array_equal(text, exact["text"][i])
        np.testing.assert_array_equal(valid, exact["text_valid"][i])
        assert (text.dtype, valid.dtype) == (np.int32, np.bool_)
    data = make_data(
        train=f"tfds({str(folder)!r})",
        batch_size=3,
        train_transform="",
        eval_transform="",
        fields=("text", "text_valid"),
    )
    batch = next(data.train(0))
    assert {k: v.shape for k, v in batch.items()} == {
        "image": (3, 4, 5, 3),
        "text": (3, 5),
        "text_valid": (3, 5),
    }
    (folder / "vocabulary.json").write_text("{}")
    with pytest.raises(UserError, match="vocabulary.json is no tokenizer.json"):
        tfds.make(str(folder))


@pytest.fixture
def captioned(tmp_path):
    """The spec of twelve images with three captions each, of which one cannot be read."""
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.new("RGB", (5, 4), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images" / "7.png").write_bytes(b"no image")
    rows = [f"{i}.png,{kind}" for kind in ("one", "two", "three") for i in range(12)]
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *rows]))
    of_words(["one", "two", "three"]).save(tmp_path / "tok.json")
    return (
        f"captioned({str(tmp_path / 'images')!r}, captions={str(tmp_path / 'captions.csv')!r}, "
        f"tokenizer={str(tmp_path / 'tok.json')!r}, length=5, several=each)"
    )


def test_groups_are_packed(captioned, tmp_path, monkeypatch):
    """In several files, also by a run that was stopped after some: `held_out` splits no image."""
    options = dict(name="set", held_out=0.3, shard_megabytes=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_reports", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            prepare(captioned, tmp_path / "out", **options)
    folder = prepare(captioned, tmp_path / "out", **options).folder
    assert len([*folder.glob("*-train.array_record-*")]) > 1
    images_of = lambda source: [
        source.name(i).partition("#")[0] for i in range(source.num_examples)
    ]
    seen = {}
    for split in ("train", "test", "train[1:50%]", "train[50%:]+test"):
        source = tfds.make(str(folder), split=split)
        groups, images = source.groups(), images_of(source)
        assert groups.dtype == np.int32 and len(groups) == source.num_examples
        assert [int(source.group(i)) for i in range(len(groups))] == groups.tolist()
        for image, group in zip(images, groups, strict=True):
            assert seen.setdefault(image, group) == group
    assert len({*seen.values()}) == len(seen) == 11
    train, val = hold_out(tfds.make(str(folder)), 0.4)
    assert train.num_examples and val.num_examples and not {*images_of(train)} & {*images_of(val)}
    again = prepare(f"tfds({str(folder)!r})", tmp_path / "again", name="set", held_out=0.4).folder
    found = [{*images_of(tfds.make(str(again), split=split))} for split in ("train", "test")]
    assert all(found) and not found[0] & found[1]


def test_groups_that_cannot_be_read_or_were_not_packed(captioned, tmp_path):
    folder = prepare(captioned, tmp_path / "out", name="set").folder
    file = folder / "groups.npz"
    with np.load(file) as arrays:
        (name,), (rows,) = arrays.files, arrays.values()
    for damage in (
        lambda: file.write_bytes(file.read_bytes()[:-9]),
        lambda: np.savez(file, **{name: rows[1:]}),
        lambda: np.savez(file, other=rows),
        lambda: file.write_bytes(b""),
    ):
        damage()
        with pytest.raises(UserError, match=r"cannot read .*groups.npz \(.*\): prepare the set"):
            tfds.make(str(folder))
    file.unlink()
    assert tfds.make(str(folder)).groups() is None
    origin = folder / "source.json"  # as of versions that packed no groups
    old = {key: value for key, value in json.loads(origin.read_text()).items() if key != "groups"}
    origin.write_text(json.dumps(old))
    with pytest.raises(UserError, match="groups: None there, 12 now.*choose another name"):
        prepare(captioned, tmp_path / "out", name="set")


def test_slices_of_a_packed_study_stay_together(study, tmp_path):
    made = prepare(f"dicom({str(study)!r}, window=(500, 3000))", tmp_path / "out", name="study")
    parts = hold_out(tfds.make(str(made.folder), channels=1), 0.3)
    files = [{p.name(i).partition("[")[0] for i in range(p.num_examples)} for p in parts]
    assert len(files[0] | files[1]) == 8 and not files[0] & files[1]


def test_mistakes(study, tmp_path, capsys):
    np.save(tmp_path / "five.npy", np.zeros((2, 3, 4, 5), np.uint8))
    np.save(tmp_path / "volumes.npy", np.zeros((5, 2, 3, 4), np.uint8))
    np.savez(tmp_path / "text.npz", text=np.zeros((5, 2), int))
    spec = f"dicom({str(study)!r}, window=(0, 9))"
    cases = [
        ("dicoms('x')", (), "dicoms"),
        ("dicom('x', windows=(0, 9))", (), "there is no 'windows': did you mean 'window'?"),
        (f"dicom({str(tmp_path / 'nothing')!r})", (), "there is no folder"),
        (spec, ("--channels", 3), "channels 3: images of dicom"),
        (spec, ("--beam", "runner=DirectRunner"), "Beam reads folders, and dicom"),
        (f"array_file({str(tmp_path / 'five.npy')!r})", (), "have 5 channels, and a prepared set"),
        (f"array_file({str(tmp_path / 'volumes.npy')!r}, rank=3)", (), "has (2, 3, 4, 1) of uint8"),
        (f"array_file({str(tmp_path / 'text.npz')!r}, fields=(text,))", (), "this source has none"),
        ("fashion_scenes(split=test)", (), "also has box, segmentation, value; leave"),
        (tmp_path / "nothing", (), "there is no folder"),
    ]
    for images, more, message in cases:
        options = ("--out", tmp_path / "out", "--name", "set", *more)
        found = mistake(capsys, "prepare", "--images", images, *options)
        if "Beam" not in message or "not installed" not in found:
            assert message in found
    assert not (tmp_path / "out").exists()


def test_a_source_without_an_image_that_can_be_read(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (8, 6)).save(images / "a.png")
    with pytest.raises(UserError, match=r"none of the first 1 images .* a\.png: 8 x 6 pixels are"):
        prepare(f"folder({str(images)!r}, max_pixels=10)", tmp_path / "out", name="none")
