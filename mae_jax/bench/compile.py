"""A config's training step, compiled for accelerators that are not present: memory, collectives,
HBM traffic, and the resulting bounds.

The step is compiled as in training, for the devices of a named topology, see `compile_run`. Nothing
runs, so no time is measured. Traffic over bandwidth and model FLOPs over peak FLOP/s are lower
bounds on the time of a step; with `full`, the compiler also estimates cycles by part. The memory is
exact. For GPUs, Triton's matrix products are disabled, because they are chosen by timing on the
device.
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
"""Share of the parameters that all-reduces may gather without a fault, as they do with vectors."""
LARGEST = 16
"""Number of modules listed, those with the most traffic."""


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
        full: compile to machine code, for the compiler's estimates of cycles; takes minutes.

    Returns:
        All numbers, ready for JSON, see `report`.

    Raises:
        UserError: see `compile_in_child`.
    """
    dump = compile_in_child(config, topology, image_size=image_size, full=full)
    return dict(config=name, seconds=dump.seconds) | report(dump, topology)


def report(dump: Dump, topology: Topology) -> Report:
    """The report of a step, from its dump. 'faults' are lines with reasons not to train like this,
    'notes' are lines on the limits of the numbers. Bytes and times are per device and step.
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
    """Bytes of device memory that the step needs, and their 'share' of the available memory."""
    needed = read_buffers(dump.buffers, program)
    sums = {name: value for name, value in needed._asdict().items() if name != "buffers"}
    largest = [one._asdict() for one in needed.buffers]
    share = needed.total / machine.memory
    return sums | dict(total=needed.total, share=share, largest=largest)


def communication(program: Program, facts: Report) -> Report:
    """The collectives by kind, and the bytes that all-gathers and all-reduces gather."""
    moves = collectives(program, facts["devices"])
    return dict(
        collectives=totals(moves),
        gathered=dict(
            all_gather=sum(one.times * one.payload for one in moves if one.kind == "all-gather"),
            all_reduce=sum(one.times * one.gathers for one in moves),
        ),
    )


def attention(parts: dict[str, float]) -> float:
    """The share of attention in the traffic."""
    mine = sum(value for name, value in parts.items() if name.endswith("attention"))
    return mine / sum(parts.values()) if parts else 0.0


def bounds(facts: Report, machine: Machine, moved: float) -> Report:
    """Lower bounds on the seconds of a step, and the upper bound on model FLOPs utilization that
    follows from them.
    """
    limits: Report = dict(memory=moved / machine.bandwidth)
    if facts["flops_per_image"]:
        flops = facts["flops_per_image"] * facts["batch_size"] / facts["devices"]
        limits["arithmetic"] = flops / machine.flops
        limits["mfu"] = limits["arithmetic"] / max(limits["arithmetic"], limits["memory"])
    return limits


def cycles(program: Program) -> dict[str, float]:
    """The compiler's estimate of cycles by part; only TPU programs compiled with `full` have it."""
    sums, times = Counter(), program.times()
    fusions = (one for _, one in program.all() if one.opcode == "fusion")
    fused = {callee for one in fusions for _, callee in one.callees}
    for name, one in program.all():
        estimate = re.search(r'"estimated_cycles":"(\d+)"', one.attributes)
        if estimate and times[name] and name not in fused and one.opcode != "while":
            sums[part_of(one, program)] += times[name] * int(estimate[1])
    return {part: float(sums[part]) for part in PARTS if sums[part]}


def notes(program: Program) -> list[str]:
    """Lines on what the numbers of a program leave out."""
    loops = program.unknown_loops()
    return [f"loops of unknown length, which count once: {loops}"] if loops else []


def faults(found: Report) -> list[str]:
    """Lines with reasons not to train like this."""
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
            "and is synchronous: try config.mesh.fsdp=8, or another part of the devices"
        )
    return lines


def refusal(message: str) -> str:
    """The sentence of a compiler's message with the amount of memory."""
    text = message.partition("RESOURCE_EXHAUSTED: ")[2] or message
    found = re.match(r".*?\d.*?\.(?=\s|$)", text)  # up to the sentence with numbers
    return found[0] if found else text[:300]
