"""Processes side by side: so many at a time, each with a device of its own, some after others."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mae_jax.distributed.launcher import visible_gpus
from mae_jax.engine.preemption import StopRequests
from mae_jax.types import PREEMPTED, UserError

POLL = 0.2
"""Seconds from one look at the processes to the next."""
PATIENCE = 15
"""Looks between a request to stop and passing it on."""


def devices(jobs: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each of so many processes; None: as it is here.

    A single one has all GPUs, of several each has one. On CPUs they share the cores. A TPU belongs
    to the process that comes first and the others would fail: there, one at a time.

    Raises:
        UserError: fewer GPUs than processes: the last of these would compute on the CPU.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: at least 1 must run at a time")
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible_gpus(os.environ)
    hidden = listed is not None and not found or os.environ.get("JAX_PLATFORMS") == "cpu"
    if jobs == 1 or hidden:  # GPUs that somebody has hidden stay hidden
        return [None] * jobs
    names = found or [str(slot) for slot in range(jobs)]
    if jobs > len(names):
        where = "CUDA_VISIBLE_DEVICES lists" if listed else "this machine has"
        raise UserError(f"--jobs {jobs}: each takes a GPU, and {where} {len(names)}")
    return names[:jobs]


class _Running(NamedTuple):
    name: str
    child: subprocess.Popen
    began: float


def schedule(
    names: Sequence[str],
    *,
    after: Mapping[str, str],
    devices: Sequence[str | None],
    begin: Callable[[str, str | None], subprocess.Popen],
    judge: Callable[[str, int], tuple[bool, str]],
    say: Callable[[str, str], None],
    stop: StopRequests | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Runs processes, in this order as far as they need not wait. One that fails does not stop the
    others, but fails those that come after it. If this process is told to stop, or one of them was,
    all are told.

    Args:
        names: of the processes.
        after: name -> the one that must have ended well before it.
        devices: so many run at a time, each with one of these.
        begin: (name, device) -> the process, started.
        judge: (name, exit code) -> whether it ended well, and what to say of it.
        say: called with (name, text).
        stop: requests to stop, if they are handled already.

    Returns:
        Name -> why, of each that failed; and the names of those still to do if it was stopped.
    """
    todo, failed, stopped, waited = list(names), {}, [], 0
    running: dict[int, _Running] = {}
    with contextlib.nullcontext(stop) if stop else StopRequests() as stop:
        while True:
            if stopped or stop.requested(0):
                waited += 1
                # Whoever told us may have told them, too; a second signal would end them at once.
                if waited == PATIENCE:
                    for _, child, _ in running.values():
                        child.terminate()
            else:
                free = [slot for slot in range(len(devices)) if slot not in running]
                while free and (name := _next(todo, running, after)):
                    todo.remove(name)
                    if after.get(name) in failed:
                        failed[name] = f"its start {after[name]} failed"
                        say(name, failed[name])
                    else:
                        slot = free.pop(0)
                        child = begin(name, devices[slot])
                        running[slot] = _Running(name, child, time.monotonic())
            if not running:
                return failed, stopped + todo
            time.sleep(POLL)
            for slot, (name, child, began) in list(running.items()):
                if (code := child.poll()) is None:
                    continue
                del running[slot]
                took = f"{time.monotonic() - began:.0f} s"
                good, text = judge(name, code)
                if good:
                    say(name, f"{text}  ({took})")
                elif code == PREEMPTED or stopped or stop.requested(0):
                    stopped.append(name)
                    say(name, f"stopped after {took}")
                else:
                    failed[name] = text
                    say(name, f"failed after {took}: {text}")


def _next(
    todo: Sequence[str], running: Mapping[int, _Running], after: Mapping[str, str]
) -> str | None:
    """The first that waits for none of the others; None if there is none."""
    pending = {*todo, *(name for name, *_ in running.values())}
    return next((name for name in todo if after.get(name) not in pending), None)


def launch(
    command: Sequence[str], log: Path, environment: Mapping[str, str | None]
) -> subprocess.Popen:
    """Starts a process that appends what it prints to `log`, with changes to its environment.

    On Linux it ends when this process does, even if that is killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    changes = {name: value for name, value in environment.items() if value is not None}
    with log.open("a") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | changes,
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """In the child: if the parent is killed, so is this, or it would hold the workdir."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
