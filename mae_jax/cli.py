"""The command line: `mae-jax COMMAND`. Nothing else touches global state.

Exit codes: 0 done; 2 a mistake in the arguments, the config or the environment; 75 told to stop,
start again to go on; anything else is a fault.
"""

import argparse
import errno
import logging
import re
import sys
import warnings
from pathlib import Path

from mae_jax.types import UserError

PREEMPTED = 75
MENDABLE = (
    errno.ENOSPC,
    errno.EACCES,
    errno.ENOENT,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)
"""What the user can do something about when the file system refuses."""


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's, of 89 MP
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax explains its defaults at length
    try:
        args, rest = make_parser().parse_known_args(argv)
        args.overrides = [override(text) for text in rest]
        code = args.function(args)
    except UserError as error:
        code = fail(str(error), 2)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        code = fail(f"{error.strerror}: {error.filename or 'while writing'}", 2)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like everything else here."""

    def error(self, message: str):
        """Called by argparse."""
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = Parser(
        prog="mae-jax",
        description="Masked autoencoders in JAX: train, evaluate, use.",
        epilog="mae-jax COMMAND --help explains a command.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, text: str) -> argparse.ArgumentParser:
        name = function.__name__
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(function=function)
        return sub

    add_prepare(
        command(
            prepare,
            "a folder of images to ArrayRecord files, checked and measured; run again to go on",
        )
    )
    sub = command(train, "train a model; run again to go on after an interruption")
    sub.add_argument(
        "--config",
        required=True,
        metavar="FILE[:ARG]",
        help="an experiment, e.g. configs/quickstart.py; change any value of it with "
        "--config.key.path=value",
    )
    sub.add_argument(
        "--workdir", type=Path, help="where everything is written (default: runs/NAME_OF_CONFIG)"
    )
    sub = command(evaluate, "k-NN and logistic accuracy of a run's encoder")
    add_run(sub)
    add_on_error(sub)
    sub.add_argument(
        "--evals", metavar="SPEC", help="e.g. 'knn(k=20)|logistic' (default: the run's)"
    )
    sub = command(reconstruct, "a picture of originals, masked images and reconstructions")
    add_run(sub)
    add_images(sub, "(default: the run's test set)")
    sub.add_argument("--out", type=Path, help="PNG to write (default: in the run's figures/)")
    sub.add_argument("--count", type=int, default=8, help="number of images (default 8)")
    sub.add_argument("--seed", type=int, default=0, help="of the masks (default 0)")
    sub = command(features, "the features of a folder of images, as .npz or .safetensors")
    add_run(sub)
    add_images(sub, required=True)
    sub.add_argument("--out", required=True, type=Path, help="FILE.npz or FILE.safetensors")
    add_bench(command(bench, "how fast this machine is: 'data', the input pipeline"))
    command(doctor, "devices, versions, memory, and what is missing")
    return parser


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument of all commands that use a trained run."""
    parser.add_argument(
        "--run", required=True, type=Path, metavar="WORKDIR", help="workdir of a trained run"
    )


def add_images(parser: argparse.ArgumentParser, default: str = "", **options) -> None:
    """The arguments of commands that look at images of the user's."""
    text = f"a folder, or a source as in configs {default}".strip()
    parser.add_argument("--images", metavar="FOLDER", help=text, **options)
    add_on_error(parser)


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that read images."""
    parser.add_argument("--on-error", metavar="HOW", help="'skip' unreadable images, or 'raise'")


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax prepare`."""
    add = parser.add_argument
    add("--images", required=True, type=Path, metavar="FOLDER", help="as in the source `folder`")
    add("--out", required=True, type=Path, metavar="FOLDER", help="writes OUT/NAME/1.0.0")
    add("--name", help="of the data set (default: that of the folder)")
    add("--channels", type=int, default=3, help="3 (colour, default), 1 (grey) or 4")
    add("--held-out", type=float, default=0.0, metavar="SHARE", help="of images in a split 'test'")
    add("--shard-megabytes", type=int, default=256, help="size of a file (default 256)")
    add("--workers", type=int, default=0, help="threads (default: one a core)")
    add("--beam", metavar="OPTIONS", help="e.g. runner=DirectRunner,direct_num_workers=4")


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax bench`."""
    parser.add_argument("what", choices=("data",), help="what to measure")
    parser.add_argument(
        "--source", default="", metavar="SPEC", help="as in configs (default: JPEGs made for this)"
    )
    parser.add_argument(
        "--transform",
        default="random_resized_crop(224, scale=(0.2, 1))|flip",
        metavar="SPEC",
        help="as in configs (default: a random crop of 224 pixels, and a flip)",
    )
    parser.add_argument("--workers", type=int, nargs="+", default=(), help="numbers of threads")
    parser.add_argument(
        "--turns", type=int, default=5, help="measurements of each rate (default 5)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each (default 2)")


def override(text: str) -> str:
    """'--config.a.b=1' to 'a.b=1'."""
    if not text.startswith("--config."):
        raise UserError(
            f"unknown argument {text!r}: see mae-jax --help, and write config values "
            "as --config.key.path=value"
        )
    return text.removeprefix("--config.")


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
    from mae_jax.config import load_config
    from mae_jax.engine.meter import Diverged
    from mae_jax.train import Preempted
    from mae_jax.train import train as run_training

    config = load_config(args.config, args.overrides)
    try:
        run_training(config, args.workdir or default_workdir(args.config))
    except Preempted as error:
        return fail(f"{error}: start again to go on", PREEMPTED)
    except Diverged as error:
        return fail(str(error), 1)
    return 0


def default_workdir(config: str) -> Path:
    """'configs/mae.py:L/16' to runs/mae_L_16."""
    path, _, arg = config.partition(":")
    return Path("runs", re.sub(r"\W+", "_", f"{Path(path).stem} {arg}").strip("_"))


def evaluate(args) -> int:
    """mae-jax evaluate"""
    from rich.console import Console

    from mae_jax import evaluate as evaluation
    from mae_jax.run import load, make_evaluators

    no_overrides(args)
    run, state = load(args.run, on_error=args.on_error)
    evaluators = run.evals.evaluators if args.evals is None else make_evaluators(args.evals)
    if not evaluators:
        raise UserError("nothing to evaluate: give --evals, e.g. --evals 'knn(k=20)|logistic'")
    results = evaluation.evaluate(run, state, evaluators)
    Console().print(evaluation.table(results, f"{args.run}, step {int(state.step)}"))
    print(f"wrote {evaluation.write_results(args.run, int(state.step), results)}")
    return 0


def reconstruct(args) -> int:
    """mae-jax reconstruct"""
    from mae_jax import evaluate as evaluation
    from mae_jax.run import load

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
    from mae_jax.run import load

    no_overrides(args)
    run, state = load(args.run, images=args.images, on_error=args.on_error)
    out, count = evaluation.write_features(run, state, args.out)
    left_out = run.data.num_examples - count
    print(f"wrote {out}: {count} images" + (f", {left_out} left out" if left_out else ""))
    return 0


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
