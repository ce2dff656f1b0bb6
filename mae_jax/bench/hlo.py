"""A compiled program, read from its text: computations, instructions, arrays, and how often each
computation runs in one call.

The text is that of `compiled.as_text()`, or of a dump of XLA. An array notes the bytes that it
occupies in the memory of the device, padding of tiles included, and the memory space that the
compiler put it into: 0 is the device's main memory (HBM), other spaces are on the chip (of a TPU, 1
is VMEM, 2 to 6 are scalars and flags).
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_LAYOUT = r"\{(?P<minor>[\d,]*)(?::(?P<tiling>[^{}]*))?\}"
_ARRAY = re.compile(
    rf"\b(?P<dtype>pred|token|[a-z]+\d+[a-z0-9]*)\[(?P<dims>[\d,<=]*)\](?:{_LAYOUT})?"
)
_START = re.compile(r"^\s*(?P<root>ROOT )?%?(?P<name>[\w.-]+) = ")
_OPCODE = re.compile(r"\s*(?P<opcode>[a-z][\w-]*)\(")
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\) -> .*\{$")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_CALLEES = re.compile(r"\b(calls|body|condition|to_apply)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TWO_BRANCHES = re.compile(r"\b(?:true|false)_computation=%?([\w.-]+)")
_NUMBERED = ("parameter", "constant")
_ENDINGS = ("async-done", "async-update")
"""Older versions write here again what the start calls."""


class Array(NamedTuple):
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]
    space: int
    """Where it lies: 0 in the main memory of the device."""
    padded: int
    """Bytes that it occupies there."""

    @property
    def bytes(self) -> int:
        """Bytes of its elements alone."""
        return itemsize(self.dtype) * math.prod(self.dims)


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    """The arrays of its result, those of nested tuples in order."""
    operands: tuple[str, ...]
    """Names of instructions of the same computation."""
    attributes: str
    """The rest of the line."""
    root: bool
    number: int
    """Of a parameter its place, of a constant its value if it is a number from 0; else -1."""

    @property
    def op_name(self) -> str:
        """The JAX operation it was made for: 'jit(step)/jvp(MAE)/encoder/embed/dot_general'."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def channel(self) -> int | None:
        """The channel id of a collective."""
        found = re.search(r"\bchannel_id=(\d+)", self.attributes)
        return int(found[1]) if found else None

    @property
    def callees(self) -> list[tuple[str, str]]:
        """(role, computation) of those it calls: calls, body, condition, to_apply or branch."""
        if self.opcode in _ENDINGS:
            return []
        called = _CALLEES.findall(self.attributes)
        names = [n for found in _BRANCHES.findall(self.attributes) for n in found.split(",")]
        names += _TWO_BRANCHES.findall(self.attributes)
        return called + [("branch", name.strip().lstrip("%")) for name in names]


class Program(NamedTuple):
    """All computations of a compiled module."""

    computations: dict[str, dict[str, Instruction]]
    """By name; in each the instructions by name, in the order of the schedule."""
    entry: str
    """The name of the computation that a call runs."""

    def times(self) -> dict[str, int]:
        """How often each computation runs in one call; all branches of a conditional count, and the
        body of a loop of unknown length counts once.
        """
        total = dict.fromkeys(self.computations, 0)
        self._visit(self.entry, 1, total)
        return total

    def _visit(self, name: str, times: int, total: dict[str, int]) -> None:
        total[name] += times
        for one in self.computations[name].values():
            for role, callee in one.callees:
                if callee in self.computations:
                    self._visit(callee, times * (self.trips(one) if role == "body" else 1), total)

    def unknown_loops(self) -> int:
        """The number of loops whose trip count is unknown, of those that a call reaches."""
        times = self.times()
        reached = (one for name, one in self.all() if times[name] and one.opcode == "while")
        return sum(self._known_trips(one) is None for one in reached)

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs; 1 if it is unknown."""
        return self._known_trips(loop) or 1

    def _known_trips(self, loop: Instruction) -> int | None:
        """How often a loop runs: as the compiler notes it, or by the constants that its condition
        compares a counter with and that its body adds to it from 0; None: unknown.
        """
        noted = _TRIPS.search(loop.attributes)
        if noted:
            return int(noted[1])
        called = {role: name for role, name in loop.callees if name in self.computations}
        if not {"condition", "body"} <= called.keys():
            return None
        compare = self.root(called["condition"])
        inside = self.computations[called["condition"]]
        counter, bound = (inside.get(name) for name in (compare.operands * 2)[:2])
        place = re.search(r"\bindex=(\d+)", counter.attributes) if counter else None
        if "direction=LT" not in compare.attributes or not place or bound.opcode != "constant":
            return None
        return max(1, -(-bound.number // self._step(called["body"], int(place[1]))))

    def _step(self, body: str, place: int) -> int:
        """Returns the increment that the loop body adds to element `place` of the loop's state."""
        inside, root = self.computations[body], self.root(body)
        after = inside.get(root.operands[place]) if place < len(root.operands) else None
        added = [inside[name].number for name in after.operands if name in inside] if after else []
        steps = [n for n in added if n > 0]
        return steps[0] if after and after.opcode == "add" and steps else 1

    def root(self, name: str) -> Instruction:
        """What a computation returns."""
        instructions = list(self.computations[name].values())
        return next((one for one in instructions if one.root), instructions[-1])

    def all(self) -> Iterator[tuple[str, Instruction]]:
        """(computation, instruction) of every line."""
        for name, instructions in self.computations.items():
            for one in instructions.values():
                yield name, one


def parse(text: str) -> Program:
    """Reads a program from its text."""
    computations: dict[str, dict[str, Instruction]] = {}
    name = entry = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name = header["name"]
            computations[name] = {}
            entry = name if header["entry"] else entry
        elif name and (one := instruction(line)):
            computations[name][one.name] = one
    return Program(computations, entry)


def instruction(line: str) -> Instruction | None:
    """Reads a line of a computation; None if it is no instruction."""
    start = _START.match(line)
    if not start:
        return None
    at = start.end()
    end = _closing(line, at) if line[at] == "(" else line.find(" ", at)
    opcode = _OPCODE.match(line, end)
    if not opcode:
        return None
    close = _closing(line, opcode.end() - 1)
    inside = line[opcode.end() : close - 1]
    operands = re.findall(r"%([\w.-]+)", inside)
    return Instruction(
        start["name"],
        opcode["opcode"],
        arrays(line[at:end]),
        tuple(operands),
        line[close:],
        bool(start["root"]),
        int(inside) if opcode["opcode"] in _NUMBERED and inside.isdigit() else -1,
    )


def _closing(line: str, at: int) -> int:
    """The place behind the parenthesis that closes the one at `at`."""
    depth = 0
    for place in range(at, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if depth == 0:
            return place + 1
    return len(line)


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape such as '(f32[8,3]{1,0:T(8,128)S(1)}, u32[])'."""
    found = []
    for match in _ARRAY.finditer(shape):
        dims = tuple(int(n.lstrip("<=")) for n in match["dims"].split(",") if n)
        tiling = match["tiling"] or ""
        space = re.search(r"S\((\d+)\)", tiling)
        minor = [int(n) for n in (match["minor"] or "").split(",") if n]
        elements = _padded(dims, minor, tiling)
        size = itemsize(match["dtype"]) * elements
        found.append(Array(match["dtype"], dims, int(space[1]) if space else 0, size))
    return tuple(found)


def _padded(dims: tuple[int, ...], minor: list[int], tiling: str) -> int:
    """Elements that an array occupies: its minor-most axes are filled up to whole tiles."""
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    if not tile or not dims:
        return math.prod(dims)
    sides = [int(n) for n in tile[1].split(",")]
    order = [dims[axis] for axis in reversed(minor)] if minor else list(dims)
    order = [1] * (len(sides) - len(order)) + order
    for place, side in enumerate(reversed(sides), start=1):
        order[-place] = -(-order[-place] // side) * side
    return math.prod(order)


def itemsize(dtype: str) -> int:
    """Bytes of one number: 4 for 'f32', 1 for 'pred' and for anything of 8 bits or less."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 1 if dtype == "pred" else 0
