"""Layouts of weights are modules, of this package or of a user's own."""

import shutil

import pytest
from safetensors.numpy import load_file

from mae_jax import weights
from mae_jax.types import UserError
from mae_jax.weights import layouts
from tests.helpers.commands import mistake, run
from tests.helpers.runs import ROOT
from tests.weights import models
from tests.weights.test_round_trips import same


@pytest.fixture
def layout(tmp_path, at):
    """The name of a module in the current folder."""
    extension = ROOT / "mae_jax" / "project" / "extensions" / "my_project"
    shutil.copytree(extension, tmp_path / "my_project")
    at(tmp_path)
    return "my_project.layout"


def test_every_layout_names_the_patch_embedding_of_each_table():
    tables = layouts.tables(None)
    names = ("timm", "hf", "mae", "mae_st", "detectron2", "videomae", "clip")
    assert len(tables) == sum(len(layouts.tables(name)) for name in names)
    assert {*names} == {*layouts.names()} and all(layout.networks for layout, _ in tables)
    for layout, rows in tables:
        forms = {row.ours: row.form for row in rows}
        assert forms["encoder/embed/kernel"] == {2: "patch", 3: "clip_patch"}[layout.axes]


def test_a_layout_of_the_user_goes_out_and_comes_back(layout, tmp_path, capsys):
    run_, out = tmp_path / "run", tmp_path / "a.safetensors"
    model = models.mae(depth=1)
    weights.write_run(model, run_)
    assert run("weights", "export", "--run", run_, "--format", layout, "--out", out) == 0
    theirs = load_file(out)
    assert "image_patch_embed.proj.weight" in theirs and "image_decoder_pos_embed" in theirs
    command = "weights", "import", out, "--out", tmp_path / "back"
    assert "holds another model: its arrays" in mistake(capsys, *command)
    assert run(*command, "--layout", layout) == 0
    same(weights.read(tmp_path / "back")[0].params, model.params)


def test_a_file_is_tried_against_the_layout_that_is_named_alone(tmp_path, capsys):
    out = tmp_path / "a.safetensors"
    weights.write(models.mae(depth=1), out, "mae")
    command = "weights", "import", out, "--out", tmp_path / "back", "--layout"
    line = mistake(capsys, *command, "hf")
    assert line.startswith(f"{out} holds another model") and line.endswith("the layout of hf")
    assert "has unknown arrays: decoder_" in mistake(capsys, *command, "timm")
    assert run(*command, "mae") == 0
    with pytest.raises(UserError, match="not match the layout of hf"):
        weights.read(out, weights.Options(layout="hf"))


def test_unknown_layouts_are_refused_with_those_that_there_are(layout, tmp_path, capsys):
    run_, out = tmp_path / "run", tmp_path / "a.safetensors"
    weights.write_run(models.mae(depth=1), run_)
    export = "weights", "export", "--run", run_, "--out", out, "--format"
    line = mistake(capsys, *export, "nothing")
    assert line.endswith(
        "has no 'nothing': choose clip, detectron2, hf, mae, mae_st, timm, videomae "
        "(or --format stablehlo, onnx)"
    )
    assert "no module 'layuot' in my_project" in mistake(capsys, *export, "my_project.layuot")
    weights.write(models.mae(depth=1), out, "mae")
    line = mistake(capsys, "weights", "import", out, "--out", tmp_path / "b", "--layout", "tim")
    assert line.endswith("has no 'tim': did you mean 'timm'?")
