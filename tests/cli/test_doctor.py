"""The doctor knows all that the project can use."""

import configparser
import importlib.metadata
import re

from mae_jax.cli import doctor

BENEATH = {"jax": "of which cuda and tpu are builds"}


def test_every_package_that_can_be_added_is_looked_for(root):
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    extras = {**setup["options.extras_require"]}
    del extras["test"], extras["docs"]  # of the scripts that install them
    wanted = {re.match(r"[\w-]+", line)[0] for text in extras.values() for line in text.split()}
    names = {name.replace("-", "_") for name in wanted - BENEATH.keys()}
    assert {"torch", "nibabel"} <= names <= doctor.OPTIONAL.keys()


def test_what_is_missing_is_named_with_its_purpose(capsys, monkeypatch):
    find = doctor.importlib.util.find_spec
    lost = lambda name, *more: None if name in ("jax2onnx", "torch") else find(name, *more)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lost)
    assert doctor.report() == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "jax2onnx not installed; needed for mae-jax weights export --format onnx" in printed
    assert "torch not installed; needed for weights in .pth files, mae-jax bench step" in printed


def test_what_every_run_needs_is_a_fault(capsys, monkeypatch):
    version = importlib.metadata.version

    def without_pillow(name):
        if name == "pillow":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_pillow)
    assert doctor.report() == 2
    assert "Missing: pillow. Install with: pip install pillow" in capsys.readouterr().out
