"""Texts of all examples as numbers of tokens, in few bytes."""

import array
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from mae_jax.data.files import number
from mae_jax.data.vocabulary import PADDING, Vocabulary
from mae_jax.types import UserError

LENGTH = 32
"""Default number of tokens of a text."""
MAX_LENGTH = 65535


class Tokens:
    """Texts of N examples as numbers of tokens, each of at most `length`. Memory: 8 bytes for each
    text, and 2 for each token of a vocabulary of at most 65,536, otherwise 4.

    Args:
        vocabulary: of the texts.
        texts: a text, or '' where there is none, for each example.
        length: tokens of a text in a batch; of longer ones the first are used, and their end.
        where: the source, for messages.

    Raises:
        UserError: the length is no number of tokens that a text can have.
    """

    def __init__(self, vocabulary: Vocabulary, texts: Iterable[str], *, length: int, where: str):
        self.vocabulary, self.length = vocabulary, length
        check_length(where, length)
        ends = vocabulary.ends
        if len(ends) >= length - 1:
            raise UserError(f"{where}: length {length} has no room for the end of a text: raise it")
        kind = np.min_scalar_type(len(vocabulary) - 1)
        held, counts, self.cut = array.array(kind.char), array.array("H"), 0
        for numbers in encoded(vocabulary, texts):
            if len(numbers) > length:
                self.cut += 1
                numbers = numbers[: length - len(ends)] + ends
            held.extend(numbers)
            counts.append(len(numbers))
        self._numbers = np.array(held, kind)
        self._ends = np.append(0, np.cumsum(counts, dtype=np.int64))  # [N + 1]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """'text' [n, T] int32 and 'text_valid' [n, T] bool of the examples at `indices` [n]."""
        firsts = self._ends[indices]
        counts = self._ends[np.asarray(indices) + 1] - firsts
        text = np.full((len(firsts), self.length), PADDING, np.int32)
        for row, (first, count) in enumerate(zip(firsts.tolist(), counts.tolist(), strict=True)):
            text[row, :count] = self._numbers[first : first + count]
        return {"text": text, "text_valid": np.arange(self.length) < counts[:, None]}

    @property
    def digest(self) -> str:
        """Hash of the texts, their length and their vocabulary."""
        digest = hashlib.sha256(f"{self.vocabulary.fingerprint} {self.length}".encode())
        digest.update(self._counts.astype("<u2").tobytes())
        digest.update(self._numbers.astype("<u4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def _counts(self) -> np.ndarray:
        return np.diff(self._ends)

    def notes(self) -> list[str]:
        """Lines to report at the start of a run."""
        counts, total = self._counts[self._counts > 0], len(self)
        line = f"{number(len(counts), 'caption')} of a vocabulary of {len(self.vocabulary)}"
        if len(counts):
            line += f", {counts.min()} to {counts.max()} tokens, mean {counts.mean():.1f}"
            unknown = self._numbers == self.vocabulary.special.get("unknown", -1)
            line += f"; {unknown.mean():.2%} of the tokens are unknown" if unknown.any() else ""
        lines = [line]
        if len(counts) < total:
            missing = f"{total - len(counts)} of {number(total, 'caption')}"
            lines.append(f"{missing} missing or empty: no token of such a text is valid")
        if self.cut:
            cut = f"{self.cut} of {number(total, 'caption')}"
            lines.append(f"cut {cut} at {self.length} tokens; their end is kept")
        return lines


def encoded(vocabulary: Vocabulary, texts: Iterable[str]) -> Iterable[Sequence[int]]:
    """Numbers of each text; none for a text of blanks."""
    empty = bytearray()

    def noted():
        for text in texts:
            empty.append(not text.strip())
            yield text

    for row, numbers in enumerate(vocabulary.encode(noted())):
        yield [] if empty[row] else numbers


def check_length(where: str, length: int) -> None:
    """Raises UserError if texts in batches cannot have this length."""
    if type(length) is not int or not 3 <= length <= MAX_LENGTH:
        raise UserError(f"{where}: length {length!r}: give a number of tokens, 3 to {MAX_LENGTH}")
