"""The accelerators that steps are compiled for: rates of one device, and names of topologies.

A device is a JAX device: a chip, but half a chip of TPU7x. Memory is the part that the compiler may
use: on TPUs from libtpu's message when a program does not fit; on an H100 three quarters of its
84.9 GB, JAX's default (XLA_PYTHON_CLIENT_MEM_FRACTION=.75). Peak rates and bandwidths are from the
Cloud TPU page of each version (`jax.experimental.pallas.tpu.get_tpu_info` agrees within a percent,
except 2.46e12 for the bandwidth of v5p), and from NVIDIA's data sheet of the H100 SXM. The clock of
a TPU is its peak over the operations of its matrix units per cycle (v4 and v5p 8 units of 128 x 128
per chip, v5e 4), None if these are not published; that of the H100 is from its description in
`targets`.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from mae_jax.errors import UserError

GIB = 2**30
TARGETS = Path(__file__).parent / "targets"
"""Descriptions of GPUs, from github.com/openxla/xla (Apache 2.0), to compile without a GPU."""


class Machine(NamedTuple):
    """A kind of accelerator; all values are per device."""

    memory: int
    """Bytes of main memory that programs may use."""
    bandwidth: float
    """Bytes per second of main memory."""
    flops: float
    """Peak operations per second in dense bfloat16."""
    clock: float | None
    """Hertz; None: not published."""
    axes: int
    """Number of axes of a topology's shape; 0: GPUs, in nodes."""


MACHINES = {
    "v4": Machine(int(30.75 * GIB), 1.228e12, 275e12, 1.05e9, 3),
    "v5e": Machine(int(15.75 * GIB), 8.19e11, 197e12, 1.5e9, 2),
    "v5p": Machine(int(95.74 * GIB), 2.765e12, 459e12, 1.75e9, 3),
    "v6e": Machine(int(31.25 * GIB), 1.638e12, 918e12, None, 2),
    "tpu7x": Machine(int(94.75 * GIB), 3.69e12, 1153.5e12, None, 3),
    "h100": Machine(int(0.75 * 84_942_979_072), 3.35e12, 989e12, 1.98e9, 0),
}
FORMS = "v5e:4x4, v6e:16x16, v5p:4x4x4, v4:2x2x2, tpu7x:2x2x1, h100:8 or (nodes first) h100:2x8"


class Topology(NamedTuple):
    """Devices and their interconnect."""

    name: str
    """As the user writes it."""
    kind: str
    """A key of MACHINES."""
    shape: tuple[int, ...]
    slices: int

    @property
    def platform(self) -> str:
        """JAX's name of the platform: 'tpu' or 'cuda'."""
        return "tpu" if self.machine.axes else "cuda"

    @property
    def machine(self) -> Machine:
        """The kind of its devices."""
        return MACHINES[self.kind]

    @property
    def label(self) -> str:
        """Its name, with the number of slices if there are several."""
        return self.name if self.slices == 1 else f"{self.slices} x {self.name}"

    def arguments(self) -> dict[str, Any]:
        """Arguments for `jax.experimental.topologies.get_topology_desc`."""
        if self.platform == "cuda":  # slices x nodes x GPUs of a node
            nodes, gpus = ((1,) + self.shape)[-2:]
            target = (TARGETS / f"{self.kind}.txtpb").read_text(encoding="utf-8")
            return dict(platform="cuda", target_config=target, topology=f"1x{nodes}x{gpus}")
        options: dict[str, Any] = dict(platform="tpu", topology_name=self.name)
        if self.slices > 1:
            options["num_slices"] = self.slices
        if math.prod(self.shape) < 4:  # fewer chips than a host has
            options["chips_per_host_bounds"] = (*self.shape, 1)[:3]
        if self.kind == "v4":  # one device per chip, as on Cloud TPUs
            options["chip_config_name"] = "megacore"
        return options


def parse_topology(name: str, slices: int = 1) -> Topology:
    """Parses the name of a topology, such as 'v5e:4x4'.

    Raises:
        UserError: an unknown name, or an invalid number of slices.
    """
    kind, _, sides = name.partition(":")
    axes = MACHINES[kind].axes if kind in MACHINES else -1
    shape = tuple(int(side) for side in sides.split("x")) if re.fullmatch(_SIDES, sides) else ()
    if axes < 0 or len(shape) not in ((axes,) if axes else (1, 2)):
        raise UserError(f"--topology {name} is unknown: write KIND:SHAPE, such as {FORMS}")
    if slices < 1:
        raise UserError(f"--slices {slices} must be 1 or more")
    if slices > 1 and not axes:
        raise UserError(f"--slices is for TPUs: write {kind}:{slices}x{shape[-1]} for nodes")
    return Topology(name, kind, shape, slices)


_SIDES = r"[1-9]\d{0,3}(x[1-9]\d{0,3})*"
