"""The sources `hf` and `tar`: Arrow, Parquet and tar files of the same images and labels."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mae_jax.data.examples import SourceExamples, packed
from mae_jax.data.images import BadImage, Encoded
from mae_jax.data.sources import hf, tar
from mae_jax.spec import build
from mae_jax.types import UserError

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

COUNT = 10
NAMES = ["eel", "dog", "cat"]
LABELS = [i % 3 for i in range(COUNT)]


def encoded(number, kind="png"):
    """The bytes of an image of one color."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 2 * number, 0)).save(file, kind)
    return file.getvalue()


def rows_of(first, count):
    """Rows as a hub has them."""
    return [
        dict(
            image=dict(bytes=encoded(i), path=f"{i}.png"),
            label=LABELS[i],
            kinds=[0, LABELS[i]] if i != 1 else None,
            text=f"t{i % 2}",
            size=i / 2,
        )
        for i in range(first, first + count)
    ]


def table_of(first, count, **changes):
    """The same with the metadata of `datasets`."""
    names = {"names": NAMES, "_type": "ClassLabel"}
    features = {"label": names, "kinds": {"feature": names, "_type": "Sequence"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = [row | changes for row in rows_of(first, count)]
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def save_arrow(table, path):
    """As `save_to_disk` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The layouts of a hub and of `save_to_disk`."""
    root = tmp_path_factory.mktemp("hub")
    (root / "hub" / "data").mkdir(parents=True)
    for shard, first in enumerate((0, 4)):
        path = root / "hub" / "data" / f"train-{shard:05d}-of-00002-ab12.parquet"
        parquet.write_table(table_of(first, 4 + 2 * shard), path, row_group_size=3)
        save_arrow(
            table_of(first, 4 + 2 * shard), root / "saved" / "train" / f"data-0000{shard}.arrow"
        )
    parquet.write_table(table_of(0, 2), root / "hub" / "data" / "test-00000-of-00001.parquet")
    save_arrow(table_of(0, 2), root / "saved" / "test" / "data-00000-of-00001.arrow")
    return root


PLACES = ["hub", "saved", "saved/train", "cached"]


@pytest.fixture(params=PLACES)
def source(request, root):
    """The training split of each layout."""
    options = dict(label="label", labels="kinds", value="size", group="text")
    if request.param == "cached":
        return hf.make(str(root / "hub"), cache=str(root / "cache"), **options)
    return hf.make(str(root / request.param), **options)


def colors(source):
    """Red of each image."""
    images = source.read(np.arange(source.num_examples))["image"]
    return [int(image.pixels()[0, 0, 0]) for image in images]


def test_every_layout_has_the_same_rows(source, root):
    assert colors(source) == list(range(COUNT))
    rows = source.read(np.array([9, 1]))
    assert [image.data for image in rows["image"]] == [encoded(9), encoded(1)]
    assert source.names["label"] == tuple(NAMES) == source.names["labels"]
    assert source.labels().tolist() == LABELS
    assert rows["labels"].tolist() == [[1, 0, 0], [255] * 3]
    assert rows["value"].tolist() == [4.5, 0.5] and source.group(1) == "t1"
    assert source.name(3) == "[3]" and len({source.digest}) == 1
    assert any("row group" in note for note in source.notes) == (
        type(source.images).__name__ == "ParquetFiles"
    )


def test_splits(root):
    for name in ("hub", "saved"):
        assert hf.make(str(root / name), split="test").num_examples == 2
        with pytest.raises(UserError, match="of split 'val' in .*: the splits are test, train"):
            hf.make(str(root / name), split="val")
    file = root / "hub" / "data" / "test-00000-of-00001.parquet"
    assert colors(hf.make(str(file), label="")) == [0, 1]
    with pytest.raises(UserError, match="has no column 'lable': did you mean 'label'"):
        hf.make(str(file), label="lable")
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="it has none at all"):
        hf.make(str(root / "empty"))


def test_row_groups_are_kept_a_while(root, monkeypatch):
    source = hf.make(str(root / "hub"))
    images, read = source.images, []
    one = parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        parquet.ParquetFile,
        "read_row_group",
        lambda file, group, **options: read.append(group) or one(file, group, **options),
    )
    images._kept.clear()
    for index in (0, 1, 2, 3, 0, 4, 9, 5):
        source.read(np.array([index]))
    assert len(read) == 4, "rows 0 to 2, 3, 4 to 6 and 7 to 9"


def test_unlabeled_and_other_rows(root, tmp_path):
    """-1 is unknown, images may be files beside the table, classes may be texts."""
    (tmp_path / "x.png").write_bytes(encoded(77))
    image = dict(bytes=None, path="x.png")
    parquet.write_table(table_of(0, 2, label=-1, image=image), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="'label' of row 1 .and of 1 more. is empty or NaN"):
        hf.make(str(tmp_path))
    source = hf.make(str(tmp_path), label="text")
    assert colors(source) == [77, 77] and source.class_names == ("t0", "t1")
    with pytest.raises(UserError, match="has no rows to use: left out 2 rows without label"):
        hf.make(str(tmp_path), missing_labels="skip")
    parquet.write_table(table_of(0, 1, image=dict(bytes=None, path=None)), tmp_path / "a.parquet")
    with pytest.raises(BadImage, match="neither bytes nor a path"):
        hf.make(str(tmp_path / "a.parquet")).read(np.array([0]))
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="hf: cannot read"):
        hf.make(str(tmp_path / "b.parquet"))


def save_tar(path, members):
    """A tar file of (name, bytes)."""
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two tar files of five examples each."""
    root = tmp_path_factory.mktemp("tar")
    for shard in range(2):
        members = []
        for i in range(5 * shard, 5 * shard + 5):
            facts = dict(kind=NAMES[LABELS[i]], size=i, tags=["a", "b"][: 1 + i % 2])
            members += [
                (f"./v.1/{i:03d}.cls", f"{LABELS[i]}\n".encode()),
                (f"./v.1/{i:03d}.jpg", encoded(20 * i, "jpeg")),
                (f"./v.1/{i:03d}.json", json.dumps(facts).encode()),
            ]
        save_tar(root / f"part-{shard:02d}.tar", members)
    return root


def test_tar_files(shards):
    source = tar.make(str(shards / "part-{00..01}.tar"))
    assert source.num_examples == COUNT and source.labels().tolist() == LABELS
    assert source.class_names == ("0", "1", "2") and source.name(6) == "part-01/v.1/006"
    data = source.read(np.array([6, 0]))["image"]
    assert [image.data for image in data] == [encoded(120, "jpeg"), encoded(0, "jpeg")]
    named = tar.make(str(shards / "*.tar"), classes=tuple(NAMES))
    assert named.class_names == tuple(NAMES) and named.labels().tolist() == LABELS
    keyed = tar.make(str(shards), label="json.kind", labels="json.tags", value="json.size")
    assert keyed.class_names == ("cat", "dog", "eel")
    assert [keyed.class_names[i] for i in keyed.labels()] == [NAMES[i] for i in LABELS]
    rows = keyed.read(np.array([3, 4]))
    assert rows["labels"].tolist() == [[1, 1], [1, 0]] and rows["value"].tolist() == [3, 4]
    assert len({source.digest, named.digest, keyed.digest}) == 3


def test_mistakes_with_tar_files(shards, tmp_path):
    for options, message in (
        (
            dict(path=str(shards), label="json.kin"),
            "no column 'json.kin': did you mean 'json.kind'",
        ),
        (dict(path=str(shards), label="txt"), "no column 'txt': its columns are cls"),
        (dict(path=str(shards), image="webp"), "no images in .*: looked for .webp"),
        (dict(path=str(shards / "x*.tar")), "no file matches"),
        (dict(path=str(shards / "part-{00..02}.tar")), "there is no file '.*part-02.tar'"),
    ):
        with pytest.raises(UserError, match=message):
            tar.make(**options)
    whole = (shards / "part-00.tar").read_bytes()
    for name, data in (("cut.tar", whole[:3000]), ("zip.tar", b"\x1f\x8b" + bytes(600))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="cannot read .*it must be an uncompressed tar file"):
            tar.make(str(tmp_path / name))
    odd, label = str(tmp_path / "odd.tar"), dict(label="json.kind")
    for members, options, message in (
        ([("1.json", b"[1]")], label, "'1.json' in .*odd.tar' should hold an object"),
        ([("1.json", b"{")], label, "'1.json' in .*odd.tar' is no JSON in UTF-8: Expecting"),
        ([("1.json", b'{"kind": "\xe9"}')], label, "'1.json' in .* is no JSON in UTF-8: 'utf-8'"),
        ([("1.txt", b"caf\xe9")], dict(captions="txt"), "'1.txt' in .*odd.tar' is not UTF-8"),
        ([("1.txt", b"a"), ("1.txt", b"b")], dict(captions="txt"), "two files '1.txt' in one exam"),
        ([("1.txt", b"a"), ("1.JPG", b"b")], dict(captions="txt"), "two files '1.JPG' in one exam"),
    ):
        save_tar(tmp_path / "odd.tar", [("1.jpg", encoded(1)), *members])
        with pytest.raises(UserError, match=message) as error:
            tar.make(odd, **options)
        assert "uncompressed" not in str(error.value) and "\n" not in str(error.value)
    marked = "\ufeffa cat".encode()
    save_tar(tmp_path / "odd.tar", [("1.jpg", encoded(1)), ("1.txt", marked), ("1.png", b"")])
    assert [*tar.make(odd, captions="txt").captions()] == [["a cat"]], "no byte-order mark"


def test_encoded_images_are_packed_unchanged(shards):
    """As `prepare` writes them, unless an option changes the pixels."""
    data = encoded(50, "jpeg")
    assert packed(Encoded(data)) == data and packed(Encoded(data, 1)) == data
    for image in (Encoded(data, window=(0, 9)), Encoded(data, background=(0, 0, 0))):
        assert packed(image)[:4] == b"\x89PNG"
    assert packed(np.zeros((2, 2, 1), np.uint8))[:4] == b"\x89PNG"
    text = f"tar({str(shards)!r})"
    examples = SourceExamples(text, build(text, "data.sources"), None)
    sizes = [len(encoded(20 * i, "jpeg")) for i in range(COUNT)]
    assert min(sizes) <= examples.sizes[0] <= max(sizes) and examples.channels == 3


@pytest.mark.thorough
def test_tar_files_are_prepared(shards, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from mae_jax.data.prepare import prepare
    from mae_jax.data.sources import tfds

    made = prepare(f"tar({str(shards)!r})", tmp_path, name="packed")
    found = tfds.make(str(made.folder))
    assert found.class_names == ("0", "1", "2") and found.num_examples == COUNT
    rows = found.read(np.arange(COUNT))
    pairs = {
        (image.data, int(label)) for image, label in zip(rows["image"], rows["label"], strict=True)
    }
    assert pairs == {(encoded(20 * i, "jpeg"), LABELS[i]) for i in range(COUNT)}
