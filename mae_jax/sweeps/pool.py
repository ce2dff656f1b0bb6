"""Runs subprocesses in dependency order, a fixed number at a time, each on its own GPU or CPU
cores.
"""

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
"""Seconds between two polls of the processes."""
REPORT = 60
"""Seconds between two reports on the running processes."""
PATIENCE = 15
"""Polls between a request to stop and terminating the processes."""


class Share(NamedTuple):
    """What one of several processes at a time may use.

    Attributes:
        gpus: CUDA_VISIBLE_DEVICES; None: as in this process.
        cores: numbers of the CPU cores that it runs on; None: as this process.
    """

    gpus: str | None = None
    cores: tuple[int, ...] | None = None


def shares(jobs: int) -> list[Share]:
    """The devices of each of `jobs` processes.

    A single process gets all devices, several get one GPU each or, without GPUs, disjoint cores:
    on the same cores, their threads wait for each other. More processes than cores share them. Use
    one at a time on a TPU: the first process locks it, and the others would fail.

    Raises:
        UserError: fewer GPUs than processes, some of which would compute on the CPU.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1")
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible_gpus(os.environ)
    hidden = listed is not None and not gpus or os.environ.get("JAX_PLATFORMS") == "cpu"
    if jobs == 1:
        return [Share()]
    if hidden:  # GPUs that the user has hidden stay hidden
        return [Share(cores=cores) for cores in _split_cores(jobs)]
    names = gpus or [str(slot) for slot in range(jobs)]
    if jobs > len(names):
        where = "CUDA_VISIBLE_DEVICES lists" if listed else "this machine has"
        raise UserError(f"--jobs {jobs}: each uses a GPU, and {where} {len(names)}: lower --jobs")
    split = [None] * jobs if gpus else _split_cores(jobs)
    return [Share(gpus=name, cores=cores) for name, cores in zip(names, split, strict=False)]


def _split_cores(jobs: int) -> list[tuple[int, ...] | None]:
    """Disjoint cores of about equal number for each process, where they can be chosen."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if jobs > len(cores):
        return [None] * jobs
    return [
        tuple(cores[i * len(cores) // jobs : (i + 1) * len(cores) // jobs]) for i in range(jobs)
    ]


class _Running(NamedTuple):
    name: str
    child: subprocess.Popen
    began: float


def schedule(
    names: Sequence[str],
    *,
    after: Mapping[str, Sequence[str]],
    shares: Sequence[Share],
    begin: Callable[[str, Share], subprocess.Popen],
    glance: Callable[[str], str],
    judge: Callable[[str, int], tuple[bool, str]],
    say: Callable[[str, str], None],
    stop: StopRequests | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Runs processes in this order, except that a process waits for its dependencies. A failure
    does not stop the others, but fails the processes that depend on it. A request to stop, to this
    process or to one of them, stops all.

    Args:
        names: of the processes.
        after: name -> names of the processes that must have succeeded before.
        shares: one per process at a time.
        begin: (name, share) -> the started process.
        glance: name of a running process -> how far it is, for `say`; '' says nothing.
        judge: (name, exit code) -> whether it succeeded, and a text for `say`.
        say: called with (name, text).
        stop: requests to stop, if signals are handled already.

    Returns:
        Name -> reason of each failure; and the names still to run, if stopped.
    """
    todo, failed, stopped, waited, reported = list(names), {}, [], 0, time.monotonic()
    running: dict[int, _Running] = {}
    with contextlib.nullcontext(stop) if stop else StopRequests() as stop:
        while True:
            if stopped or stop.requested(0):
                waited += 1
                # The sender may have signaled them, too, and a second signal kills them at once.
                if waited == PATIENCE:
                    for _, child, _ in running.values():
                        child.terminate()
            else:
                free = [slot for slot in range(len(shares)) if slot not in running]
                while free and (name := _next(todo, running, after)):
                    todo.remove(name)
                    lost = [start for start in after.get(name, ()) if start in failed]
                    if lost:
                        failed[name] = f"{lost[0]}, which it starts from, failed"
                        say(name, failed[name])
                    else:
                        slot = free.pop(0)
                        share = shares[slot]
                        if not todo and not running:  # the last one, alone
                            share = share._replace(cores=None)
                        child = begin(name, share)
                        running[slot] = _Running(name, child, time.monotonic())
            if not running:
                return failed, stopped + todo
            time.sleep(POLL)
            if time.monotonic() - reported >= REPORT:
                reported = time.monotonic()
                for name, *_ in running.values():
                    if text := glance(name):
                        say(name, text)
            for slot, (name, child, began) in list(running.items()):
                if (code := child.poll()) is None:
                    continue
                del running[slot]
                took = f"{time.monotonic() - began:.0f} s"
                succeeded, text = judge(name, code)
                if succeeded:
                    say(name, f"{text}  ({took})")
                elif code == PREEMPTED or stopped or stop.requested(0):
                    stopped.append(name)
                    say(name, f"stopped after {took}")
                else:
                    failed[name] = text
                    say(name, f"failed after {took}: {text}")


def _next(
    todo: Sequence[str], running: Mapping[int, _Running], after: Mapping[str, Sequence[str]]
) -> str | None:
    """The first process that waits for no pending one; None if there is none."""
    pending = {*todo, *(name for name, *_ in running.values())}
    return next((name for name in todo if not pending & {*after.get(name, ())}), None)


def launch(
    command: Sequence[str], log: Path, environment: Mapping[str, str], share: Share
) -> subprocess.Popen:
    """Starts a process that appends its output to `log`. Values in `environment` override the
    current ones.

    On Linux the process ends with this one, even if this one is killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    visible = {} if share.gpus is None else {"CUDA_VISIBLE_DEVICES": share.gpus}

    def prepare() -> None:
        if share.cores:
            os.sched_setaffinity(0, share.cores)
        _end_with_parent()

    with log.open("a") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, **visible},
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the others
            preexec_fn=prepare if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Runs in the child: it is killed with its parent, because it would keep the workdir locked."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
