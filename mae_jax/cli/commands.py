"""The commands of `mae-jax`: functions from parsed arguments to the exit code.

Imports are inside the functions because `mae-jax --help` needs none of them, and a process that
only starts others must not initialize JAX's devices.
"""

import hashlib
import re
import shlex
import sys
from pathlib import Path

from mae_jax.cli.failure import explain, fail
from mae_jax.engine.preemption import stoppable
from mae_jax.errors import PREEMPTED, Preempted, UserError

LONGEST = 80
"""Largest number of characters in a file name derived from paths."""


def job(args):
    """The `Request` for this job's processes from the command line."""
    from mae_jax.distributed.launcher import Request

    given = vars(args)
    return Request(**{name: given[name] for name in Request._fields})


def no_overrides(args) -> None:
    """Raises UserError if a command that takes no config got overrides."""
    if args.overrides:
        why = ": it uses the config stored in the workdir" if "run" in vars(args) else ""
        raise UserError(f"{args.command} takes no --config.{args.overrides[0]}{why}")


def init(args) -> int:
    """mae-jax init"""
    from mae_jax import project

    no_overrides(args)
    written = project.init(args.folder, extensions=args.extensions)
    print(f"wrote {' and '.join(map(str, written))}")
    config = "extended.py" if args.extensions else "experiment.py"
    print(f"next: cd {shlex.quote(str(args.folder))} && mae-jax train --config {config}")
    return 0


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
        spacing=args.spacing,
        crop_background=args.crop_background,
    )
    print(preparation.describe(summary))
    return 0


def experiment(args):
    """Loads the config of a command. Returns it, and the lines to report about it."""
    from mae_jax.config import check_sections, load_changed
    from mae_jax.experiment import notes

    config, changed = load_changed(args.config, args.overrides)
    check_sections(config, args.config)
    lines = [f"config.{k}={new!r}, {old!r} in the file" for k, (old, new) in changed.items()]
    if lines:
        lines.insert(0, f"{args.config} with {len(lines)} change(s):")
    return config, [*notes(args.config), *lines]


@stoppable
def train(args) -> int:
    """mae-jax train"""
    from mae_jax.distributed.job import join
    from mae_jax.paths import check_place

    if args.print_config:
        return print_config(args)
    with join(job(args), explain, stoppable=True) as watchdog:
        config, lines = experiment(args)
        workdir = args.workdir or default_workdir(args.config)
        check_place(workdir, "--workdir")
        if args.check:
            return check_run(config, workdir, watchdog, lines)
        return train_job(config, workdir, watchdog, lines, stop=args.stop)


def check_run(config, workdir: Path, watchdog, deviations) -> int:
    """mae-jax train --check"""
    from mae_jax import plan

    lines = plan.check(config, workdir, deviations)
    if watchdog.index == 0:
        print("\n".join(lines))
    return 0


def print_config(args) -> int:
    """mae-jax train --print-config: prints the resolved config as JSON; opens no data or devices"""
    from mae_jax.config import to_json

    config, lines = experiment(args)
    for line in lines:
        print(line, file=sys.stderr)
    print(to_json(config))
    return 0


def train_job(config, workdir: Path, watchdog, deviations=(), *, stop) -> int:
    """Trains one experiment as a process of a job. Returns the exit code."""
    from mae_jax.engine.meter import Diverged
    from mae_jax.train import train as run_training

    try:
        run_training(config, workdir, deviations, watchdog, stop)
    except Preempted as error:
        code, line = PREEMPTED, f"{error}: run again to resume"
    except Diverged as error:
        code, line = 2, str(error)  # a resumed run would diverge again
    else:
        return 0
    return code if watchdog.index else fail(line, code)


def default_workdir(config: str) -> Path:
    """'configs/mae.py:L/16' to runs/mae_L_16."""
    path, _, arg = config.partition(":")
    return Path("runs", re.sub(r"\W+", "_", f"{Path(path).stem} {arg}").strip("_"))


def evaluate(args) -> int:
    """mae-jax evaluate"""
    from rich.console import Console

    from mae_jax import evaluate as evaluation
    from mae_jax.cli import weights
    from mae_jax.distributed.job import join
    from mae_jax.engine.memory import explained
    from mae_jax.paths import check_file
    from mae_jax.restore import load_run
    from mae_jax.tables import results_table

    no_overrides(args)
    path = args.run / f"results{results_suffix(args.images, args.train)}.json"
    with join(job(args), explain, stoppable=False) as watchdog:
        options = dict(train=args.train, test=args.images, on_error=args.on_error)
        run, state = load_run(args.run, **options, evals=args.evals)
        evaluators = run.evals.evaluators
        if not evaluators:
            raise UserError("nothing to evaluate: give --evals, e.g. --evals 'knn(k=20)|logistic'")
        weights.check(args, run, evaluators)
        check_file(path, "--run")
        if watchdog.index == 0:
            _report(run.data)
        with explained("lower the limit of the evaluators, or use a larger device"):
            results = evaluation.evaluate(run, state, evaluators)
        if watchdog.index == 0:
            title = f"{args.run}, step {int(state.step)}"
            title += f", on {args.images}" if args.images else ""
            title += f", trained on {args.train}" if args.train else ""
            metrics = evaluation.metrics_of(evaluators, results)
            Console().print(results_table(results, metrics, title))
            print(f"wrote {evaluation.write_results(path, int(state.step), results, evaluators)}")
    return 0


def results_suffix(images: str | None, train: str | None) -> str:
    """The suffix of the results file for other images: ('photos/a', None) to '_photos_a'."""
    name = (f" {images}" if images else "") + (f" train {train}" if train else "")
    suffix = re.sub(r"\W+", "_", name).rstrip("_")
    if len(suffix) < LONGEST:
        return suffix
    return f"{suffix[:LONGEST]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _report(data) -> None:
    """Prints the notes of the data sources."""
    for line in data.notes():
        print(line, flush=True)


def reconstruct(args) -> int:
    """mae-jax reconstruct"""
    from mae_jax.paths import check_file
    from mae_jax.reconstruct import figure_for
    from mae_jax.reconstruct import reconstruct as draw
    from mae_jax.restore import load_run
    from mae_jax.types import image_shape
    from mae_jax.workdir import read_config

    no_overrides(args)
    if args.count is not None and args.count < 1:
        raise UserError(f"--count {args.count}: must be at least 1")
    out = args.out or args.run / "figures" / "reconstructions.png"
    check_file(out, "--out", (".png",))
    run, state = load_run(args.run, images=args.images, on_error=args.on_error)
    shape, evals = image_shape(run.data.example("eval")), read_config(args.run).evals
    figure = figure_for(shape or (), evals.figures, args.figure)
    _report(run.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    options = dict(figure=figure, workdir=args.run, count=args.count, seed=args.seed)
    print(f"wrote {draw(run, state, out, **options)}")
    return 0


def features(args) -> int:
    """mae-jax features"""
    from mae_jax.features import write_features
    from mae_jax.paths import check_file
    from mae_jax.restore import load_run

    no_overrides(args)
    check_file(args.out, "--out", (".npz", ".safetensors"))
    run, state = load_run(args.run, images=args.images, on_error=args.on_error)
    _report(run.data)
    out, count = write_features(run, state, args.out, layer=args.layer, pool=args.pool)
    left_out = run.data.num_examples - count
    print(f"wrote {out}: {count} images" + (f", {left_out} left out" if left_out else ""))
    return 0


def weights(args) -> int:
    """mae-jax weights"""
    from mae_jax.cli import sharing, weights

    no_overrides(args)
    actions = {"import": weights.take, "export": weights.give, "push": sharing.push}
    return actions[args.action](args)


def doctor(args) -> int:
    """mae-jax doctor"""
    from mae_jax.cli.doctor import report

    no_overrides(args)
    return report()


def predict(args) -> int:
    """mae-jax predict"""
    from mae_jax.predictions import make_writer
    from mae_jax.restore import load_run
    from mae_jax.types import image_shape
    from mae_jax.workdir import read_classes, read_config

    no_overrides(args)
    run, state = load_run(args.run, images=args.images, on_error=args.on_error)
    evaluators, shape = read_config(args.run).evals.run, image_shape(run.data.example("eval"))
    rank = len(shape) - 1 if shape else None
    writer = make_writer(run.method, run.name, evaluators, args.spec or "", rank=rank)
    _report(run.data)
    for line in writer.write(run, state, args.out, read_classes(args.run)):
        print(f"wrote {line}")
    return 0
