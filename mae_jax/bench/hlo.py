"""The collectives of a compiled program, counted in its text: how often they run in one call, and
how many bytes they move.

What is counted are the instructions after partitioning, those inside of loops as often as the loop
runs where the compiler knows that, else once. Bytes are per device, of ring algorithms on groups of
n: an all-reduce moves 2 (n - 1) / n of its result, an all-gather (n - 1) / n, a reduce-scatter
n - 1 times its result, an all-to-all (n - 1) / n, a permutation all.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

_INSTRUCTION = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.-]+ = (?P<shape>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\("
)
_SHAPE = re.compile(r"\b(pred|token|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\) -> .*\{$")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_CALLEES = re.compile(r"\b(calls|body|condition|to_apply)=%?([\w.-]+)")
_ENDINGS = ("async-done(", "async-update(")
"""Older versions write here again what the start calls."""
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Collective(NamedTuple):
    """One instruction."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    """Of the arrays of its result, on one device."""
    payload: int
    """Bytes of its result."""
    moved: float
    """Bytes that a device sends each time."""
    group: int
    """Devices that take part together."""
    times: int
    """How often it runs in one call of the program."""
    op_name: str
    """What it was made for: a path of JAX, e.g. 'jit(step)/jvp(MAE)/encoder/embed/dot_general'."""


def collectives(text: str, devices: int) -> list[Collective]:
    """All collectives of a program.

    Args:
        text: of `compiled.as_text()`.
        devices: of the program; the size of groups that are not written out.
    """
    computations, entry = _computations(text)
    times = {name: 0 for name in computations}
    _visit(entry, 1, computations, times)
    found = []
    for name, lines in computations.items():
        for line in lines if times[name] else ():
            match = _INSTRUCTION.match(line)
            if match:
                found.append(_collective(match, line, devices, times[name]))
    return found


def totals(found: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """By kind: 'count' of instructions that run in a call, 'payload' and 'moved' bytes."""
    sums: dict[str, dict[str, float]] = {}
    for one in found:
        row = sums.setdefault(one.kind, dict(count=0, payload=0, moved=0.0))
        row["count"] += one.times
        row["payload"] += one.times * one.payload
        row["moved"] += one.times * one.moved
    return sums


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each function of a program, and the name of the one that is called."""
    computations: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name = header["name"]
            computations[name] = []
            entry = name if header["entry"] else entry
        elif name:
            computations[name].append(line)
    return computations, entry


def _visit(name: str, times: int, computations: dict[str, list[str]], total: dict[str, int]):
    """Adds up how often each function runs if this one runs so many times more."""
    total[name] += times
    for line in computations[name]:
        if any(ending in line for ending in _ENDINGS):
            continue
        trips = _TRIPS.search(line)
        called = _CALLEES.findall(line)
        for branches in _BRANCHES.findall(line):
            called += [("branch", callee.strip().lstrip("%")) for callee in branches.split(",")]
        for key, callee in called:
            if callee in computations:
                more = int(trips[1]) if trips and key == "body" else 1
                _visit(callee, times * more, computations, total)


def _collective(match: re.Match, line: str, devices: int, times: int) -> Collective:
    arrays = [
        (dtype, tuple(int(n) for n in sides.split(",") if n))
        for dtype, sides in _SHAPE.findall(match["shape"])
    ]
    kind, group = match["kind"], _group(line, devices)
    if match["start"] and kind != "all-reduce":  # operands, then results, then counters
        arrays = [array for array in arrays if array[1] or kind != "collective-permute"]
        arrays = arrays[len(arrays) // 2 :]
    payload = sum(_bytes(dtype) * math.prod(shape) for dtype, shape in arrays)
    share = {
        "all-reduce": 2 * (group - 1) / group,
        "all-gather": (group - 1) / group,
        "reduce-scatter": group - 1,
        "all-to-all": (group - 1) / group,
        "collective-permute": 1,
    }
    op_name = re.search(r'op_name="([^"]*)"', line)
    return Collective(
        kind,
        tuple(shape for _, shape in arrays),
        payload,
        share[kind] * payload,
        group,
        times,
        op_name[1] if op_name else "",
    )


def _bytes(dtype: str) -> int:
    """Of one number: 4 for 'f32', 1 for 'pred' and for anything of 8 bits or less."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 1 if dtype == "pred" else 0


def _group(line: str, devices: int) -> int:
    """The number of devices of a group, from any of the ways in which XLA writes groups:
    {{0,1},{2,3}}, [2,2]<=[4], mesh['a'=2,'b'=2] {'b'}; {} or nothing are all devices.
    """
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    if listed:
        return listed[1].count(",") + 1
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if iota:
        return int(iota[1])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", line)
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])  # an axis, or a part of one
        return math.prod(int(part) if part else sizes[axis] for axis, part in axes)
    return devices
