"""How far many accelerators could speed training up: an estimate on paper, nothing of it measured.

A step is arithmetic, an optimizer that waits for memory, and communication:

- arithmetic: model FLOPs of a chip's images / (assumed utilisation x peak of the chip);
- optimizer: AdamW reads the parameter, its gradient and two moments and writes three of them back,
  28 bytes a parameter in float32, / memory bandwidth; sharded parameters divide it;
- communication of P bytes of float32 parameters through a level of bandwidth W: all-reduce of the
  gradients 2 P / W where parameters are replicated ('data'); two gathers of the parameters and a
  scatter of the gradients 3 P / W where they are sharded ('fsdp'); 'hybrid' shards inside the first
  level and replicates across it. Levels work at the same time, so the slowest counts.

W inside a TPU slice is the sum over its axes of a link's rate: both directions where the axis is a
ring, one where it is not. Between slices and between nodes it is what all hosts of one send. At
best communication hides behind the rest (the larger of both), at worst nothing does (their sum).
Efficiency is the time of arithmetic over that, so 100% is the assumed utilisation. Latency,
stragglers, input, and whether it all fits into memory are left out.

Sources: the Cloud TPU pages of each version, and "How to Scale Your Model" (jax-ml.github.io/
scaling-book), chapters on TPUs, on GPUs and on training, for formulas, links, rings and hosts.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from mae_jax.bench.flops import count, mae_parameters
from mae_jax.methods import mae
from mae_jax.types import UserError

CHIPS = (8, 16, 32, 64, 128, 256, 512, 1024)
MODELS = {
    "ViT-B/16": "vit(B, patch=16)",
    "ViT-L/16": "vit(L, patch=16)",
    "ViT-H/14": "vit(H, patch=14)",
}
SHAPE = (224, 224, 3)
LAYOUTS = ("data", "fsdp", "hybrid")
OPTIMIZER_BYTES = 28
"""A parameter, see above."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """A kind of accelerator and how it is wired; rates per second and chip."""

    name: str
    flops: float
    """Peak of dense bfloat16."""
    memory: float
    """Bytes of its memory."""
    link: float
    """Bytes one way: of a link of a TPU, of all NVLinks of a GPU."""
    slices: tuple[tuple[int, ...], ...] = ()
    """Shapes of the slices of a TPU, up to a pod; empty: nodes of GPUs."""
    ring: int = 0
    """Axes whose length is a multiple of this are rings."""
    hosts: int = 1
    """Chips of a host of a TPU, of a node of GPUs."""
    egress: float = 0.0
    """Bytes that a host or node sends over the network beyond the slice or node."""

    @property
    def largest(self) -> int:
        """Chips of a level inside which the network is not used."""
        return max(map(math.prod, self.slices)) if self.slices else self.hosts

    def levels(self, chips: int) -> dict[str, float]:
        """Bandwidths W of the levels that so many chips span, from the inside."""
        inner = min(chips, self.largest)
        if not self.slices:
            found = {"node": self.link}
        else:
            shape = next(shape for shape in self.slices if math.prod(shape) == inner)
            rings = [2 if side % self.ring == 0 else 1 for side in shape]
            found = {"slice": self.link * sum(rings)}
        if chips > inner:
            found["network"] = self.egress * inner / self.hosts
        return found


_PODS = ((2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = ((2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16))
MACHINES = (
    Machine("TPU v5e", 197e12, 8.19e11, 4.5e10, _PODS, ring=16, hosts=8, egress=2.5e10),
    Machine("TPU v5p", 459e12, 2.765e12, 9e10, _CUBES, ring=4, hosts=4, egress=2.5e10),
    Machine("TPU v6e", 918e12, 1.638e12, 9e10, _PODS, ring=16, hosts=8, egress=2.5e10),
    Machine("H100 node", 989e12, 3.35e12, 4.5e11, hosts=8, egress=4e11),
)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A step on paper; times in seconds."""

    model: str
    machine: str
    chips: int
    layout: str
    images_per_chip: float
    arithmetic: float
    optimizer: float
    communication: float
    bound: str
    """The level that communication waits for."""

    @property
    def best(self) -> float:
        """Everything that can be hidden is."""
        return max(self.arithmetic + self.optimizer, self.communication)

    @property
    def worst(self) -> float:
        """Nothing is hidden."""
        return self.arithmetic + self.optimizer + self.communication

    def images_per_second(self, step: float) -> float:
        """Of all chips, for a step of so many seconds."""
        return self.images_per_chip * self.chips / step


def estimate(
    model: str, machine: Machine, chips: int, layout: str, *, batch_size: int, mfu: float
) -> Estimate:
    """One step of a masked autoencoder as in the paper, on images of 224 pixels.

    Args:
        model: one of MODELS.
        chips: a power of two of at least 8, and for TPUs a slice or several pods.
        layout: one of LAYOUTS.
        batch_size: global.
        mfu: share of the peak that the arithmetic reaches.
    """
    method = mae.make(encoder=MODELS[model])
    parameters = mae_parameters(method, SHAPE[2])
    flops = sum(count(method, SHAPE).train.values())
    levels = machine.levels(chips)
    inner, outer = {"data": (2, 2), "fsdp": (3, 3), "hybrid": (3, 2)}[layout]
    shards = {"data": 1, "fsdp": chips, "hybrid": min(chips, machine.largest)}[layout]
    times = {
        name: (inner if place == 0 else outer) * 4 * parameters / bandwidth
        for place, (name, bandwidth) in enumerate(levels.items())
    }
    bound = max(times, key=times.get)
    return Estimate(
        model,
        machine.name,
        chips,
        layout,
        batch_size / chips,
        arithmetic=flops * batch_size / chips / (mfu * machine.flops),
        optimizer=OPTIMIZER_BYTES * parameters / shards / machine.memory,
        communication=times[bound],
        bound=bound,
    )


def estimates(*, batch_size: int, mfu: float) -> list[Estimate]:
    """Of all models, machines, numbers of chips (a chip has an image at least) and layouts.

    Raises:
        UserError: a utilisation outside (0, 1], or fewer images than eight chips.
    """
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu {mfu} must be in (0, 1]: 0.4 is usual")
    if batch_size < CHIPS[0]:
        raise UserError(
            f"--global-batch {batch_size} must be at least {CHIPS[0]}: the paper's is 4096"
        )
    return [
        estimate(model, machine, chips, layout, batch_size=batch_size, mfu=mfu)
        for model in MODELS
        for machine in MACHINES
        for chips in CHIPS
        if chips <= batch_size
        for layout in LAYOUTS
    ]


def as_rows(found: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Ready for JSON, with what follows from the times."""
    return [
        dataclasses.asdict(one)
        | dict(
            images_per_second=[one.images_per_second(one.worst), one.images_per_second(one.best)],
            efficiency=[one.arithmetic / one.worst, one.arithmetic / one.best],
        )
        for one in found
    ]


def constants() -> dict[str, dict[str, Any]]:
    """The numbers that the estimates are made of, by machine."""
    return {machine.name: dataclasses.asdict(machine) for machine in MACHINES}


def tables(found: Sequence[Estimate], *, batch_size: int, mfu: float) -> list[Table]:
    """A table for each model: chips by machines, worst to best images/s in thousands and
    efficiency, of the layout whose worst is best.
    """
    drawn = []
    for model in MODELS:
        title = f"ON PAPER: {model}, batch {batch_size}, at {mfu:.0%} of the peak"
        table = Table(title=title, box=SIMPLE, pad_edge=False)
        table.add_column("chips", justify="right")
        for machine in MACHINES:
            table.add_column(f"{machine.name}\nimages/s", justify="right")
        for chips in dict.fromkeys(one.chips for one in found):
            cells = []
            for machine in MACHINES:
                same = (model, machine.name, chips)
                group = [one for one in found if (one.model, one.machine, one.chips) == same]
                cells.append(_cell(min(group, key=lambda one: one.worst)))
            table.add_row(str(chips), *cells)
        drawn.append(table)
    return drawn


def _cell(one: Estimate) -> str:
    low, high = (one.images_per_second(step) / 1e3 for step in (one.worst, one.best))
    worst, best = (100 * one.arithmetic / step for step in (one.worst, one.best))
    return f"{low:,.1f}-{high:,.1f}k\n{worst:.0f}-{best:.0f}% {one.layout}"
