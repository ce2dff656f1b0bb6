"""`mae-jax explain`."""

import argparse
from pathlib import Path

from mae_jax.cli.arguments import filled, path
from mae_jax.errors import UserError


def add_explain(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax explain`."""
    add = parser.add_argument
    text = "workdir of a run, a folder of imported weights, or published weights: a file, a folder "
    text += "of Hugging Face, or hf://org/name[@revision]"
    add("--run", required=True, type=filled, metavar="WORKDIR", help=text)
    text = "a folder of images, or a source as in configs (default: the run's test set)"
    add("--images", type=filled, metavar="FOLDER", help=text)
    text = "'skip' unreadable images or 'raise' an error (default: as in the run's config)"
    add("--on-error", metavar="HOW", help=text)
    text = "another run or weights, whose layers are compared with those of this run"
    add("--against", type=filled, metavar="WORKDIR", help=text)
    text = "views to show, e.g. 'attention(blocks=(0, -1))|colors' (default: all that apply)"
    add("--views", type=filled, metavar="SPEC", help=text)
    text = "folder for page.html, PNG files and numbers.json (default: explain in the workdir)"
    add("--out", type=path, metavar="FOLDER", help=text)
    add("--count", type=int, default=8, help="number of images on the page (default 8)")
    text = "number of images for statistics (default 512)"
    add("--sample", type=int, default=512, help=text)


def explain(args) -> int:
    """mae-jax explain"""
    from mae_jax.cli.commands import no_overrides
    from mae_jax.explain.write import explain as write
    from mae_jax.paths import check_place

    no_overrides(args)
    folder = Path(args.run).expanduser()
    if args.out is None and not folder.is_dir():
        raise UserError(f"--run {args.run} is no folder: give --out FOLDER for the page")
    out = args.out or folder / "explain"
    check_place(out, "--out")
    first, *others = write(
        args.run,
        out,
        images=args.images,
        against=args.against,
        views=args.views,
        count=args.count,
        sample=args.sample,
        on_error=args.on_error,
    )
    size = first.stat().st_size / 1e6
    print(f"wrote {first} ({size:.1f} MB), and beside it {', '.join(p.name for p in others)}")
    return 0
