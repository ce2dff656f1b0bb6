"""Arguments of `mae-jax`, beside those in `cli.py`: paths, jobs, sweeps, measurements."""

import argparse
from pathlib import Path

from mae_jax.errors import UserError


def path(text: str) -> Path:
    """A path that is not empty: Path("") is the current folder, an unset variable of a shell."""
    return Path(filled(text))


def filled(text: str) -> str:
    """A text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: is a variable unset?")
    return text


def local(text: str) -> Path:
    """A path of a file system: append, lock and rename are not to be had of object stores."""
    if "://" in text:
        raise UserError(
            f"--workdir {text}: write into a file system; mount the bucket (e.g. gcsfuse) and give "
            "the path there"
        )
    return path(text)


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
    add("--coordinator", type=filled, metavar="HOST:PORT", help="where process 0 is to listen")
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


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax bench`."""
    things = parser.add_subparsers(dest="what", required=True, metavar="data|step|scaling|compile")

    def thing(name: str, text: str, timed: bool):
        add = things.add_parser(name, help=text, description=text, allow_abbrev=False).add_argument
        if timed:
            add("--turns", type=int, default=5, help="measurements of each rate (default 5)")
            add("--seconds", type=float, default=2.0, help="length of each (default 2)")
        if name != "data":
            more = dict(action="append") if name == "compile" else {}
            text = "an experiment" + "; repeat it for a table of several" * bool(more)
            add("--config", required=True, type=filled, metavar="NAME[:ARG]", help=text, **more)
            text = "side, or height and width, and channels (default: what the config trains on)"
            add("--image-size", type=int, nargs="+", default=(), metavar="N", help=text)
            text = "all numbers; FILE.md: a table" if name == "compile" else "all numbers"
            add("--out", type=path, metavar="FILE.json", help=text)
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
    text = "compile a config's step for TPUs or GPUs by name: memory, collectives, memory traffic"
    add_compile(thing("compile", text, timed=False))


def add_compile(add) -> None:
    """The arguments of `mae-jax bench compile`, beside the config's."""
    text = "devices to compile for, which need not be here: v5e:4x4, v6e:16x16, v5p:4x4x4, h100:8"
    text += "; several, with commas between, give a table"
    add("--topology", required=True, type=filled, metavar="KIND:SHAPE", help=text)
    add("--slices", type=int, default=1, metavar="N", help="number of TPU slices (default 1)")
    text = "compile to the end, for the compiler's estimate of cycles; minutes instead of seconds"
    add("--full", action="store_true", help=text)


def add_report(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax report`."""
    add = parser.add_argument
    add("--sweep", required=True, type=path, metavar="WORKDIR", help="of a sweep")
    add("--out", type=path, metavar="FOLDER", help="default: WORKDIR/report")
    add("--notes", type=path, metavar="FILE", help="Markdown to put in")
    add("--title", default="", help="default: the workdir's name")
