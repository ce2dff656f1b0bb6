"""The command line: `mae-jax COMMAND`. Nothing else touches global state.

Modules of the user's own are found from the current folder, see `extensions`.

Exit codes: 0 done; 2 a mistake in the arguments, the config or the environment; 75 told to stop,
start again to go on; 130 Ctrl-C; 1 a fault. All processes of a job end with the same one, but for
those that a signal has killed.
"""

import argparse
import functools
import logging
import os
import platform
import sys
import warnings

import mae_jax
from mae_jax.cli import bench, commands, sweep
from mae_jax.cli.arguments import (
    add_bench,
    add_choice,
    add_job,
    add_report,
    filled,
    local,
    path,
)
from mae_jax.cli.failure import explain, fail
from mae_jax.errors import Preempted, UserError
from mae_jax.extensions import add_current_folder

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR"}
"""What makes the C++ parts of XLA, TensorFlow and gRPC write errors only."""
NOT_OURS = r"(orbax|flax|jax|jaxlib|tensorstore|etils|absl|google|tensorflow|tensorboard)\b"
"""Modules whose Python warnings are for developers, not for users."""


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits."""
    quieten()
    add_current_folder()
    try:
        args, rest = make_parser().parse_known_args(argv)
        args.overrides = [override(text) for text in rest]
        code = args.function(args)
        sys.stdout.flush()
    except BrokenPipeError:  # of `mae-jax ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
        code = fail("the reader of the output has gone", 1)
    except (Exception, KeyboardInterrupt, Preempted) as error:
        code, line = explain(error)
        if line is None:
            raise
        fail(line, code)
    sys.exit(code)


def quieten() -> None:
    """Leaves the screen to what this run has to report: errors of libraries are shown, but none of
    what they note about themselves. The environment's own settings count.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("absl", "matplotlib"):  # Orbax' defaults; the font cache, the folder for it
        logging.getLogger(name).setLevel(logging.ERROR)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's, 89 MP
        warnings.filterwarnings("ignore", module=NOT_OURS)


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
    version = f"mae-jax {mae_jax.__version__}, Python {platform.python_version()}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, text: str) -> argparse.ArgumentParser:
        name = function.__name__
        sub = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(function=function)
        return sub

    text = "a project of your own: an experiment and a README to edit, ready to run"
    add_init(command(commands.init, text))
    add_prepare(
        command(
            commands.prepare,
            "a folder of images to ArrayRecord files, checked and measured; run again to go on",
        )
    )
    text = "train a model; run again to go on after an interruption"
    add_train(command(commands.train, text))
    text = "run all experiments of a file, and tabulate them; resumable"
    add_sweep(command(sweep.sweep, text))
    text = "tables and pictures of a sweep, as Markdown and as HTML"
    add_report(command(sweep.report, text))
    add_evaluate(command(commands.evaluate, "what a run's encoder or classifier is worth"))
    text = "a picture of images beside their reconstructions"
    add_reconstruct(command(commands.reconstruct, text))
    text = "the features of a folder of images, as .npz or .safetensors"
    add_features(command(commands.features, text))
    add_predict(command(commands.predict, "predictions for images, as files"))
    add_weights(command(commands.weights, "published weights in, a run's weights out"))
    text = "measure the input pipeline and the step; compile the step for other devices"
    add_bench(command(bench.bench, text))
    command(commands.doctor, "devices, versions, memory, and what is missing")
    return parser


def add_init(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax init`."""
    add = parser.add_argument
    add("folder", type=path, metavar="FOLDER", help="to write into")
    text = "write a module of each kind that configs can name instead, and an experiment with them"
    add("--extensions", action="store_true", help=text)


def add_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax train`."""
    add_config(parser, "an experiment, e.g. quickstart, mae:L/16 or mine.py")
    add = parser.add_mutually_exclusive_group().add_argument
    text = "print the config with its changes as JSON, and end"
    add("--print-config", action="store_true", help=text)
    text = "list the data, decode an image, print the plan and the memory it needs; write nothing"
    add("--check", action="store_true", help=text)
    add_job(parser)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax sweep`."""
    add_config(parser, "a file of experiments, e.g. low_shot:scenes or mine.py")
    add_choice(parser)
    add_job(parser)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax evaluate`."""
    add_run(parser)
    add_images(parser, "(instead of the run's test set; classes are told by their names)")
    add = parser.add_argument
    add("--train", type=filled, metavar="FOLDER", help="instead of the run's training images")
    add("--evals", metavar="SPEC", help="e.g. 'knn(k=20)|logistic' (default: the run's)")
    add_job(parser)


def add_reconstruct(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax reconstruct`."""
    add_run(parser)
    add_images(parser, "(default: the run's test set)")
    add = parser.add_argument
    add("--out", type=path, help="PNG to write (default: in the run's figures/)")
    add("--count", type=int, default=8, help="number of images (default 8)")
    add("--seed", type=int, default=0, help="of what is random, such as masks (default 0)")


def add_features(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax features`."""
    add_run(parser)
    add_images(parser, required=True)
    parser.add_argument("--out", required=True, type=path, help="FILE.npz or FILE.safetensors")


def add_predict(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax predict`."""
    add_run(parser)
    add_images(parser, required=True)
    add = parser.add_argument
    add("--out", required=True, type=path, metavar="FOLDER", help="folder to create")
    text = "inference options, e.g. 'segmentation(size=512, crop=512)' (default: the evaluator's)"
    add("--spec", type=filled, metavar="SPEC", default="", help=text)


def add_config(parser: argparse.ArgumentParser, text: str) -> None:
    """The arguments of commands that train."""
    more = "; change any value with --config.key.path=value"
    parser.add_argument(
        "--config", required=True, type=filled, metavar="NAME[:ARG]", help=text + more
    )
    parser.add_argument(
        "--workdir", type=local, help="where everything is written (default: runs/NAME_OF_CONFIG)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument of all commands that use a trained run."""
    parser.add_argument(
        "--run", required=True, type=path, metavar="WORKDIR", help="workdir of a trained run"
    )


def add_images(parser: argparse.ArgumentParser, default: str = "", **options) -> None:
    """The arguments of commands that look at images of the user's."""
    text = f"a folder, or a source as in configs {default}".strip()
    parser.add_argument("--images", type=filled, metavar="FOLDER", help=text, **options)
    add_on_error(parser)


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that read images."""
    parser.add_argument("--on-error", metavar="HOW", help="'skip' unreadable images, or 'raise'")


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax prepare`."""
    add = parser.add_argument
    text = "as in the source `folder`; or another source, e.g. \"dicom('study', window=(0, 80))\""
    add("--images", required=True, type=filled, metavar="FOLDER", help=text)
    add("--out", required=True, type=path, metavar="FOLDER", help="writes OUT/NAME/1.0.0")
    add("--name", type=filled, help="of the data set (default: that of the folder)")
    add("--channels", type=int, help="of a folder: 3 (color, default), 1 (grey) or 4")
    add("--held-out", type=float, default=0.0, metavar="SHARE", help="of images in a split 'test'")
    add("--shard-megabytes", type=int, default=256, help="size of a file (default 256)")
    add("--workers", type=int, default=0, help="threads (default: one a core)")
    add("--beam", metavar="OPTIONS", help="e.g. runner=DirectRunner,direct_num_workers=4")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax weights`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|export")
    text = "a folder that all commands take as a --run, from weights of other packages"
    make = functools.partial(actions.add_parser, allow_abbrev=False)
    add = make("import", help=text, description=text).add_argument
    text = ".safetensors, .pth, a folder of Hugging Face, or hf://org/name[@revision]"
    add("source", type=filled, metavar="SOURCE", help=text)
    text = "which weights of a SOURCE with several sets, e.g. teacher or module.base_encoder"
    add("--key", type=filled, metavar="PATH", help=text)
    text = "the only one to try, e.g. timm, hf, mae or a module of yours (default: all but yours)"
    add("--layout", type=filled, metavar="NAME", help=text)
    add("--out", required=True, type=path, metavar="FOLDER", help="folder to create")
    add("--heads", type=int, help="of an encoder of unusual width")
    add("--decoder-heads", type=int, help="of a decoder of unusual width")
    add("--encoder-only", action="store_true", help="leave decoder and head out")
    add("--target", help="what a decoder predicts: normalized patches, or pixels")
    add_image_size(add, "of the images it shall be for")
    text = "how positions come to that size: bicubic, antialias (as timm) or recompute"
    add("--positions", metavar="HOW", help=text)
    add("--mean", type=float, nargs="+", help="of the pixels in [0, 1] (default: what SOURCE says)")
    add("--std", type=float, nargs="+", help="their deviation")
    add("--allow", nargs="+", default=(), metavar="REGEX", help="names that may miss or be left")
    text = "a run's weights in a layout of other packages, or as a function to serve"
    add = make("export", help=text, description=text).add_argument
    add("--run", required=True, type=path, metavar="WORKDIR", help="a run, or imported weights")
    text = "timm, hf (Hugging Face), mae (the official code's), a module of yours; stablehlo, onnx"
    add("--format", required=True, type=filled, metavar="NAME", help=text)
    add("--out", required=True, type=path, help="file to write; for hf and stablehlo a folder")
    add("--encoder-only", action="store_true", help="leave decoder and head out")
    add("--head", type=int, metavar="NUMBER", help="which one of a probe with several, from 0")
    add_image_size(add, "of the run's images, where it does not say")
    add("--output", help="of a function: features (default) or logits")
    add(
        "--images",
        type=filled,
        metavar="FOLDER",
        help="of a function: any, where the run's are not here",
    )


def add_image_size(add, text: str) -> None:
    """--image-size, one number or two."""
    add("--image-size", type=size, metavar="H,W", help=f"{text}; one number: a square")


def size(text: str) -> tuple[int, int]:
    """'224' or '224,320' to (height, width)."""
    sides = [int(side) for side in text.split(",")]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(text)
    return (sides[0], sides[-1])


def override(text: str) -> str:
    """'--config.a.b=1' to 'a.b=1'."""
    if not text.startswith("--config."):
        raise UserError(
            f"unknown argument {text!r}: see mae-jax --help, and write config values "
            "as --config.key.path=value"
        )
    return text.removeprefix("--config.")
