"""Several processes, usually on several hosts, as one job: connecting, exchanging data, comparing
configs, and exiting together. Private APIs of JAX for this are used only here and in `launcher`.

A single process does not call `jax.distributed.initialize`, which would wait for a launcher. It has
no key-value store, and its watchdog only reports a slow input pipeline.
"""

import contextlib
import ctypes
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mae_jax.distributed.launcher import ProcessSpec, Request, find_process
from mae_jax.distributed.watchdog import DAY, Watchdog
from mae_jax.rules import path_of
from mae_jax.types import UserError


@contextlib.contextmanager
def join(request: Request, explain: Callable, *, stoppable: bool):
    """Connects this process to its job, before any device is initialized. Waits for the other
    processes at the end; if any of them fails inside, all end.

    Args:
        explain: see `Watchdog`.
        stoppable: whether `StopRequests.requested` is called inside. Only then does JAX handle
            SIGTERM; otherwise no SIGTERM would stop the job.

    Yields:
        The `Watchdog` of this process.

    Raises:
        UserError: the request is incomplete or contradictory.
    """
    process = find_process(request, os.environ)
    if process is None:
        if request.local_devices is not None:
            for platform in ("cuda", "rocm"):
                jax.config.update(f"jax_{platform}_visible_devices", request.local_devices)
        with Watchdog() as watchdog:
            yield watchdog
        return
    mute_c_output()
    store = connect(process, request.heartbeat_timeout, stoppable=stoppable)
    timeout = request.heartbeat_timeout
    # Not jax.process_index(), which initializes the devices: that may fail, and only inside
    # `guard` do the other processes learn of it.
    who = dict(index=store.index, count=store.count)
    watchdog = Watchdog(store, **who, timeout=timeout, explain=explain)
    with on_abort(lambda: why_aborted(store.address, watchdog)), watchdog, watchdog.guard():
        yield watchdog
        watchdog.finish()


def mute_c_output() -> None:
    """Discards the output of C++ code on stdout from now on; Python's output stays. Gloo, the
    collectives library for CPUs, reports each connection there.
    """
    if sys.stdout is not sys.__stdout__:  # captured, and so another file
        return
    sys.stdout.flush()
    ours = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    how = dict(encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    sys.stdout = open(ours, "w", buffering=1, **how)


def connect(process: ProcessSpec, timeout: float, *, stoppable: bool) -> "Store":
    """Connects to the other processes of the job.

    Raises:
        UserError: the address of process 0 is unknown, or its port is in use.
    """
    jax.config.update("jax_enable_preemption_service", stoppable)
    where = process.coordinator_address or "the address from the launcher"
    who = "" if process.process_id is None else f"process {process.process_id}: "
    count = "all" if process.num_processes is None else f"all {process.num_processes}"
    hint = f"mae-jax: {who}not {count} processes connected to {where}: were all of them started?"
    with on_abort(lambda: hint):
        try:
            jax.distributed.initialize(
                process.coordinator_address,
                process.num_processes,
                process.process_id,
                process.local_device_ids,
                # Longer than our own watchdog's, which reports more. JAX counts from half of it on.
                heartbeat_timeout_seconds=math.ceil(2 * timeout),
                shutdown_timeout_seconds=math.ceil(timeout),
            )
        except (ValueError, RuntimeError) as error:
            text = str(error)
            if "RPC server" in text:
                port = (
                    process.coordinator_address
                    and f"port {process.coordinator_address.rpartition(':')[2]}"
                )
                what = port or "the port from the launcher"
                raise UserError(f"{what} is in use: give another --coordinator") from error
            raise UserError(
                f"cannot join the job ({text}): give --coordinator HOST:PORT, --processes N and "
                "--process I, or --distributed off for a single process"
            ) from error
    return Store()


class Store:
    """The key-value store of the job, hosted by process 0; see `watchdog.Store`."""

    def __init__(self):
        from jax._src.distributed import global_state

        self._client = global_state.client
        self.address = global_state.coordinator_address
        self.index, self.count = global_state.process_id, global_state.num_processes

    def set(self, key: str, value: str) -> None:
        """Writes a value, replacing an earlier one."""
        self._client.key_value_set(f"mae_jax/{key}", value, allow_overwrite=True)

    def all(self, folder: str) -> dict[str, str]:
        """The values under 'folder/', by the rest of the key."""
        pairs = self._client.key_value_dir_get(f"mae_jax/{folder}/")
        return {key.rpartition("/")[2]: value for key, value in pairs}

    def get(self, key: str, timeout: float) -> str:
        """Reads a value; waits for it up to `timeout` seconds."""
        return self._client.blocking_key_value_get(f"mae_jax/{key}", int(1000 * timeout))

    def meet(self, name: str, timeout: float) -> None:
        """A barrier for all processes; each name can be used once."""
        self._client.wait_at_barrier(f"mae_jax/{name}", int(1000 * timeout))


def check_same(watchdog: Watchdog, config: ConfigDict, images: Mapping[str, str]) -> None:
    """Raises UserError if this process differs from process 0 in its config, images, number of
    devices or version of JAX.

    Args:
        images: split -> fingerprint of its list of examples.
    """
    if watchdog.store is None:
        return
    leaves = jax.tree_util.tree_leaves_with_path(
        config.to_dict(), is_leaf=lambda x: not isinstance(x, dict)
    )
    ours = {"config." + path_of(path).replace("/", "."): repr(leaf) for path, leaf in leaves}
    ours |= {f"the images of config.data.{split}": repr(text) for split, text in images.items()}
    ours |= {"devices of a process": repr(jax.local_device_count()), "JAX": jax.__version__}
    if watchdog.index == 0:
        watchdog.store.set("same", json.dumps(ours))
        return
    first = json.loads(watchdog.store.get("same", DAY))
    for name in {**first, **ours}:
        if ours.get(name) != first.get(name):
            raise UserError(
                f"{name}: {ours.get(name)} here and {first.get(name)} in process 0: all processes "
                "of a job need the same command, the same files and the same versions"
            )


def check_shared(watchdog: Watchdog, path: Path) -> None:
    """Raises UserError if this process does not see the file that process 0 has written."""
    if watchdog.store is None:
        return
    if watchdog.index == 0:
        watchdog.store.set("shared", path.read_text())
        return
    text, until = watchdog.store.get("shared", DAY), time.monotonic() + watchdog.timeout
    while not (path.exists() and path.read_text() == text):
        if time.monotonic() > until:  # a network file system may lag
            raise UserError(
                f"{path} is not the file that process 0 has written: the workdir must be on a file "
                "system that all hosts share"
            )
        time.sleep(0.1)


def why_aborted(address: str, watchdog: Watchdog) -> str | None:
    """The message when JAX aborts this process because process 0 is gone or silent; None if the
    cause is in this process.
    """
    host, _, port = address.rpartition(":")
    if watchdog.index == 0:
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        state = "gone"
    else:
        if time.monotonic() - watchdog.heard < watchdog.timeout / 2:
            return None
        state = "silent"
    return (
        f"mae-jax: process {watchdog.index}: ends with process 0, which coordinates the job and is "
        f"{state}; run again to resume"
    )


@contextlib.contextmanager
def on_abort(explain: Callable[[], str | None]):
    """If JAX aborts the process inside, as it does when process 0 is gone, prints why and exits
    with code 1. If `explain` returns None, the abort proceeds.

    The handler is a C function, as abort() does not return to the interpreter, and so a Python
    signal handler would never run.
    """
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handle(number):
        libc.signal(signal.SIGABRT, None)  # the default action, also for failures below
        text = explain()
        if text is not None:
            os.write(2, f"{text}\n".encode())
            os._exit(1)

    before = libc.signal(signal.SIGABRT, ctypes.cast(handle, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)
