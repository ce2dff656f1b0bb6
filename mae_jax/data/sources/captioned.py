"""Captions for the images of any other source, as numbers of tokens in the fields 'text' and
'text_valid'. They become numbers when the source is opened, and training reads numbers alone.
"""

import array
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mae_jax.data.captions import captions_of
from mae_jax.data.files import expanded, number
from mae_jax.data.named import source_spec
from mae_jax.data.sources import Source
from mae_jax.data.subset import Part
from mae_jax.data.tokens import LENGTH, Tokens
from mae_jax.data.vocabulary import load
from mae_jax.spec import bind, build, check_choice, parse
from mae_jax.types import UserError

SEVERAL = ("first", "each")
"""What to do with several captions of an image."""


class Captioned(Part):
    """A source with captions; see `make`.

    Args:
        source: the images.
        indices: [N] int, image of each caption.
        tokens: N captions.
        notes: lines to report.
    """

    def __init__(self, source: Source, indices: np.ndarray, tokens: Tokens, notes: Sequence[str]):
        super().__init__(source, indices)
        self.tokens, self.vocabulary = tokens, tokens.vocabulary
        self.empty_classes, self.damaged = source.empty_classes, source.damaged
        self.notes = (*source.notes, *notes)
        digest = hashlib.sha256(f"{source.digest} {tokens.digest}".encode() + indices.tobytes())
        self.digest = digest.hexdigest()[:16]

    def read(self, indices: np.ndarray):
        """The fields of the images, 'text' [n, T] int32 and 'text_valid' [n, T] bool."""
        return {**super().read(indices), **self.tokens.read(indices)}

    def name(self, index: int) -> str:
        """Name of the image; of its captions after the first, 'NAME#1', 'NAME#2', ..."""
        image = self.indices[index]
        place = index - int(np.searchsorted(self.indices, image))
        return f"{super().name(index)}#{place}" if place else super().name(index)

    def groups(self) -> np.ndarray | None:
        """[N] int32, groups of the images; where there are none, the images themselves if some have
        several captions.
        """
        groups = super().groups()
        several = groups is None and self.num_examples > self.source.num_examples
        return self.indices.astype(np.int32) if several else groups


def make(
    images: str,
    *,
    tokenizer: str,
    captions: str = "",
    length: int = LENGTH,
    image: str = "file",
    caption: str = "caption",
    several: str = "first",
) -> Captioned:
    """Captions for images: captioned('photos', captions='captions.csv', tokenizer='tok.json').
    All captions are in memory, as numbers of tokens; `mae-jax prepare` packs them with the images.

    Args:
        images: the spec string of another source, or a folder of images.
        tokenizer: a `tokenizer.json` of the library `tokenizers`, e.g. of `mae-jax tokenizer`.
        captions: a folder with a text file NAME.txt for each image NAME.jpg, which may be that of
            the images; a table (.csv, .tsv, .jsonl, .parquet) with a caption in each row; the JSON
            file of COCO's captions; or '': the column that the source names, as in
            "table('photos.csv', captions=caption)" or "tar('shards/*.tar', captions=txt)".
        length: tokens of a caption in batches; of longer ones the first are used, and their end.
        image, caption: columns of the table: names of images, as the source names them, and texts.
        several: of the captions of an image, use the 'first', or make an example of 'each'.

    Raises:
        UserError: no image has a caption, a file is damaged, or an argument is invalid.
    """
    check_choice("captioned: several", several, SEVERAL)
    source = build(source_spec(images, "captioned"), "data.sources", Source)
    if source.vocabulary is not None:
        raise UserError(f"captioned: {images} has texts already: leave captioned(...) out")
    vocabulary, notes = load(expanded(tokenizer)), []
    found = captions_of(source, captions, image=image, caption=caption, notes=notes)
    chosen = Chosen(found, each=several == "each")
    tokens = Tokens(vocabulary, chosen, length=length, where="captioned")
    if chosen.several and several == "first":
        count = f"{chosen.several} of {number(source.num_examples, 'image')}"
        notes.append(f"{count} have several captions, of which the first is used (several=first)")
    return Captioned(source, np.array(chosen.indices), tokens, (*notes, *tokens.notes()))


def all_captions(text: str) -> Iterator[str]:
    """All captions of a source, to train a tokenizer on.

    Args:
        text: spec string of a source with a column of captions, or of `captioned`, whose tokenizer
            may be left out.

    Raises:
        UserError: see `make`; there are no captions.
    """
    calls, options = parse(text), {"images": text}
    if [call.name for call in calls] == ["captioned"]:
        options = {"tokenizer": "", **dict(zip(("images",), calls[0].args)), **calls[0].kwargs}
        bind(text, make, *calls[0].args[1:], **options)
    options = {"captions": "", "image": "file", "caption": "caption", **options}
    source = build(source_spec(options["images"], "captioned"), "data.sources", Source)
    given = {name: options[name] for name in ("captions", "image", "caption")}
    for texts in captions_of(source, **given, notes=[]):
        yield from texts


class Chosen:
    """The captions to use, an iterator: '' for an image without one.

    Args:
        captions: of each image.
        each: whether to use all captions of an image, or the first.
    """

    def __init__(self, captions: Iterable[Sequence[str]], *, each: bool):
        self.captions, self.each = captions, each
        self.several = 0
        """Number of images with several captions, so far."""
        self.indices = array.array("q")
        """Image of each caption, so far."""

    def __iter__(self) -> Iterator[str]:
        for index, texts in enumerate(self.captions):
            self.several += len(texts) > 1
            for text in (texts if self.each else texts[:1]) or ("",):
                self.indices.append(index)
                yield text
