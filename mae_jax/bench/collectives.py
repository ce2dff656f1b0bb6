"""The collectives of a compiled program: how often they run in one call, and the bytes they move.

They are counted after partitioning; inside a loop, times its trip count if the compiler knows it,
else once. TPU programs repeat an asynchronous collective, with the same channel id, in every fusion
that overlaps it: it counts once. An all-reduce whose fusion returns only a slice of the sum is a
TPU's reduce-scatter, and counts as one. Bytes are per device, for ring algorithms on groups of n:
an all-reduce moves 2 (n - 1) / n of its result, an all-gather (n - 1) / n, a reduce-scatter n - 1
times its result, an all-to-all (n - 1) / n, a permutation all of it. Transfers between TPU slices
over the data-center network are counted as 'send', with the bytes that a device sends.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from mae_jax.bench.hlo import Array, Instruction, Program, parse

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "send")
_OPCODES = {kind + end: kind for kind in KINDS for end in ("", "-start")}
_SLICES = ("slice", "dynamic-slice")
_PASSES = ("bitcast", "copy", "copy-done", "convert", "reshape", "get-tuple-element", "transpose")


class Collective(NamedTuple):
    """One collective."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    """Shapes of the arrays of its result, on one device."""
    payload: int
    """Bytes of its result."""
    moved: float
    """Bytes that a device sends per execution."""
    group: int
    """Number of participating devices."""
    times: int
    """How often it runs in one call of the program."""
    op_name: str
    """The JAX operation that it implements: 'jit(step)/jvp(MAE)/encoder/embed/dot_general'."""
    asynchronous: bool
    """Whether it overlaps with computation."""
    gathers: int
    """Bytes that an all-reduce gathers by summing zero-padded shards."""


def collectives(program: Program | str, devices: int) -> list[Collective]:
    """All collectives of a program, each once.

    Args:
        program: parsed, or its text.
        devices: number of devices, the size of groups that the text does not list.
    """
    program = parse(program) if isinstance(program, str) else program
    times = program.times()
    wrapped = _wrapped(program)
    unique: dict[object, Collective] = {}
    for name, one in program.all():
        if one.opcode not in _OPCODES or not times[name]:
            continue
        is_async = one.opcode.endswith("-start") or one.opcode == "send"
        is_async = is_async or name in wrapped or _continues(program, name)
        new = _collective(program, name, one, devices, times[name], is_async)
        key = (new.kind, one.channel) if one.channel is not None else (name, one.name)
        if key in unique:
            seen = unique[key]
            is_async = seen.asynchronous or is_async
            new = seen._replace(times=max(seen.times, new.times), asynchronous=is_async)
        unique[key] = new
    return list(unique.values())


def totals(found: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """Kind -> 'count' of executions in a call, how many of them are 'asynchronous', and the bytes
    'payload' and 'moved'.
    """
    sums: dict[str, dict[str, float]] = {}
    for one in found:
        row = sums.setdefault(one.kind, dict(count=0, asynchronous=0, payload=0, moved=0.0))
        row["count"] += one.times
        row["asynchronous"] += one.times * one.asynchronous
        row["payload"] += one.times * one.payload
        row["moved"] += one.times * one.moved
    return sums


def _wrapped(program: Program) -> set[str]:
    """Computations that an async-start calls."""
    return {
        callee
        for _, one in program.all()
        if one.opcode == "async-start"
        for _, callee in one.callees
    }


def _continues(program: Program, name: str) -> bool:
    """Whether a fused computation starts, continues or ends a TPU's asynchronous collective."""
    inside = program.computations[name].values()
    return "async_collective" in name or any("AsyncCollective" in one.target for one in inside)


def _collective(
    program: Program, name: str, one: Instruction, devices: int, times: int, is_async: bool
) -> Collective:
    kind, group = _OPCODES[one.opcode], _group(one.attributes, devices)
    arrays = one.result
    if one.opcode.endswith("-start") and kind != "all-reduce":  # operands, results, counters
        arrays = [array for array in arrays if array.dims or kind != "collective-permute"]
        arrays = arrays[len(arrays) // 2 :]
    arrays = arrays[:1] if kind == "send" else arrays  # without flags
    op_name = one.op_name
    if kind == "all-reduce" and (part := _slice(program, name, one)):
        kind, arrays = "reduce-scatter", part
        op_name = op_name or _caller(program, name)
    payload = sum(array.bytes for array in arrays)
    share = {
        "all-reduce": 2 * (group - 1) / group,
        "all-gather": (group - 1) / group,
        "reduce-scatter": group - 1,
        "all-to-all": (group - 1) / group,
        "collective-permute": 1,
        "send": 1,
    }
    return Collective(
        kind,
        tuple(array.dims for array in arrays),
        payload,
        share[kind] * payload,
        group,
        times,
        op_name,
        is_async,
        _gathers(program, name, one) if kind == "all-reduce" else 0,
    )


def _slice(program: Program, name: str, one: Instruction) -> tuple[Array, ...]:
    """The slices of an all-reduce that a fused computation returns, if it uses nothing else."""
    inside = program.computations[name]
    users = [user for user in inside.values() if one.name in user.operands]
    if name == program.entry or one.root or not users:
        return ()
    if all(user.opcode in _SLICES for user in users):
        return tuple(array for user in users for array in user.result)
    return ()


def _caller(program: Program, name: str) -> str:
    """The op_name of the fusion that calls a computation."""
    calls = (one for _, one in program.all() if ("calls", name) in one.callees)
    return next((one.op_name for one in calls), "")


def _gathers(program: Program, name: str, one: Instruction) -> int:
    """Bytes of an all-reduce's operands that are zero-padded shards."""
    return sum(
        array.bytes
        for operand, array in zip(one.operands, one.result, strict=False)
        if _updates(program, name, operand)
    )


def _updates(program: Program, name: str, operand: str) -> bool:
    """Whether a value of a computation is the result of writing a slice into an array."""
    inside, element = program.computations[name], 0
    source = inside.get(operand)
    while source and source.opcode in _PASSES and len(source.operands) == 1:
        index = re.search(r"\bindex=(\d+)", source.attributes)
        element = int(index[1]) if index else element
        source = inside.get(source.operands[0])
    called = [callee for role, callee in source.callees if role == "calls"] if source else []
    if called and called[0] in program.computations:
        root = program.root(called[0])
        if root.opcode == "tuple" and element < len(root.operands):
            return _updates(program, called[0], root.operands[element])
        return _updates(program, called[0], root.name)
    return source is not None and source.opcode == "dynamic-update-slice"


def _group(text: str, devices: int) -> int:
    """The number of devices of a group, in any of XLA's notations: {{0,1},{2,3}}, [2,2]<=[4],
    mesh['a'=2,'b'=2] {'b'}; {} or a missing attribute means all devices.
    """
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if listed:
        return listed[1].count(",") + 1
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", text)
    if iota:
        return int(iota[1])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", text)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])  # an axis, or a part of one
        return math.prod(int(part) if part else sizes[axis] for axis, part in axes)
    return devices
