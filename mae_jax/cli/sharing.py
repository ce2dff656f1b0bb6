"""`mae-jax card` and `mae-jax weights push`: model cards, and uploads to the Hugging Face hub."""

import os
from pathlib import Path

from mae_jax.errors import UserError


def card(args) -> int:
    """mae-jax card"""
    from mae_jax.cli.commands import no_overrides
    from mae_jax.paths import check_file
    from mae_jax.sharing.card import FILL_IN, write_card
    from mae_jax.sharing.facts import read_facts
    from mae_jax.sharing.push import CARD

    no_overrides(args)
    out = args.out or args.run / CARD
    check_file(out, "--out", (".md",))
    if out.exists():
        raise UserError(f"{out} already exists: remove it, or choose another --out")
    print(f"wrote {write_card(read_facts(args.run), out, where=str(args.run))}")
    print(f"fill in what is marked {FILL_IN}: licenses, data sets, intended use")
    return 0


def push(args) -> int:
    """mae-jax weights push"""
    from mae_jax.sharing.push import push_folder, push_run, token_of

    token = token_of(os.environ) if args.token_from_env else None
    options = dict(private=args.private, token=token)
    if args.path is not None:
        if args.layout is not None:
            raise UserError("--layout is for --run; --path uploads a folder as it is")
        address = push_folder(args.path, args.repo, **options)
    else:
        address = push_run(args.run, args.repo, layout=args.layout or "hf", **options)
    print(f"uploaded to {address}")
    return 0


def beside(run: Path, out: Path, layout: str | None) -> None:
    """Writes a model card beside exported weights, and prints where, or how to get one."""
    from mae_jax.sharing.push import CARD, card_beside

    try:
        written = card_beside(run, out, layout)
    except UserError as error:  # the export is complete without it
        print(f"no model card: {error}")
        return
    if written is not None:
        print(f"wrote {written}: fill in the licenses and the intended use")
    elif not ((out if out.is_dir() else out.parent) / CARD).exists():
        print(f"for a model card: mae-jax card --run {run} --out {out.with_suffix('.md')}")
