"""`mae-jax sweep` and `mae-jax report`: run many experiments, and compare them in a report."""

import os
import sys

from mae_jax.cli.commands import default_workdir, job, no_overrides, train_job
from mae_jax.cli.failure import explain, fail
from mae_jax.engine.preemption import stoppable
from mae_jax.errors import PREEMPTED, UserError


@stoppable
def sweep(args) -> int:
    """mae-jax sweep"""
    from rich.console import Console

    from mae_jax.config import check_sections, load_configs
    from mae_jax.distributed.job import join
    from mae_jax.distributed.launcher import find_process
    from mae_jax.experiment import notes
    from mae_jax.paths import check_place
    from mae_jax.sweeps import experiments as sweeping
    from mae_jax.sweeps.pool import shares
    from mae_jax.tables import drawn

    configs, workdir = load_configs(args.config, args.overrides), args.workdir
    for name, config in configs.items():
        check_sections(config, f"{args.config}, {name}")
    for line in notes(args.config):
        print(line, file=sys.stderr)
    workdir = workdir or default_workdir(args.config)
    check_place(workdir, "--workdir")
    starts = sweeping.link(configs, workdir)
    sweeping.check(configs, workdir)
    if args.list:
        print(sweeping.listing(configs, workdir))
        return 0
    if args.only is not None:
        with join(job(args), explain, stoppable=True) as watchdog:
            name = sweeping.chosen(args.only, configs, starts, workdir)
            code = train_job(configs[name], workdir / name, watchdog, stop=args.stop)
            if watchdog.index == 0:
                sweeping.collect(configs, workdir)  # the others may run elsewhere
        return code
    if find_process(job(args), os.environ) is not None:
        raise UserError("a job of several processes runs one experiment: choose it with --only")
    if args.local_devices is not None:
        raise UserError(
            "--local-devices is for a single experiment: add --only, or set CUDA_VISIBLE_DEVICES"
        )
    check_all(configs)
    this = [sys.executable, "-m", "mae_jax", "sweep", "--config", args.config]
    options = ["--workdir", str(workdir), "--distributed", "off"]  # each child is a single process
    options += [*(f"--config.{text}" for text in args.overrides)]
    command = lambda name: [*this, *options, "--only", name]
    with args.stop.later() as stop:
        failed, left = sweeping.sweep(
            configs, workdir, command, starts=starts, shares=shares(args.jobs), stop=stop
        )
    table = sweeping.collect(configs, workdir)
    Console().print(drawn(table, args.config))
    if left:
        to_do = f"{len(left)} of {len(configs)} runs left"
        return fail(f"stopped with {to_do}: run again to resume", PREEMPTED)
    if failed:
        return fail(f"{len(failed)} of {len(configs)} runs failed: {', '.join(failed)}", 1)
    print(f"wrote {workdir / 'results.jsonl'} and {workdir / 'results.md'}")
    return 0


def check_all(configs) -> None:
    """Raises UserError if the config of any experiment is invalid; opens no data or devices."""
    from mae_jax.run import check

    for name, config in configs.items():
        try:
            check(config)
        except UserError as error:
            raise UserError(f"experiment {name}: {error}") from error


def report(args) -> int:
    """mae-jax report"""
    from mae_jax.sweeps import report as summary

    no_overrides(args)
    out = args.out or args.sweep / "report"
    pages = summary.report(
        args.sweep, out, notes=args.notes, title=args.title, reported=args.reported
    )
    print(f"wrote {' and '.join(map(str, pages))}")
    return 0
