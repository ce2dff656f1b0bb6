"""Images without captions for methods that read texts, too: no token of a text is valid. The
tokenizer splits other texts, such as the prompts of zero-shot classification.
"""

import numpy as np

from mae_jax.data.files import expanded
from mae_jax.data.named import source_spec
from mae_jax.data.sources import Source
from mae_jax.data.subset import Part
from mae_jax.data.tokens import LENGTH, check_length
from mae_jax.data.vocabulary import PADDING, Vocabulary, load
from mae_jax.spec import build


class Uncaptioned(Part):
    """A source with empty texts; see `make`.

    Args:
        source: the images.
        vocabulary: of the texts; None: not known.
        length: number of tokens of a text with its padding.
    """

    def __init__(self, source: Source, vocabulary: Vocabulary | None, length: int):
        super().__init__(source, np.arange(source.num_examples))
        self.vocabulary, self.length = vocabulary, length
        self.empty_classes, self.damaged = source.empty_classes, source.damaged

    def read(self, indices: np.ndarray):
        """The fields of the images, and 'text' [n, T] int32 and 'text_valid' [n, T] bool."""
        shape = len(indices), self.length
        texts = {"text": np.full(shape, PADDING, np.int32), "text_valid": np.zeros(shape, bool)}
        return {**texts, **super().read(indices)}


def make(images: str, *, tokenizer: str = "", length: int = LENGTH) -> Source:
    """Images without captions: uncaptioned('photos', tokenizer='tok.json', length=77). A source
    that has texts stays as it is.

    Args:
        images: the spec string of another source, or a folder of images.
        tokenizer: a `tokenizer.json` of the library `tokenizers`; '': there is none.
        length: tokens of a text in batches, that of the method.

    Raises:
        UserError: the tokenizer cannot be read, or an invalid argument.
    """
    check_length("uncaptioned", length)
    source = build(source_spec(images, "uncaptioned"), "data.sources", Source)
    if source.vocabulary is not None:
        return source
    return Uncaptioned(source, load(expanded(tokenizer)) if tokenizer else None, length)
