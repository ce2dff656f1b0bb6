"""A config's training step, compiled for accelerators that are not here: memory, collectives,
traffic of the main memory, and the bounds that follow.

The step is compiled as training would compile it, for the devices of a topology by name; see
`compile_run`. Nothing runs, so no time is measured: bytes over bandwidth and model FLOPs over the
peak are bounds from below on the time of a step, and with `full` the compiler's own estimate of
cycles says where it expects the time to go. What the compiler says of memory is exact. For GPUs,
Triton's matrix products are left out, as they are chosen by timing on the device.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mae_jax.bench.buffers import read_buffers
from mae_jax.bench.collectives import collectives, totals
from mae_jax.bench.compile_run import Dump, compile_in_child
from mae_jax.bench.hlo import Program, parse
from mae_jax.bench.machines import Machine, Topology
from mae_jax.bench.modules import PARTS, part_of
from mae_jax.bench.traffic import traffic

Report = dict[str, Any]
GATHERED = 0.1
"""Share of the parameters that may be gathered by all-reduces: vectors are."""
LARGEST = 16
"""Modules that are listed by their traffic."""


def bench_compile(
    config: ConfigDict,
    topology: Topology,
    *,
    name: str = "",
    image_size: Sequence[int] = (),
    full: bool = False,
) -> Report:
    """Compiles a config's step for a topology.

    Args:
        name: of the config, for the report.
        image_size: see `make_setup`.
        full: compile to the end, for the compiler's estimates of cycles; takes minutes.

    Returns:
        All numbers, ready for JSON, as `report` says.

    Raises:
        UserError: see `compile_in_child`.
    """
    dump = compile_in_child(config, topology, image_size=image_size, full=full)
    return dict(config=name, seconds=dump.seconds) | report(dump, topology)


def report(dump: Dump, topology: Topology) -> Report:
    """What a dump says of a step. 'faults' are the reasons not to train like this, 'notes' the
    limits of these numbers: lines, or none. Bytes and times are of one device and one step.
    """
    facts, machine = dump.facts, topology.machine
    found = dict(
        topology=topology.name,
        slices=topology.slices,
        machine=machine._asdict(),
        **facts,
        images_per_device=facts["batch_size"] / facts["devices"],
        fits=not dump.refused,
        faults=[],
        notes=[],
    )
    if dump.refused:
        found["faults"].append(f"it does not fit: {refusal(dump.refused)}")
        return found
    program = parse(dump.program)
    found["memory"] = memory(dump, program, machine)
    found["fits"] = found["memory"]["share"] <= 1
    found["notes"] = notes(program)
    found |= communication(program, facts)
    moved = traffic(program)
    found["traffic"] = dict(
        total=moved.total,
        without_copies=moved.total - moved.parts.get("copies", 0.0),
        parts=moved.parts,
        modules=dict(list(moved.modules.items())[:LARGEST]),
        attention_share=attention(moved.parts),
    )
    found["bounds"] = bounds(facts, machine, moved.total)
    if dump.final and (taken := cycles(parse(dump.final))):
        found["cycles"] = taken
    found["faults"] += faults(found)
    return found


def memory(dump: Dump, program: Program, machine: Machine) -> Report:
    """Bytes of a device's memory and their 'share' of what it has."""
    needed = read_buffers(dump.buffers, program)
    sums = {name: value for name, value in needed._asdict().items() if name != "buffers"}
    largest = [one._asdict() for one in needed.buffers]
    share = needed.total / machine.memory
    return sums | dict(total=needed.total, share=share, largest=largest)


def communication(program: Program, facts: Report) -> Report:
    """The collectives by kind, and the bytes that all-gathers and all-reduces gather."""
    found = collectives(program, facts["devices"])
    return dict(
        collectives=totals(found),
        gathered=dict(
            all_gather=sum(one.times * one.payload for one in found if one.kind == "all-gather"),
            all_reduce=sum(one.times * one.gathers for one in found),
        ),
    )


def attention(parts: dict[str, float]) -> float:
    """The share of attention."""
    mine = sum(value for name, value in parts.items() if name.endswith("attention"))
    return mine / sum(parts.values()) if parts else 0.0


def bounds(facts: Report, machine: Machine, moved: float) -> Report:
    """Seconds below which a step cannot take, and the utilization that the longest of them leaves:
    model FLOPs over the peak.
    """
    found: Report = dict(memory=moved / machine.bandwidth)
    if facts["flops_per_image"]:
        flops = facts["flops_per_image"] * facts["batch_size"] / facts["devices"]
        found["arithmetic"] = flops / machine.flops
        found["mfu"] = found["arithmetic"] / max(found["arithmetic"], found["memory"])
    return found


def cycles(program: Program) -> dict[str, float]:
    """The compiler's estimate by part, where it says so: programs of TPUs, compiled to the end."""
    found, times = Counter(), program.times()
    fusions = (one for _, one in program.all() if one.opcode == "fusion")
    fused = {callee for one in fusions for _, callee in one.callees}
    for name, one in program.all():
        estimate = re.search(r'"estimated_cycles":"(\d+)"', one.attributes)
        if estimate and times[name] and name not in fused and one.opcode != "while":
            found[part_of(one, program)] += times[name] * int(estimate[1])
    return {part: float(found[part]) for part in PARTS if found[part]}


def notes(program: Program) -> list[str]:
    """What the numbers of a program leave out."""
    loops = program.unknown_loops()
    return [f"loops of unknown length, which count once: {loops}"] if loops else []


def faults(found: Report) -> list[str]:
    """Why not to train like this."""
    lines = []
    gigas = found["memory"]["total"] / 1e9
    if not found["fits"]:
        has = found["machine"]["memory"] / 1e9
        lines.append(f"it does not fit: it needs {gigas:.2f} GB and a device has {has:.2f}")
    gathered, size = found["gathered"], found["parameter_bytes"]
    sharded = found["mesh"]["fsdp"] > 1
    if sharded and gathered["all_reduce"] > max(GATHERED * size / 2, gathered["all_gather"]):
        lines.append(
            f"parameters are gathered by all-reduce ({gathered['all_reduce'] / 1e6:,.0f} MB, while "
            f"{gathered['all_gather'] / 1e6:,.0f} MB by all-gather), which moves twice the bytes "
            "and waits: take config.mesh.fsdp=8 or another part of the devices"
        )
    return lines


def refusal(message: str) -> str:
    """The part of a compiler's message that says how much memory it wants."""
    text = message.partition("RESOURCE_EXHAUSTED: ")[2] or message
    found = re.match(r".*?\d.*?\.(?=\s|$)", text)  # up to the sentence with numbers
    return found[0] if found else text[:300]
