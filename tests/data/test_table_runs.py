"""Runs on a table: balanced batches, a held-out part in groups, classes that stay, and mistakes in
tables on the command line.
"""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from configs import common
from mae_jax.restore import load_run
from mae_jax.run import build
from mae_jax.train import train
from mae_jax.types import UserError
from tests.helpers import tiny
from tests.helpers.commands import mistake, run


def config_of(path):
    """A classifier of three classes on a table."""
    config = tiny.get_config()
    config.data.update(
        train=f"table({str(path)!r}, group=patient)",
        test="",
        held_out=0.25,
        sampling="balanced",
        fields=("label", "group"),
    )
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune", encoder=tiny.ENCODER, classes=3, dtype="float32"
    )
    config.schedule.epochs = 5.0
    config.evals.run = "classify(split=val)"
    return config


def write(path, names):
    """30 images of 10 patients in three classes of uneven size."""
    rng = np.random.default_rng(0)
    lines = ["file,label,patient"]
    for i in range(30):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path.parent / f"{i}.png")
        lines.append(f"{i}.png,{names[max(0, i % 6 - 3)]},p{i % 10}")
    path.write_text("\n".join(lines))


@pytest.mark.thorough
def test_a_run_on_a_table(tmp_path):
    path, workdir = tmp_path / "t.csv", tmp_path / "run"
    write(path, ("a", "b", "c"))
    config = config_of(path)
    data = build(config).data
    groups = [{*data.source(split).groups().tolist()} for split in ("train", "val")]
    assert not groups[0] & groups[1] and data.source("val").num_examples in (6, 7, 8, 9)
    whole = jax.device_get(train(config, workdir).params)
    steps = sorted(int(step.name) for step in (workdir / "checkpoints").iterdir())
    shutil.rmtree(workdir / "checkpoints" / str(steps[-1]))
    again = jax.device_get(train(config, workdir).params)
    assert len(steps) > 1 and steps[-1] > steps[-2]
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    load_run(workdir)
    write(path, ("z", "b", "c"))
    with pytest.raises(UserError, match="learned 'label' with the class 'a', where .* has 'b'"):
        load_run(workdir)
    with pytest.raises(UserError, match="fingerprints.train"):
        train(config, workdir)


HEADER = ["file", "label", "size", "patient", "part"]
ROWS = [[f"{i}.png", "ab"[i % 2], i / 4, f"p{i // 2}", "te" if i > 7 else "tr"] for i in range(12)]
"""Eight training images of four patients, and four test images of two others."""
TASK = ["train", "--config", "tests/helpers/tiny_tasks.py:finetune", "--check"]
TASK += ["--config.method.args.classes=2", "--config.data.batch_size=4"]
NUMBERS = ["--config.data.fields=('value',)", "--config.method.args.objective=regression"]
NUMBERS += ["--config.method.args.classes=1", "--config.evals.run=regression"]
NUMBERS += [f"--config.method.args.{name}=0.0" for name in ("mixup", "cutmix", "smoothing")]
MISTAKES = {
    "no column": ({}, "label=lable", [], "t.csv has no column 'lable': did you mean 'label'?"),
    "a new class": ({(8, 1): "c"}, "", [], "data.test differ: c only in the latter; use the same"),
    "no label": ({(3, 1): "NaN"}, "", [], "'label' of row 4 is empty or NaN: fill it in, or leave"),
    "no number": ({(2, 2): "nan"}, "value=size", NUMBERS, "'size' of row 3 is empty or NaN: fill"),
    "no numeral": (
        {(2, 2): "tall"},
        "value=size",
        NUMBERS,
        "'size' of row 3 is 'tall': write a fi",
    ),
    "a shared group": (
        {(8, 3): "p0"},
        "group=patient",
        [],
        "test share 1 group: p0; split the tab",
    ),
    "a lost file": ({(5, 0): "x.png"}, "", [], "1 of 8 files: 'x.png'; correct the paths, or"),
    "a drive": ({(0, 0): "C:\\x.png"}, "", [], "'C:/x.png' begins with a drive of Windows"),
    "no group": ({(1, 3): ""}, "group=patient", [], "'patient' of row 2 is empty or NaN"),
    "no such split": (
        {},
        "split=(part, val)",
        [],
        "no row of t.csv has part='val': its values are",
    ),
    "one class": (
        {(i, 1): "a" for i in range(12)},
        "",
        ["--config.method.args.classes=1"],
        "at least 2",
    ),
}
"""Name -> (cells that differ, more options of the training set, more arguments, its line)."""
NOTES = {
    "missing='skip'": ({(5, 0): "x.png"}, "left out the missing 1 of 8 files: 'x.png'"),
    "missing_labels='skip'": ({(3, 1): ""}, "left out 1 row without label"),
    "group=patient": ({}, "4 groups of 'patient'"),
    "": ({(4, 0): "0.png"}, "1 file in several rows, each an example: '0.png'"),
}
"""Option -> (cells that differ, what is reported)."""


def table_of(folder, cells, *, delimiter=","):
    """Writes the images and the table, with some other cells. Returns the path of the table."""
    rows = [list(row) for row in ROWS]
    for (row, column), cell in cells.items():
        rows[row][column] = cell
    for row in ROWS:
        Image.new("RGB", (16, 16), (9 * len(row[0]), 0, 0)).save(folder / row[0])
    lines = [delimiter.join(map(str, row)) for row in [HEADER, *rows]]
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "t.csv"


def arguments(path, options, more=()):
    """Of the command that checks a run on a table."""
    own = options if "split" in options else f"split=(part, tr), {options}"
    others = "split=(part, te)" if "split" in options else f"split=(part, te), {options}"
    sources = [f"table({str(path)!r}, {part.removesuffix(', ')})" for part in (own, others)]
    return [*TASK, f"--config.data.train={sources[0]}", f"--config.data.test={sources[1]}", *more]


@pytest.mark.thorough
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_table_is_one_line_of_the_command(name, root, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(root)
    cells, options, more, line = MISTAKES[name]
    command = arguments(table_of(tmp_path, cells), options, more)
    assert line in mistake(capsys, *command, "--workdir", tmp_path / "run")


@pytest.mark.thorough
@pytest.mark.parametrize("option", NOTES)
def test_what_a_table_lacks_is_counted(option, root, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(root)
    cells, note = NOTES[option]
    command = arguments(table_of(tmp_path, cells), option)
    assert run(*command, "--workdir", tmp_path / "run") == 0
    assert note in " ".join(capsys.readouterr().out.split())


@pytest.mark.thorough
def test_a_table_of_another_program(root, monkeypatch, tmp_path, capsys, caplog):
    """Semicolons, a byte-order mark, backslashes: read, and said. One class in the test set: its
    area under the curve is undefined, and said, too.
    """
    monkeypatch.chdir(root)
    cells = {(i, 1): "b" for i in range(8, 12)} | {(i, 0): f".\\{i}.png" for i in range(12)}
    path = table_of(tmp_path, cells, delimiter=";")
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    command = [one for one in arguments(path, "") if one != "--check"]
    command += ["--config.evals.run=classes|classify", "--workdir", tmp_path / "run"]
    assert run(*command) == 0
    assert "12 paths with backslashes, read as '/'" in " ".join(capsys.readouterr().err.split())
    assert "classes: undefined on these labels and left out: auroc, recall/a" in caplog.text
