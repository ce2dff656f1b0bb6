"""The source `table`: the same labels from every format, and a line for every mistake."""

import csv
import hashlib
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import classes, listed, make_data
from mae_jax.data.compact import Texts
from mae_jax.data.sources import table
from mae_jax.spec import build
from mae_jax.types import UserError

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

ROWS = [
    dict(file="a/0.png", label=10, kinds="x|z", size=1.5, patient="p2", part="train", w=1),
    dict(file="a/1.png", label=2, kinds="y", size=-2.0, patient="p1", part="train", w=0.5),
    dict(file="b 1.png", label=2, kinds="", size=3e-7, patient="p2", part="test", w=2),
    dict(file="ü.png", label=10, kinds="z", size=0, patient="ä", part="train", w=0),
]
OPTIONS = dict(label="label", labels="kinds", value="size", group="patient", weight="w")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the images of ROWS."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "a").mkdir()
    for number, row in enumerate(ROWS):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / row["file"])
    return folder


def delimited(rows, delimiter):
    """The rows as a table with a header."""
    lines = [delimiter.join(rows[0])]
    for row in rows:
        cells = [str(cell) for cell in row.values()]
        lines.append(delimiter.join(f'"{c}"' if delimiter in c else c for c in cells))
    return "\r\n".join(lines) + "\r\n"


def semicolons(rows):
    """As a German Excel writes it: decimal commas, backslashes and a byte-order mark."""
    rows = [
        row | dict(size=str(row["size"]).replace(".", ","), file=row["file"].replace("/", "\\"))
        for row in rows
    ]
    return "\ufeff" + delimited(rows, ";")


TEXTS = {
    "comma.csv": delimited(ROWS, ",").encode(),
    "tab.tsv": delimited(ROWS, "\t").encode(),
    "excel.csv": semicolons(ROWS).encode(),
    "unicode.txt": delimited(ROWS, "\t").encode("utf-16"),
    "lines.jsonl": b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode() + b"\n\n",
    "spaces.csv": delimited(ROWS, ",").replace(",", " , ").encode(),
}
"""Name -> a table of ROWS."""


@pytest.fixture(params=[*TEXTS, "lists.jsonl", "table.parquet", "lists.parquet"])
def path(request, root):
    """A table of ROWS in some format."""
    file, name = root / request.param, request.param
    lists = [row | dict(kinds=row["kinds"].split("|") if row["kinds"] else None) for row in ROWS]
    if name in TEXTS:
        file.write_bytes(TEXTS[name])
    elif name == "lists.jsonl":
        file.write_text("\n".join(map(json.dumps, lists)))
    else:
        parquet.write_table(pa.Table.from_pylist(lists if "lists" in name else ROWS), file)
    return file


def test_every_format_means_the_same(path):
    source = table.make(str(path), **OPTIONS)
    rows = source.read(np.arange(4))
    assert [int(image.pixels()[0, 0, 0]) for image in rows["image"]] == [0, 1, 2, 3]
    assert [source.name(i) for i in range(4)] == [row["file"] for row in ROWS]
    assert source.names == {"label": ("2", "10"), "labels": ("x", "y", "z"), "value": ("size",)}
    expected = {
        "label": np.array([1, 0, 0, 1], np.int32),
        "labels": np.array([[1, 0, 1], [0, 1, 0], [255] * 3, [0, 0, 1]], np.uint8),
        "value": np.array([1.5, -2, 3e-7, 0], np.float32),
        "group": np.array([0, 1, 0, 2], np.int32),
        "weight": np.array([1, 0.5, 2, 0], np.float32),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(rows[name], values)
        assert rows[name].dtype == values.dtype
    assert [*source.group_names] == ["p2", "p1", "ä"] and source.group(2) == "p2"
    assert source.digest == table.make(str(path), **OPTIONS).digest
    changed = table.make(str(path), **OPTIONS | dict(weight=""))
    assert source.digest != changed.digest
    part = table.make(str(path), split=("part", "train"))
    assert [part.name(i) for i in range(3)] == ["a/0.png", "a/1.png", "ü.png"]
    assert part.names == {"label": ("2", "10")} and part.labels().tolist() == [1, 0, 1]
    assert part.group(0) == "a/0.png" and part.groups() is None


def test_batches_have_the_fields(root):
    (root / "t.csv").write_bytes(TEXTS["comma.csv"])
    options = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
    data = make_data(
        train=f"table({str(root / 't.csv')!r}, {options})",
        batch_size=4,
        train_transform="",
        eval_transform="",
        fields=("label", "labels", "value", "weight", "group"),
        workers=1,
    )
    batch = next(data.train(0))
    shapes = {name: (rows.dtype.name, rows.shape) for name, rows in batch.items()}
    assert shapes == {
        "image": ("uint8", (4, 4, 4, 3)),
        "label": ("int32", (4,)),
        "labels": ("uint8", (4, 3)),
        "value": ("float32", (4,)),
        "weight": ("float32", (4,)),
        "group": ("int32", (4,)),
    }
    assert sorted(batch["weight"].tolist()) == [0, 0.5, 1, 2]
    assert "3 classes of labels: x 1, y 1, z 2; 3 labels unknown" in " ".join(data.notes())


def write(root, columns, name="t.csv"):
    """A table of images named 0, 1, ... in the column 'file', unless there is one."""
    rows = len(next(iter(columns.values())))
    columns = dict(file=[row["file"] for row in ROWS[:rows]]) | columns
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return str(root / name)


def test_one_column_a_class(root):
    path = write(root, {"cat": ["1", "0", ""], "dog": ["1.0", "-1", "True"], "w": [1, 2, 3]})
    source = table.make(path, labels=("dog", "cat"), value=("w", "w"))
    rows = source.read(np.arange(3))
    assert rows["labels"].tolist() == [[1, 1], [255, 0], [1, 255]]
    assert rows["value"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert source.names == {"labels": ("dog", "cat"), "value": ("w", "w")}


def test_no_class_and_other_separators(root):
    path = write(root, {"kinds": ["b, a", "No finding", ""]})
    read = lambda **options: table.make(path, labels="kinds", separator=",", **options)
    source = read(none="No finding")
    assert source.column("labels").tolist() == [[1, 1], [0, 0], [255, 255]]
    assert source.names["labels"] == ("a", "b")
    source = read(none="", classes=("b", "No finding", "a"))
    assert source.column("labels").tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_ordered_classes(root):
    path = write(root, {"label": ["mild", "none", "mild"]})
    source = table.make(path, order=("none", "mild", "severe"))
    assert source.labels().tolist() == [1, 0, 1] and not source.empty_classes
    assert source.class_names == ("none", "mild", "severe")
    assert "no example of the classes severe" in source.notes
    assert table.make(path, classes=("none", "mild", "severe")).empty_classes == ("severe",)
    grades = write(root, {"label": ["3.0", "1", "3"]})
    assert table.make(grades, order=(1, 2, 3)).labels().tolist() == [2, 0, 2]
    assert table.make(grades, classes=4).class_names == ("0", "1", "2", "3")
    assert table.make(grades).class_names == ("1", "3")


def test_rows_without_labels_or_files_are_left_out_if_asked(root):
    path = write(root, {"label": ["a", "", "NaN", "b"], "size": ["1", "2", "3", "n/a"]})
    source = table.make(path, label="label", value="size", missing_labels="skip")
    assert source.num_examples == 1 and source.class_names == ("a",)
    assert "left out 3 rows without label or size" in source.notes
    path = write(root, {"file": ["no.png", "a/0.png", "a/0.png"], "label": [1, 2, 3]})
    source = table.make(path, missing="skip")
    assert source.class_names == ("2", "3")
    assert source.notes[0] == "left out the missing 1 of 3 files: 'no.png'"
    assert source.notes[1] == "1 file in several rows, each an example: 'a/0.png'"


def test_files_of_large_folders_are_looked_up_at_once(tmp_path, monkeypatch):
    """And where the name in the folder is another, or a link, by itself."""
    (tmp_path / "many").mkdir()
    names = [f"many/{i}.png" for i in range(40)] + ["few/0.png", "gone/1.png"] * 20
    for name in names[:35]:
        (tmp_path / name).touch()
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "0.png").touch()
    looked_up = []
    isfile = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: looked_up.append(path) or isfile(path))
    missing, differ = listed.looked_up(tmp_path, pa.array(names, pa.large_string()))
    assert not differ
    exact = [not (tmp_path / name).exists() for name in names]
    np.testing.assert_array_equal(missing, exact)
    assert len(looked_up) == 5, "those that a list lacks"
    few = [names[0], "many/x.png", "few/0.png"]
    missing, _ = listed.looked_up(tmp_path, pa.array(few, pa.large_string()))
    assert missing.tolist() == [False, True, False]
    for twice in (0, 1):
        paths = pa.array(names[:35] + names[:twice], pa.large_string())
        missing, differ = listed.looked_up(tmp_path, paths)
        assert not missing.any() and differ == (not twice)
        assert len(listed.repeated(paths)) == twice


SIX = [f"a/{i}.png" for i in range(6)]

MISTAKES = [
    ({"lable": [1]}, {}, "t.csv has no column 'label': did you mean 'lable'? its columns are file"),
    ({"x": [1]}, dict(label=""), None),
    ({"x": [1]}, dict(label="zzz"), "no column 'zzz': its columns are file, x"),
    ({"label": ["a", "", "b"]}, {}, "'label' of row 2 is empty or NaN: fill it in, or leave"),
    ({"label": ["nan", "", "b"]}, {}, "'label' of row 1 (and of 1 more) is empty or NaN"),
    ({"label": ["a", "b"]}, dict(classes=("a", "c")), "row 2 is 'b', which is none of the classes"),
    ({"label": ["low"]}, dict(order=("Low", "high")), "is none of the classes: did you mean 'Low'"),
    ({"label": [1.5, 2]}, {}, "'label' holds numbers such as 1.5, not classes: give value='label'"),
    ({"size": ["1", "x"]}, dict(value="size"), "'size' of row 2 is 'x': write a finite number"),
    ({"size": ["1", "inf"]}, dict(value="size"), "'size' of row 2 is 'inf': write a finite number"),
    ({"size": ["NaN", "1"]}, dict(value="size"), "'size' of row 1 is empty or NaN"),
    ({"c": ["2"]}, dict(labels=("c",)), "'c' of row 1 is '2': write 1 or 0, or leave it empty"),
    ({"c": ["a|q"]}, dict(labels="c", classes=("a",)), "'c' of row 1 is 'q', which is none of"),
    ({"w": [1, -1]}, dict(label="", weight="w"), "'w' of row 2 is '-1': weights are numbers, 0 or"),
    ({"w": [0, 0]}, dict(label="", weight="w"), "'w' of all rows is 0: weights are numbers, 0 or"),
    ({"g": ["p", ""]}, dict(label="", group="g"), "'g' of row 2 is empty or NaN"),
    ({"s": ["tr", "te"]}, dict(label="", split=("s", "val")), "has s='val': its values are te, tr"),
    (
        {"file": SIX},
        dict(label=""),
        "missing in {root!r}: 4 of 6 files: 'a/2.png', 'a/3.png', ",
    ),
    ({"file": ["C:\\x\\1.png"]}, dict(label=""), "'C:/x/1.png' begins with a drive of Windows"),
    ({"file": ["a/0.png", ""]}, dict(label=""), "'file' of row 2 is empty: each row needs the"),
    ({"label": ["a"]}, dict(missing="drop"), "missing 'drop' is unknown: choose refuse, skip"),
    ({"label": ["a"]}, dict(order=("a",), classes=1), "leave out classes"),
    ({"label": []}, {}, "has no rows to use"),
    ({"label": ["a"]}, dict(root="nowhere"), "there is no folder 'nowhere'"),
]


@pytest.mark.parametrize(("columns", "options", "message"), MISTAKES)
def test_a_line_for_every_mistake(root, columns, options, message):
    path = write(root, columns)
    if message is None:
        assert table.make(path, **options).names == {}
        return
    with pytest.raises(UserError) as error:
        table.make(path, **options)
    assert message.format(root=str(root)) in str(error.value)
    assert "\n" not in str(error.value)


FILES = [
    ("t.csv", b"", "its first line is empty"),
    ("t.csv", b"file,label\n\xfc.png,1\n", "save it as UTF-8"),
    ("t.csv", b"file,label\na/0.png,1,2\n", "Expected 2 columns, got 3"),
    ("t.csv", b"file,label,label\na/0.png,1,2\n", "has 2 columns 'label': rename one"),
    ("t.jsonl", b'{"file": "a/0.png", "label": 1}\n[1]\n', "line 2 should be an object"),
    ("t.jsonl", b'{"file": "a/0.png", "label": {"x": 1}}\n', "a cell holds an object"),
    ("t.jsonl", b'{"file": \n', "line 1 is no JSON"),
    ("t.jsonl", b'{"file": "a/0.png", "label": [1]}\n', "'label' holds lists: only labels="),
    ("t.parquet", b"PAR1", "cannot read"),
    ("t.xlsx", b"", "'t.xlsx' is no table: its name must end in .csv"),
    ("none.csv", None, "there is no file"),
]


@pytest.mark.parametrize(("name", "content", "message"), FILES)
def test_damaged_tables(root, name, content, message):
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        table.make(str(root / name))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_few_of_many_files_are_missing(tmp_path):
    """100,000 rows, three without a file: their number and names."""
    image = tmp_path / "0.png"
    Image.new("L", (2, 2)).save(image)
    names = ["0.png"] * 100_000
    names[7], names[70_000], names[99_999] = "x.png", "y.png", "z.png"
    (tmp_path / "t.csv").write_text("file,label\n" + "".join(f"{name},1\n" for name in names))
    with pytest.raises(UserError, match="3 of 100000 files: 'x.png', 'y.png', 'z.png'; correct"):
        table.make(str(tmp_path / "t.csv"))
    assert table.make(str(tmp_path / "t.csv"), missing="skip").num_examples == 99_997


def test_classes_of_the_test_set_follow_those_of_the_training_set(root):
    path = write(root, {"label": ["b", "a", "a"], "kinds": ["x|y", "y", "z"]})
    other = write(root, {"label": ["b", "b", "c"], "kinds": ["y", "y", "q"]}, "o.csv")
    train = table.make(path, label="label", labels="kinds")
    few = write(root, {"label": ["b"], "kinds": ["y"]}, "few.csv")
    test = table.make(few, label="label", labels="kinds")
    found = classes.like(test, train, ("label", "labels")).read(np.array([0]))
    assert found["label"].tolist() == [1] and found["labels"].tolist() == [[255, 1, 255]]
    test = table.make(other, label="label", labels="kinds")
    with pytest.raises(UserError, match="differ: c only in the latter"):
        classes.like(test, train, ("label",))
    with pytest.raises(UserError, match="classes of 'labels' are only in config.data.test: q"):
        classes.like(test, train, ("labels",))


def test_memory_of_an_example(root):
    """At most 16 bytes beside the paths and the names, with every kind of column."""
    count, rng = 20_000, np.random.default_rng(0)
    columns = {
        "file": ["a/0.png", "a/1.png"] * (count // 2),
        "label": rng.integers(0, 1000, count),
        "size": rng.normal(size=count).round(4),
        "w": rng.random(count).round(3),
        "patient": [f"p{number}" for number in rng.permutation(count)],
    }
    path = write(root, columns)
    before = pa.total_allocated_bytes()
    source = table.make(path, label="label", value="size", weight="w", group="patient")
    assert pa.total_allocated_bytes() - before < count, "no column of the table stays"
    held = source.labeling.nbytes + source.paths.nbytes
    texts = len("a/0.png") * count + sum(map(len, columns["patient"]))
    sizes = [len(pickle.dumps(part)) for part in (source.labeling, source.paths)]
    assert held < sum(sizes) < held + texts + 30_000, "nothing else is held"
    assert held <= 14.2 * count
    rows = source.read(np.arange(0, count, 777))
    for name, field in (("size", "value"), ("w", "weight")):
        np.testing.assert_array_equal(rows[field], np.float32(columns[name][::777]))
    assert [source.names["label"][k] for k in rows["label"]] == [
        str(k) for k in columns["label"][::777]
    ]
    assert [source.group(i) for i in range(0, count, 777)] == columns["patient"][::777]


def test_many_classes_of_an_image_take_two_bits_each(root):
    marks = np.random.default_rng(0).choice(["0", "1", ""], (4, 9))
    path = write(root, {f"c{k}": marks[:, k].tolist() for k in range(9)})
    source = table.make(path, labels=[f"c{k}" for k in range(9)])
    expected = np.where(marks == "1", 1, np.where(marks == "0", 0, 255))
    found = source.column("labels")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(source.read(np.array([3, 1]))["labels"], expected[[3, 1]])
    assert found.dtype == np.uint8 and source.labeling.nbytes == 4 * 3


@pytest.mark.parametrize("longest", [3, 300, 70_000])
def test_texts_in_few_bytes(longest):
    texts = ["ä" * (i % 5) for i in range(700)] + ["x" * longest, ""]
    found = Texts(pa.array(["out", *texts]).slice(1))
    assert [*found] == texts and found[-2] == texts[-2] and found[3:5] == texts[3:5]
    assert (
        len(found) == 702
        and found.nbytes == 702 * (1 + 3 * (longest > 65535) + (longest == 300)) + 3 * 8
    )
    with pytest.raises(IndexError):
        found[702]
    digests = [hashlib.sha256(), hashlib.sha256()]
    found.update(digests[0])
    Texts(pa.array([*texts[:-2], *reversed(texts[-2:])])).update(digests[1])
    assert digests[0].digest() != digests[1].digest()
    assert not len(Texts(pa.array([], pa.string())))


def test_a_spec_string_names_columns_by_bare_words(root):
    path = write(root, {"kind": ["a", "b"], "part": ["x", "y"]})
    source = build(f"table({path!r}, label=kind, split=(part, y))", "data.sources")
    assert source.class_names == ("b",)
