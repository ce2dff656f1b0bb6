"""Makes the small texts of `tests/bench/programs` of what a compiler dumps.

    python -m mae_jax bench compile ... with the child's folder kept, then
    python -m tests.helpers.trim_dump FOLDER tests/bench/programs/NAME

leaves out what no reader of `mae_jax.bench` looks at: settings of code generation, lines of source,
bodies of fusions that neither slice nor communicate, functions of reductions, small buffers.
"""

import lzma
import re
import sys
from pathlib import Path

from mae_jax.bench.compile_run import dumped
from mae_jax.bench.hlo import parse

TELLING = {"slice", "dynamic-slice", "gather", "dynamic-update-slice", "pad"}
TELLING |= {"all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all"}
SMALL = 4096
"""Bytes of a temporary that is left out."""


def trim_program(text):
    """The program with all that decides on memory, traffic and collectives."""
    program = parse(text)
    fused, reductions = set(), set()
    for _, one in program.all():
        for role, name in one.callees:
            if one.opcode in ("fusion", "async-start"):
                fused.add(name)
            elif role == "to_apply" and one.opcode != "call":
                reductions.add(name)
    dropped = {name for name in fused if not _telling(program, name)} | (reductions - fused)
    lines, name = [], ""
    for line in text.splitlines():
        header = re.match(r"^(?:ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$", line)
        name = header[1] if header else name
        if name and name not in dropped:
            lines.append(_header(line) if header else _shorter(line))
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _telling(program, name):
    inside = program.computations[name].values()
    if any(one.opcode in TELLING or "AsyncCollective" in one.target for one in inside):
        return True
    return any(one.opcode == "tuple" and one.root for one in inside) or any(
        _telling(program, callee) for one in inside for _, callee in one.callees if "fus" in callee
    )


def _header(line):
    """Parameters and results of a computation stand in its lines too."""
    return re.sub(r"\(.*\) -> .*\{$", "() -> () {", line)


def _shorter(line):
    found = re.findall(r'"(?:estimated_cycles|known_trip_count)":(?:"\d+"|\{[^}]*\})', line)
    line = re.sub(r", backend_config=.*$", "", line)
    line = re.sub(r" stack_frame_id=\d+|, metadata=\{(op_type[^}]*)?\}", "", line)
    line = re.sub(r", (frontend_attributes|output_to_operand_aliasing|window)=\{[^ ]*\}", "", line)
    line = re.sub(r"/\*index=\d+\*/", "", line)
    return line + f", backend_config={{{','.join(found)}}}" * bool(found)


def trim_buffers(text):
    """The allocations, and the values of temporaries that are not small."""
    kept, temporaries = [], False
    for line in text.splitlines():
        if line.startswith("allocation"):
            temporaries = "preallocated-temp" in line and "color" not in line
            if "thread-local" not in line:
                kept.append(re.sub(r"shape is \|.*\|", "shape is ||", line))
        elif temporaries and int(re.search(r"size=(\d+)", line)[1]) >= SMALL:
            kept.append(line)
        elif line.startswith("BufferAssignment"):
            kept.append(line)
    return "\n".join(kept) + "\n"


def main(folder, name):
    """Writes NAME.hlo.xz and NAME.buffers.xz."""
    program, buffers = dumped(Path(folder))
    for path, text in (
        (f"{name}.hlo.xz", trim_program(program.read_text())),
        (f"{name}.buffers.xz", trim_buffers(buffers.read_text())),
    ):
        Path(path).write_bytes(lzma.compress(text.encode(), preset=9))


if __name__ == "__main__":
    main(*sys.argv[1:])
