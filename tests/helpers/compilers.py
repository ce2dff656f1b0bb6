"""Marks of tests that need the compiler of an accelerator, without the accelerator."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.helpers import jobs

FAST = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_COMPILATION_CACHE_DIR")
"""What makes tests compile faster, and other programs than a run would have."""


def installed(name: str) -> bool:
    """Whether a module can be imported, without importing it."""
    package, _, _ = name.partition(".")
    return all(
        importlib.util.find_spec(part) is not None for part in dict.fromkeys((package, name))
    )


def needs(name: str) -> pytest.MarkDecorator:
    """Skips what needs a module of launch/compilers.sh."""
    reason = f"needs {name}: bash launch/test_tpu.sh"
    return pytest.mark.skipif(not installed(name), reason=reason)


needs_libtpu = needs("libtpu")
needs_cuda = needs("jax_plugins.xla_cuda12")

if installed("libtpu"):  # before it is loaded: it would ask a machine with TPUs what it is
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def compiling(*arguments: str) -> list[str]:
    """Runs Python with arguments, compiling as a run does; the lines that it prints."""
    env = {key: value for key, value in jobs.environment().items() if key not in FAST}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=jobs.ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=jobs.DEADLINE,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()
