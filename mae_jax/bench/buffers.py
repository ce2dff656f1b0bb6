"""Device memory of a compiled program, from XLA's dump of its buffer assignment."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mae_jax.bench.hlo import Program, arrays
from mae_jax.bench.modules import module_of, part_of_name

_ALLOCATION = re.compile(r"^allocation \d+: (?:0x\w+, )?size (?P<size>\d+)(?P<rest>.*)$")
_VALUE = re.compile(
    r"^ value: <\d+ (?P<name>[\w.-]+)(?P<index>\{[\d,]*\})?[^@]*@\d+> "
    r"\(size=(?P<size>\d+),offset=(?P<offset>\d+)\): (?P<shape>.*)$"
)


class Buffer(NamedTuple):
    """A region of the temporary memory, shared by values with disjoint lifetimes."""

    bytes: int
    shape: str
    """Shape of its largest value, e.g. 'f32[256,16,197,197]'."""
    modules: tuple[str, ...]
    """Modules that compute its values of at least half its size: 'decoder/block_0/attention'."""


class Memory(NamedTuple):
    """Bytes in the main memory of a device."""

    arguments: int
    """State and batch."""
    aliased: int
    """Donated arguments, whose buffers outputs reuse."""
    outputs: int
    """Outputs that reuse no argument."""
    temporaries: int
    constants: int
    buffers: tuple[Buffer, ...]
    """The largest temporary buffers; they need not be in use at the same time."""

    @property
    def total(self) -> int:
        """Bytes that must fit: arguments, outputs, temporaries and constants."""
        return self.arguments + self.outputs + self.temporaries + self.constants


def read_buffers(text: str, program: Program, largest: int = 12) -> Memory:
    """Adds up the allocations of a dump.

    Args:
        text: of '*buffer-assignment.txt'.
        program: the program of the dump, which has the op_name of each value.
        largest: number of `buffers`.
    """
    sums = dict.fromkeys(("arguments", "aliased", "outputs", "temporaries", "constants"), 0)
    regions: dict[tuple[int, int], list[tuple[int, str, str]]] = {}
    for number, (size, rest, values) in enumerate(_allocations(text)):
        if re.search(r"\bcolor [1-9]", rest) or "thread-local" in rest:
            continue  # memory on the chip
        live = "maybe-live-out" in rest or "output shape" in rest
        if "parameter" in rest:
            sums["arguments"] += size
            sums["aliased"] += size if live else 0
        else:
            sums[_kind(rest, live)] += size
        if "preallocated-temp" in rest:
            for value in (one for one in values if not one["shape"].startswith("(")):
                entry = (int(value["size"]), value["name"], value["shape"])
                regions.setdefault((number, int(value["offset"])), []).append(entry)
    operations = {one.name: one.op_name for _, one in program.all()}
    buffers = [_buffer(values, operations) for values in regions.values()]
    buffers.sort(key=lambda buffer: -buffer.bytes)
    return Memory(**sums, buffers=tuple(buffers[:largest]))


def _kind(rest: str, live: bool) -> str:
    if live:
        return "outputs"
    return "constants" if "constant" in rest else "temporaries"


def _allocations(text: str) -> Iterator[tuple[int, str, list[re.Match]]]:
    """(size, description, values) of each allocation."""
    current: tuple[int, str, list[re.Match]] | None = None
    for line in text.splitlines():
        if header := _ALLOCATION.match(line):
            if current:
                yield current
            current = (int(header["size"]), header["rest"], [])
        elif current and (value := _VALUE.match(line)):
            current[2].append(value)
    if current:
        yield current


def _buffer(values: list[tuple[int, str, str]], operations: dict[str, str]) -> Buffer:
    values = sorted(values, reverse=True)
    largest = values[0][0]
    names = [operations.get(name, "") for size, name, _ in values if 2 * size >= largest]
    modules = dict.fromkeys(module_of(name) or part_of_name(name) for name in names if name)
    found = arrays(values[0][2])
    shape = f"{found[0].dtype}[{','.join(map(str, found[0].dims))}]" if found else ""
    return Buffer(largest, shape, tuple(modules))
