"""`mae-jax bench`: measurements of the input pipeline and of the training step."""

import json
import os
import sys
from pathlib import Path

from mae_jax.commands import experiment, no_overrides
from mae_jax.paths import check_file


def bench(args) -> int:
    """mae-jax bench"""
    if args.what == "data":
        return _bench_data(args)
    config, lines = experiment(args)
    if args.out:
        check_file(args.out, "--out")
    for line in lines:
        print(line, file=sys.stderr)
    if args.what == "step":
        if args.peer:  # JAX must leave memory of a GPU to PyTorch; read when the devices open
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
            mfu=args.mfu,
            global_batch=args.global_batch,
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
    )
    Console().print(rates)
    return 0
