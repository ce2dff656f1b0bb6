"""Two fake CPU devices and a compilation cache, for this process and for all that it starts."""

import os
from pathlib import Path

import pytest

from tests.helpers.jobs import ROOT, environment

os.environ.update(environment(devices=2))  # before JAX reads them

pytest_plugins = ["tests.helpers.durations"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the project."""
    return ROOT
