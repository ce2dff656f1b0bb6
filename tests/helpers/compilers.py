"""Marks of tests that need the compiler of an accelerator, without the accelerator."""

import importlib.util
import os

import pytest


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
