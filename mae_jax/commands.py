"""What each command of `mae-jax` does: a function of its arguments, which returns the exit code.

Imports stand inside the functions: `mae-jax --help` needs none of them, and a process that only
starts others must not open the devices.
"""

import re
import sys
from pathlib import Path

from mae_jax.types import PREEMPTED, UserError


def fail(message: str, code: int) -> int:
    """Says in one line what went wrong."""
    print("mae-jax: " + " ".join(message.split()), file=sys.stderr)
    return code


def no_overrides(args) -> None:
    """For commands that read a run's own config."""
    if args.overrides:
        raise UserError(
            f"{args.command} takes no --config.{args.overrides[0]}: a run keeps its config"
        )


def prepare(args) -> int:
    """mae-jax prepare"""
    from mae_jax.data import prepare as preparation

    no_overrides(args)
    summary = preparation.prepare(
        args.images,
        args.out,
        name=args.name or re.sub(r"\W+", "_", args.images.resolve().name.lower()),
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

    config = load_config(args.config, args.overrides)
    changed = differences(load_config(args.config), config)
    deviations = [f"config.{k}={new!r}, {old!r} in the file" for k, (old, new) in changed.items()]
    if deviations:
        deviations.insert(0, f"{args.config} with {len(deviations)} change(s):")
    return _train(config, args.workdir or default_workdir(args.config), deviations)


def _train(config, workdir: Path, deviations=()) -> int:
    from mae_jax.engine.meter import Diverged
    from mae_jax.train import Preempted
    from mae_jax.train import train as run_training

    try:
        run_training(config, workdir, deviations)
    except Preempted as error:
        return fail(f"{error}: start again to go on", PREEMPTED)
    except Diverged as error:
        return fail(str(error), 1)
    return 0


def sweep(args) -> int:
    """mae-jax sweep"""
    from rich.console import Console

    from mae_jax import sweep as sweeping
    from mae_jax.config import load_configs
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
        name = sweeping.chosen(args.only, configs, starts, workdir)
        code = _train(configs[name], workdir / name)
        sweeping.collect(configs, workdir)  # the others may run elsewhere
        return code
    this = [sys.executable, "-m", "mae_jax", "sweep", "--config", args.config]
    options = ["--workdir", str(workdir), *(f"--config.{text}" for text in args.overrides)]
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
    from mae_jax.engine.memory import explained
    from mae_jax.load import load
    from mae_jax.run import make_evaluators
    from mae_jax.workdir import is_folder_of_weights

    no_overrides(args)
    run, state = load(args.run, train=args.train, test=args.images, on_error=args.on_error)
    evaluators = run.evals.evaluators if args.evals is None else make_evaluators(args.evals)
    if not evaluators:
        raise UserError("nothing to evaluate: give --evals, e.g. --evals 'knn(k=20)|logistic'")
    run.check(evaluators)
    for evaluator in evaluators:
        if "train" in evaluator.splits and is_folder_of_weights(args.run) and not args.train:
            raise UserError(f"{evaluator.name} learns from images with labels: give --train FOLDER")
    _check_imported_classes(args, run)
    with explained("lower the limit of the evaluators, or use a larger device"):
        results = evaluation.evaluate(run, state, evaluators)
    title = f"{args.run}, step {int(state.step)}" + (f", on {args.images}" if args.images else "")
    Console().print(evaluation.table(results, title))
    suffix = re.sub(r"\W+", "_", f" {args.images}").rstrip("_") if args.images else ""
    path = args.run / f"results{suffix}.json"
    print(f"wrote {evaluation.write_results(path, int(state.step), results)}")
    return 0


def _check_imported_classes(args, run) -> None:
    """Which class is which is not told by imported weights: the order of the folders says it."""
    from mae_jax.workdir import is_folder_of_weights

    classes = getattr(run.method, "classes", None)
    if classes is None or not is_folder_of_weights(args.run):
        return
    option, split = ("--train", "train") if args.train else ("--images", "test")
    found = len(run.data.source(split).class_names)
    if found != classes:
        more = "" if args.train else "; or give --train FOLDER with all of them"
        raise UserError(
            f"{option} has {found} classes, and these weights {classes}: the folders in the order "
            f"of their names must be the classes{more}"
        )


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
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {evaluation.reconstruct(run, state, out, count=args.count, seed=args.seed)}")
    return 0


def features(args) -> int:
    """mae-jax features"""
    from mae_jax import evaluate as evaluation
    from mae_jax.load import load

    no_overrides(args)
    run, state = load(args.run, images=args.images, on_error=args.on_error)
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
    from rich.console import Console

    from mae_jax.bench import bench_data

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
