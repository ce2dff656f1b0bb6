"""`mae-jax search`: finds images by a text, or by another image."""

import argparse
from pathlib import Path

from mae_jax.cli.arguments import filled, path
from mae_jax.errors import UserError

DRAWN = 100
"""Rows and columns of a picture, at most."""


def add_search(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mae-jax search`."""
    add = parser.add_argument
    add("--run", required=True, type=path, metavar="WORKDIR", help="workdir of a trained run")
    text = "a folder of images to search, or a source as in configs"
    add("--images", required=True, type=filled, metavar="FOLDER", help=text)
    text = "'skip' unreadable images or 'raise' an error (default: as in the run's config)"
    add("--on-error", metavar="HOW", help=text)
    text = "text to search for, for runs of methods with a text tower; repeat it for several"
    add("--query", type=filled, action="append", default=[], metavar="TEXT", help=text)
    add("--queries", type=path, metavar="FILE", help="file with a text to search for on each line")
    text = "image file to search for, for runs of any method; repeat it for several"
    add("--query-image", type=path, action="append", default=[], metavar="FILE", help=text)
    add("--top", type=int, default=5, metavar="N", help="number of nearest images (default 5)")
    add("--out", type=path, metavar="FILE", help="FILE.png to draw the found images into")


def search(args) -> int:
    """mae-jax search"""
    from mae_jax import search as searching
    from mae_jax.cli.commands import no_overrides
    from mae_jax.paths import check_file
    from mae_jax.restore import load_run

    no_overrides(args)
    texts = [*args.query, *(lines_of(args.queries) if args.queries else ())]
    if not texts and not args.query_image:
        raise UserError("nothing to search for: give --query TEXT or --query-image FILE")
    if args.top < 1:
        raise UserError(f"--top {args.top}: must be at least 1")
    if args.out is not None:
        check_file(args.out, "--out", (".png",))
        if max(len(texts) + len(args.query_image), args.top) > DRAWN:
            raise UserError(f"--out draws up to {DRAWN} queries, and --top {DRAWN}: give fewer")
    files = {str(file): file.read_bytes() for file in args.query_image}
    run, state = load_run(args.run, images=args.images, on_error=args.on_error)
    queries, output = [], searching.output_of(run)
    if texts:
        vocabulary = searching.read_vocabulary(run, args.run)
        tokens = searching.read_texts(run, vocabulary, texts)
        _report(vocabulary, texts, tokens)
        queries += searching.text_queries(run, state, texts, tokens)
    if files:
        queries += searching.image_queries(run, state, files, output)
    for line in run.data.notes():
        print(line, flush=True)
    found, count = searching.nearest(run, state, queries, output, args.top)
    _print(found)
    left_out = run.data.num_examples - count
    print(f"\nsearched {count} images" + (f", {left_out} left out" if left_out else ""))
    if args.out is not None:
        print(f"wrote {searching.draw(run, found, args.out)}")
    return 0


def lines_of(file: Path) -> list[str]:
    """The lines of a file of texts but for blank ones.

    Raises:
        UserError: there are none, or the file is not UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"--queries {file} is not UTF-8 ({error}): convert it") from error
    if not (texts := [line.strip() for line in lines if line.strip()]):
        raise UserError(f"--queries {file} is empty: write a text to search for on each line")
    return texts


def _print(found) -> None:
    """Prints a table for each query: place, cosine and name of an image."""
    for one in found:
        print(f"\n{one.query.label}")
        for number, (name, cosine) in enumerate(zip(one.names, one.cosines, strict=True), start=1):
            print(f"{number:4}  {cosine:6.3f}  {name}")


def _report(vocabulary, texts, tokens) -> None:
    """Prints which words of the queries are unknown, and how many queries are cut."""
    from mae_jax.search import unknown_words

    unknown = {word: None for text in texts for word in unknown_words(vocabulary, text)}
    if unknown:
        listed = ", ".join(map(repr, unknown))
        print(f"not in the run's vocabulary, and read as unknown tokens: {listed}", flush=True)
    if tokens.cut:
        cut = f"{tokens.cut} of {len(tokens)} queries"
        print(f"cut {cut} at {tokens.length} tokens; their end is kept", flush=True)
