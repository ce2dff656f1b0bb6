"""`mae-jax bench`: measures the input pipeline and the training step, and compiles the step for
other devices.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mae_jax.cli.commands import experiment, no_overrides
from mae_jax.errors import UserError
from mae_jax.paths import check_file

WIDE = 200
"""Width of tables when output is redirected."""


def bench(args) -> int:
    """mae-jax bench"""
    if args.what == "data":
        return _bench_data(args)
    if args.what == "compile":
        return _bench_compile(args)
    config, lines = experiment(args)
    if args.out:
        check_file(args.out, "--out")
    for line in lines:
        print(line, file=sys.stderr)
    if args.what == "step":
        if args.peer:  # JAX must leave GPU memory to PyTorch; read when the backend initializes
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from mae_jax.bench import step as part

        report = part.bench_step(
            config,
            image_size=args.image_size,
            turns=args.turns,
            seconds=args.seconds,
            peer=args.peer,
        )
    else:
        from mae_jax.bench import scaling as part

        report = part.bench_scaling(
            config,
            image_size=args.image_size,
            most=args.devices,
        )
    _show_bench(part.tables(report), report, args.out)
    return 0


def _show_bench(tables, report, out: Path | None) -> None:
    from rich.console import Console

    for table in tables:
        Console().print(table)
    for note in report.get("notes", ()):
        print(note)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {out}")


def _bench_compile(args) -> int:
    """Prints one full report, or a table with a row for each config and topology. Returns exit code
    1 if any of them has a fault.
    """
    from rich.console import Console

    from mae_jax.bench import compile_tables as drawn
    from mae_jax.bench.compile import bench_compile
    from mae_jax.bench.machines import parse_topology

    topologies = [parse_topology(name, args.slices) for name in args.topology.split(",")]
    if args.out:
        check_file(args.out, "--out")
        if args.out.suffix not in (".json", ".md"):
            raise UserError(f"--out {args.out}: write FILE.json or FILE.md")
    reports, several = [], len(args.config) * len(topologies) > 1
    for name in args.config:
        config, lines = experiment(argparse.Namespace(**vars(args) | dict(config=name)))
        print(*lines, sep="\n", end="\n" * bool(lines), file=sys.stderr)
        for topology in topologies:
            options = dict(name=name, image_size=args.image_size, full=args.full)
            try:
                reports.append(bench_compile(config, topology, **options))
            except UserError as error:
                if not several:
                    raise
                error = dict(error=str(error), faults=[str(error)])
                reports.append(dict(config=name, topology=topology.label) | error)
    screen = Console()
    if several:
        if not screen.is_terminal:  # output is redirected
            screen = Console(width=WIDE)
        screen.print(drawn.summary(reports))
    else:
        screen.print(*drawn.tables(reports[0]))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(reports if several else reports[0], indent=2) + "\n"
        text = drawn.markdown(reports) if args.out.suffix == ".md" else text
        args.out.write_text(text, encoding="utf-8")
        print(f"wrote {args.out}")
    wrong = [(one["config"], one["topology"], line) for one in reports for line in one["faults"]]
    for config, topology, line in wrong:
        print(f"{config} on {topology}: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _bench_data(args) -> int:
    from rich.console import Console

    from mae_jax.bench.data import bench_data

    no_overrides(args)
    rates = bench_data(
        source=args.source,
        transform=args.transform,
        workers=args.workers,
        turns=args.turns,
        seconds=args.seconds,
        repeats=args.repeats,
    )
    Console().print(rates)
    return 0
