"""Bytes that a compiled program moves between the chip and its main memory, by part of the model.

They are the operands and results in HBM of all instructions that run: arrays that a TPU's compiler
keeps in VMEM move no bytes. Tile padding counts. A sliced operand counts with its slices only, an
in-place update with the update. A loop counts times its trip count, if the compiler knows it; of a
conditional, the branch with the most traffic counts. Each operand counts once per instruction; a
kernel that reads it twice moves more.
"""

import re
from collections import Counter
from typing import NamedTuple

from mae_jax.bench.hlo import Array, Instruction, Program
from mae_jax.bench.modules import COLLECTIVES, PARTS, module_of, part_of

COPIES = "copies"

_FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast after-all partition-id replica-id "
    "opt-barrier add-dependency async-done async-update domain".split()
)
_FREE_CALLS = re.compile(
    r"AllocateBuffer|ConcatBitcast|ZeroCrop|Assume|AsyncCollective|Sharding|Bitpacked|SliceId"
)
_SLICES = ("slice", "dynamic-slice", "gather")


class Traffic(NamedTuple):
    """Bytes of one call on one device."""

    parts: dict[str, float]
    """Part, one of `PARTS` -> bytes."""
    modules: dict[str, float]
    """Module, e.g. 'decoder/block_0/attention' -> bytes."""

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())


def traffic(program: Program) -> Traffic:
    """Adds up the bytes of all instructions that run in a call."""
    parts, modules = Counter(), Counter()
    for part, module, size in _moved(program, program.entry, 1):
        parts[part] += size
        modules[module] += size
    order = {part: float(parts[part]) for part in PARTS if parts[part]}
    return Traffic(order, {name: float(size) for name, size in modules.most_common()})


def _moved(program: Program, name: str, times: int) -> list[tuple[str, str, float]]:
    """(part, module, bytes) of the instructions of a computation that runs `times` times."""
    moved = []
    for one in program.computations[name].values():
        if one.opcode in ("while", "conditional", "call"):
            moved += _inside(program, one, times)
        elif size := bytes_of(program, name, one):
            part = part_of(one, program)
            module = module_of(one.op_name) if part != COPIES else ""
            moved.append((part, module or part, times * size))
    return moved


def _inside(program: Program, one: Instruction, times: int) -> list[tuple[str, str, float]]:
    """As `_moved`, for the computations of a loop, a conditional or a call."""
    total = lambda moved: sum(size for _, _, size in moved)
    if one.opcode == "while":
        times *= program.trips(one)
    roles = {"while": "body", "conditional": "branch", "call": "to_apply"}
    called = [
        _moved(program, callee, times)
        for role, callee in one.callees
        if role == roles[one.opcode] and callee in program.computations
    ]
    return max(called, key=total, default=[])


def bytes_of(program: Program, name: str, one: Instruction) -> float:
    """Bytes in HBM that an instruction of a computation reads and writes per execution."""
    around = program.computations[name]
    if one.opcode in _FREE or one.opcode.endswith("-done"):
        return 0
    if one.opcode == "custom-call" and _FREE_CALLS.search(one.target):
        return 0
    if one.opcode in ("send", "recv"):  # from, or to, the memory; flags
        return _size(one.result[:1])
    if one.opcode == "copy-start":  # the result, the operand, a flag
        return _size(one.result[:2])
    operands = [around[name].result if name in around else () for name in one.operands]
    called = next((callee for role, callee in one.callees if role == "calls"), "")
    if called in program.computations:
        return Fused(program, called).bytes(operands)
    if one.opcode.removesuffix("-start") in _SLICES and operands:
        result = one.result  # of a start it is the operands, the slice and flags
        result = result[1:2] if one.opcode.endswith("-start") else result
        source = _padded(result) if _size(operands[0]) else 0
        return source + _size(result) + sum(map(_size, operands[1:]))
    if one.opcode == "dynamic-update-slice":
        return _size(operands[1]) + (_padded(operands[1]) if _size(one.result) else 0)
    result = one.result
    if one.opcode.endswith("-start") and one.opcode != "all-reduce-start":  # operands, results
        result = tuple(array for array in result if array.dims)[len(operands) :]
    if one.target.startswith("__cu"):  # the last result is the library's workspace
        result = result[:-1] if len(result) > 1 and result[-1].dtype == "s8" else result
    return sum(map(_size, operands)) + _size(result)


class Fused:
    """A computation that runs as one kernel: only its operands and results are in memory."""

    def __init__(self, program: Program, name: str):
        self.program, self.inside = program, program.computations[name]
        self.root = program.root(name)
        self.users: dict[str, list[Instruction]] = {}
        for one in self.inside.values():
            for operand in one.operands:
                self.users.setdefault(operand, []).append(one)
        # A TPU repeats an asynchronous collective in each fusion that overlaps it: counts once.
        late = [one for one in self.inside.values() if "AsyncCollective" in one.target]
        starts = any(one.target == "AsyncCollectiveStart" for one in late)
        self.passing = COLLECTIVES if (late or "async_coll" in name) and not starts else ()

    def bytes(self, operands: list[tuple[Array, ...]]) -> float:
        """Bytes that a call reads from its operands and writes."""
        total = 0.0
        for one in self.inside.values():
            if one.opcode == "parameter" and one.number < len(operands):
                size = _size(operands[one.number])
                total += self.read(one.name, size) if size else 0
        results = self.root.operands if self.root.opcode == "tuple" else (self.root.name,)
        return total + sum(self.written(name) for name in results)

    def read(self, name: str, whole: float) -> float:
        """Bytes that are read from an operand of `whole` bytes."""
        used = whole if name == self.root.name else 0.0
        for user in self.users.get(name, ()):
            if user.opcode == "bitcast":
                used += self.read(user.name, whole)
            elif user.opcode in _SLICES and user.operands[0] == name:
                used += _padded(user.result)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                continue
            elif user.opcode == "pad":  # padded windows of products are sliced afterwards
                share = _padded(self.inside[name].result) / _padded(user.result)
                used += share * self.read(user.name, whole / share)
            elif user.opcode == "fusion" and (nested := self.nested(user)):
                used += nested.read_all(user, name, whole)
            elif user.opcode in ("tuple", *self.passing) or _FREE_CALLS.search(user.target):
                continue
            else:
                return whole
        return min(used, whole)

    def nested(self, fusion: Instruction) -> "Fused | None":
        """A nested fusion, which is part of the same kernel."""
        called = next((callee for role, callee in fusion.callees if role == "calls"), "")
        return Fused(self.program, called) if called in self.program.computations else None

    def read_all(self, fusion: Instruction, name: str, whole: float) -> float:
        """Bytes that are read from an operand, which the calling fusion may pass repeatedly."""
        places = [i for i, operand in enumerate(fusion.operands) if operand == name]
        inside = [one for one in self.inside.values() if one.opcode == "parameter"]
        return sum(self.read(one.name, whole) for one in inside if one.number in places)

    def written(self, name: str) -> float:
        """Bytes that are written for a result."""
        one = self.inside.get(name)
        size = _size(one.result) if one else 0
        while one and one.opcode == "bitcast":
            one = self.inside.get(one.operands[0])
        if not size or one is None:
            return size
        if one.opcode == "dynamic-update-slice":
            return min(size, _padded(self.inside[one.operands[1]].result))
        if one.opcode in ("parameter", "get-tuple-element", *self.passing):
            return 0
        return size


def _size(arrays: tuple[Array, ...]) -> float:
    """Bytes of the arrays in HBM."""
    return sum(array.padded for array in arrays if array.space == 0)


def _padded(arrays: tuple[Array, ...]) -> float:
    """Bytes of the arrays in any memory space."""
    return sum(array.padded for array in arrays)
