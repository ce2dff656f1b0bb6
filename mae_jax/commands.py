"""What each command of `mae-jax` does: a function of its arguments, which returns the exit code.

Imports stand inside the functions: `mae-jax --help` needs none of them, and a process that only
starts others must not open the devices.
"""

import json
import os
import re
import sys
from pathlib import Path

from mae_jax.failure import explain, fail
from mae_jax.types import PREEMPTED, UserError


def job(args):
    """What the command line says of the processes of this job."""
    from mae_jax.engine.place import Request

    return Request(**{name: getattr(args, name) for name in Request._fields})


def no_overrides(args) -> None:
    """For commands that read a run's own config."""
    if args.overrides:
        raise UserError(
            f"{args.command} takes no --config.{args.overrides[0]}: a run keeps its config"
        )


def prepare(args) -> int:
    """mae-jax prepare"""
    from mae_jax.data import prepare as preparation
    from mae_jax.data.examples import default_name

    no_overrides(args)
    summary = preparation.prepare(
        args.images,
        args.out,
        name=args.name or default_name(args.images),
        channels=args.channels,
        held_out=args.held_out,
        shard_megabytes=args.shard_megabytes,
        workers=args.workers,
        beam=args.beam,
    )
    print(preparation.describe(summary))
    return 0


def train(args) -> int:
    """mae-jax train"""
    from mae_jax.config import differences, load_config
    from mae_jax.engine.processes import join

    with join(job(args), explain, stoppable=True) as watchdog:
        config = load_config(args.config, args.overrides)
        changed = differences(load_config(args.config), config)
        lines = [f"config.{k}={new!r}, {old!r} in the file" for k, (old, new) in changed.items()]
        if lines:
            lines.insert(0, f"{args.config} with {len(lines)} change(s):")
        return _train(config, args.workdir or default_workdir(args.config), watchdog, lines)


def _train(config, workdir: Path, watchdog, deviations=()) -> int:
    from mae_jax.engine.meter import Diverged
    from mae_jax.train import Preempted
    from mae_jax.train import train as run_training

    try:
        run_training(config, workdir, deviations, watchdog)
    except Preempted as error:
        code, line = PREEMPTED, f"{error}: start again to go on"
    except Diverged as error:
        code, line = 2, str(error)  # started again, it would diverge again
    else:
        return 0
    return code if watchdog.index else fail(line, code)


def sweep(args) -> int:
    """mae-jax sweep"""
    from rich.console import Console

    from mae_jax import sweep as sweeping
    from mae_jax.config import load_configs
    from mae_jax.engine.place import find_place
    from mae_jax.engine.processes import join
    from mae_jax.report.tables import drawn
    from mae_jax.schedule import devices

    configs, workdir = load_configs(args.config, args.overrides), args.workdir
    workdir = workdir or default_workdir(args.config)
    starts = sweeping.link(configs, workdir)
    sweeping.check(configs, workdir)
    if args.list:
        print(sweeping.listing(configs, workdir))
        return 0
    if args.only is not None:
        with join(job(args), explain, stoppable=True) as watchdog:
            name = sweeping.chosen(args.only, configs, starts, workdir)
            code = _train(configs[name], workdir / name, watchdog)
            if watchdog.index == 0:
                sweeping.collect(configs, workdir)  # the others may run elsewhere
        return code
    if find_place(job(args), os.environ) is not None:
        raise UserError("a job of several processes trains one experiment: name it with --only")
    if args.local_devices is not None:
        raise UserError(
            "--local-devices is for one experiment: give --only, or set CUDA_VISIBLE_DEVICES"
        )
    this = [sys.executable, "-m", "mae_jax", "sweep", "--config", args.config]
    options = ["--workdir", str(workdir), "--distributed", "off"]  # as this process is alone too
    options += [*(f"--config.{text}" for text in args.overrides)]
    command = lambda name: [*this, *options, "--only", name]
    failed, left = sweeping.sweep(
        configs, workdir, command, starts=starts, devices=devices(args.jobs)
    )
    table = sweeping.collect(configs, workdir)
    Console().print(drawn(table, args.config))
    if left:
        to_do = f"{len(left)} of {len(configs)} runs to do"
        return fail(f"stopped with {to_do}: start again to go on", PREEMPTED)
    if failed:
        return fail(f"{len(failed)} of {len(configs)} runs failed: {', '.join(failed)}", 1)
    print(f"wrote {workdir / 'results.jsonl'} and {workdir / 'results.md'}")
    return 0


def report(args) -> int:
    """mae-jax report"""
    from mae_jax import summary

    no_overrides(args)
    out = args.out or args.sweep / "report"
    pages = summary.report(args.sweep, out, notes=args.notes, title=args.title)
    print(f"wrote {' and '.join(map(str, pages))}")
    return 0


def default_workdir(config: str) -> Path:
    """'configs/mae.py:L/16' to runs/mae_L_16."""
    path, _, arg = config.partition(":")
    return Path("runs", re.sub(r"\W+", "_", f"{Path(path).stem} {arg}").strip("_"))


def evaluate(args) -> int:
    """mae-jax evaluate"""
    from rich.console import Console

    from mae_jax import evaluate as evaluation
    from mae_jax import exchange
    from mae_jax.engine.memory import explained
    from mae_jax.engine.processes import join
    from mae_jax.load import load
    from mae_jax.run import make_evaluators

    no_overrides(args)
    with join(job(args), explain, stoppable=False) as watchdog:
        run, state = load(args.run, train=args.train, test=args.images, on_error=args.on_error)
        evaluators = run.evals.evaluators if args.evals is None else make_evaluators(args.evals)
        if not evaluators:
            raise UserError("nothing to evaluate: give --evals, e.g. --evals 'knn(k=20)|logistic'")
        run.check(evaluators)
        exchange.check(args, run, evaluators)
        if watchdog.index == 0:
            _report(run.data)
        with explained("lower the limit of the evaluators, or use a larger device"):
            results = evaluation.evaluate(run, state, evaluators)
        if watchdog.index == 0:
            title, name = f"{args.run}, step {int(state.step)}", ""
            if args.images:
                title, name = f"{title}, on {args.images}", f" {args.images}"
            if args.train:
                title, name = f"{title}, trained on {args.train}", f"{name} train {args.train}"
            Console().print(evaluation.table(results, title))
            suffix = re.sub(r"\W+", "_", name).rstrip("_")
            path = args.run / f"results{suffix}.json"
            print(f"wrote {evaluation.write_results(path, int(state.step), results)}")
    return 0


def _report(data) -> None:
    """Prints what the sources of a data set report at the start."""
    for line in data.notes():
        print(line, flush=True)


def reconstruct(args) -> int:
    """mae-jax reconstruct"""
    from mae_jax import evaluate as evaluation
    from mae_jax.load import load

    no_overrides(args)
    if args.count < 1:
        raise UserError(f"--count {args.count}: at least one image is needed")
    out = args.out or args.run / "figures" / "reconstructions.png"
    if out.suffix != ".png":
        raise UserError(f"--out {out}: the name must end in .png")
    run, state = load(args.run, images=args.images, on_error=args.on_error)
    _report(run.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {evaluation.reconstruct(run, state, out, count=args.count, seed=args.seed)}")
    return 0


def features(args) -> int:
    """mae-jax features"""
    from mae_jax import evaluate as evaluation
    from mae_jax.load import load

    no_overrides(args)
    run, state = load(args.run, images=args.images, on_error=args.on_error)
    _report(run.data)
    out, count = evaluation.write_features(run, state, args.out)
    left_out = run.data.num_examples - count
    print(f"wrote {out}: {count} images" + (f", {left_out} left out" if left_out else ""))
    return 0


def weights(args) -> int:
    """mae-jax weights"""
    from mae_jax import exchange

    no_overrides(args)
    return {"import": exchange.take, "export": exchange.give}[args.action](args)


def bench(args) -> int:
    """mae-jax bench"""
    if args.what == "data":
        return _bench_data(args)
    from mae_jax.config import load_config

    config = load_config(args.config, args.overrides)
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


def doctor(args) -> int:
    """mae-jax doctor"""
    from mae_jax.doctor import report

    no_overrides(args)
    return report()
