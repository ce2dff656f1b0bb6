"""What libraries note about themselves stays off the screen; their errors do not."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from mae_jax import cli


@pytest.fixture
def quiet(monkeypatch):
    """`cli.quieten` in a fresh environment; what it changed is put back."""
    loggers = [logging.getLogger(name) for name in ("absl", "matplotlib")]
    levels = [logger.level for logger in loggers]
    for name in cli.QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield lambda: (cli.quieten(), said)[1]
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def warn(module):
    """A warning as that module would give it."""
    warnings.warn_explicit("take care", UserWarning, "file.py", 1, module=module)


def test_notes_of_libraries_are_left_out_and_other_warnings_are_not(quiet, caplog):
    said = quiet()
    for name in ("orbax.checkpoint._src", "flax.linen", "jax._src.x", "tensorboard.compat"):
        warn(name)
    assert not said
    for name in ("mae_jax.run", "users_own", "jaxtyping", "numpy"):
        warn(name)
    assert len(said) == 4
    logging.getLogger("matplotlib.font_manager").warning("building the font cache")
    logging.getLogger("absl").warning("explains its defaults")
    assert not caplog.records
    logging.getLogger("absl").error("an error")
    assert [record.getMessage() for record in caplog.records] == ["an error"]


def test_settings_of_the_user_count(quiet, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    said = quiet()
    warn("orbax.checkpoint")
    assert len(said) == 1
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0" and os.environ["GRPC_VERBOSITY"] == "ERROR"


@pytest.mark.slow
def test_c_output_is_muted_and_pythons_is_not(root):
    code = (
        "import os; from mae_jax.distributed.job import mute_c_output\n"
        "print('before'); mute_c_output()\n"
        "os.write(1, b'[Gloo] Rank 0 is connected'); print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("before\nafter\n", 0), done.stderr
