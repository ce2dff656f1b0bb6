"""The command line: `mae-jax COMMAND`. Nothing else touches global state.

Exit codes: 0 done; 2 a mistake in the arguments, the config or the environment; 75 told to stop,
start again to go on; anything else is a fault.
"""

import argparse
import errno
import logging
import re
import sys
from pathlib import Path

from mae_jax.types import UserError

PREEMPTED = 75
MENDABLE = (errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""What the user can do something about when the file system refuses."""


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
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
    sub.add_argument(
        "--evals", metavar="SPEC", help="e.g. 'knn(k=20)|logistic' (default: the run's)"
    )
    sub = command(reconstruct, "a picture of originals, masked images and reconstructions")
    add_run(sub)
    sub.add_argument("--images", metavar="FOLDER", help="your images (default: the run's test set)")
    sub.add_argument("--out", type=Path, help="PNG to write (default: in the run's figures/)")
    sub.add_argument("--count", type=int, default=8, help="number of images (default 8)")
    sub.add_argument("--seed", type=int, default=0, help="of the masks (default 0)")
    sub = command(features, "the features of a folder of images, as .npz or .safetensors")
    add_run(sub)
    sub.add_argument("--images", required=True, metavar="FOLDER", help="folder of images")
    sub.add_argument("--out", required=True, type=Path, help="FILE.npz or FILE.safetensors")
    command(doctor, "devices, versions, memory, and what is missing")
    return parser


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument of all commands that use a trained run."""
    parser.add_argument(
        "--run", required=True, type=Path, metavar="WORKDIR", help="workdir of a trained run"
    )


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
    run, state = load(args.run)
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
    run, state = load(args.run, images=args.images)
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"wrote {evaluation.reconstruct(run, state, out, count=args.count, seed=args.seed)}")
    return 0


def features(args) -> int:
    """mae-jax features"""
    from mae_jax import evaluate as evaluation
    from mae_jax.run import load

    no_overrides(args)
    run, state = load(args.run, images=args.images)
    out = evaluation.write_features(run, state, args.out)
    print(f"wrote {out}: {run.data.num_examples} images")
    return 0


def doctor(args) -> int:
    """mae-jax doctor"""
    from mae_jax.doctor import report

    no_overrides(args)
    return report()
