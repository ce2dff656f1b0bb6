"""Jobs of two real processes on this machine, started and awaited."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DEADLINE = 240


class Ended(NamedTuple):
    """How a process of a job ended."""

    code: int
    error: str
    at: float
    """When, by time.monotonic()."""


def environment():
    """One CPU device, little optimisation, the compilation cache of the tests."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def free_port():
    """A port that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder, *arguments, faults=("none", "none"), step=5, seconds=6, module="faulty"):
    """Two processes, by default of `mae-jax train`.

    Args:
        faults: of `tests.faulty`, of each process.
        step: at which they happen.
        seconds: of silence after which a process is dead.
        module: of the tests, that is run: `faulty`, or `counting`, which starts faster.
    """
    folder.mkdir(exist_ok=True)
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"]
    where += ["--heartbeat-timeout", str(seconds)]
    children = []
    for index, fault in enumerate(faults):
        line = [sys.executable, "-m", f"tests.{module}", fault, str(step), *map(str, arguments)]
        with (folder / f"{index}.log").open("w") as log:
            children.append(
                subprocess.Popen(
                    [*line, *where, "--process", str(index)],
                    cwd=ROOT,
                    env=environment(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return children


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
