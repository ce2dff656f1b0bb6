"""`mae-jax demo`."""

import argparse
import sys

from mae_jax.cli.arguments import filled


def add_demo(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax demo`."""
    add = parser.add_argument
    text = "workdir of a run, a folder of imported weights, or published weights: a file, a folder "
    text += "of Hugging Face, or hf://org/name[@revision]"
    add("--run", required=True, type=filled, metavar="WORKDIR", help=text)
    text = "a folder of images, or a source as in configs, for examples and nearest images "
    text += "(default: the run's test set)"
    add("--images", type=filled, metavar="FOLDER", help=text)
    text = "'skip' unreadable images or 'raise' an error (default: as in the run's config)"
    add("--on-error", metavar="HOW", help=text)
    text = "address to listen on (default 127.0.0.1: only this machine can open the page)"
    add("--host", type=filled, default="127.0.0.1", help=text)
    add("--port", type=int, default=0, help="port to listen on (default 0: a free one)")
    add("--open", action="store_true", help="open the page in the browser")


def demo(args) -> int:
    """mae-jax demo"""
    from mae_jax.cli.commands import no_overrides
    from mae_jax.demo.server import check_installed, is_loopback, listen, serve
    from mae_jax.demo.trial import load

    no_overrides(args)
    check_installed()
    bound = listen(args.host, args.port)
    with bound:
        if not is_loopback(args.host):
            print(
                f"warning: --host {args.host}: everyone who reaches this machine over the network "
                "can use the page",
                file=sys.stderr,
            )
        trial = load(args.run, images=args.images, on_error=args.on_error)
        trial.warm_up()
        serve(trial, bound, args.host, browser=args.open)
    return 0
