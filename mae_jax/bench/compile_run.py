"""Runs the compiler of an accelerator in a child process, and stops it once the program is known.

Generating machine code takes most of the time, and XLA dumps the optimized program and its buffer
assignment before. So the parent process watches the dump folder.
"""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.console import Console

from mae_jax.bench.compile_child import FACTS, OUT_OF_MEMORY, PROGRAM, STEP, environment
from mae_jax.bench.machines import Topology
from mae_jax.config import to_json
from mae_jax.types import UserError

CHILD = "mae_jax.bench.compile_child"
SETTLED = 0.6
"""Seconds without growth after which a file counts as complete."""
_PROGRAMS = ("*after_optimizations_after_buffer_assignment.txt", "*gpu_after_optimizations.txt")
_BUFFERS = "*after_optimizations-buffer-assignment.txt"


class Dump(NamedTuple):
    """The output of a compiler."""

    facts: dict[str, Any]
    """Facts from `compile_child.lower`."""
    program: str
    """Text of the optimized program; empty if it does not fit."""
    buffers: str
    """Text of its buffer assignment."""
    final: str
    """With `full`, text of the compiled program, with estimates of cycles; else empty."""
    refused: str
    """The compiler's message if the program does not fit in memory; else empty."""
    seconds: float
    """Seconds since the start of the child."""


def check_compiler(topology: Topology) -> None:
    """Raises UserError if the compiler for a topology is not installed."""
    if topology.platform == "tpu":
        if importlib.util.find_spec("libtpu"):
            return
        lines = (line.split(";")[0].strip() for line in importlib.metadata.requires("jax"))
        wanted = next((f"'{line}'" for line in lines if line.startswith("libtpu")), "libtpu")
    else:
        folders = importlib.util.find_spec("jax_plugins")
        names = [f"jax_plugins.xla_cuda{version}" for version in (12, 13)] if folders else []
        if any(importlib.util.find_spec(name) for name in names):
            return
        version = importlib.metadata.version("jax")
        wanted = f"jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version}"
    raise UserError(
        f"--topology {topology.name} needs a compiler that is not installed: pip install --no-deps "
        f"--target compilers {wanted}, then PYTHONPATH=compilers mae-jax bench compile ..."
    )


def compile_in_child(
    config: ConfigDict, topology: Topology, *, image_size: Sequence[int], full: bool
) -> Dump:
    """Compiles a config's step for a topology.

    Args:
        image_size: see `make_setup`.
        full: compile to machine code, for the compiler's estimates of cycles.

    Raises:
        UserError: the compiler is missing or fails, or the config or topology is invalid.
    """
    check_compiler(topology)
    with tempfile.TemporaryDirectory(prefix="mae_jax_compile_") as name:
        folder = Path(name)
        task = dict(
            config=to_json(config),
            image_size=list(image_size),
            topology=topology.arguments() | dict(platform=topology.platform),
            folder=name,
            full=full,
        )
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        begun = time.monotonic()
        opened = (folder / "task.json").open(), *((folder / n).open("w") for n in ("out", "err"))
        with opened[0] as task_file, opened[1] as out, opened[2] as err:
            child = subprocess.Popen(
                [sys.executable, "-m", CHILD],
                stdin=task_file,
                stdout=out,
                stderr=err,
                env=environment(folder),
            )
            try:
                code = watch(child, folder, full=full, label=topology.label)
            finally:
                child.kill()
                child.wait()
        return _collect(folder, code, time.monotonic() - begun)


def watch(child: subprocess.Popen, folder: Path, *, full: bool, label: str) -> int | None:
    """Waits until a child ends, or has dumped the program.

    Returns:
        The exit code of the child; None if it has dumped everything and still runs.
    """
    begun = time.monotonic()
    with progress(f"{label}: ") as show:
        sizes: dict[Path, int] = {}
        seen = begun
        while child.poll() is None:
            phase = "tracing" if not (folder / FACTS).exists() else "compiling"
            files = dumped(folder)
            if files:
                phase = "generating machine code" if full else "reading the program"
            show(phase, time.monotonic() - begun)
            now = {path: path.stat().st_size for path in files}
            if now != sizes:
                sizes, seen = now, time.monotonic()
            settled = sizes and time.monotonic() - seen > SETTLED
            if settled and not full and files[0].read_bytes().rstrip().endswith(b"}"):
                return None
            time.sleep(0.1)
    return child.returncode


def dumped(folder: Path) -> list[Path]:
    """The files of the program and of its buffer assignment, once both exist."""
    programs = [path for pattern in _PROGRAMS for path in folder.glob(f"*.{STEP}{pattern}")]
    buffers = list(folder.glob(f"*.{STEP}{_BUFFERS}"))
    return [max(programs), max(buffers)] if programs and buffers else []


class progress:
    """Prints a phase and the seconds since the start to standard error: on one line in a terminal,
    otherwise one line for each phase.
    """

    def __init__(self, label: str):
        self.label, self.last = label, ""
        console = Console(stderr=True)
        self.status = console.status(label) if console.is_terminal else None

    def __enter__(self) -> Callable[[str, float], None]:
        if self.status:
            self.status.start()
        return self.show

    def __exit__(self, *_) -> None:
        if self.status:
            self.status.stop()

    def show(self, phase: str, seconds: float) -> None:
        """Shows the current phase."""
        line = f"{self.label}{phase}, {seconds:.0f} s"
        if self.status:
            self.status.update(line)
        elif phase != self.last:
            print(line, file=sys.stderr, flush=True)
        self.last = phase


def _collect(folder: Path, code: int | None, seconds: float) -> Dump:
    """Reads the output of a child that ended with an exit code."""
    output = (folder / "out").read_text(errors="replace").strip()
    if code == 2:
        raise UserError(output)
    if code not in (None, 0, OUT_OF_MEMORY):
        raise UserError(f"the compiler failed: {last_error((folder / 'err').read_text())}")
    facts = json.loads((folder / FACTS).read_text())
    if code == OUT_OF_MEMORY:
        return Dump(facts, "", "", "", output, seconds)
    if not (files := dumped(folder)):
        raise UserError(
            "the compiler wrote no program, or XLA's dump has unexpected file names: use the "
            "versions of JAX and of the compiler that mae_jax is tested with"
        )
    program, buffers = (path.read_text(encoding="utf-8") for path in files)
    final = folder / PROGRAM
    text = final.read_text(encoding="utf-8") if code == 0 and final.exists() else ""
    return Dump(facts, program, buffers, text, "", seconds)


def last_error(text: str) -> str:
    """The most informative line of standard error: the last exception, or the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    return (named or lines or ["no message"])[-1]
