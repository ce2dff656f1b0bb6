"""Folders to ArrayRecord: what is written, what is left out, and going on after an interruption."""

import errno
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import prepare as module
from mae_jax.data.prepare import describe, prepare
from mae_jax.data.shards import Shard
from mae_jax.data.sources import folder, tfds
from mae_jax.data.statistics import Tally, histogram
from mae_jax.types import UserError

tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

CLASSES = ("cat", "dog", "eel")
SHARD = 2 / 1024  # in MB: a few images


@pytest.fixture
def images(tmp_path) -> Path:
    """Thirty images of three classes."""
    root = tmp_path / "images"
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 256, (6 + i % 3, 8 + i % 5, 3), np.uint8)
        path = root / CLASSES[i % 3] / f"{i:02d}.{('jpg', 'png')[i % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def spoil(images: Path) -> dict[str, str]:
    """Adds two files that are no images, and one that is cut off; returns why."""
    (images / "cat" / "empty.png").write_bytes(b"")
    (images / "dog" / "text.jpg").write_text("hello")
    whole = (images / "eel" / "02.jpg").read_bytes()
    (images / "eel" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return {"cat/empty.png": "is empty", "dog/text.jpg": "hello", "eel/cut.jpg": "runcated"}


def examples(path: Path, split: str = "train") -> dict[str, tuple[bytes, int]]:
    """Name -> file and label of all that a prepared set holds."""
    source = tfds.make(str(path), split=split)
    rows = source.read(np.arange(source.num_examples))
    labels = rows.get("label", [-1] * source.num_examples)
    names = [source.name(i) for i in range(source.num_examples)]
    return {
        name: (image.data, label)
        for name, image, label in zip(names, rows["image"], labels, strict=True)
    }


def in_folder(images: Path) -> dict[str, tuple[bytes, int]]:
    """The same of a folder."""
    source = folder.make(str(images))
    labels = source.read(np.arange(source.num_examples))["label"]
    names = [source.name(i) for i in range(source.num_examples)]
    return {n: ((images / n).read_bytes(), label) for n, label in zip(names, labels, strict=True)}


def looked_at(monkeypatch, stop_after: float = float("inf"), how=KeyboardInterrupt) -> list[str]:
    """Collects the names of the images that are decoded from now on; then stops."""
    seen, look = [], Shard._measure

    def _measure(self, name):
        if len(seen) >= stop_after:
            raise how()
        seen.append(name)
        return look(self, name)

    monkeypatch.setattr(Shard, "_measure", _measure)
    return seen


def test_the_set_holds_the_files_of_the_folder(images, tmp_path):
    made = prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    assert made.folder == tmp_path / "out" / "pets" / "1.0.0" and made.unreadable == 0
    assert [path.name for path in (tmp_path / "out" / "pets").iterdir()] == ["1.0.0"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pets"]
    assert len(list(made.folder.glob("pets-train.array_record-*"))) > 3
    assert examples(made.folder) == in_folder(images)
    assert tfds.make(str(made.folder)).class_names == CLASSES
    assert tfds.make("pets", data_dir=str(tmp_path / "out")).num_examples == 30


def test_neighbors_are_of_all_classes(images, tmp_path):
    made = prepare(images, tmp_path / "out", name="pets")
    labels = [label for _, label in examples(made.folder).values()]
    assert labels != sorted(labels) and set(labels[:8]) == {0, 1, 2}


def test_without_classes(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for name in (b"a.png", b"\xff\xe9.png", "ö.png".encode()):  # not all names are UTF-8
        Image.new("L", (4, 3), len(name)).save(os.path.join(os.fsencode(root), name), "png")
    made = prepare(root, tmp_path / "out", name="gray", channels=1)
    source = tfds.make(str(made.folder), channels=1)
    assert source.class_names == () and source.read(np.array([0])).keys() == {"image"}
    assert sorted(examples(made.folder)) == sorted(os.listdir(root))
    assert np.shape(made.statistics["train"]["mean"]) == (1,)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_the_pixels(images, tmp_path, channels):
    spoil(images)
    made = prepare(images, tmp_path / "out", name="pets", channels=channels, shard_megabytes=SHARD)
    found = made.statistics["train"]
    source = tfds.make(str(made.folder), channels=channels)
    decoded = [image.pixels() for image in source.read(np.arange(30))["image"]]
    pixels = np.concatenate([image.reshape(-1, channels) for image in decoded]) / 255
    np.testing.assert_allclose(found["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["std"], pixels.std(0), rtol=1e-12)
    for axis, side in enumerate(("height", "width")):
        sides = [image.shape[axis] for image in decoded]
        assert found[side] == {"min": min(sides), "median": np.median(sides), "max": max(sides)}
    assert found["classes"] == dict.fromkeys(CLASSES, 10)
    assert found["images"] == 30 and found["unreadable"] == 3
    assert found["bytes"] == sum(len(data) for data, _ in examples(made.folder).values())


def test_the_median_of_an_even_number_is_between_two():
    tally = Tally(1)
    for height in (2, 9, 4, 5):
        tally.add(1, (height, 1), histogram(np.zeros((height, 1, 1), np.uint8)), -1)
    assert tally.summary(())["height"] == {"min": 2, "median": 4.5, "max": 9}
    again = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert again.summary(()) == tally.summary(())
    assert Tally.total([tally, again]).heights == {2: 2, 9: 2, 4: 2, 5: 2}


def test_images_that_cannot_be_read_are_left_out_and_listed(images, tmp_path):
    good, reasons = in_folder(images), spoil(images)
    made = prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    assert examples(made.folder) == good and made.unreadable == 3
    listed = json.loads((made.folder / "unreadable.json").read_text())
    assert listed.keys() == reasons.keys()
    assert all(reason in listed[name] for name, reason in reasons.items()), listed
    assert "left out 3 that cannot be read" in describe(made)


def test_a_shard_without_any_image(images, tmp_path):
    for i in range(40):
        (images / "cat" / f"empty{i}.png").write_bytes(b"x" * 2000)
    made = prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    info = tensorflow_datasets.builder_from_directory(made.folder).info
    assert 0 in info.splits["train"].shard_lengths
    assert len(examples(made.folder)) == 30


def test_no_image_at_all(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("hello")
    with pytest.raises(UserError, match="no image of train can be read; the first is a.png: no"):
        prepare(tmp_path / "images", tmp_path / "out", name="pets")


def test_what_is_held_out_depends_on_the_names_only(images, tmp_path):
    both = [prepare(images, tmp_path / out, name="pets", held_out=0.3) for out in "ab"]
    train, test = (examples(both[0].folder, split) for split in ("train", "test"))
    assert {**train, **test} == in_folder(images) and not train.keys() & test.keys()
    assert 3 <= len(test) <= 15
    assert list(examples(both[1].folder, "test")) == list(test)
    assert both[0].statistics == both[1].statistics
    assert both[0].statistics["test"]["images"] == len(test)
    more = examples(prepare(images, tmp_path / "c", name="pets", held_out=0.6).folder, "test")
    assert test.keys() < more.keys()
    (images / "cat" / "new.png").write_bytes((images / "dog" / "01.png").read_bytes())
    grown = examples(prepare(images, tmp_path / "d", name="pets", held_out=0.3).folder, "test")
    assert grown.keys() - {"cat/new.png"} == test.keys()


@pytest.mark.parametrize("after", [0, 3, 14, 29])
def test_a_run_that_was_stopped_goes_on(images, tmp_path, monkeypatch, after):
    spoil(images)
    whole = prepare(images, tmp_path / "whole", name="pets", held_out=0.3, shard_megabytes=SHARD)
    options = dict(name="pets", held_out=0.3, shard_megabytes=SHARD, workers=1)
    with monkeypatch.context() as patch:
        first = looked_at(patch, after)
        with pytest.raises(KeyboardInterrupt):
            prepare(images, tmp_path / "out", **options)
    with monkeypatch.context() as patch:
        second = looked_at(patch)
        made = prepare(images, tmp_path / "out", **options)
    again = len(first) + len(second) - 33
    assert 0 <= again <= 8, "more than the shard it was at, and what it had read ahead"
    assert made.statistics == whole.statistics and made.unreadable == 3
    for split in ("train", "test"):
        assert examples(made.folder, split) == examples(whole.folder, split)
        assert list(examples(made.folder, split)) == list(examples(whole.folder, split))
    assert [path.name for path in made.folder.parent.iterdir()] == ["1.0.0"]


def test_a_run_that_was_killed_goes_on(images, tmp_path, monkeypatch):
    code = (
        "import os, sys\n"
        "from mae_jax.data.prepare import prepare\n"
        "from mae_jax.data.shards import Shard\n"
        "look, seen = Shard._measure, []\n"
        "def stop(self, name):\n"
        "    seen.append(name)\n"
        f"    if len(seen) > 20: os.kill(os.getpid(), {signal.SIGKILL})\n"
        "    return look(self, name)\n"
        "Shard._measure = stop\n"
        f"prepare(sys.argv[1], sys.argv[2], name='pets', shard_megabytes={SHARD}, workers=1)\n"
    )
    command = [sys.executable, "-c", code, str(images), str(tmp_path / "out")]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    seen = looked_at(monkeypatch)
    made = prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    assert len(seen) <= 20 and examples(made.folder) == in_folder(images)
    assert [path.name for path in made.folder.parent.iterdir()] == ["1.0.0"]


def test_a_run_that_was_killed_while_it_moved_the_shards(images, tmp_path, monkeypatch):
    from mae_jax.data import shards

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_reports", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    root = tmp_path / "out" / "pets"
    (root / "incomplete.ABCDEF_1.0.0").mkdir()
    for shard in sorted((root / "unfinished").glob("*.array_record-*[0-9]"))[:2]:
        shard.rename(root / "incomplete.ABCDEF_1.0.0" / shard.name)
    (root / "unfinished" / "0123.tmp").write_bytes(b"half a shard")
    seen = looked_at(monkeypatch)
    made = prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    assert not seen and examples(made.folder) == in_folder(images)
    assert [path.name for path in root.iterdir()] == ["1.0.0"]


def test_a_finished_set_is_left_alone(images, tmp_path, monkeypatch):
    first = prepare(images, tmp_path / "out", name="pets")
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    seen = looked_at(monkeypatch)
    again = prepare(images, tmp_path / "out", name="pets")
    assert again == first._replace(found=True) and not seen
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert "is complete: 30 train images, as it was" in describe(again)
    assert f"--config.data.train=\"tfds('{first.folder}', split=train)\"" in describe(again)


@pytest.mark.parametrize("stop", [True, False])
def test_other_images_or_arguments(images, tmp_path, monkeypatch, stop):
    options = dict(name="pets", shard_megabytes=SHARD, workers=1)
    with monkeypatch.context() as patch:
        looked_at(patch, 20 if stop else 99)
        with pytest.raises(KeyboardInterrupt) if stop else monkeypatch.context():
            prepare(images, tmp_path / "out", **options)
    with pytest.raises(UserError, match="held_out: 0.0 there, 0.5 now.*choose another name or out"):
        prepare(images, tmp_path / "out", **options, held_out=0.5)
    with pytest.raises(UserError, match="channels: 3 there, 1 now"):
        prepare(images, tmp_path / "out", **options, channels=1)
    with (images / "cat" / "00.jpg").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match="listing: "):
        prepare(images, tmp_path / "out", **options)
    (images / "cat" / "00.jpg").unlink()
    with pytest.raises(UserError, match="images: 30 there, 29 now"):
        prepare(images, tmp_path / "out", **options)


def test_a_set_of_somebody_else(images, tmp_path):
    (tmp_path / "out" / "pets" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by prepare"):
        prepare(images, tmp_path / "out", name="pets")


def test_one_run_at_a_time(images, tmp_path):
    (tmp_path / "out" / "pets" / "unfinished").mkdir(parents=True)
    with (tmp_path / "out" / "pets" / "unfinished" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing"):
            prepare(images, tmp_path / "out", name="pets")
    prepare(images, tmp_path / "out", name="pets")


def test_a_full_disk(images, tmp_path, monkeypatch):
    from tensorflow_datasets.core import writer

    write, calls = writer.ExampleWriter.write, itertools.count()

    def fill(self, path, examples):
        if next(calls) == 2:
            Path(path).write_bytes(b"half a shard")
            raise RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}; writing {path}")
        write(self, path, examples)

    monkeypatch.setattr(writer.ExampleWriter, "write", fill)
    with pytest.raises(OSError) as caught:
        prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    assert caught.value.errno == errno.ENOSPC and "-00002-of-" in caught.value.filename
    assert not list((tmp_path / "out" / "pets" / "unfinished").glob("*.tmp"))
    made = prepare(images, tmp_path / "out", name="pets", shard_megabytes=SHARD)
    assert examples(made.folder) == in_folder(images)


def test_a_file_that_cannot_be_read_stops_it(images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no"))
    )
    with pytest.raises(PermissionError):
        prepare(images, tmp_path / "out", name="pets")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "My Pets"}, "name 'My Pets': use lower-case letters"),
        ({"held_out": 1.0}, "held_out 1.0"),
        ({"held_out": -0.1}, "held_out -0.1"),
        ({"held_out": 1e-9}, "held_out 1e-09 of 30 images leaves none for test"),
        ({"held_out": 1 - 1e-9}, "leaves none for train"),
        ({"shard_megabytes": 0}, "shard_megabytes 0"),
        ({"workers": -1}, "workers -1"),
        ({"channels": 2}, "channels 2"),
    ],
)
def test_mistakes_in_the_arguments(images, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare(images, tmp_path / "out", **{"name": "pets", **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["tensorflow_datasets", "array_record", "apache_beam"])
def test_what_is_not_installed(images, tmp_path, monkeypatch, missing):
    for name in ("tensorflow_datasets", "array_record", "apache_beam"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else sys)
    with pytest.raises(UserError, match=f"pip install {missing.replace('_', '-')}"):
        prepare(images, tmp_path / "out", name="pets", beam="runner=DirectRunner")


def test_progress_where_there_is_no_terminal(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_PAUSE", 0)
    prepare(images, tmp_path / "out", name="pets")
    captured = capsys.readouterr()
    assert "30/30 images" in captured.err and not captured.out


def test_beam_makes_the_same_set(images, tmp_path):
    pytest.importorskip("apache_beam")
    spoil(images)
    options = dict(name="pets", held_out=0.2, shard_megabytes=SHARD / 3)
    alone = prepare(images, tmp_path / "alone", **options)
    beam = prepare(images, tmp_path / "beam", **options, beam="runner=DirectRunner")
    assert beam.statistics == alone.statistics and beam.unreadable == 3
    infos = [tensorflow_datasets.builder_from_directory(m.folder).info for m in (alone, beam)]
    lengths = [list(info.splits["train"].shard_lengths) for info in infos]
    assert lengths[0] == lengths[1] and len(lengths[0]) > 10 and len(set(lengths[0])) > 1
    for split in ("train", "test"):
        one, other = (list(examples(made.folder, split).items()) for made in (alone, beam))
        assert one == other
    assert [path.name for path in beam.folder.parent.iterdir()] == ["1.0.0"]


def test_beam_without_such_a_runner(images, tmp_path):
    pytest.importorskip("apache_beam")
    with pytest.raises(UserError, match="Beam cannot run with 'runner=Nowhere'"):
        prepare(images, tmp_path / "out", name="pets", beam="runner=Nowhere")
