"""Two fake CPU devices and a compilation cache, for this process and for all that it starts."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from tests.helpers.jobs import ROOT, environment

os.environ.update(environment(devices=2))  # before JAX reads them

pytest_plugins = ["tests.helpers.durations"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the project."""
    return ROOT


@pytest.fixture
def at(monkeypatch):
    """Enters the folder of a project, and forgets the modules that were imported there."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def enter(folder):
        monkeypatch.chdir(folder)
        importlib.invalidate_caches()

    yield enter
    for name in list(sys.modules):
        if name.partition(".")[0] in ("example", "experiments", "extended", "my_project"):
            del sys.modules[name]
