"""`mae-jax demo`."""

import argparse
import sys

from mae_jax.cli.arguments import filled, path
from mae_jax.errors import UserError

HOST = "127.0.0.1"
"""Only this machine can open the page."""


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
    add("--host", type=filled, default=HOST, help=text)
    add("--port", type=int, default=0, help="port to listen on (default 0: a free one)")
    add("--open", action="store_true", help="open the page in the browser")
    text = "new folder to write instead: the page with the model in the browser, for any file "
    text += "server (needs jax2onnx)"
    add("--static", type=path, metavar="OUT", help=text)
    text = "the npm package onnxruntime-web for --static, a folder or a .tgz (default: fetched)"
    add("--onnxruntime", type=path, metavar="PATH", help=text)


def demo(args) -> int:
    """mae-jax demo"""
    from mae_jax.cli.commands import no_overrides
    from mae_jax.demo.server import check_installed, is_loopback, listen, serve
    from mae_jax.demo.trial import load

    no_overrides(args)
    if args.static is not None or args.onnxruntime is not None:
        return static(args)
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


def static(args) -> int:
    """mae-jax demo --static"""
    from mae_jax.demo.runtime import VERSION
    from mae_jax.demo.static import write_static

    if args.static is None:
        raise UserError(f"--onnxruntime {args.onnxruntime} is for --static OUT")
    if args.open or args.port or args.host != HOST:
        raise UserError("--host, --port and --open are of the server: leave them out of --static")
    sizes = write_static(
        args.run,
        args.static,
        images=args.images,
        on_error=args.on_error,
        onnxruntime=args.onnxruntime,
    )
    runtime = sum(size for name, size in sizes.items() if name.startswith("ort/"))
    parts = {name: size for name, size in sizes.items() if not name.startswith("ort/")}
    parts = {f"ort/ (onnxruntime-web, {VERSION} by default)": runtime} | parts
    print(f"wrote {args.static} ({sum(sizes.values()) / 1e6:.1f} MB), for any file server:")
    for name, size in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{size / 1e6:8.3f} MB  {name}")
    return 0
