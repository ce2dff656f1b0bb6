"""The command line: `mae-jax COMMAND`. Nothing else touches global state.

The user's own modules are imported from the current folder, see `extensions`.

Exit codes: 0 done; 1 an internal error; 2 a mistake in the arguments, the config or the
environment; 75 preempted, run again to resume; 130 Ctrl-C. All processes of a job end with the same
code, except those killed by a signal.
"""

import argparse
import logging
import os
import platform
import sys
import warnings

import mae_jax
from mae_jax.cli import bench, commands, sweep
from mae_jax.cli.arguments import (
    add_bench,
    add_card,
    add_choice,
    add_job,
    add_report,
    add_weights,
    filled,
    local,
    path,
    spacing,
)
from mae_jax.cli.demo import add_demo, demo
from mae_jax.cli.explain import add_explain
from mae_jax.cli.explain import explain as explain_run
from mae_jax.cli.failure import explain, fail
from mae_jax.cli.search import add_search, search
from mae_jax.cli.sharing import card
from mae_jax.cli.text import add_tokenizer, tokenizer
from mae_jax.errors import Preempted, UserError
from mae_jax.extensions import add_current_folder

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR"}
"""Environment variables that limit the C++ logs of XLA, TensorFlow and gRPC to errors."""
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
    """Silences the info messages and developer warnings of libraries; their errors are shown.
    Variables that are set in the environment take precedence.
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
    """An argument parser that reports errors as `UserError`, in one line."""

    def error(self, message: str):
        """Raises UserError; called by argparse."""
        raise UserError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = Parser(
        prog="mae-jax",
        description="Masked autoencoders in JAX: train, evaluate, use.",
        epilog="Run mae-jax COMMAND --help for the arguments of a command.",
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

    text = "create a project: an experiment config and a README to edit, ready to run"
    add_init(command(commands.init, text))
    add_prepare(
        command(
            commands.prepare,
            "check images, convert them to ArrayRecord files and measure mean and std of the "
            "pixels; run again to resume",
        )
    )
    text = "train a tokenizer on the captions of images, and write it as a tokenizer.json"
    add_tokenizer(command(tokenizer, text))
    text = "train a model; run again to resume after an interruption"
    add_train(command(commands.train, text))
    text = "run all experiments of a file and tabulate the results; run again to resume"
    add_sweep(command(sweep.sweep, text))
    text = "write the tables and figures of a sweep as Markdown and HTML"
    add_report(command(sweep.report, text))
    add_evaluate(command(commands.evaluate, "evaluate a run's encoder or classifier"))
    text = "draw images beside their reconstructions"
    add_reconstruct(command(commands.reconstruct, text))
    text = "write the encoder's features of a folder of images as .npz or .safetensors"
    add_features(command(commands.features, text))
    text = "find the images of a folder that are nearest to a text or to an image"
    add_search(command(search, text))
    add_predict(command(commands.predict, "write predictions for images as files"))
    text = "write an HTML page that shows what an encoder has learned"
    add_explain(command(explain_run, text))
    text = "open a local web page on which to try a trained model"
    add_demo(command(demo, text))
    text = "import published weights, export a run's weights, or upload them"
    add_weights(command(commands.weights, text))
    add_card(command(card, "write a model card: a README.md for people who use a run's weights"))
    text = "time the input pipeline or the training step, or compile the step for other devices"
    add_bench(command(bench.bench, text))
    command(commands.doctor, "report devices, versions, memory and missing packages")
    return parser


def add_init(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax init`."""
    add = parser.add_argument
    add("folder", type=path, metavar="FOLDER", help="folder to write into")
    text = "write an extension module of each kind and an experiment that uses them instead"
    add("--extensions", action="store_true", help=text)


def add_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax train`."""
    add_config(parser, "built-in experiment or config file, e.g. quickstart, mae:L/16 or mine.py")
    add = parser.add_mutually_exclusive_group().add_argument
    text = "print the resolved config as JSON and exit"
    add("--print-config", action="store_true", help=text)
    text = "dry run: list the data, decode one image, trace the step, print the plan and its memory"
    add("--check", action="store_true", help=text)
    add_job(parser)


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax sweep`."""
    add_config(parser, "built-in sweep or a file with get_configs, e.g. low_shot:scenes or mine.py")
    add_choice(parser)
    add_job(parser)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax evaluate`."""
    add_run(parser)
    add_images(parser, "(default: the run's test set); classes are matched by name")
    add = parser.add_argument
    text = "training images for evaluators that learn, folder or source (default: the run's)"
    add("--train", type=filled, metavar="FOLDER", help=text)
    add(
        "--evals", metavar="SPEC", help="evaluators, e.g. 'knn(k=20)|logistic' (default: the run's)"
    )
    add_job(parser)


def add_reconstruct(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax reconstruct`."""
    add_run(parser)
    add_images(parser, "(default: the run's test set)")
    add = parser.add_argument
    text = "PNG file to write (default: figures/reconstructions.png in the workdir)"
    add("--out", type=path, help=text)
    text = "number of images (default: that of the figure, 8 images, 3 volumes or 2 clips)"
    add("--count", type=int, metavar="N", help=text)
    text = "'reconstructions', 'planes' of volumes or 'film(frames=12)' of clips (default: as the "
    add("--figure", metavar="SPEC", help=text + "run's evals.figures; planes if there is none)")
    add("--seed", type=int, default=0, help="random seed, e.g. of the masks (default 0)")


def add_features(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax features`."""
    add_run(parser)
    add_images(parser, required=True)
    add = parser.add_argument
    text = "file to write, FILE.npz or FILE.safetensors"
    add("--out", required=True, type=path, help=text)
    text = "layer of the encoder, from 0 or, negative, from the end (default: the last one)"
    add("--layer", type=int, metavar="N", help=text)
    text = "how its tokens are pooled: cls, mean or cls_concat (default: as the method does)"
    add("--pool", default="", help=text)


def add_predict(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax predict`."""
    add_run(parser)
    add_images(parser, required=True)
    add = parser.add_argument
    add("--out", required=True, type=path, metavar="FOLDER", help="folder to create")
    text = "inference options, e.g. 'segmentation(size=512, crop=512)' (default: the evaluator's)"
    add("--spec", type=filled, metavar="SPEC", help=text)


def add_config(parser: argparse.ArgumentParser, text: str) -> None:
    """The arguments of commands that train."""
    more = "; override any value with --config.key.path=value"
    parser.add_argument(
        "--config", required=True, type=filled, metavar="NAME[:ARG]", help=text + more
    )
    parser.add_argument(
        "--workdir", type=local, help="folder for all output (default: runs/NAME_OF_CONFIG)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The argument of all commands that use a trained run."""
    parser.add_argument(
        "--run", required=True, type=path, metavar="WORKDIR", help="workdir of a trained run"
    )


def add_images(parser: argparse.ArgumentParser, default: str = "", **options) -> None:
    """The arguments of commands that read the user's images."""
    text = f"a folder of images, or a source as in configs {default}".strip()
    parser.add_argument("--images", type=filled, metavar="FOLDER", help=text, **options)
    add_on_error(parser)


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that read images."""
    text = "'skip' unreadable images or 'raise' an error (default: as in the run's config)"
    parser.add_argument("--on-error", metavar="HOW", help=text)


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax prepare`."""
    add = parser.add_argument
    text = "a folder of images, or a source, e.g. \"dicom('study', window=(0, 80))\""
    add("--images", required=True, type=filled, metavar="FOLDER", help=text)
    text = "data directory to write into; the data set becomes FOLDER/NAME/1.0.0"
    add("--out", required=True, type=path, metavar="FOLDER", help=text)
    add("--name", type=filled, help="name of the data set (default: the folder's name)")
    text = "channels to read from a folder's images: 3 (color, default), 1 (gray) or 4 (with alpha)"
    add("--channels", type=int, help=text)
    text = "fraction of the images to put into a split 'test' (default 0)"
    add("--held-out", type=float, default=0.0, metavar="SHARE", help=text)
    text = "size of each output file in MB (default 256)"
    add("--shard-megabytes", type=int, default=256, help=text)
    add("--workers", type=int, default=0, help="number of threads (default: one per core)")
    text = "write with Apache Beam and these options, e.g. runner=DirectRunner,direct_num_workers=4"
    add("--beam", metavar="OPTIONS", help=text)
    text = "of volumes: mm to resample to along depth, height and width, e.g. 3,1,1; or 'median'"
    add("--spacing", type=spacing, metavar="MM", help=text)
    text = "of volumes: crop each to its foreground"
    add("--crop-background", action="store_true", help=text)


def override(text: str) -> str:
    """'--config.a.b=1' to 'a.b=1'."""
    if not text.startswith("--config."):
        raise UserError(
            f"unknown argument {text!r}: see mae-jax --help, and write config values "
            "as --config.key.path=value"
        )
    return text.removeprefix("--config.")
