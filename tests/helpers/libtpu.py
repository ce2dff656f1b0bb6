"""Compiling for TPUs without one, where libtpu is: launch/test_tpu.sh."""

import importlib.util
import os

import pytest

HERE = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not HERE, reason="needs libtpu: bash launch/test_tpu.sh")

if HERE:  # before it is loaded: it would ask a machine with TPUs what it is
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
