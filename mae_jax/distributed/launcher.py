"""Detects multi-process jobs: the number of processes and the index of this one, from the command
line or from the launcher (SLURM, Open MPI, Cloud TPU).

JAX's own detection is used wherever it is right. It is wrong for a single process on a host with
several GPUs, as JAX would use only the first; for tasks that see only their own GPU; and for Open
MPI 5, which does not report the address of process 0.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mae_jax.distributed.watchdog import DAY
from mae_jax.types import UserError

SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
"""Variables of a task that srun has started; a batch script has not all of them."""


class ProcessSpec(NamedTuple):
    """Arguments of `jax.distributed.initialize` for this process. JAX detects what is None."""

    coordinator_address: str | None
    """HOST:PORT where process 0 listens."""
    num_processes: int | None
    process_id: int | None
    local_device_ids: list[int] | None
    """Devices of this host that this process uses; empty: all."""


class Request(NamedTuple):
    """The job's options on the command line; None: not given."""

    distributed: str = "auto"
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    local_devices: str | None = None
    heartbeat_timeout: float = 30.0


def find_process(request: Request, environment: Mapping[str, str]) -> ProcessSpec | None:
    """Finds this process's place in its job; None for a single process.

    Raises:
        UserError: the request is incomplete or contradictory.
    """
    options = dict(
        coordinator=request.coordinator, processes=request.processes, process=request.process
    )
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if not 1 <= request.heartbeat_timeout <= DAY:
        timeout = request.heartbeat_timeout
        raise UserError(f"--heartbeat-timeout {timeout:g}: give seconds, 1 to {DAY:g}")
    if request.distributed == "off":
        given += ["--local-devices"] if request.local_devices is not None else []
        if given:
            raise UserError(f"--distributed off and {given[0]}: give one of them")
        return None
    complete = None not in (request.coordinator, request.processes, request.process)
    skip = complete and request.local_devices is not None  # nothing is left to detect
    detected = None if skip else _found(environment, request)
    by_launcher = detected or ProcessSpec(None, None, None, [])
    first = lambda *values: next((value for value in values if value is not None), None)
    count = first(request.processes, by_launcher.num_processes)
    index = first(request.process, by_launcher.process_id)
    address = first(request.coordinator, environment.get("JAX_COORDINATOR_ADDRESS"))
    devices = first(_numbers(request.local_devices), by_launcher.local_device_ids)
    undetected = detected is None and request.distributed == "auto"
    if undetected and not given:
        return None
    process = ProcessSpec(address, count, index, devices)
    _check(process, request, complete=undetected and count != 1)
    return None if count == 1 else process


def _check(process: ProcessSpec, request: Request, *, complete: bool) -> None:
    """Raises UserError if the numbers are impossible, or if nothing provides one of them."""
    address, count, index, _ = process
    options = dict(coordinator=address, processes=count, process=index)
    missing = [f"--{name}" for name, value in options.items() if value is None]
    if missing and complete:
        raise UserError(
            "--coordinator, --processes and --process belong together, and no SLURM, Open MPI or "
            f"TPU provides the missing ones: give {', '.join(missing)}"
        )
    if count is not None and count < 1:
        raise UserError(f"--processes {count}: must be at least 1")
    if count and index is not None and not 0 <= index < count:
        raise UserError(f"--process {index}: must be 0 to {count - 1} with --processes {count}")
    if address and not re.fullmatch(r".+:\d+", address):
        raise UserError(
            f"--coordinator {address}: give the host of process 0 and a free port there, e.g. "
            "node1:1234"
        )


def _numbers(text: str | None) -> list[int] | None:
    """'0,1' to [0, 1]."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"--local-devices {text}: give numbers, e.g. 0,1")
    return [int(number) for number in text.split(",")]


def _found(environment: Mapping[str, str], request: Request) -> ProcessSpec | None:
    """The process as the launcher describes it; None without a launcher."""
    shared = request.local_devices is None
    number = lambda name: int(environment[name])
    if all(name in environment for name in SLURM):
        tasks = _tasks_here(environment)
        count, index, local = (number(f"SLURM_{x}") for x in ("NTASKS", "PROCID", "LOCALID"))
        return ProcessSpec(
            None, count, index, _share(local, tasks, environment) if count > 1 and shared else []
        )
    if "OMPI_COMM_WORLD_SIZE" in environment:
        names = ("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE")
        count, index, local, tasks = (number(f"OMPI_COMM_WORLD_{name}") for name in names)
        devices = _share(local, tasks, environment) if count > 1 and shared else []
        return ProcessSpec(None, count, index, devices)
    return _tpu(request)


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Number of tasks of the SLURM step on this node, from e.g. '2(x3),1'."""
    listed = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, times = part.partition("(x")
        listed += [int(tasks)] * int(times.rstrip(")") or 1)
    return listed[min(int(environment.get("SLURM_NODEID", 0)), len(listed) - 1)]


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """NVIDIA GPUs that this process may use, as named in CUDA_VISIBLE_DEVICES."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    return [name for name in listed.split(",") if name not in ("", "-1")]


def _share(local: int, tasks: int, environment: Mapping[str, str]) -> list[int]:
    """The GPUs of one of several processes of a host; empty: all visible ones.

    Args:
        local: index of this process on its host.
        tasks: number of the job's processes on this host.
    """
    gpus = len(visible_gpus(environment))
    if tasks == 1 or gpus < 2:  # with one visible, the launcher has assigned the GPUs already
        return []
    if gpus % tasks:
        raise UserError(
            f"{tasks} processes on this host see {gpus} GPUs: start one process per GPU or one per "
            "host, or assign GPUs with --local-devices"
        )
    size = gpus // tasks
    return list(range(local * size, (local + 1) * size))


def _tpu(request: Request) -> ProcessSpec | None:
    """The number of hosts of this TPU; JAX detects the rest."""
    try:
        from jax._src.clusters import ClusterEnv
    except ImportError:
        return None
    kinds = [kind for kind in ClusterEnv._cluster_types if "Tpu" in kind.__name__]
    try:
        kind = next((kind for kind in kinds if kind.is_env_present()), None)
        return None if kind is None else ProcessSpec(None, kind.get_process_count(), None, None)
    except Exception as error:  # the metadata service does not answer
        if None not in (request.coordinator, request.processes, request.process):
            return None
        raise UserError(
            f"this TPU does not report its number of hosts ({error}): give --distributed off if it "
            "has one, else --coordinator, --processes and --process"
        ) from error
