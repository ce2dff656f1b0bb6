"""Communication of a training step on many devices.

The step of a config is compiled for meshes of 1, 2, 4, ... devices, and the collectives of the
program are counted, see `collectives`; nothing runs. The devices are fake CPU devices. The program
is partitioned as on any device, but other compilers may merge, split or replace collectives (the
CPU compiler creates no reduce-scatters): use `compile` for these.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from rich.box import SIMPLE
from rich.progress import track
from rich.table import Table

from mae_jax.bench.collectives import KINDS, collectives, totals
from mae_jax.config import from_json, to_json
from mae_jax.types import UserError

Row = dict[str, Any]
"""The counts of a mesh: 'layout', 'devices', 'mesh', 'parameter_bytes', 'totals' (see
`collectives.totals`), and the bytes of the 'largest_gather'."""

_CHILD = "from mae_jax.bench.scaling import count_here; count_here()"


def bench_scaling(
    config: ConfigDict, *, image_size: Sequence[int] = (), most: int = 8
) -> dict[str, Any]:
    """Counts the collectives of a config's step.

    Args:
        image_size: see `make_setup`.
        most: number of devices of the largest mesh, a power of two.

    Returns:
        'collectives', a list of rows, ready for JSON; `tables` draws it.

    Raises:
        UserError: a config that cannot be built on these meshes, or an invalid number of devices.
    """
    if most < 1 or most & (most - 1):
        raise UserError(f"--devices {most} must be a power of two, such as 8")
    rows = []
    for layout, mesh in track(meshes(most), "compile", transient=True):
        changed = ConfigDict(config.to_dict())
        changed.mesh.update(mesh)
        rows.append(dict(layout=layout, **count_elsewhere(changed, image_size)))
    return dict(collectives=rows)


def tables(report: dict[str, Any]) -> list[Table]:
    """The report of `bench_scaling` as tables."""
    return [table(report["collectives"])]


def meshes(most: int) -> list[tuple[str, dict[str, int]]]:
    """Layouts of 1, 2, 4, ... devices: 'data' shards only the batch, 'fsdp' also the parameters,
    and 'hybrid' shards the parameters over two devices and replicates them over the others.
    """
    layouts = [("one device", dict(data=1, fsdp=1))]
    for power in range(1, most.bit_length()):
        count = 2**power
        layouts += [("data", dict(data=count, fsdp=1)), ("fsdp", dict(data=1, fsdp=count))]
        if count > 2:
            layouts.append(("hybrid", dict(data=count // 2, fsdp=2)))
    return layouts


def count_elsewhere(config: ConfigDict, image_size: Sequence[int]) -> Row:
    """Runs `count` in a subprocess with as many fake devices as the config's mesh.

    Raises:
        UserError: the subprocess refuses the config.
    """
    devices = config.mesh.data * config.mesh.fsdp
    # Of repeated flags the last one counts.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    child = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps([to_json(config), list(image_size)]),
        env=os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
    )
    if child.returncode == 2:
        raise UserError(child.stdout.strip())
    if child.returncode:
        raise RuntimeError(f"compiling for {devices} devices failed:\n{child.stderr[-4000:]}")
    return json.loads(child.stdout.splitlines()[-1])


def count_here() -> None:
    """The subprocess of `count_elsewhere`: reads standard input, and prints a line of JSON."""
    text, image_size = json.load(sys.stdin)
    try:
        row = count(from_json(text), image_size)
    except UserError as error:
        print(error)
        sys.exit(2)
    print(json.dumps(row))


def count(config: ConfigDict, image_size: Sequence[int] = ()) -> Row:
    """Counts the collectives of a config's step on the devices of this process."""
    import jax

    from mae_jax.bench.setup import make_setup

    setup = make_setup(config, image_size)
    compiled = setup.step().lower(setup.abstract_state, setup.abstract_batch()).compile()
    moves = collectives(compiled.as_text(), setup.mesh.size)
    size = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(setup.abstract_state.params)
    )
    gathers = [one.payload for one in moves if one.kind == "all-gather"]
    return dict(
        devices=setup.mesh.size,
        mesh=dict(setup.mesh.shape),
        parameter_bytes=size,
        totals=totals(moves),
        largest_gather=max(gathers, default=0),
    )


def table(rows: Sequence[Row]) -> Table:
    """A table of collectives by mesh: executions per step, megabytes that a device sends, and these
    over the bytes of all parameters.
    """
    kinds = [kind for kind in KINDS if any(kind in row["totals"] for row in rows)]
    title = "collectives of a compiled step: count, MB that each device sends"
    drawn = Table(title=title, box=SIMPLE, pad_edge=False)
    for column in ("", "data x fsdp", *kinds, "x parameters"):
        drawn.add_column(column, justify="right" if column else "left")
    for row in rows:
        cells = []
        for kind in kinds:
            sums = row["totals"].get(kind)
            cells.append(f"{sums['count']}, {sums['moved'] / 1e6:,.2f}" if sums else "")
        moved = sum(sums["moved"] for sums in row["totals"].values())
        shape = f"{row['mesh']['data']} x {row['mesh']['fsdp']}"
        drawn.add_row(row["layout"], shape, *cells, f"{moved / row['parameter_bytes']:.2f}")
    return drawn
