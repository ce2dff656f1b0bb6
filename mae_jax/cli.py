"""The command line: `mae-jax COMMAND`. Nothing else touches global state.

Exit codes: 0 done; 2 a mistake in the arguments, the config or the environment; 75 told to stop,
start again to go on; 130 Ctrl-C; 1 a fault. All processes of a job end with the same one, but for
those that a signal has killed.
"""

import argparse
import functools
import logging
import sys
import warnings
from pathlib import Path

from mae_jax import commands
from mae_jax.failure import explain, fail
from mae_jax.types import UserError

FORMATS = ("timm", "hf", "mae", "stablehlo", "onnx")


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's, of 89 MP
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax explains its defaults at length
    try:
        args, rest = make_parser().parse_known_args(argv)
        args.overrides = [override(text) for text in rest]
        code = args.function(args)
    except (Exception, KeyboardInterrupt) as error:
        code, line = explain(error)
        if line is None:
            raise
        fail(line, code)
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
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, text: str) -> argparse.ArgumentParser:
        name = function.__name__
        sub = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(function=function)
        return sub

    add_prepare(
        command(
            commands.prepare,
            "a folder of images to ArrayRecord files, checked and measured; run again to go on",
        )
    )
    sub = command(commands.train, "train a model; run again to go on after an interruption")
    add_config(sub, "an experiment, e.g. configs/quickstart.py")
    add_job(sub)
    sub = command(commands.sweep, "run all experiments of a file, and tabulate them; resumable")
    add_config(sub, "a file of experiments, e.g. configs/low_shot.py:scenes")
    add_choice(sub)
    add_job(sub)
    sub = command(commands.report, "tables and pictures of a sweep, as Markdown and as HTML")
    sub.add_argument("--sweep", required=True, type=Path, metavar="WORKDIR", help="of a sweep")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="default: WORKDIR/report")
    sub.add_argument("--notes", type=Path, metavar="FILE", help="Markdown to put in")
    sub.add_argument("--title", default="", help="default: the workdir's name")
    sub = command(commands.evaluate, "what a run's encoder or classifier is worth")
    add_run(sub)
    add_images(sub, "(instead of the run's test set; classes are told by their names)")
    sub.add_argument("--train", metavar="FOLDER", help="instead of the run's training images")
    sub.add_argument(
        "--evals", metavar="SPEC", help="e.g. 'knn(k=20)|logistic' (default: the run's)"
    )
    add_job(sub)
    sub = command(commands.reconstruct, "a picture of images beside what the network makes of them")
    add_run(sub)
    add_images(sub, "(default: the run's test set)")
    sub.add_argument("--out", type=Path, help="PNG to write (default: in the run's figures/)")
    sub.add_argument("--count", type=int, default=8, help="number of images (default 8)")
    sub.add_argument(
        "--seed", type=int, default=0, help="of what is random, such as masks (default 0)"
    )
    sub = command(commands.features, "the features of a folder of images, as .npz or .safetensors")
    add_run(sub)
    add_images(sub, required=True)
    sub.add_argument("--out", required=True, type=Path, help="FILE.npz or FILE.safetensors")
    add_weights(command(commands.weights, "published weights in, a run's weights out"))
    add_bench(command(commands.bench, "how fast this machine is: 'data', 'step' or 'scaling'"))
    command(commands.doctor, "devices, versions, memory, and what is missing")
    return parser


def add_config(parser: argparse.ArgumentParser, text: str) -> None:
    """The arguments of commands that train."""
    more = "; change any value with --config.key.path=value"
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help=text + more)
    parser.add_argument(
        "--workdir", type=local, help="where everything is written (default: runs/NAME_OF_CONFIG)"
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax sweep` that say what is run where."""
    add = parser.add_mutually_exclusive_group().add_argument
    add(
        "--only",
        metavar="EXPERIMENT",
        help="run this one, here: its name, or its number, 1 for the first of the file, as in "
        "sbatch --array=1-36 --gpus=1 --wrap 'mae-jax sweep --config FILE --only "
        "$SLURM_ARRAY_TASK_ID'; without --only, all that is not done is run, and all tabulated",
    )
    add("--list", action="store_true", help="print NUMBER NAME STATE of each, and run nothing")
    text = "so many at a time (default 1), each on a GPU of its own; not for TPUs"
    add("--jobs", type=int, default=1, help=text)


def add_job(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that may run as several processes, usually one a host."""
    add = parser.add_argument_group(
        "several processes",
        "Each is started with the same command. SLURM, Open MPI and Cloud TPUs say by themselves "
        "how many there are and which one this is; elsewhere say it here.",
    ).add_argument
    add("--coordinator", metavar="HOST:PORT", help="where process 0 is to listen")
    add("--processes", type=int, metavar="N", help="how many there are")
    add("--process", type=int, metavar="I", help="which one this is, from 0")
    add("--local-devices", metavar="0,1", help="GPUs of this host for this process (default: all)")
    add(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="'off': a process on its own, whatever the launcher says; 'on': ask Kubernetes, too",
    )
    text = "a process that is silent for so long is dead (default 30), and all end within twice it"
    add("--heartbeat-timeout", type=float, default=30.0, metavar="SECONDS", help=text)


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


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax weights`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|export")
    text = "a folder that all commands take as a --run, from weights of other packages"
    make = functools.partial(actions.add_parser, allow_abbrev=False)
    add = make("import", help=text, description=text).add_argument
    text = ".safetensors, .pth, a folder of Hugging Face, or hf://org/name[@revision]"
    add("source", metavar="SOURCE", help=text)
    text = "which weights of a SOURCE with several sets, e.g. teacher or module.base_encoder"
    add("--key", metavar="PATH", help=text)
    add("--out", required=True, type=Path, metavar="FOLDER", help="to make")
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
    add("--run", required=True, type=Path, metavar="WORKDIR", help="a run, or imported weights")
    text = "timm, hf (Hugging Face), mae (the official code's), stablehlo or onnx"
    add("--format", required=True, choices=FORMATS, metavar="FORMAT", help=text)
    add("--out", required=True, type=Path, help="file to write; for hf and stablehlo a folder")
    add("--encoder-only", action="store_true", help="leave decoder and head out")
    add("--head", type=int, metavar="NUMBER", help="which one of a probe with several, from 0")
    add_image_size(add, "of the run's images, where it does not say")
    add("--output", help="of a function: features (default) or logits")
    add("--images", metavar="FOLDER", help="of a function: any, where the run's are not here")


def add_image_size(add, text: str) -> None:
    """--image-size, one number or two."""
    add("--image-size", type=size, metavar="H,W", help=f"{text}; one number: a square")


def local(text: str) -> Path:
    """A path of a file system: append, lock and rename are not to be had of object stores."""
    if "://" in text:
        raise UserError(
            f"--workdir {text}: write into a file system; mount the bucket (e.g. gcsfuse) and give "
            "the path there"
        )
    return Path(text)


def size(text: str) -> tuple[int, int]:
    """'224' or '224,320' to (height, width)."""
    sides = [int(side) for side in text.split(",")]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(text)
    return (sides[0], sides[-1])


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax bench`."""
    things = parser.add_subparsers(dest="what", required=True, metavar="data|step|scaling")

    def thing(name: str, text: str, timed: bool):
        add = things.add_parser(name, help=text, description=text, allow_abbrev=False).add_argument
        if timed:
            add("--turns", type=int, default=5, help="measurements of each rate (default 5)")
            add("--seconds", type=float, default=2.0, help="length of each (default 2)")
        if name != "data":
            add("--config", required=True, metavar="FILE[:ARG]", help="an experiment")
            text = "side, or height and width, and channels (default: what the config trains on)"
            add("--image-size", type=int, nargs="+", default=(), metavar="N", help=text)
            add("--out", type=Path, metavar="FILE.json", help="all numbers")
        return add

    add = thing("data", "the input pipeline", timed=True)
    text = "as in configs (default: JPEGs made for this)"
    add("--source", default="", metavar="SPEC", help=text)
    text = "as in configs (default: a random crop of 224 pixels, and a flip)"
    crop = "random_resized_crop(224, scale=(0.2, 1))|flip"
    add("--transform", default=crop, metavar="SPEC", help=text)
    add("--workers", type=int, nargs="+", default=(), help="numbers of threads")
    add = thing("step", "a config's training step", timed=True)
    add("--peer", default="", metavar="hf", help="transformers' ViTMAE beside ours")
    add = thing("scaling", "a config's training step on many devices", timed=False)
    add("--devices", type=int, default=8, help="the most to compile for (default 8)")
    add("--mfu", type=float, default=0.4, help="assumed in the estimate (default 0.4)")
    add("--global-batch", type=int, default=4096, help="of the estimate (default 4096)")


def override(text: str) -> str:
    """'--config.a.b=1' to 'a.b=1'."""
    if not text.startswith("--config."):
        raise UserError(
            f"unknown argument {text!r}: see mae-jax --help, and write config values "
            "as --config.key.path=value"
        )
    return text.removeprefix("--config.")
