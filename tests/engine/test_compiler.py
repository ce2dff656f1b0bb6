"""Options of the compiler: how a config gives them, and which reach it (2 fake devices)."""

import dataclasses
import functools

import jax
import pytest

from mae_jax.config import load_config
from mae_jax.engine.compiler import DEFAULTS, changed_options, check, compiler_options
from mae_jax.engine.mesh import make_mesh
from mae_jax.run import build
from mae_jax.types import UserError
from tests.helpers.commands import mistake

FAST, WIDTH = "xla_cpu_enable_fast_math", "xla_cpu_prefer_vector_width"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (f"{FAST}=true", {FAST: "True"}),
        (f" {FAST}=FALSE , {WIDTH}=128,", {FAST: "False", WIDTH: "128"}),
        (f"{FAST}=default", {}),
        ("xla_gpu_enable_command_buffer=", {"xla_gpu_enable_command_buffer": ""}),
    ],
)
def test_options_are_read_as_xla_takes_them(text, options):
    mesh = make_mesh()
    assert compiler_options(mesh, cpu=text, tpu="xla_tpu_not_tried=1") == options
    assert bool(changed_options(options, mesh)) == bool(options)


@pytest.mark.parametrize("text", ["fast", "xla_a", "a=1", "xla_=1", "xla a=1", "--xla_a=1"])
def test_what_is_no_option_is_refused(text):
    with pytest.raises(
        UserError, match="config.compiler.cpu: .* is not an option: write xla_NAME="
    ):
        compiler_options(make_mesh(), cpu=text)
    with pytest.raises(UserError, match="config.compiler.gpu: 'xla_a=2' sets xla_a again"):
        compiler_options(make_mesh(), gpu="xla_a=1,xla_a=2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("xla_cpu_fast=1", "No such compile option: 'xla_cpu_fast'"),
        (f"{FAST}=x", f"While setting option {FAST}, 'x' is not a valid bool value."),
    ],
)
def test_what_xla_does_not_take_is_one_line(capsys, root, tmp_path, text, reason):
    command = ["train", "--config", root / "tests/helpers/tiny.py", "--workdir", tmp_path / "run"]
    said = mistake(capsys, *command, f"--config.compiler.cpu={text}")
    assert said.startswith("XLA for cpu does not accept the compiler options xla_cpu_")
    assert f"({reason}): change config.compiler.cpu; NAME=default leaves" in said


def test_defaults_can_be_left_out(monkeypatch):
    monkeypatch.setitem(DEFAULTS, "cpu", {FAST: "False"})
    mesh = make_mesh()
    assert (
        compiler_options(mesh) == {FAST: "False"} and changed_options({FAST: "False"}, mesh) == []
    )
    assert compiler_options(mesh, cpu=f"{FAST}=default") == {}
    assert changed_options({}, mesh) == ["compiler options for cpu: none"]


def test_a_default_that_the_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setitem(DEFAULTS, "cpu", {"xla_cpu_of_tomorrow": "1", FAST: "False"})
    mesh = make_mesh()
    assert compiler_options(mesh) == {FAST: "False"}
    (line,) = changed_options({FAST: "False"}, mesh)
    assert line.startswith(
        "XLA for cpu does not accept the default compiler option xla_cpu_of_tomor"
    )
    assert line.endswith("No such compile option: 'xla_cpu_of_tomorrow'): it is left out")
    assert compiler_options(mesh, cpu=f"{FAST}=default,{WIDTH}=128") == {WIDTH: "128"}
    with pytest.raises(
        UserError, match="does not accept the compiler options xla_cpu_of_tomorrow=2"
    ):
        compiler_options(mesh, cpu="xla_cpu_of_tomorrow=2")
    monkeypatch.setitem(DEFAULTS, "cpu", {"xla_cpu_of_tomorrow": "1"})
    assert compiler_options(mesh) == {}
    assert len(changed_options({}, mesh)) == 1


def test_options_that_are_no_text_are_one_line():
    for read in (check, lambda **options: compiler_options(make_mesh(), **options)):
        with pytest.raises(UserError, match="^config.compiler.tpu=None must be text: '' for no"):
            read(tpu=None)


def test_a_run_reports_its_options_and_compiles_with_them(root):
    changes = [f"compiler.cpu={FAST}=true", "compiler.tpu=xla_tpu_other=1"]
    run = build(load_config(str(root / "tests/helpers/tiny.py"), changes))
    assert f"compiler options for cpu: {FAST}=True" in run.notes
    assert run.compiler_options == {FAST: "True"}
    run = dataclasses.replace(run, compiler_options={"xla_of_nobody": "1"})
    state, batch = run.abstract_state, run.abstract_batch()
    predict = run.on_devices(functools.partial(run.method.predict, outputs=("features",)))
    calls = [run.step().lower(state, batch), predict.lower(state.params, {}, batch)]
    for lowered in calls:
        with pytest.raises(jax.errors.JaxRuntimeError, match="No such .* 'xla_of_nobody'"):
            lowered.compile()


def test_a_config_needs_no_options(root):
    config = load_config(str(root / "tests/helpers/tiny.py"))
    del config.compiler
    assert build(config).compiler_options == {}
