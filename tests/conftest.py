"""Two fake CPU devices and a compilation cache, for this process and for all that it starts; which
tests run.
"""

import importlib
import os
import sys
from pathlib import Path

import pytest

from tests.helpers.jobs import ROOT, environment

os.environ.update(environment(devices=2))  # before JAX reads them

pytest_plugins = ["tests.helpers.durations"]


def pytest_addoption(parser):
    """What takes long and looks at what other tests look at too."""
    parser.addoption("--thorough", action="store_true", help="run the tests marked thorough, too")


def pytest_collection_modifyitems(config, items):
    """Skips them without that."""
    skip = pytest.mark.skip(reason="thorough: bash launch/test.sh --thorough")
    for item in items:
        if item.get_closest_marker("thorough") and not config.getoption("thorough"):
            item.add_marker(skip)


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
