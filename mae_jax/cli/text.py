"""`mae-jax tokenizer`: trains a tokenizer on the captions of images."""

import argparse

from mae_jax.cli.arguments import filled, path
from mae_jax.errors import UserError


def tokenizer(args) -> int:
    """mae-jax tokenizer"""
    from mae_jax.cli.commands import no_overrides
    from mae_jax.data import tokenizers
    from mae_jax.data.sources.captioned import all_captions
    from mae_jax.paths import check_file

    no_overrides(args)
    check_file(args.out, "--out", (".json",))
    if args.out.exists():
        raise UserError(f"{args.out} already exists: remove it, or choose another --out")
    vocabulary = tokenizers.train(all_captions(args.images), args.kind, args.size)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.save(args.out)
    print(f"wrote {args.out}: {len(vocabulary)} tokens of kind {args.kind}")
    return 0


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax tokenizer`."""
    add = parser.add_argument
    text = "a source with captions, e.g. \"captioned('photos', captions='captions.csv')\""
    add("--images", required=True, type=filled, metavar="SOURCE", help=text)
    add("--out", required=True, type=path, metavar="FILE", help="FILE.json to write")
    text = "'words', or pieces of words: 'wordpiece' or 'bpe' (default wordpiece)"
    add("--kind", type=filled, default="wordpiece", help=text)
    text = "largest number of tokens, five special ones included (default 8000)"
    add("--size", type=int, default=8000, help=text)
