"""Small runs of `tests/helpers/tiny.py`: their configs and what they logged."""

from mae_jax.config import load_config
from mae_jax.engine import log
from tests.helpers.jobs import ROOT

CONFIG = "tests/helpers/tiny.py"
TIMINGS = ("time", "images_per_s", "data_wait")
"""Fields of a line that differ between two runs of the same config."""


def tiny(*overrides):
    """The config, with changes such as 'seed=1'."""
    return load_config(str(ROOT / CONFIG), overrides)


def losses(workdir):
    """(step, loss) of each step."""
    return [(line["step"], line["loss"]) for line in log.read(logged(workdir)) if "loss" in line]


def whole_log(workdir):
    """All that was logged, but for the times."""
    lines = log.read(logged(workdir))
    return [{name: line[name] for name in line if name not in TIMINGS} for line in lines]


def logged(workdir):
    """The file of all that was logged."""
    return workdir / "metrics.jsonl"
