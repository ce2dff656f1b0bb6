"""Children of tests: their environment, and jobs of two processes, started and awaited."""

import os
import socket
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from tests.helpers.forkserver import Child

ROOT = Path(__file__).parents[2]
DEADLINE = 240
"""Seconds that nothing takes, however busy the machine is."""


class Ended(NamedTuple):
    """How a process of a job ended."""

    code: int
    error: str
    at: float
    """When, by time.monotonic()."""


def environment(devices=1):
    """Fake CPU devices, little optimization, a compilation cache: compile time rules the tests."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if version("jaxlib").startswith("0.10."):  # later ones end at a flag that they do not know
        # Three quarters of the time to compile go to the emitters of fused kernels.
        flags += " --xla_cpu_use_fusion_emitters=false"
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def free_port():
    """A port that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, *children):
    """Waits until something is so, while these processes run.

    Raises:
        AssertionError: one of them has ended before, or it takes too long.
    """
    end = time.monotonic() + DEADLINE
    while not condition():
        for child in children:
            assert child.poll() is None, child.communicate()
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def start(folder, *arguments, faults=("none", "none"), step=5, seconds=6, module="faulty"):
    """Starts two processes, by default of `mae-jax train`.

    Args:
        faults: of `tests.helpers.faulty`, of each process.
        step: at which they happen.
        seconds: of silence after which a process is dead.
        module: of `tests.helpers`, that is run: `faulty`, or `counting`, which starts faster.
    """
    folder.mkdir(exist_ok=True)
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"]
    where += ["--heartbeat-timeout", seconds]
    return [
        Child(
            f"tests.helpers.{module}",
            *(fault, step, *arguments, *where, "--process", index),
            env=environment(),
            output=folder / f"{index}.log",
        )
        for index, fault in enumerate(faults)
    ]


def wait(folder, children, awaited=(0, 1)):
    """How the awaited processes ended; what is left then is killed."""
    ended, until = {}, time.monotonic() + DEADLINE
    try:
        while len(ended) < len(awaited) and time.monotonic() < until:
            for index in awaited:
                if index not in ended and (code := children[index].poll()) is not None:
                    ended[index] = Ended(code, "", time.monotonic())
            time.sleep(0.02)
    finally:
        for child in children:
            child.kill()
            child.wait()
    text = lambda index: (folder / f"{index}.log").read_text(errors="replace")
    assert len(ended) == len(awaited), f"still runs: {[text(index) for index in awaited]}"
    return [ended[index]._replace(error=text(index)) for index in awaited]
