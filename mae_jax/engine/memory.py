"""Checks of device memory before anything is allocated, and error messages if it runs out anyway.

JAX on a CPU can wait forever for the outputs of a program if one of them cannot be allocated (seen
in 0.10.2), so a program that does not fit must not be started.
"""

import contextlib
import math
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mae_jax.rules import path_of
from mae_jax.types import UserError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def explained(advice: str | Callable[[], str]):
    """Turns an out-of-memory error inside into a one-line UserError.

    Args:
        advice: which setting to lower; a function is called only if memory ran out.

    Raises:
        UserError: memory ran out. Other errors pass through.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        owner = "this machine" if isinstance(error, MemoryError) else "a device"
        size = re.search(r"allocat\w+ ([\d.]+ ?\w+)", text)
        asked = f" for an allocation of {size[1]}" if size else ""
        way_out = advice() if callable(advice) else advice
        raise UserError(f"the memory of {owner} is not enough{asked}: {way_out}") from error


def free_memory() -> int | None:
    """Free bytes on each local device; CPU devices share the machine's memory. None if the platform
    does not report it.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        available = host_memory()
        return available // len(devices) if available is not None else None
    stats = [device.memory_stats() or {} for device in devices]
    if not all("bytes_limit" in one for one in stats):
        return None
    return min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats)


def host_memory() -> int | None:
    """Bytes that this process can still allocate: the minimum over the machine, the cgroups and the
    resource limit of the process. None if the system does not report any.
    """
    sizes = [_machine(), *_cgroups(), _limit()]
    return min((size for size in sizes if size is not None), default=None)


def _machine() -> int | None:
    """Available bytes according to Linux, plus the free swap."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if " kB" in line}
    return sizes["MemAvailable"] + sizes.get("SwapFree", 0) if "MemAvailable" in sizes else None


def _cgroups() -> list[int]:
    """Bytes left under the memory limit of each cgroup of this process (versions 2 and 1). Cached
    files count as free, as Linux drops them first.
    """
    try:
        lines = [line.split(":", 2) for line in (PROC / "self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, path in lines:
        if controllers == "":
            root, names = CGROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        below = Path(path.lstrip("/"))
        for folder in {root / parent for parent in (below, *below.parents)}:
            with contextlib.suppress(OSError, ValueError, KeyError):  # 'max': no limit
                limit, used = (int((folder / name).read_text()) for name in names)
                stat = dict(
                    line.split() for line in (folder / "memory.stat").read_text().splitlines()
                )
                prefix = "total_" if "total_inactive_file" in stat else ""
                cached = sum(int(stat[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
                left.append(max(0, limit - used + cached))
    return left


def _limit() -> int | None:
    """Bytes left under the limit of `ulimit -v`."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int((PROC / "self/statm").read_text().split()[0])
    except OSError:
        return None
    return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


def bytes_on_device(tree: Any) -> int:
    """Bytes per device of a tree of arrays, or of shapes with shardings."""

    def size(leaf):
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))


def check_room(needed: int, what: str, advice: str) -> None:
    """Checks that each local device has enough free memory.

    Args:
        needed: bytes per device.
        what: what needs them, the subject of the message.
        advice: which setting to lower.

    Raises:
        UserError: there is not enough.
    """
    free = free_memory()
    if free is None or needed <= free:
        return
    devices = jax.local_devices()
    shared = devices[0].platform == "cpu" and len(devices) > 1
    each = (
        f" on each of {len(devices)} devices, which share the memory" if shared else " on a device"
    )
    raise UserError(
        f"{what} needs {readable(needed)}{each}, and only {readable(free)} are free: {advice}"
    )


def check_state(abstract_state: Any, what: str = "train state (parameters and moments)") -> None:
    """Checks that the devices can hold a train state, before it is allocated.

    Args:
        abstract_state: shapes and shardings of the state or of a part of it.
        what: name of that part, for the message.

    Raises:
        UserError: the devices have too little memory.
    """
    leaves = jax.tree_util.tree_leaves_with_path(abstract_state)
    path, largest = max(leaves, key=lambda leaf: bytes_on_device(leaf[1]))
    devices = largest.sharding.device_set if largest.sharding else jax.local_devices()
    on_cpu = next(iter(devices)).platform == "cpu"
    split = "" if on_cpu else ", or split it: config.mesh.fsdp=-1"
    check_room(
        bytes_on_device(abstract_state),
        f"the {what}",
        f"choose a smaller model in config.method.args (its largest array is {path_of(path)}, "
        f"{list(largest.shape)}){split}",
    )


def step_advice(config: ConfigDict) -> str:
    """Which settings to change if a training step does not fit in device memory, best first.

    Microbatches of 32 images of a ViT-B/16 also move less memory than the whole batch if much of
    them fits into a TPU's fast memory. Rematerialization costs time on every platform.
    """
    args = config.method.args
    advice = (
        f"lower config.data.batch_size ({config.data.batch_size} now), or raise config.accumulate "
        f"({config.accumulate} now)"
    )
    if jax.local_devices()[0].platform == "tpu":
        advice += ": microbatches of 32 images or fewer per chip also move less memory"
    if "encoder" in args and str(args.encoder).startswith("vit"):
        decoder = " and decoder_remat=full" if "decoder_remat" in args else ""
        advice += f"; then set remat=full in vit(...){decoder}"
    return advice


def readable(size: float) -> str:
    """'1.25 GB', in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.3g} {unit}"
        size /= 1000
