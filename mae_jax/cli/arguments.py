"""Argument types, and the arguments of jobs, sweeps, reports, benchmarks, weights and cards."""

import argparse
import ast
import functools
from pathlib import Path

from mae_jax.errors import UserError


def path(text: str) -> Path:
    """A path that is not empty; an unset shell variable would mean Path(""), the current folder."""
    return Path(filled(text))


def filled(text: str) -> str:
    """A text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: is a variable unset?")
    return text


def local(text: str) -> Path:
    """A path in a file system: object stores lack append, lock and rename."""
    if "://" in text:
        raise UserError(
            f"--workdir {text}: must be in a file system: mount the bucket (e.g. with gcsfuse) and "
            "give the path of the mount"
        )
    return path(text)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax sweep` that select experiments and set how many run at a time."""
    add = parser.add_mutually_exclusive_group().add_argument
    add(
        "--only",
        metavar="EXPERIMENT",
        help="run this experiment only, in this process: its name, or its number from 1, as in "
        "sbatch --array=1-36 --gpus=1 --wrap 'mae-jax sweep --config FILE --only "
        "$SLURM_ARRAY_TASK_ID' (default: run all unfinished experiments, then tabulate all)",
    )
    add("--list", action="store_true", help="print NUMBER NAME STATE of each experiment and exit")
    text = "number of experiments to run at a time, each on its own GPU (default 1); not for TPUs"
    add("--jobs", type=int, default=1, help=text)


def add_job(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that may run as several processes, usually one per host."""
    add = parser.add_argument_group(
        "several processes",
        "Start the same command once per process. Under SLURM, Open MPI and on Cloud TPUs the "
        "number of processes and the index of each are detected; elsewhere set them here.",
    ).add_argument
    text = "address where process 0 listens, the same for all processes"
    add("--coordinator", type=filled, metavar="HOST:PORT", help=text)
    add("--processes", type=int, metavar="N", help="number of processes in the job")
    add("--process", type=int, metavar="I", help="index of this process, from 0")
    text = "indices of this host's GPUs for this process to use (default: all)"
    add("--local-devices", metavar="0,1", help=text)
    add(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="'auto' (default): detect the launcher; 'off': run as a single process; 'on': always "
        "call jax.distributed.initialize, e.g. on Kubernetes",
    )
    text = "seconds without a heartbeat before a process counts as dead, 1 or more (default 30); "
    text += "the job then ends within twice that"
    add("--heartbeat-timeout", type=float, default=30.0, metavar="SECONDS", help=text)


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax bench`."""
    things = parser.add_subparsers(dest="what", required=True, metavar="data|step|scaling|compile")

    def thing(name: str, text: str, timed: bool):
        add = things.add_parser(name, help=text, description=text, allow_abbrev=False).add_argument
        if timed:
            add("--turns", type=int, default=5, help="measurements per rate (default 5)")
            text = "length of each measurement (default 2)"
            add("--seconds", type=float, default=2.0, help=text)
        if name != "data":
            more = dict(action="append") if name == "compile" else {}
            text = "built-in experiment or config file"
            text += "; repeat the option for a table of several" * bool(more)
            add("--config", required=True, type=filled, metavar="NAME[:ARG]", help=text, **more)
            text = "SIDE; HEIGHT WIDTH; or every axis and the channels (default: as in training)"
            add("--image-size", type=int, nargs="+", default=(), metavar="N", help=text)
            text = "file to write all numbers to"
            text += "; FILE.md: a table" * bool(more)
            add("--out", type=path, metavar="FILE.json", help=text)
        return add

    add = thing("data", "time the input pipeline", timed=True)
    text = "data source as in configs (default: generated JPEGs)"
    add("--source", default="", metavar="SPEC", help=text)
    text = "transform as in configs (default: a random crop of 224 pixels and a flip)"
    crop = "random_resized_crop(224, scale=(0.2, 1))|flip"
    add("--transform", default=crop, metavar="SPEC", help=text)
    add("--workers", type=int, nargs="+", default=(), help="numbers of threads to try")
    text = "also measure N crops of each decoded image, as config.data.repeats (default 1)"
    add("--repeats", type=int, default=1, metavar="N", help=text)
    add = thing("step", "time a config's training step", timed=True)
    text = "'hf': time the ViTMAE of Hugging Face transformers as well"
    add("--peer", default="", metavar="hf", help=text)
    add = thing("scaling", "count the collectives of a step on 1 to N devices", timed=False)
    add("--devices", type=int, default=8, help="largest N, a power of two (default 8)")
    text = "compile a config's step for named TPUs or GPUs: memory, collectives, memory traffic"
    add_compile(thing("compile", text, timed=False))


def add_compile(add) -> None:
    """The arguments of `mae-jax bench compile`, beside the config's."""
    text = "devices to compile for, not needed on this machine, e.g. v5e:4x4, v6e:16x16, v5p:4x4x4"
    text += " or h100:8; several, separated by commas, for a table"
    add("--topology", required=True, type=filled, metavar="KIND:SHAPE", help=text)
    add("--slices", type=int, default=1, metavar="N", help="number of TPU slices (default 1)")
    text = "run all compiler passes and report its estimate of cycles; takes minutes, not seconds"
    add("--full", action="store_true", help=text)


def add_report(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax report`."""
    add = parser.add_argument
    add("--sweep", required=True, type=path, metavar="WORKDIR", help="workdir of a sweep")
    text = "folder to write the report into (default: WORKDIR/report)"
    add("--out", type=path, metavar="FOLDER", help=text)
    add("--notes", type=path, metavar="FILE", help="Markdown file to include in the report")
    add("--title", default="", help="title of the report (default: the workdir's name)")
    text = "results of others to compare with: mae_paper, or a JSON file"
    add("--reported", type=filled, metavar="NAME", help=text)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax weights`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|export|push")
    text = "convert weights of other packages to a folder that commands accept as --run"
    make = functools.partial(actions.add_parser, allow_abbrev=False)
    add = make("import", help=text, description=text).add_argument
    text = "a .safetensors or .pth file, a Hugging Face folder, or hf://org/name[@revision]"
    add("source", type=filled, metavar="SOURCE", help=text)
    text = "which weights to read if SOURCE has several, e.g. teacher or module.base_encoder"
    add("--key", type=filled, metavar="PATH", help=text)
    text = "weight layout: timm, hf, mae or a module of yours (default: try all built-in ones)"
    add("--layout", type=filled, metavar="NAME", help=text)
    add("--out", required=True, type=path, metavar="FOLDER", help="folder to create")
    add("--heads", type=int, help="number of attention heads of an encoder of non-standard width")
    text = "number of attention heads of a decoder of non-standard width"
    add("--decoder-heads", type=int, help=text)
    add("--encoder-only", action="store_true", help="leave out decoder and head")
    text = "target of the decoder: 'normalized' (pixels of a patch, normalized) or 'pixels'"
    add("--target", help=text)
    add_image_size(add, "image size to resize the position embeddings for")
    text = "how to resize position embeddings: bicubic, antialias (as timm) or recompute"
    add("--positions", metavar="HOW", help=text)
    text = "per-channel mean of pixels in [0, 1] (default: as SOURCE states)"
    add("--mean", type=float, nargs="+", help=text)
    add("--std", type=float, nargs="+", help="per-channel standard deviation, likewise")
    text = "regexes of names that may be missing or unused"
    add("--allow", nargs="+", default=(), metavar="REGEX", help=text)
    text = "write a run's weights in the layout of another package, or the model as a function"
    add = make("export", help=text, description=text).add_argument
    text = "workdir of a run, or a folder of imported weights"
    add("--run", required=True, type=path, metavar="WORKDIR", help=text)
    text = "layout: timm, hf (Hugging Face), mae (official code) or a module of yours; function: "
    add("--format", required=True, type=filled, metavar="NAME", help=text + "stablehlo or onnx")
    add("--out", required=True, type=path, help="file to write; for hf and stablehlo a folder")
    add("--encoder-only", action="store_true", help="leave out decoder and head")
    text = "index of the linear probe's classifier to export, from 0, if it has several"
    add("--head", type=int, metavar="NUMBER", help=text)
    add_image_size(add, "size of the run's images, if the run does not record it")
    text = "for stablehlo and onnx: an output of the method, e.g. features (default), logits"
    add("--output", help=text)
    text = "for stablehlo and onnx: any images, if the run's own are not on this machine"
    add("--images", type=filled, metavar="FOLDER", help=text)
    text = "upload a run with its model card to the Hugging Face hub"
    add_push(make("push", help=text, description=text))


def add_card(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax card`."""
    add = parser.add_argument
    text = "workdir of a run, or a folder of imported weights"
    add("--run", required=True, type=path, metavar="WORKDIR", help=text)
    text = "file to write (default: README.md in the workdir)"
    add("--out", type=path, metavar="FILE", help=text)


def add_push(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax weights push`."""
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    text = "workdir of a run, or a folder of imported weights, to export and upload with its card"
    add("--run", type=path, metavar="WORKDIR", help=text)
    text = "folder of exported weights to upload as it is"
    add("--path", type=path, metavar="FOLDER", help=text)
    add = parser.add_argument
    text = "account and name of the model on the hub; created if missing"
    add("--repo", required=True, type=filled, metavar="ORG/NAME", help=text)
    text = (
        "with --run: hf (default), timm, mae, a module of yours, or mae_jax, which every run fits"
    )
    add("--layout", type=filled, metavar="NAME", help=text)
    add("--private", action="store_true", help="create the model as private")
    text = "use the token in HF_TOKEN, and no stored login"
    add("--token-from-env", action="store_true", help=text)


def add_image_size(add, text: str) -> None:
    """--image-size, one number or two."""
    add("--image-size", type=size, metavar="H,W", help=f"{text}; one number for a square")


def size(text: str) -> tuple[int, int]:
    """'224' or '224,320' to (height, width)."""
    sides = [int(side) for side in text.split(",")]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(text)
    return (sides[0], sides[-1])


def spacing(text: str) -> tuple[float, ...] | float | str:
    """'3,1,1', '1.5' or 'median', which `prepare` checks."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
