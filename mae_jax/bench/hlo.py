"""Parses the text of a compiled program: computations, instructions, arrays, and how often each
computation runs in one call.

The text is from `compiled.as_text()`, or from an XLA dump. An array has the bytes that it occupies
in device memory, including tile padding, and its memory space: 0 is the device's main memory (HBM),
other spaces are on the chip (on a TPU, 1 is VMEM, 2 to 6 are scalars and flags).
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
"""Older versions of XLA repeat the callees of the start instruction here."""


class Array(NamedTuple):
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]
    space: int
    """Memory space; 0 is the main memory of the device."""
    padded: int
    """Bytes that it occupies, including tile padding."""

    @property
    def bytes(self) -> int:
        """Bytes of its elements, without padding."""
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
    """The index of a parameter, the value of a constant that is a natural number; else -1."""

    @property
    def op_name(self) -> str:
        """The JAX operation it implements: 'jit(step)/jvp(MAE)/encoder/embed/dot_general'."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def target(self) -> str:
        """The target of a custom call."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def channel(self) -> int | None:
        """The channel id of a collective."""
        match = re.search(r"\bchannel_id=(\d+)", self.attributes)
        return int(match[1]) if match else None

    @property
    def callees(self) -> list[tuple[str, str]]:
        """(role, computation) of each callee; roles: calls, body, condition, to_apply, branch."""
        if self.opcode in _ENDINGS:
            return []
        called = _CALLEES.findall(self.attributes)
        names = [n for listed in _BRANCHES.findall(self.attributes) for n in listed.split(",")]
        names += _TWO_BRANCHES.findall(self.attributes)
        return called + [("branch", name.strip().lstrip("%")) for name in names]


class Program(NamedTuple):
    """All computations of a compiled module."""

    computations: dict[str, dict[str, Instruction]]
    """Name of a computation -> name of an instruction -> instruction, in the scheduled order."""
    entry: str
    """The name of the entry computation."""

    def times(self) -> dict[str, int]:
        """Name of a computation -> how often it runs in one call. All branches of a conditional
        count, and the body of a loop of unknown length counts once.
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
        """The number of loops with an unknown trip count that a call reaches."""
        times = self.times()
        reached = (one for name, one in self.all() if times[name] and one.opcode == "while")
        return sum(self._known_trips(one) is None for one in reached)

    def trips(self, loop: Instruction) -> int:
        """The trip count of a loop; 1 if it is unknown."""
        return self._known_trips(loop) or 1

    def _known_trips(self, loop: Instruction) -> int | None:
        """The trip count of a loop: the compiler's annotation, or bound / increment of a counter
        from 0; None: unknown.
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
        index = re.search(r"\bindex=(\d+)", counter.attributes) if counter else None
        if "direction=LT" not in compare.attributes or not index or bound.opcode != "constant":
            return None
        return max(1, -(-bound.number // self._step(called["body"], int(index[1]))))

    def _step(self, body: str, index: int) -> int:
        """Returns the increment that the loop body adds to element `index` of the loop's state."""
        inside, root = self.computations[body], self.root(body)
        after = inside.get(root.operands[index]) if index < len(root.operands) else None
        added = [inside[name].number for name in after.operands if name in inside] if after else []
        steps = [n for n in added if n > 0]
        return steps[0] if after and after.opcode == "add" and steps else 1

    def root(self, name: str) -> Instruction:
        """The root instruction, whose result a computation returns."""
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
    """The position after the parenthesis that closes the one at `at`."""
    depth = 0
    for position in range(at, len(line)):
        depth += {"(": 1, ")": -1}.get(line[position], 0)
        if depth == 0:
            return position + 1
    return len(line)


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape such as '(f32[8,3]{1,0:T(8,128)S(1)}, u32[])'."""
    result = []
    for match in _ARRAY.finditer(shape):
        dims = tuple(int(n.lstrip("<=")) for n in match["dims"].split(",") if n)
        tiling = match["tiling"] or ""
        space = re.search(r"S\((\d+)\)", tiling)
        minor = [int(n) for n in (match["minor"] or "").split(",") if n]
        elements = _padded(dims, minor, tiling)
        size = itemsize(match["dtype"]) * elements
        result.append(Array(match["dtype"], dims, int(space[1]) if space else 0, size))
    return tuple(result)


def _padded(dims: tuple[int, ...], minor: list[int], tiling: str) -> int:
    """Elements that an array occupies: its minor-most axes are padded to whole tiles."""
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    if not tile or not dims:
        return math.prod(dims)
    sides = [int(n) for n in tile[1].split(",")]
    order = [dims[axis] for axis in reversed(minor)] if minor else list(dims)
    order = [1] * (len(sides) - len(order)) + order
    for axis, side in enumerate(reversed(sides), start=1):
        order[-axis] = -(-order[-axis] // side) * side
    return math.prod(order)


def itemsize(dtype: str) -> int:
    """Bytes of one element: 4 for 'f32', 1 for 'pred' and types of 8 bits or less."""
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 1 if dtype == "pred" else 0
